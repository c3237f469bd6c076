"""The filter CNNs pull generated faces toward the persona."""

import pytest
import torch

from cnn.filter_cnn import FilterEnsemble, build
from cnn.models import model_paths
from cnn.settings import FILTERS, Architecture
from pipeline.errors import PipelineError
from pipeline.profile import Profile
from pipeline.run import Run
from stylegan_modified.guidance import FilterGuidance


@pytest.fixture
def guidance() -> FilterGuidance:
    torch.manual_seed(0)
    ensembles = {}
    for name, setting in FILTERS.items():
        architecture = Architecture(64, 0.25, 16, setting.window)
        ensembles[name] = FilterEnsemble([build(name, architecture) for _ in range(2)])
    return FilterGuidance(ensembles)


def test_following_the_guidance_makes_faces_fit_better(guidance):
    images = (torch.rand(4, 3, 64, 64) * 2 - 1).requires_grad_(True)
    before = guidance(images, 0)
    before.backward()
    with torch.no_grad():
        moved = images - 5.0 * images.grad / images.grad.norm()
    assert guidance(moved, 0) < before
    for name, ensemble in guidance.ensembles.items():
        change = ensemble.models[0].crop_logits(ensemble.window.crop(moved) * 0.5 + 0.5).mean()
        change = change - ensemble.models[0].crop_logits(ensemble.window.crop(images.detach()) * 0.5 + 0.5).mean()
        assert change > 0 if FILTERS[name].keep_high else change < 0


def test_what_the_filter_lets_everybody_pass_for_guides_nobody(tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(FilterEnsemble, "load", lambda name, *_: loaded.append(name))
    anyone = "[cnn.cutoffs]\ngender = 0\nage = 1.0\nglass = 0.999\n"
    (tmp_path / "own.toml").write_text(f'extends = "demo"\n{anyone}')
    FilterGuidance.load(Profile.load(tmp_path / "own.toml"), Run(tmp_path / "run"))
    assert loaded == ["quality", "glass"]
    assert FilterGuidance({})(torch.zeros(2, 3, 64, 64), 0) == 0


def test_the_fold_models_take_turns(guidance):
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    assert guidance(images, 0) == guidance(images, 2) != guidance(images, 1)


def test_models_that_are_missing_are_named(tmp_path):
    run = Run(tmp_path / "run")
    with pytest.raises(PipelineError, match=model_paths(run)["gender"][0].name):
        FilterGuidance.load(Profile.load("demo"), run)
