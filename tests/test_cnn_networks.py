"""The filter CNNs: published layout and arithmetic at 256 pixels, the same stacks at any other resolution."""

import numpy as np
import pytest
import torch

from cnn.filter_cnn import FilterCNN, FilterEnsemble
from cnn.fit import Window, fit_stack
from cnn.settings import FILTER_NAMES, FILTERS, Architecture
from tests import author_cnn

TOLERANCE = 2e-5


@pytest.mark.parametrize("name", FILTER_NAMES)
def test_keys_and_shapes_at_256_pixels_are_the_published_ones(name):
    with torch.device("meta"):
        network = FilterCNN(name)
    expected = author_cnn.LAYOUTS[f"{name}1"]["keys"]
    assert author_cnn.shapes(network) == expected and list(author_cnn.shapes(network)) == list(expected)


@pytest.mark.parametrize("name", ["gender", "quality", "age"])
def test_scores_at_256_pixels_equal_the_author_s(name, tmp_path):
    torch.save(author_cnn.fill(FilterCNN(name)).state_dict(), tmp_path / "model_0.pt")
    ensemble = FilterEnsemble.load(name, [tmp_path / "model_0.pt"], Architecture(256, 1.0, 512, FILTERS[name].window))
    network = ensemble.models[0]
    assert author_cnn.digest(network) == author_cnn.LAYOUTS[f"{name}1"]["filled_sha256"]
    for dtype in (torch.float32, torch.float64):
        with torch.inference_mode():
            scores = network.to(dtype)(author_cnn.pictures().to(dtype))
        np.testing.assert_allclose(scores.numpy(), author_cnn.golden_outputs()[f"{name}1"], atol=TOLERANCE)


def test_the_ensemble_takes_pictures_from_minus_one_to_one():
    network, images = author_cnn.fill(FilterCNN("quality")), author_cnn.pictures()
    score = FilterEnsemble([network]).score(images * 2 - 1)
    np.testing.assert_allclose(score.numpy(), author_cnn.golden_outputs()["quality1"].ravel(), atol=TOLERANCE)


@pytest.mark.parametrize("resolution", [32, 64, 128, 256, 512])
@pytest.mark.parametrize("name", FILTER_NAMES)
def test_a_stack_follows_the_published_list_as_far_as_the_picture_allows(name, resolution):
    setting = FILTERS[name]
    stack = fit_stack(setting.layers, *setting.window.size(resolution))
    assert min(stack.height, stack.width) >= 2
    published = [step if step == "P" else int(step) for step in setting.layers.split()]
    convolutions = [step for step in stack.steps if step != "P"]
    assert convolutions == [step for step in published if step != "P"][: len(convolutions)]
    if resolution >= 256:
        assert list(stack.steps) == published


def test_pools_are_dropped_from_the_end_before_any_convolution():
    assert fit_stack("8 P 8 P 8", 32, 32).steps == (8, "P", 8, "P", 8)
    assert fit_stack("8 P 8 P 8", 16, 40).steps == (8, "P", 8, 8)
    assert fit_stack("8 P 8 P 8", 8, 8).steps == (8, 8, 8)
    assert fit_stack("8 P 8 P 8", 7, 7).steps == (8, 8)
    with pytest.raises(ValueError, match="too small"):
        fit_stack("8 P 8", 3, 9)


def test_window_fractions_become_the_published_pixels_at_256():
    assert FILTERS["glass"].window.pixels(256) == (80, 128, 64, 192)
    assert FILTERS["quality"].window.pixels(128) == (0, 32, 32, 96)
    with pytest.raises(ValueError, match="not a crop window"):
        Window(0.5, 0.4, 0, 1)


def test_scores_do_not_depend_on_the_batch_and_dropout_is_off():
    torch.manual_seed(0)
    images = torch.rand(64, 3, 32, 32) * 2 - 1
    for name in FILTER_NAMES:
        ensemble = FilterEnsemble([FilterCNN(name, 32, 0.25, 16).train() for _ in range(2)])
        together = ensemble.model_scores(images)
        alone = torch.cat([ensemble.model_scores(image[None]) for image in images])
        np.testing.assert_allclose(together.numpy(), alone.numpy(), atol=1e-5)
        assert torch.equal(together, ensemble.model_scores(images))
        np.testing.assert_allclose(ensemble.score(images).numpy(), together.mean(dim=1).numpy(), atol=1e-6)
