"""Checkpoints load in every published form, and a wrong one is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.errors import PipelineError
from stylegan.checkpoint import generator_hash, load_discriminator, load_generator, save_beside, save_checkpoint
from stylegan.discriminator import Discriminator
from stylegan.generator import Generator
from stylegan.sampling import from_uint8, images_of, sample, to_uint8

TINY = {"channel_base": 64, "channel_max": 8, "z_dim": 16, "w_dim": 16, "mapping_width": 16}


def tiny(resolution=16, **settings):
    torch.manual_seed(3)
    net = Generator(resolution, **{**TINY, **settings})
    for name, value in net.named_parameters():
        if name.endswith(("apply_noise.weight", "bias")):
            value.data.normal_()
    return net.eval()


FORMS = {
    "plain": {},
    "oh-lora label": {"label_size": 7, "label_dim": 4},
    "genforce label": {"label_size": 3},
    "split": {"label_size": 7, "label_dim": 4, "split": True, "split_width": 24},
    "other sizes": {"w_dim": 12, "mapping_width": 20, "channel_base": 160, "channel_max": 10},
}


@pytest.mark.parametrize("resolution", [8, 16, 32])
@pytest.mark.parametrize("form", FORMS)
def test_generator_settings_are_read_from_the_keys(tmp_path, resolution, form):
    net = tiny(resolution, **FORMS[form])
    save_checkpoint(tmp_path / "g.pth", generator=net)
    loaded = load_generator(tmp_path / "g.pth")
    assert {k: v.shape for k, v in loaded.state_dict().items()} == {k: v.shape for k, v in net.state_dict().items()}
    assert generator_hash(loaded) == generator_hash(net)
    assert loaded.label_size == net.label_size and loaded.split == net.split
    z = torch.randn(2, 16)
    assert torch.equal(images_of(loaded, z), images_of(net, z))


def test_a_fine_tuned_generator_is_stored_beside_its_base_and_joined_with_it(tmp_path):
    base, tuned = tiny(32).half().float(), tiny(32, label_size=7, label_dim=4).half().float()
    tuned.synthesis.load_state_dict(base.synthesis.state_dict())
    save_checkpoint(tmp_path / "base.pth", half=True, generator=base)
    save_beside(tmp_path / "v1.pth", tuned, tmp_path / "base.pth", version="v1")
    stored = torch.load(tmp_path / "v1.pth", weights_only=True)["generator"]
    assert stored and all(key.startswith(("mapping.", "truncation.")) for key in stored)
    assert generator_hash(load_generator(tmp_path / "v1.pth")) == generator_hash(tuned)


def test_a_file_that_leans_on_another_is_refused_without_it(tmp_path):
    save_checkpoint(tmp_path / "base.pth", half=True, generator=tiny(16))
    save_beside(tmp_path / "v1.pth", tiny(16, label_size=7, label_dim=4), tmp_path / "base.pth")
    save_checkpoint(tmp_path / "base.pth", half=True, generator=tiny(8))
    with pytest.raises(PipelineError, match="base.pth, and that file is another one now"):
        load_generator(tmp_path / "v1.pth")
    (tmp_path / "base.pth").unlink()
    with pytest.raises(PipelineError, match="missing: put both files of one release side by side"):
        load_generator(tmp_path / "v1.pth")


@pytest.mark.parametrize("label", [(0, False), (3, False), (7, True)])
def test_discriminator_settings_are_read_from_the_keys(tmp_path, label):
    net = Discriminator(16, 64, 8, label_size=label[0], label_concat=label[1], minibatch_std_group=2)
    save_checkpoint(tmp_path / "d.pth", discriminator=net)
    torch.save(net.state_dict(), tmp_path / "plain.pth")
    images, labels = torch.randn(2, 3, 16, 16), torch.randn(2, label[0]) if label[0] else None
    for name in ("d.pth", "plain.pth"):
        loaded = load_discriminator(tmp_path / name, minibatch_std_group=2)
        assert torch.equal(loaded(images, labels), net(images, labels))


def test_every_published_file_form_is_read(tmp_path):
    net, smooth = tiny(), tiny()
    smooth.synthesis.output2.bias.data += 1.0
    states = {"generator": net.state_dict(), "generator_smooth": smooth.state_dict()}
    prefixed = {"generator": {f"module.{k}": v for k, v in net.state_dict().items()}}
    torch.save(net.state_dict(), tmp_path / "plain.pth")
    torch.save(states, tmp_path / "flat.pth")
    torch.save({"models": states, "running_metadata": {"iter": 7}}, tmp_path / "training.pth")
    torch.save(prefixed, tmp_path / "prefixed.pth")
    assert generator_hash(load_generator(tmp_path / "plain.pth")) == generator_hash(net)
    assert generator_hash(load_generator(tmp_path / "prefixed.pth")) == generator_hash(net)
    for name in ("flat.pth", "training.pth"):
        assert generator_hash(load_generator(tmp_path / name)) == generator_hash(smooth)
        assert generator_hash(load_generator(tmp_path / name, which="generator")) == generator_hash(net)


def test_half_precision_file_gives_nearly_the_same_images(tmp_path):
    net = tiny()
    save_checkpoint(tmp_path / "half.pth", half=True, generator=net)
    z = torch.randn(4, 16)
    a, b = images_of(net, z), images_of(load_generator(tmp_path / "half.pth"), z)
    assert float((a - b).square().mean().sqrt() / a.std()) < 5e-3


def test_a_wrong_file_is_refused_with_name_and_cure(tmp_path):
    state = tiny().state_dict()
    wrong = {k: v for k, v in state.items() if k != "synthesis.layer3.weight"}
    torch.save({**wrong, "extra.weight": torch.zeros(1)}, tmp_path / "keys.pth")
    with pytest.raises(PipelineError, match="(?s)keys.pth.*synthesis.layer3.weight.*extra.weight"):
        load_generator(tmp_path / "keys.pth")
    torch.save({**state, "synthesis.layer3.weight": torch.zeros(8, 8, 5, 5)}, tmp_path / "shape.pth")
    with pytest.raises(PipelineError, match="(?s)shape.pth.*synthesis.layer3.weight"):
        load_generator(tmp_path / "shape.pth")
    torch.save({"conv.weight": torch.zeros(3, 3)}, tmp_path / "other.pth")
    with pytest.raises(PipelineError, match="other.pth is not a StyleGAN generator"):
        load_generator(tmp_path / "other.pth")
    with pytest.raises(PipelineError, match="other.pth is not a StyleGAN discriminator"):
        load_discriminator(tmp_path / "other.pth")
    with pytest.raises(PipelineError, match="absent.pth"):
        load_generator(tmp_path / "absent.pth")


def test_an_image_depends_on_its_seed_alone():
    net = tiny()
    together = torch.cat([images for _, _, images in sample(net, list(range(10)), batch=10)])
    alone = torch.cat([images for _, _, images in sample(net, list(range(10)), batch=1)])
    assert float((together - alone).abs().max()) < 1e-4
    assert [seeds for seeds, _, _ in sample(net, [5, 2, 9], batch=2)] == [[5, 2], [9]]


def test_evaluation_leaves_no_trace_and_training_moves_the_mean_of_w():
    net = tiny()
    before = generator_hash(net)
    images_of(net, torch.randn(4, 16), psi=0.7)
    assert generator_hash(net) == before
    net.train()(torch.randn(4, 16), style_mixing_prob=0.9)
    changed = [k for k, v in tiny().state_dict().items() if not torch.equal(v, net.state_dict()[k])]
    assert changed == ["truncation.w_avg"]


def test_reduced_precision_stays_close():
    net = tiny(32)
    z = torch.randn(4, 16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        reduced = net(z)["image"]
    assert float((reduced.float() - images_of(net, z)).pow(2).mean().sqrt() / images_of(net, z).std()) < 0.05


def test_channels_last_gives_the_same_images_and_gradients():
    net, last = tiny(32), tiny(32).to(memory_format=torch.channels_last)  # maps on both sides of `LARGE`
    z = torch.randn(3, 16)
    images, gradients = [], []
    for each in (net, last):
        w = each.encode(z, None, "w").detach().requires_grad_(True)
        images.append(each.decode(w, "w"))
        gradients.append(torch.autograd.grad(images[-1].square().sum(), w)[0])
    assert images[1].is_contiguous(memory_format=torch.channels_last), "the fast path was not taken"
    assert float((images[0] - images[1]).detach().abs().max()) < 1e-4
    assert float((gradients[0] - gradients[1]).abs().max() / gradients[0].abs().max()) < 1e-3


@pytest.mark.parametrize("position", ["z", "w", "mapping_split1", "mapping_split2"])
def test_decode_of_encode_is_the_whole_generator(position):
    net = tiny(label_size=3, label_dim=4, split=True, split_width=24)
    z, label = torch.randn(3, 16), torch.randn(3, 3)
    with torch.no_grad():
        mid = net.encode(z, label, position)
        assert mid.shape == (3, {"z": 19, "w": 16, "mapping_split1": 40, "mapping_split2": 32}[position])
        assert torch.allclose(net.decode(mid, position), net(z, label)["image"], atol=1e-6)
        truncated = net(z, label, trunc_psi=0.5, trunc_layers=4)["image"]
        assert torch.allclose(net.decode(mid, position, 0.5, 4), truncated, atol=1e-6)


def test_wrong_positions_and_shapes_are_refused():
    net = tiny()
    with pytest.raises(ValueError, match="split generator"):
        net.encode(torch.randn(1, 16), position="mapping_split1")
    with pytest.raises(ValueError, match=r"\[N, 16\]"):
        net.decode(torch.randn(1, 15))
    with pytest.raises(ValueError, match="takes no label"):
        net(torch.randn(1, 16), torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"\[N, 16\]"):
        net(torch.randn(1, 8))


def test_eight_bit_images_round_trip():
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    assert np.array_equal(to_uint8(from_uint8(pixels)), pixels)
    edge = torch.tensor([-2.0, -1.0, 1.0, 2.0]).reshape(1, 1, 2, 2).expand(1, 3, 2, 2)
    assert to_uint8(edge)[0, :, :, 0].tolist() == [[0, 0], [255, 255]]
    for wrong in (edge[0], edge[:, :1], torch.from_numpy(pixels).permute(0, 3, 1, 2)):
        with pytest.raises(ValueError, match="images are float"):
            to_uint8(wrong)
