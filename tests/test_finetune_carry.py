"""Weights pass from rung to rung key by key, nothing lost and nothing invented."""

from __future__ import annotations

import finetune_world as world
import pytest
import torch

from pipeline.errors import PipelineError
from stylegan.discriminator import Discriminator
from stylegan.sampling import images_of
from stylegan_modified.carry import (
    BRANCH_SHARE,
    branch_share,
    conditional_generator,
    labelled_discriminator,
    relabelled_generator,
    split_generator,
)
from stylegan_modified.versions import VERSIONS, train_discriminator, train_generator, version_of

Z = torch.randn(6, 16, generator=torch.Generator().manual_seed(5))


def test_conditional_net_keeps_every_key_of_the_base():
    base = world.base_generator()
    old, new = base.state_dict(), conditional_generator(base, label_size=7, label_dim=4).state_dict()
    assert set(new) - set(old) == {"mapping.label_weight"} and not set(old) - set(new)
    assert new["mapping.label_weight"].shape == (7, 4)
    for key, value in old.items():
        carried = new[key][:, :16] if key == "mapping.dense0.weight" else new[key]
        assert torch.equal(carried, value), key
    assert new["mapping.dense0.weight"].shape == (16, 20)


def test_conditional_net_equals_the_base_for_zero_labels_and_nearly_for_others():
    base = world.base_generator()
    net = conditional_generator(base)
    images = images_of(base, Z)
    assert torch.allclose(images_of(net, Z), images, atol=1e-4)
    with torch.no_grad():
        labelled = net.eval()(Z, torch.randn(6, 7))["image"]
    # Sixteen latent numbers beside sixteen of the label: in the real nets the label is 32 times as small.
    assert 0 < float((labelled - images).square().mean().sqrt() / images.std()) < 0.9  # another face: 1.4


def test_split_net_keeps_every_key_and_starts_near_its_source():
    source = conditional_generator(world.base_generator())
    net = split_generator(source, split_width=24)
    old, new = source.state_dict(), net.state_dict()
    fresh = {f"mapping.dense_new{k}.{part}" for k in (0, 1) for part in ("weight", "bias")}
    assert set(new) - set(old) == fresh and not set(old) - set(new)
    assert all(torch.equal(new[key], value) for key, value in old.items() if key != "truncation.w_avg")
    a, b = images_of(source, Z), images_of(net, Z)
    assert 0 < float((a - b).square().mean().sqrt() / a.std()) < 0.5


@pytest.mark.parametrize("share", [BRANCH_SHARE, 0.2])
def test_new_branch_starts_alive_with_the_share_asked_for(share):
    net = split_generator(conditional_generator(world.base_generator()), split_width=24, share=share)
    assert branch_share(net) == pytest.approx(share, rel=1e-3)


def test_published_initial_values_would_leave_the_branch_dead():
    net = world.v9_generator()
    for layer in (net.mapping.dense_new0, net.mapping.dense_new1):
        layer.weight.data.normal_(0, 0.15)
        layer.bias.data.normal_(0, 0.15)
    assert branch_share(net) < 1e-4


def test_carrying_does_not_touch_the_random_state_and_is_repeatable():
    base = world.base_generator()
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    a, b = (split_generator(conditional_generator(base, seed=3), split_width=24, seed=3) for _ in range(2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_labelled_discriminator_scores_like_its_base_for_every_label():
    base = world.base_discriminator()
    net = labelled_discriminator(base, label_size=7, minibatch_std_group=base.minibatch_std_group)
    images = torch.randn(4, 3, 16, 16)
    assert net.state_dict()[f"{net.last}.weight"].shape == (1, base.features_size + 7)
    for label in (None, torch.zeros(4, 7), torch.randn(4, 7)):
        assert torch.allclose(net(images, label), base(images), atol=1e-5)


def test_both_label_forms_of_the_discriminator_use_the_label():
    images, label = torch.randn(4, 3, 16, 16), torch.randn(4, 3)
    appended = Discriminator(16, **world.SIZE, label_size=3, label_concat=True)
    assert not torch.allclose(appended(images, label), appended(images))
    weighted = Discriminator(16, **world.SIZE, label_size=3)
    assert torch.allclose(weighted(images, 2 * label), 2 * weighted(images, label), atol=1e-5)
    with pytest.raises(ValueError, match="needs one"):
        weighted(images)
    with pytest.raises(ValueError, match="takes no label"):
        world.base_discriminator()(images, label)


def test_wrong_sources_are_refused():
    net = world.v9_generator()
    with pytest.raises(PipelineError, match="split mapping already"):
        split_generator(net)
    with pytest.raises(PipelineError, match="unconditional"):
        conditional_generator(net)
    with pytest.raises(PipelineError, match="without labels"):
        labelled_discriminator(labelled_discriminator(world.base_discriminator()))


@pytest.mark.parametrize("grow", [conditional_generator, lambda net: relabelled_generator(net, version_of("v4"))])
def test_a_grown_net_lies_where_the_old_one_lies(grow):
    old = world.base_generator()
    grown = grow(old.to("meta"))  # "meta" stands for a GPU: it refuses to be mixed with the CPU
    assert {parameter.device.type for parameter in grown.parameters()} == {"meta"}


def test_freeze_lists_are_those_of_the_published_versions():
    # The published names belong to 256 px: 14 layers in G, blocks 256..4 in D.
    generator = world.Generator(256, channel_base=64, channel_max=4, **world.LATENT)
    critic = Discriminator(256, channel_base=64, channel_max=4, label_size=7, label_concat=True)

    def layers(names):
        return {name.rsplit(".", 1)[0].replace(".style", "").replace(".apply_noise", "") for name in names}

    dense = {f"mapping.dense{k}" for k in range(8)}
    four = {"synthesis.layer0", "synthesis.layer1", "synthesis.output0"}
    sixteen = {f"synthesis.layer{k}" for k in range(6)} | {f"synthesis.output{k}" for k in range(3)}
    for version, names in (("v1", dense), ("v8", dense | four), ("v9", dense | sixteen)):
        assert layers(train_generator(generator, VERSIONS[version].generator_up_to)) == names
    last = {"layer12", "layer13", "layer14"}
    coarse = {f"layer{k}" for k in range(8, 15)} | {"input5", "input6"}
    for version, names in (("v1", last), ("v8", last), ("v9", coarse)):
        row = VERSIONS[version]
        assert layers(train_discriminator(critic, row.discriminator_up_to, row.inputs_up_to)) == names
