"""The oracle's training goes on where it stopped, and ends with a file wherever it was stopped."""

import numpy as np
import pytest
import torch

from pipeline.artefacts import provenance_of
from virtual_face.oracle import load_oracle
from virtual_face.population import ATTRIBUTES
from virtual_face.train_oracle import OracleOptions, train

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
