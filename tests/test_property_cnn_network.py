"""The property CNN: published layout and arithmetic, its scorer, and its training."""

import numpy as np
import pytest
import torch

from pipeline.artefacts import save_weights
from pipeline.errors import PipelineError
from property_score.measure import PROPERTIES
from property_score.property_cnn import (
    CNNScorer,
    HairstyleCNN,
    MergedPropertyCNN,
    load_hairstyle_cnn,
    load_property_cnn,
    merge_property_cnns,
)
from property_score.property_settings import PropertyTraining
from property_score.property_training import masked_mse, property_figures, split_parts, train_property_cnn
from tests import author_cnn

TOLERANCE = 2e-5
SETTINGS = PropertyTraining(epochs=4, patience=4, batch=16, learning_rate=2e-3)


def toy_scores(count, seed=0):
    """Pictures uint8 [N, 32, 32, 3] and z-scores [N, 8], each score the brightness of some window."""
    random = np.random.default_rng(seed)
    labels = random.standard_normal((count, len(PROPERTIES))).astype(np.float32)
    images = random.normal(120, 6, (count, 32, 32, 3))
    windows = (
        (12, 18, 8, 24),
        (0, 4, 0, 32),
        (28, 32, 13, 19),
        (21, 25, 12, 20),
        (15, 19, 11, 21),
        (6, 9, 0, 32),
        (9, 12, 24, 32),
        (22, 32, 0, 10),
    )
    for column, (top, bottom, left, right) in enumerate(windows):
        images[:, top:bottom, left:right] += 25 * labels[:, column, None, None, None]
    return images.clip(0, 255).astype(np.uint8), labels


def test_layout_and_scores_at_256_pixels_equal_the_author_s(tmp_path):
    images, golden = author_cnn.pictures() * 2 - 1, author_cnn.golden_outputs()
    torch.save(author_cnn.fill(MergedPropertyCNN(hairstyle=False)).state_dict(), tmp_path / "seven.pth")
    torch.save(author_cnn.fill(HairstyleCNN()).state_dict(), tmp_path / "hairstyle.pth")
    seven, hairstyle = load_property_cnn(tmp_path / "seven.pth"), load_hairstyle_cnn(tmp_path / "hairstyle.pth")
    assert author_cnn.digest(seven) == author_cnn.LAYOUTS["property7"]["filled_sha256"]
    assert author_cnn.digest(hairstyle) == author_cnn.LAYOUTS["hairstyle1"]["filled_sha256"]
    # The published file of eight scores is these two, copied together.
    torch.save(merge_property_cnns(seven, hairstyle).state_dict(), tmp_path / "merged.pth")
    merged = load_property_cnn(tmp_path / "merged.pth")
    expected = author_cnn.LAYOUTS["merged8"]["keys"]
    assert author_cnn.shapes(merged) == expected and list(author_cnn.shapes(merged)) == list(expected)
    with torch.inference_mode():
        np.testing.assert_allclose(seven(images).numpy(), golden["property7"], atol=TOLERANCE)
        np.testing.assert_allclose(hairstyle(images).numpy(), golden["hairstyle1"], atol=TOLERANCE)
        both = np.concatenate([golden["property7"], golden["hairstyle1"]], axis=1)
        for dtype in (torch.float32, torch.float64):
            np.testing.assert_allclose(merged.to(dtype)(images.to(dtype)).numpy(), both, atol=TOLERANCE)


@pytest.mark.parametrize(("resolution", "width"), [(32, 0.125), (64, 0.25), (128, 0.375)])
def test_a_file_tells_its_resolution_and_width(tmp_path, resolution, width):
    network = MergedPropertyCNN(resolution, width)
    save_weights(tmp_path / "net.pth", network.state_dict(), half=True)
    loaded = load_property_cnn(tmp_path / "net.pth")
    assert (loaded.resolution, loaded.width, loaded.training) == (resolution, width, False)


def test_a_scorer_refuses_a_property_cnn_of_seven_scores(tmp_path):
    save_weights(tmp_path / "seven.pth", MergedPropertyCNN(32, 0.125, hairstyle=False).state_dict())
    with pytest.raises(PipelineError, match=r"(?s)seven\.pth is not .* of eight scores.*property CNN, 7 scores.*cure"):
        CNNScorer.load(tmp_path / "seven.pth")


def test_a_file_that_is_no_property_cnn_is_refused(tmp_path):
    save_weights(tmp_path / "other.pth", {"weight": torch.zeros(3)})
    with pytest.raises(PipelineError, match=r"other\.pth is not a property CNN"):
        load_property_cnn(tmp_path / "other.pth")
    state = MergedPropertyCNN(32, 0.125).state_dict()
    save_weights(tmp_path / "odd.pth", {**state, "eyes_score_cnn.fc1.0.weight": torch.zeros(32, 7)})
    with pytest.raises(PipelineError, match=r"odd\.pth: its layer sizes"):
        load_property_cnn(tmp_path / "odd.pth")
    state.pop("pose_score_cnn.conv1.0.bias")
    save_weights(tmp_path / "short.pth", state)
    with pytest.raises(PipelineError, match=r"missing: pose_score_cnn\.conv1\.0\.bias"):
        load_property_cnn(tmp_path / "short.pth")


def test_scores_do_not_depend_on_the_batch_and_dropout_is_off():
    torch.manual_seed(0)
    images = torch.rand(64, 3, 32, 32) * 2 - 1
    network = MergedPropertyCNN(32, 0.25).train()
    together = CNNScorer(network, batch=64).score(images)
    alone = CNNScorer(network, batch=1).score(images)
    assert list(together.columns) == [*PROPERTIES, "reason"] and (together["reason"] == "").all()
    np.testing.assert_allclose(together[list(PROPERTIES)], alone[list(PROPERTIES)], atol=1e-5)
    assert together.equals(CNNScorer(network, batch=64).score(images))
    with pytest.raises(ValueError, match="32x32 pictures"):
        CNNScorer(network).score(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match="hairstyle"):
        CNNScorer(MergedPropertyCNN(32, 0.25, hairstyle=False))


def test_missing_labels_count_nowhere():
    scores = torch.zeros(4, 8, requires_grad=True)
    labels = torch.ones(4, 8)
    labels[1:, 0], labels[:, 1] = float("nan"), float("nan")
    loss = masked_mse(scores, labels)
    loss.backward()
    assert loss.item() == pytest.approx(1.0)
    assert scores.grad[1:, 0].abs().sum() == 0 and scores.grad[:, 1].abs().sum() == 0
    assert scores.grad[0, 0] != 0 and torch.isfinite(scores.grad).all()
    figures = property_figures(np.zeros((4, 8)), labels.numpy()).set_index("property")
    assert figures.loc["eyes", "faces"] == 1 and figures.loc["hair_color", "faces"] == 0


def test_the_split_is_80_10_10_and_belongs_to_the_seed():
    parts = split_parts(200, 0)
    assert [int((parts == part).sum()) for part in ("train", "val", "test")] == [160, 20, 20]
    assert (parts == split_parts(200, 0)).all() and (parts != split_parts(200, 1)).any()


def test_training_learns_what_the_windows_show():
    images, labels = toy_scores(200)
    labels[::7, 4] = np.nan
    settings = PropertyTraining(epochs=4, patience=4, batch=8, learning_rate=3e-3)
    trained = train_property_cnn(images, labels, width=0.125, settings=settings)
    assert trained.log["val_loss"].min() < 0.5, "1 is what knowing nothing gives"
    assert trained.test_figures["faces"].tolist()[:2] == [20, 20]
    assert trained.test_figures["r"].median() > 0.8
    assert not trained.network.training


def test_the_network_of_the_best_epoch_is_the_one_that_stays():
    images, labels = toy_scores(60)
    labels[split_parts(60, 0) == "val"] *= -1  # the more is learnt, the more they are missed

    def linear(*_):
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 8))

    trained = train_property_cnn(images, labels, architecture=linear, settings=SETTINGS)
    assert trained.log["val_loss"].idxmin() == 0
    val, pictures = trained.parts == "val", torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
    loss = masked_mse(trained.network(pictures[val]), torch.from_numpy(labels[val]))
    assert float(loss) == pytest.approx(trained.log["val_loss"].min(), rel=1e-4)


def test_a_stopped_training_goes_on_and_ends_with_the_same_weights(tmp_path):
    images, labels = toy_scores(60)
    undisturbed = train_property_cnn(images, labels, width=0.125, settings=SETTINGS)
    checkpoint, epochs = tmp_path / "checkpoint.pt", []

    def stop(row):
        epochs.append(row["epoch"])
        if row["epoch"] == 1:
            raise KeyboardInterrupt

    arguments = {"width": 0.125, "settings": SETTINGS, "checkpoint": checkpoint, "on_epoch": stop}
    with pytest.raises(KeyboardInterrupt):
        train_property_cnn(images, labels, **arguments)
    resumed = train_property_cnn(images, labels, **arguments)
    assert epochs == [0, 1, 2, 3]
    for key, value in undisturbed.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[key])
    assert undisturbed.log.equals(resumed.log)
    other = train_property_cnn(images, labels + 0.1, **{**arguments, "on_epoch": None})
    assert len(other.log) == 4, "a checkpoint of other labels must not be taken up"


def test_unusable_labels_are_named():
    images, labels = toy_scores(40)
    labels[:, 6] = np.nan
    with pytest.raises(PipelineError, match="no face has a label for background_std"):
        train_property_cnn(images, labels, settings=SETTINGS)
    with pytest.raises(PipelineError, match=r"images must be uint8"):
        train_property_cnn(images.astype(np.float32), labels, settings=SETTINGS)
    with pytest.raises(PipelineError, match=r"labels must be \[40, 8\]"):
        train_property_cnn(images, labels[:, :7], settings=SETTINGS)
