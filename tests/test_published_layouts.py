"""Every published layout is recognised, built key for key, read from a file, and computes what the author's did."""

import numpy as np
import pytest
import torch
from author_files import FILES, LOOKS_LIKE, digests, empty, golden, layouts
from stylegan_golden import labels

from cnn.filter_cnn import FilterCNN
from pipeline.recognition import describe
from property_score.property_cnn import (
    HairstyleCNN,
    MergedPropertyCNN,
    hairstyle_settings,
    merge_property_cnns,
    property_settings,
)
from stylegan.discriminator import Discriminator
from stylegan.generator import Generator
from stylegan.weight_kinds import discriminator_settings, generator_settings
from stylegan_modified.cvae import CVAEEncoder, cvae_settings, load_cvae_encoder
from tests import author_cnn
from vectorfind.gradient_net import GradientNet, load_gradient_net

LIMIT = 2e-5
DTYPES = [torch.float32, torch.float64]


def built(layout, state):
    """The net that the loaders build for a state dict."""
    if layout[0] == "g" and layout[1] in "379":
        return Generator(**generator_settings(state))
    if layout in ("d7", "d3"):
        return Discriminator(**discriminator_settings(state))
    if layout in ("property7", "merged8"):
        return MergedPropertyCNN(**property_settings(state))
    if layout == "hairstyle1":
        return HairstyleCNN(**hairstyle_settings(state))
    if layout == "cvae_enc":
        return CVAEEncoder(**cvae_settings(state))
    if layout.startswith("nn_"):
        return GradientNet(state["fc1.0.weight"].shape[1])
    return FilterCNN(layout.removesuffix("1"))


@pytest.mark.parametrize("layout", LOOKS_LIKE)
def test_a_layout_is_recognised_and_built_key_for_key(layout):
    expected = layouts()[layout]
    assert describe(empty(expected)) == LOOKS_LIKE[layout]
    with torch.device("meta"):
        net = built(layout, empty(expected))
    shapes = author_cnn.shapes(net)
    assert shapes == expected and list(shapes) == list(expected)


def test_every_published_file_has_one_of_these_layouts():
    assert len(FILES) == 26 and {layout for names in FILES.values() for layout in names} == set(LOOKS_LIKE)


def fill(net, conv_gain=2.0):
    """Golden weights: they depend on key and shape alone."""
    state = net.state_dict()
    for key, tensor in state.items():
        noise = np.random.default_rng(author_cnn.zlib.crc32(key.encode())).standard_normal(tuple(tensor.shape))
        fan = int(np.prod(tensor.shape[1:]))
        scale = 0.1 if tensor.ndim == 1 else np.sqrt((conv_gain if tensor.ndim == 4 else 1.0) / fan)
        state[key] = torch.from_numpy((scale * noise).astype(np.float32))
    net.load_state_dict(state)
    return net


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Gradient networks and cVAE encoder with golden weights, back from files."""
    folder, loaded = tmp_path_factory.mktemp("published"), {}
    sizes = {"nn_w": 512, "nn_split1": 2560, "nn_split2": 1024}
    nets = {layout: GradientNet(size) for layout, size in sizes.items()} | {"cvae_enc": CVAEEncoder()}
    for layout, net in nets.items():
        torch.save(fill(net).state_dict(), folder / layout)
        load = load_cvae_encoder if layout == "cvae_enc" else load_gradient_net
        loaded[layout] = load(folder / layout)
        (folder / layout).unlink()
    return loaded


def test_the_golden_weights_come_back_from_the_files_to_the_last_bit(networks):
    assert {layout: author_cnn.digest(net.float()) for layout, net in networks.items()} == digests()
    assert not any(net.training for net in networks.values())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("layout", "size"), [("nn_w", 512), ("nn_split2", 1024)])
def test_scores_and_gradients_of_the_gradient_networks_equal_the_author_s(networks, layout, size, dtype):
    net = networks[layout].to(dtype)
    mid = torch.from_numpy(np.random.default_rng(size).standard_normal((2, size)).astype(np.float32)).to(dtype)
    score = net(mid.requires_grad_())
    (gradient,) = torch.autograd.grad(score.sum(), mid)
    unit = gradient / gradient.norm(dim=1, keepdim=True)
    np.testing.assert_allclose(score.detach().numpy(), golden()[f"{layout}/output"], atol=LIMIT)
    np.testing.assert_allclose(unit.numpy(), golden()[f"{layout}/unit_grad"], atol=LIMIT)


@pytest.mark.parametrize("dtype", DTYPES)
@torch.no_grad()
def test_mean_and_variance_of_the_cvae_encoder_equal_the_author_s(networks, dtype):
    images, label = (author_cnn.pictures() * 2 - 1).to(dtype), labels(2, 7).to(dtype)
    mean, log_variance = networks["cvae_enc"].to(dtype)(images, label)
    np.testing.assert_allclose(mean.numpy(), golden()["cvae_enc/mu"], atol=LIMIT)
    np.testing.assert_allclose(log_variance.numpy(), golden()["cvae_enc/logvar"], atol=LIMIT)


@torch.no_grad()
def test_seven_scores_and_the_hairstyle_cnn_merge_into_eight_scores():
    torch.manual_seed(0)
    seven, hairstyle = MergedPropertyCNN(32, 0.125, hairstyle=False).eval(), HairstyleCNN(32, 0.125).eval()
    images = torch.rand(3, 3, 32, 32) * 2 - 1
    both = torch.cat([seven(images), hairstyle(images)], dim=1)
    torch.testing.assert_close(merge_property_cnns(seven, hairstyle)(images), both, atol=1e-5, rtol=1e-5)
