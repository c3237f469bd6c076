"""The oracle's training goes on where it stopped, and ends with a file wherever it was stopped."""

import numpy as np
import pytest
import torch

from pipeline.artefacts import provenance_of
from pipeline.errors import PipelineError
from virtual_face.oracle import load_oracle
from virtual_face.population import ATTRIBUTES, INDEX, ODD_FACTORS, factors_from_seeds, head_parameters, true_attributes
from virtual_face.train_oracle import OracleOptions, augment, train

AT_LEAST_A_STEP = 1e-6  # minutes


@pytest.fixture
def renders(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "renders"
    folder.mkdir()
    images = rng.integers(0, 256, (8, 128, 128, 3), dtype=np.uint8)
    attributes = rng.random((8, len(ATTRIBUTES)), dtype=np.float32)
    np.savez(folder / "shard_00000.npz", images=images, attributes=attributes)
    return folder


def test_stopped_and_started_again_the_oracle_trains_on_and_writes_its_file(renders, tmp_path):
    def go(minutes, out="oracle.pth"):
        train(OracleOptions(str(renders), str(tmp_path / out), minutes, work=str(tmp_path / "work"), batch=2))
        return provenance_of(tmp_path / out)["steps"]

    assert go(AT_LEAST_A_STEP) == 1
    spent = torch.load(tmp_path / "work" / "training.pth", weights_only=True)["spent"]
    assert go(spent + AT_LEAST_A_STEP) == 2
    # Over, but stopped before its file was written, or asked for another one.
    (tmp_path / "oracle.pth").unlink()
    (tmp_path / "oracle.pth.json").unlink(missing_ok=True)
    assert go(AT_LEAST_A_STEP) == 2 and go(AT_LEAST_A_STEP, "other.pth") == 2
    assert (tmp_path / "oracle.pth").read_bytes() == (tmp_path / "other.pth").read_bytes()
    load_oracle(tmp_path / "other.pth")


def test_a_checkpoint_of_other_data_another_seed_or_in_pieces_is_refused(renders, tmp_path):
    def go(**more):
        files = {"out": str(tmp_path / "oracle.pth"), "work": str(tmp_path / "work")}
        train(OracleOptions(**{"data": str(renders), **files, "minutes": AT_LEAST_A_STEP, "batch": 2, **more}))

    go()
    kept = (tmp_path / "oracle.pth").read_bytes()
    with pytest.raises(PipelineError, match="training.pth belongs to a training on other data or by another seed"):
        go(seed=1)
    # Of the same names and sizes, as renders drawn anew are.
    shard = renders / "shard_00000.npz"
    arrays = dict(np.load(shard))
    np.savez(shard, **{**arrays, "images": 255 - arrays["images"]})
    with pytest.raises(PipelineError, match="another --work, or delete"):
        go()
    go(work=str(tmp_path / "anew"), out=str(tmp_path / "new.pth"))
    checkpoint = tmp_path / "work" / "training.pth"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(PipelineError, match="training.pth cannot be read"):
        go()
    assert (tmp_path / "oracle.pth").read_bytes() == kept


def test_a_mirrored_picture_is_learnt_with_the_attributes_of_the_mirrored_face():
    factors = factors_from_seeds(list(range(12)))
    turned = factors.clone()
    turned[:, [INDEX[name] for name in ODD_FACTORS]] *= -1
    wall, hair = torch.rand(12, 2) * 255, torch.rand(12)
    truth, mirrored = (
        torch.tensor(true_attributes(head_parameters(one), wall, hair).to_numpy(), dtype=torch.float32)
        for one in (factors, turned)
    )
    images = torch.full((12, 3, 128, 128), -1.0)
    images[..., 64:] = 1.0
    seen, targets = augment(images, truth, torch.Generator().manual_seed(0))
    flipped = seen[..., :32].mean((1, 2, 3)) > 0
    assert flipped.any() and not flipped.all() and not torch.allclose(truth, mirrored, atol=0.01)
    assert torch.allclose(targets, torch.where(flipped[:, None], mirrored, truth), atol=1e-5)
