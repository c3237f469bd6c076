"""Training of the bundled networks that score: stopped anywhere it goes on, and says what the file was trained on."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from pipeline.artefacts import read_json, save_weights, stamp_path
from pipeline.errors import PipelineError
from property_score import train_bundled
from property_score.measure import PROPERTIES
from property_score.property_cnn import load_property_cnn
from property_score.property_training import train_property_cnn
from property_score.train_bundled import BundledOptions, train
from property_score.training_faces import GeneratedFaces

SIDE, FACES = 32, 80


@pytest.fixture
def options(tmp_path, tiny_profile, monkeypatch):
    """Options of a training on noise that anybody can score: brightness is every score."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (FACES, SIDE, SIDE, 3), np.uint8)
    scores = pd.DataFrame({name: images.mean((1, 2, 3)) + rng.normal(0, 0.1, FACES) for name in PROPERTIES})
    monkeypatch.setattr(train_bundled, "GeometricScorer", SimpleNamespace(load=lambda *_, **__: None))
    monkeypatch.setattr(train_bundled, "persona_faces", lambda *_: GeneratedFaces(images, "7-86"))
    monkeypatch.setattr(train_bundled, "measured", lambda *_: scores)
    files = {"out": str(tmp_path / "net.pth"), "work": str(tmp_path / "work")}
    return BundledOptions(profile=str(tiny_profile), epochs=3, device="cpu", **files)


def test_a_stopped_training_goes_on_and_leaves_no_checkpoint(options, tmp_path, monkeypatch):
    train(options)
    whole = load_property_cnn(options.out).state_dict()
    record = read_json(stamp_path(options.out))["provenance"]
    assert record["trained_on"] == "7-86" and record["faces"] == FACES and record["epochs"] == 3
    assert set(record["test_r"]) == set(PROPERTIES) and not list((tmp_path / "work").iterdir())
    epochs = []

    def counted(*arguments, stop_after, **settings):
        def on_epoch(row):
            epochs.append(row["epoch"])
            if len(epochs) == stop_after:
                raise KeyboardInterrupt

        return train_property_cnn(*arguments, on_epoch=on_epoch, **settings)

    monkeypatch.setattr(train_bundled, "train_property_cnn", lambda *a, **s: counted(*a, stop_after=1, **s))
    with pytest.raises(KeyboardInterrupt):
        train(options)
    assert (tmp_path / "work" / "train_property_cnn.pt").is_file()
    monkeypatch.setattr(train_bundled, "train_property_cnn", lambda *a, **s: counted(*a, stop_after=9, **s))
    train(options)
    assert len(epochs) == 3 and sorted(set(epochs)) == epochs
    again = load_property_cnn(options.out).state_dict()
    assert all((again[name] == value).all() for name, value in whole.items())


def test_hairstyle_towers_without_their_property_cnn_are_refused_before_the_training(options, monkeypatch):
    def never(*_, **__):
        raise AssertionError("trained")

    options.network = "hairstyle"
    monkeypatch.setattr(train_bundled, "train_property_cnn", never)
    with pytest.raises(PipelineError, match="train the property CNN first"):
        train(options)
    for known, word in (
        ({"trained_on": "1-9"}, "give --count as"),
        ({"trained_on": "7-86", "generators": {"generator": "0" * 64}}, "other generator files"),
    ):
        save_weights(options.out, {}, **known)
        with pytest.raises(PipelineError, match=word):
            train(options)


def test_hairstyle_towers_join_the_property_cnn_of_the_same_faces(options):
    train(options)
    before = load_property_cnn(options.out).state_dict()
    options.network = "hairstyle"
    train(options)
    after = load_property_cnn(options.out).state_dict()
    changed = {name.split(".")[0] for name, value in before.items() if not (after[name] == value).all()}
    assert changed == {"hairstyle_score_cnn"}
    assert read_json(stamp_path(options.out))["provenance"]["hairstyle_training"]["epochs"] == 3
