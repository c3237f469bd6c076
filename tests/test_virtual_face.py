"""The procedural world: one seed one face, exact masks, correlated people, an honest latent map."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.errors import PipelineError
from pipeline.profile import ROOT
from stylegan.checkpoint import generator_hash, load_generator
from virtual_face import dataset, label, train_generator
from virtual_face.latent_map import BENDS, ODD_BENDS, LatentMap
from virtual_face.oracle import AttributeNet, Oracle, load_oracle
from virtual_face.population import ATTRIBUTES, FACTORS, INDEX, ODD_FACTORS, factors_from_seeds, head_parameters
from virtual_face.population import true_attributes as table_of
from virtual_face.render import RenderOptions, background_statistics, draw_sheet, render, render_factors
from virtual_face.shards import read_shards
from virtual_face.train_generator import GeneratorOptions, Training


@pytest.fixture(scope="module")
def faces():
    return render([0, 1, 2, 3], size=64, batch=4)


@pytest.fixture(scope="module")
def people() -> pd.DataFrame:
    factors = factors_from_seeds(list(range(4000)))
    p = head_parameters(factors)
    return table_of(p, torch.zeros(4000, 2), torch.zeros(4000))


def test_a_seed_gives_the_same_face_in_any_batch(faces):
    alone = render([2], size=64)
    assert torch.allclose(alone.images[0], faces.images[2], atol=1e-4)
    assert (alone.masks[0] != faces.masks[2]).float().mean() < 1e-3
    pd.testing.assert_frame_equal(alone.attributes, faces.attributes.iloc[[2]].reset_index(drop=True), rtol=1e-4)


def test_pictures_masks_and_attributes_have_the_promised_form(faces):
    assert faces.images.shape == (4, 3, 64, 64) and faces.images.dtype == torch.float32
    assert faces.images.min() >= -1 and faces.images.max() <= 1
    assert faces.masks.shape == (4, 64, 64) and faces.masks.dtype == torch.uint8 and faces.masks.max() <= 10
    assert tuple(faces.attributes.columns) == ATTRIBUTES
    assert np.isfinite(faces.attributes.to_numpy()).all()


def test_masks_have_no_lone_pixels(faces):
    padded = torch.nn.functional.pad(faces.masks[:, None].float(), (1, 1, 1, 1), mode="replicate")
    around = padded.unfold(2, 3, 1).unfold(3, 3, 1).flatten(4)[:, 0]
    same = (around == faces.masks[..., None]).sum(-1)  # the pixel itself counts
    assert (same <= 1).float().mean() < 1e-3


def test_every_frontal_face_shows_eyes_nose_and_lips_in_their_places(faces):
    factors = torch.zeros(1, len(FACTORS))
    mask = render_factors(factors, 64).masks[0]
    rows = {part: torch.nonzero(mask == part)[:, 0].float().mean().item() for part in (2, 3, 4, 5, 6, 7, 9)}
    assert 0.40 * 64 < rows[4] < 0.50 * 64  # eyes at about 45 % of the height
    assert rows[2] < rows[4] < rows[6] < rows[7] < rows[9]
    left, right = (torch.nonzero(mask == part)[:, 1].float().mean() for part in (4, 5))
    assert left < 32 < right


def test_a_head_turns_to_the_right_looks_up_and_lowers_its_right_eye():
    """Left and right are those of the picture, as in `geometry.rotation` and `head_pose.OracleHeadPose`."""
    factors = torch.zeros(4, len(FACTORS))
    for face, name in enumerate(("yaw", "pitch", "roll"), start=1):
        factors[face, INDEX[name]] = 2.0
    drawn = render_factors(factors, 64)
    (y, x), (eyes_y, eyes_x) = nose, eyes = torch.zeros(2, 4), torch.zeros(2, 4)
    tilt = torch.zeros(4)
    for face, mask in enumerate(drawn.masks):
        left, right, nose[:, face] = (torch.nonzero(mask == part).float().mean(0) for part in (4, 5, 6))
        eyes[:, face], tilt[face] = (left + right) / 2, torch.atan2(*(right - left))
    assert (x - eyes_x)[1] > (x - eyes_x)[0] + 1  # yaw: the nose moves to the right of the eyes
    assert (y - eyes_y)[2] < (y - eyes_y)[0] - 0.3 and y[2] < y[0]  # pitch: and up, whose rows are smaller
    assert tilt.tolist() == pytest.approx(drawn.attributes["roll"], abs=0.02) and tilt[3] > 0.15  # in radians
    assert drawn.attributes.loc[1, "yaw"] > 0.4 and drawn.attributes.loc[2, "pitch"] > 0.15


def test_attributes_do_what_they_say():
    factors = torch.zeros(4, len(FACTORS))
    factors[1, INDEX["mouth"]] = 2.5
    factors[2, INDEX["eyes"]] = -3.0
    factors[3, INDEX["hair_length"]] = -3.0
    masks = render_factors(factors, 64).masks
    count = lambda face, *ids: sum(int((masks[face] == i).sum()) for i in ids)  # noqa: E731
    assert count(1, 8) > count(0, 8) + 5  # an open mouth shows its inside
    assert count(2, 4, 5) < 0.6 * count(0, 4, 5)
    assert count(3, 10) < 0.8 * count(0, 10)


def test_mirrored_factors_give_the_mirrored_picture():
    factors = factors_from_seeds([5, 6])
    mirrored = factors.clone()
    for name in ODD_FACTORS:
        mirrored[:, INDEX[name]] *= -1
    a, b = render_factors(factors, 64).images, render_factors(mirrored, 64).images
    assert (a.flip(-1) - b).abs().mean() < 0.02


def test_low_quality_blurs_the_top_only():
    factors = torch.zeros(2, len(FACTORS))
    factors[1, INDEX["quality"]] = 3.0
    good, bad = render_factors(factors, 64).images
    assert (good - bad)[:, :16].abs().mean() > 0.01
    assert (good - bad)[:, 40:].abs().max() < 1e-5


def test_attributes_correlate_as_in_people(people):
    r = people.corr()
    assert r.loc["gender", "hair_length"] > 0.5
    assert r.loc["age", "glasses"] > 0.1
    assert r.loc["age", "eyes"] < -0.05
    assert abs(r.loc["yaw", "roll"]) > 0.2
    assert 0.45 < (people.gender >= 0.5).mean() < 0.65
    assert 0.03 < (people.quality < 0.5).mean() < 0.15
    assert 0.08 < (people.glasses >= 0.5).mean() < 0.35


def test_background_statistics_follow_the_wall():
    wall = torch.full((2, 3, 32, 32), 0.5)
    wall[1, :, :, :16] = 0.0
    statistics = background_statistics(wall)
    assert statistics[0].tolist() == pytest.approx([127.5, 0.0], abs=1e-3)
    assert statistics[1, 1] > 50


@pytest.fixture(scope="module")
def space():
    torch.manual_seed(0)
    w = torch.randn(6000, 128) @ torch.randn(128, 128) / 11 + 2
    return LatentMap.fit(w), w


def test_factors_of_w_are_standard_and_bent(space):
    latent_map, w = space
    p = latent_map.p(w)
    factors = latent_map.factors(p)
    assert torch.allclose(factors.std(0), torch.ones(len(FACTORS)), atol=0.08)
    x = torch.cat([p, torch.ones(len(p), 1)], 1)
    rest = factors - x @ torch.linalg.lstsq(x, factors).solution
    bent = rest.var(0) / factors.var(0)
    for i, name in enumerate(FACTORS):
        if name in BENDS or name in ODD_BENDS:
            assert 0.008 < bent[i] < 0.4, name  # not an axis of w, not far from smooth
        else:
            assert bent[i] < 1e-6, name


def test_the_latents_of_given_factors_are_found(space):
    latent_map, w = space
    p = latent_map.p(w)
    assert torch.allclose(latent_map.p_of(latent_map.factors(p)), p, atol=1e-4)


def test_negating_the_odd_directions_negates_the_odd_factors_only(space):
    latent_map, w = space
    sign = torch.tensor([-1.0 if name in ODD_FACTORS else 1.0 for name in FACTORS])
    p = latent_map.p(w[:50])
    assert torch.allclose(latent_map.factors(p * sign), latent_map.factors(p) * sign, atol=1e-4)


def test_lifting_moves_exactly_the_direction_that_was_asked(space):
    latent_map, w = space
    step = torch.zeros(1, len(FACTORS))
    step[0, 3] = 1.0
    assert torch.allclose(latent_map.p(w[:5] + step @ latent_map.lift.T), latent_map.p(w[:5]) + step, atol=1e-3)


def test_finished_weights_train_on_where_they_were(tmp_path):
    shard = {"images": np.zeros((2, 128, 128, 3), np.uint8), "masks": np.zeros((2, 128, 128), np.uint8),
             "factors": np.random.default_rng(0).standard_normal((2, len(FACTORS))).astype(np.float32)}  # fmt: skip
    np.savez(tmp_path / "shard_0000.npz", **shard)
    options = GeneratorOptions(data=str(tmp_path), work=str(tmp_path / "work"))
    training = Training(options)
    finished = training.averaged()
    before = {name: value.clone() for name, value in training.synthesis.state_dict().items()}
    training.take(finished)
    for name, value in training.synthesis.state_dict().items():
        assert torch.allclose(value, before[name], atol=2e-3), name
    p = torch.randn(2, 1, len(FACTORS)).expand(-1, finished.num_layers, -1)
    w = training.map.mean + p @ training.map.lift.T
    with torch.no_grad():
        assert torch.allclose(finished.synthesis(w)["image"], training.synthesis(p)["image"], atol=5e-3)


def test_shards_are_joined_and_a_damaged_one_is_named_with_its_cure(tmp_path):
    for k in range(2):
        np.savez(tmp_path / f"shard_{k:04d}.npz", images=np.full((2, 4, 4, 3), k, np.uint8))
    assert read_shards(tmp_path, ("images",))["images"][:, 0, 0, 0].tolist() == [0, 0, 1, 1]
    with pytest.raises(PipelineError, match=r"(?s)shard_0000\.npz lacks masks .*cure: delete shard_0000\.npz"):
        read_shards(tmp_path, ("images", "masks"))
    whole = (tmp_path / "shard_0001.npz").read_bytes()
    (tmp_path / "shard_0001.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PipelineError, match=r"(?s)shard_0001\.npz cannot be read .*virtual_face\.dataset --out"):
        read_shards(tmp_path, ("images",))
    with pytest.raises(PipelineError, match=r"no shard_\*\.npz"):
        read_shards(tmp_path / "nowhere", ("images",))


def test_training_draws_rare_traits_oftener_and_learns(tmp_path):
    factors = np.zeros((64, len(FACTORS)), np.float32)
    factors[:8, INDEX["glasses"]] = 3.0
    images = np.full((64, 128, 128, 3), 200, np.uint8)
    np.savez(tmp_path / "shard_0000.npz", images=images, masks=np.zeros((64, 128, 128), np.uint8), factors=factors)
    options = GeneratorOptions(data=str(tmp_path), work=str(tmp_path / "work"), batch=4, minutes=1.0)
    training = Training(options)
    drawn = torch.multinomial(training.often, 4000, replacement=True, generator=training.random)
    assert (drawn < 8).float().mean() > 1.7 * 8 / 64  # plain faces have a little curl, which draws them oftener, too
    losses = [training.step()["pixel"] for _ in range(6)]
    assert losses[-1] < losses[0] and training.seen == 24


def test_a_picture_that_is_mirrored_for_training_gets_the_code_of_the_mirrored_face(space, tmp_path, monkeypatch):
    monkeypatch.setattr(train_generator, "new_generator", lambda: None)
    monkeypatch.setattr(train_generator, "latent_map_of", lambda _: space[0])
    images, masks = np.zeros((8, 128, 128, 3), np.uint8), np.zeros((8, 128, 128), np.uint8)
    images[:, :, :64], masks[:, :, :64] = 255, 4  # eyes, which weigh more, on the left
    factors = np.tile(factors_from_seeds([5]).numpy(), (8, 1))
    np.savez(tmp_path / "shard_0000.npz", images=images, masks=masks, factors=factors)
    training = Training(GeneratorOptions(data=str(tmp_path), work=str(tmp_path / "work"), batch=8))
    pictures, weight, p = training.batch()
    flipped = pictures[:, 0, 0, -1] > 0
    assert flipped.any() and not flipped.all()
    sign = torch.tensor([-1.0 if name in ODD_FACTORS else 1.0 for name in FACTORS])
    expected = torch.from_numpy(factors) * torch.where(flipped[:, None], sign, torch.ones(len(FACTORS)))
    assert torch.allclose(training.map.factors(p), expected, atol=1e-3)
    assert torch.equal(weight[:, 0, 0, -1] > weight[:, 0, 0, 0], flipped)


def test_the_oracle_reads_attributes_in_their_own_units(faces):
    network = AttributeNet()
    network.mean.fill_(3.0)
    network.spread.fill_(2.0)
    read = dict(zip(ATTRIBUTES, network.attributes(torch.ones(1, len(ATTRIBUTES)))[0].tolist()))
    shares = {name: read.pop(name) for name in ("gender", "quality", "age", "glasses")}
    assert set(read.values()) == {5.0} and list(shares.values()) == pytest.approx([0.7311] * 4, abs=1e-4)
    seen = load_oracle(ROOT / "weights/demo/attribute_net.pth").attributes(faces.images)
    for name, error in {"yaw": 0.05, "pitch": 0.05, "roll": 0.02, "eyes": 0.1, "background_mean": 20.0}.items():
        assert (seen[name] - faces.attributes[name]).abs().mean() < error, name


def test_the_oracle_reads_the_same_in_any_batch():
    torch.manual_seed(0)
    oracle = Oracle(AttributeNet())
    images = torch.rand(5, 3, 128, 128) * 2 - 1
    together, features = oracle.read(images, batch=5)
    alone = oracle.attributes(images, batch=1)
    assert tuple(together.columns) == ATTRIBUTES and features.shape == (5, 256)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert Oracle.concept(together).shape == (5,)


@pytest.mark.parametrize(("command", "options", "message"), [
    (draw_sheet, RenderOptions(size=1), "--size 1: at least 16"),
    (draw_sheet, RenderOptions(out="x.gif"), "--out x.gif: write a name that ends in .jpg"),
    (dataset.render_dataset, dataset.DatasetOptions("data", shard=0), "--shard 0: at least 1"),
    (dataset.render_dataset, dataset.DatasetOptions("data", parts=2, part=2), "--part 2: of 2 parts the last is 1"),
    (label.label, label.LabelOptions(count=0), "--count 0: at least 1"),
])  # fmt: skip
def test_impossible_numbers_are_refused_before_any_work(tmp_path, monkeypatch, command, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PipelineError, match=message):
        command(options)
    assert not list(tmp_path.iterdir())


def test_a_wrong_generator_does_not_lock_the_folder_of_a_data_set(tmp_path):
    options = dataset.DatasetOptions(str(tmp_path / "data"), count=1, shard=1, size=16, eager=True)
    with pytest.raises(PipelineError, match="nowhere"):
        dataset.render_dataset(dataclasses.replace(options, generator=str(tmp_path / "nowhere.pth")))
    dataset.render_dataset(options)
    assert (tmp_path / "data" / "shard_0000.npz").is_file()


def test_a_data_set_goes_on_with_its_own_generator_only(tmp_path, monkeypatch):
    folder, weights = tmp_path / "data", str(ROOT / "weights/demo/generator.pth")
    options = dataset.DatasetOptions(str(folder), count=1, shard=1, size=16, eager=True, generator=weights)
    dataset.render_dataset(options)
    assert json.loads((folder / "dataset.json").read_text())["generator"] == generator_hash(load_generator(weights))
    nudged = load_generator(weights)
    nudged.synthesis.output0.bias.data += 1  # trained on, at the same path
    monkeypatch.setattr(dataset, "load_generator", lambda _: nudged)
    with pytest.raises(PipelineError, match="another generator"):
        dataset.render_dataset(dataclasses.replace(options, count=2))
    assert len(list(folder.glob("shard_*.npz"))) == 1


def test_without_a_compiler_the_cure_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "has_compiler", lambda: False)
    with pytest.raises(PipelineError, match="--eager"):
        dataset.render_dataset(dataset.DatasetOptions(str(tmp_path / "data"), count=1, shard=1))
    (tmp_path / "data" / "shard_0000.npz").write_bytes(b"")
    dataset.render_dataset(dataset.DatasetOptions(str(tmp_path / "data"), count=1, shard=1))  # nothing to compile
