"""ParseNet: the same map in any batch, weight files that say what is wrong, and a training that learns and resumes."""

import numpy as np
import pytest
import torch
from segmentation_world import random_parsenet, rendered

from pipeline.artefacts import read_weights, save_weights
from pipeline.errors import PipelineError
from pipeline.profile import Profile
from segmentation.augment import training_crops
from segmentation.classes import CLASSES, MIRRORED
from segmentation.evaluation import evaluate
from segmentation.face_crop import Detection, crop_corners
from segmentation.parsenet import ParseNet, ParseNetParser
from segmentation.parser import load_parser, to_tensor
from segmentation.shards import Shards
from segmentation.train_parsenet import CLASS_WEIGHTS, ParseNetOptions, segmentation_loss, train


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return random_parsenet(tmp_path_factory.mktemp("parsenet") / "parsenet.pth")


def shard_folder(folder, shards: int = 3):
    folder.mkdir(parents=True, exist_ok=True)
    images, masks = rendered()
    for number in range(shards):
        np.savez(folder / f"shard_{number:04d}.npz", images=images, masks=masks, factors=np.zeros((6, 2)))
    return folder


def test_a_crop_has_the_same_map_alone_and_in_any_batch(weights):
    parser = ParseNetParser.load(weights)
    crops = to_tensor(np.concatenate([rendered()[0]] * 2)[:11])
    maps = parser.parse(crops)
    assert maps.shape == (11, 224, 224) and maps.dtype == np.uint8
    assert len(np.unique(maps)) > 3 and maps.max() <= 10
    for k in (0, 5, 10):
        assert np.array_equal(parser.parse(crops[k : k + 1])[0], maps[k])
    assert np.array_equal(parser.parse(crops.flip(0))[::-1], maps)
    assert parser.parse(crops[:0]).shape == (0, 224, 224)


def test_pictures_in_bytes_are_refused_by_the_parser(weights):
    with pytest.raises(ValueError, match="uint8"):
        ParseNetParser.load(weights).parse(torch.zeros(1, 3, 224, 224, dtype=torch.uint8))


def test_folding_batch_norm_into_the_convolutions_changes_no_logit():
    torch.manual_seed(1)
    network = ParseNet((8, 8, 8))
    images = to_tensor(rendered()[0])
    for _ in range(3):
        network(images)  # gives the batch norms something to remember
    network.eval()
    with torch.inference_mode():
        before = network(images)
        fused = ParseNetParser(network)
        after = fused._network(images)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in fused._network.modules())
    assert (before - after).abs().max() < 1e-4


def test_the_bundled_size_fits_into_five_megabytes_of_half_precision():
    assert sum(value.numel() for value in ParseNet().state_dict().values()) * 2 < 5 * 2**20


def test_a_weight_file_of_another_network_names_its_keys(tmp_path, weights):
    state = read_weights(weights)
    state["head.weight"] = torch.zeros(7, 8, 1, 1)
    save_weights(tmp_path / "shape.pth", state)
    with pytest.raises(PipelineError, match=r"shape\.pth(.|\n)*head\.weight \(file \[7, 8, 1, 1\], expected \[44, 8"):
        ParseNetParser.load(tmp_path / "shape.pth")
    save_weights(tmp_path / "other.pth", {"layer.weight": torch.zeros(2)})
    with pytest.raises(PipelineError, match=r"other\.pth is not a ParseNet"):
        ParseNetParser.load(tmp_path / "other.pth")


def test_a_profile_names_its_parser(weights, write_profile):
    good = Profile.load(write_profile(weights={"parsenet": weights}))
    assert load_parser(good).name == "parsenet"
    bad = Profile.load(write_profile(name="bad", segmentation={"parser": "guess"}))
    with pytest.raises(PipelineError, match="unknown face parser 'guess'.*parsenet"):
        load_parser(bad)


def test_training_crops_follow_their_generator_and_keep_pictures_and_classes_in_range():
    images, masks = (torch.from_numpy(array) for array in rendered())
    one, two = (training_crops(images, masks, torch.Generator().manual_seed(3)) for _ in range(2))
    other = training_crops(images, masks, torch.Generator().manual_seed(4))
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1]) and not torch.equal(one[0], other[0])
    crops, shares = one
    assert crops.shape == (6, 3, 128, 128) and crops.min() >= -1 and crops.max() <= 1
    assert shares.shape == (6, 11, 128, 128) and torch.allclose(shares.sum(dim=1), torch.ones(6, 128, 128), atol=1e-5)


def test_mirrored_training_crops_swap_left_and_right():
    assert [CLASSES[other].replace("right", "left") for other in MIRRORED] == [
        name.replace("right", "left") for name in CLASSES
    ]
    images, masks = (torch.from_numpy(array) for array in rendered())
    columns = torch.arange(128).float()
    for seed in range(6):
        _, shares = training_crops(images, masks, torch.Generator().manual_seed(seed))
        weight = shares[:, [4, 5]].sum(dim=2)
        seen = (weight.sum(dim=2) > 20).all(dim=1)
        middle = (weight * columns).sum(dim=2) / weight.sum(dim=2).clamp_min(1)
        assert (middle[seen, 0] < middle[seen, 1]).all() and seen.any()


def test_the_loss_falls_when_the_network_sees_the_same_crops_again():
    torch.manual_seed(0)
    images, masks = (torch.from_numpy(array) for array in rendered())
    crops, shares = training_crops(images, masks, torch.Generator().manual_seed(0))
    network, weights = ParseNet((12, 16, 16)), torch.tensor(CLASS_WEIGHTS)[:, None, None]
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-2)
    losses = []
    for _ in range(17):
        loss = segmentation_loss(network(crops), shares, weights)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_training_goes_on_where_it_stopped_and_ends(tmp_path, capsys):
    data = shard_folder(tmp_path / "renders")
    common = {"data": str(data), "out": str(tmp_path / "p.pth"), "work": str(tmp_path / "work")}
    settings = {**common, "device": "cpu", "held_out": 1, "batch": 4, "count": 6}
    train(ParseNetOptions(minutes=0.002, **settings))
    first = read_weights(tmp_path / "work" / "checkpoint.pt")["counters"]
    longer = first["seconds"] / 60 + 0.01  # a slow machine may need more than the given minutes for one step
    train(ParseNetOptions(minutes=longer, **settings))
    second = read_weights(tmp_path / "work" / "checkpoint.pt")["counters"]
    assert second["steps"] > first["steps"] and second["seconds"] > first["seconds"]
    assert "going on from" in capsys.readouterr().out
    train(ParseNetOptions(minutes=longer, **settings))
    assert "nothing new" in capsys.readouterr().out
    with pytest.raises(PipelineError, match="checkpoint.pt belongs to a training on other data or by another seed"):
        train(ParseNetOptions(minutes=longer, seed=1, **settings))
    train(ParseNetOptions(evaluate=True, **settings))
    text = capsys.readouterr().out
    assert all(name in text for name in (*CLASSES, "mean"))
    assert len((tmp_path / "work" / "log.jsonl").read_text().splitlines()) >= 2


def test_held_out_shards_never_reach_the_training(tmp_path):
    data = shard_folder(tmp_path / "renders", shards=2)
    images, masks = rendered()
    np.savez(data / "shard_0000.npz", images=np.full_like(images, 7), masks=masks)
    batches = Shards(data, held_out=1).batches(4, torch.Generator().manual_seed(0))
    assert all((next(batches)[0] != 7).any() for _ in range(4))
    assert (Shards(data, held_out=1).held_out(10)[0] == 7).all()
    with pytest.raises(PipelineError, match="none is left to train on"):
        next(Shards(data, held_out=2).batches(4, torch.Generator()))
    with pytest.raises(PipelineError, match=r"holds no shard_\*\.npz"):
        Shards(tmp_path / "nowhere")
    np.savez(data / "shard_0001.npz", images=images, masks=masks[:, :64])
    with pytest.raises(PipelineError, match=r"shard_0001\.npz.*render it again"):
        next(Shards(data, held_out=1).batches(4, torch.Generator()))
    (data / "shard_0001.npz").write_bytes((data / "shard_0000.npz").read_bytes()[:1000])
    with pytest.raises(PipelineError, match=r"(?s)shard_0001\.npz cannot be read.*virtual_face\.dataset --out"):
        next(Shards(data, held_out=1).batches(4, torch.Generator()))


class _Known:
    """Stands for detector and parser: fixed boxes, and the true mask of each crop (or another one)."""

    name = "known"

    def __init__(self, boxes, maps):
        self.boxes, self.maps = boxes, maps

    def detect(self, images):
        return [Detection(box, "" if box else "no face found", 1) for box in self.boxes]

    def parse(self, images):
        return self.maps


def test_a_parser_that_knows_the_truth_has_an_iou_of_one_and_a_faceless_picture_is_counted():
    images, masks = rendered()
    box = (30.0, 20.0, 95.0, 110.0)
    x0, y0, x1, y1 = crop_corners(box, 128, 128)
    rows, columns = ((np.arange(224) + 0.5) / 224 * size for size in (y1 - y0, x1 - x0))
    truth = masks[:5, y0:y1, x0:x1][:, rows.astype(int)][:, :, columns.astype(int)]
    quality = evaluate(_Known([], truth), _Known([box] * 5 + [None], None), images, masks)
    assert quality.without_face == 1 and quality.mean_iou() == 1.0
    swapped = np.where(truth == 4, 5, truth)
    wrong = evaluate(_Known([], swapped), _Known([box] * 5 + [None], None), images, masks)
    table = wrong.table().set_index("class")["iou"]
    assert table["left_eye"] == 0 and 0 < table["right_eye"] < 1 and table["nose"] == 1
