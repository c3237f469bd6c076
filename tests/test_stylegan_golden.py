"""The nets equal the reference StyleGAN v1 models, in layout and in numbers."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import stylegan_golden as golden
import torch
from stylegan_golden import AUTHOR, GOLDEN, KEYS, error, fill

from stylegan.checkpoint import load_discriminator, load_generator
from stylegan.discriminator import Discriminator
from stylegan.generator import Generator
from stylegan.sampling import to_uint8

DTYPES = {"float32": torch.float32, "float64": torch.float64}
W_LIMIT = {"float32": 1e-5, "float64": 1e-10}
IMAGE_LIMIT = {"float32": 5e-5, "float64": 1e-9}
SCORE_LIMIT = {"float32": 1e-5, "float64": 1e-10}


@pytest.fixture(scope="module")
def nets():
    """One filled net per layout, built when first asked for."""
    cache = {}

    def get(name, build, dtype="float32"):
        if (name, dtype) not in cache:
            cache[name, dtype] = fill(build()).to(DTYPES[dtype])
        return cache[name, dtype]

    return get


def sample(image, index):
    return image.detach().numpy().ravel()[index]


@pytest.mark.parametrize("resolution", [64, 128, 256])
@pytest.mark.parametrize("kind", ["generator", "discriminator"])
def test_layout_and_key_order_are_the_published_ones(resolution, kind):
    net = fill({"generator": Generator, "discriminator": Discriminator}[kind](resolution))
    expected = KEYS[f"{kind}{resolution}"]
    assert {k: list(v.shape) for k, v in net.state_dict().items()} == expected["keys"]
    assert list(net.state_dict()) == list(expected["keys"])
    assert golden.digest(net) == expected["sha256"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("resolution", [64, 128])
@torch.no_grad()
def test_w_images_and_scores_equal_the_reference(nets, resolution, dtype):
    generator = nets(f"g{resolution}", lambda: Generator(resolution), dtype)
    critic = nets(f"d{resolution}", lambda: Discriminator(resolution), dtype)
    key, z = f"g{resolution}", golden.latents().to(DTYPES[dtype])
    index = GOLDEN[f"{key}/image_idx"]
    for name, psi, layers in (("trunc", 0.7, 8), ("full", None, None)):
        out = generator(z, trunc_psi=psi, trunc_layers=layers)
        # Truncated references were made from float32 layer values, hence the wider float64 limits.
        image_limit = 2e-6 if (name, dtype) == ("trunc", "float64") else IMAGE_LIMIT[dtype]
        score_limit = 1e-7 if (name, dtype) == ("trunc", "float64") else SCORE_LIMIT[dtype]
        assert error(out["z"], GOLDEN[f"{key}/z_normalised_f64"]) < W_LIMIT[dtype]
        assert error(out["w"], GOLDEN[f"{key}/w_f64"]) < W_LIMIT[dtype]
        assert error(sample(out["image"], index), GOLDEN[f"{key}/{name}/image_sample_f64"]) < image_limit
        score = critic(out["image"])
        alone = torch.cat([critic(out["image"][k : k + 1]) for k in range(2)])
        assert np.abs(score.numpy() - GOLDEN[f"{key}/{name}/score_f64"]).max() < score_limit
        assert np.abs(alone.numpy() - GOLDEN[f"{key}/{name}/score_single_f64"]).max() < score_limit
        last = generator.num_layers - 1
        if name == "trunc":
            layers_wp = out["wp"][:, [0, 7, 8, last]]
            assert error(layers_wp, GOLDEN[f"{key}/trunc/wp_layers_0_7_8_last_f64"]) < 1e-5
            bytes_ = sample(torch.from_numpy(to_uint8(out["image"])).permute(0, 3, 1, 2).contiguous(), index)
            apart = np.abs(bytes_.astype(int) - GOLDEN[f"{key}/trunc/uint8_sample"])
            assert apart.max() <= 1 and apart.mean() < 2e-3  # values next to a step may fall on its other side
        else:
            for k in (0, 5, last):
                assert error(out[f"style{k:02d}"], GOLDEN[f"{key}/full/style{k:02d}_f64"]) < 1e-5


@torch.no_grad()
def test_every_block_equals_the_reference(nets):
    generator = nets("g64", lambda: Generator(64), "float64")
    critic = nets("d64", lambda: Discriminator(64), "float64")
    seen = {}

    def keep(name):
        def hook(_, __, out):
            seen[name] = out[0] if isinstance(out, tuple) else out

        return hook

    watched = {f"g64/diag_{name}": layer for name, layer in generator.synthesis.named_children()}
    watched |= {f"d64/diag_{name}": layer for name, layer in critic.named_children()}
    watched = {name: layer for name, layer in watched.items() if f"{name}_f64" in GOLDEN}
    hooks = [layer.register_forward_hook(keep(name)) for name, layer in watched.items()]
    critic(generator(golden.latents().double())["image"])
    for hook in hooks:
        hook.remove()
    assert len(watched) == 22
    for name, out in seen.items():
        values = out.numpy().ravel()
        at = np.sort(np.random.default_rng(4242).choice(values.size, size=min(64, values.size), replace=False))
        got = np.concatenate([[values.mean(), values.std()], values[at]])
        assert error(got, GOLDEN[f"{name}_f64"]) < 1e-9, name


@pytest.mark.parametrize("dtype", DTYPES)
@torch.no_grad()
def test_every_level_of_detail_equals_the_reference(nets, dtype):
    generator = nets("g64", lambda: Generator(64), dtype)
    critic = nets("d64", lambda: Discriminator(64), dtype)
    z, images = golden.latents().to(DTYPES[dtype]), golden.critic_images(64, 4).to(DTYPES[dtype])
    for lod in ("0.5", "1.0", "2.25"):
        image = generator(z, lod=float(lod))["image"]
        assert image.shape == (2, 3, 64, 64)
        values, score = sample(image, GOLDEN["g64/image_idx"]), critic(images, lod=float(lod)).numpy()
        assert error(values, GOLDEN[f"g64/lod{lod}/image_sample_f64"]) < IMAGE_LIMIT[dtype]
        assert np.abs(score - GOLDEN[f"d64/lod{lod}/score_f64"]).max() < SCORE_LIMIT[dtype]
    with pytest.raises(ValueError, match="lod"):
        generator(z, lod=4.5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [1, 2, 3, 4, 8])
@torch.no_grad()
def test_discriminator_groups_a_batch_like_the_reference(nets, batch, dtype):
    critic = nets("d64", lambda: Discriminator(64), dtype)
    score = critic(golden.critic_images(64, batch).to(DTYPES[dtype]))
    assert np.abs(score.numpy() - GOLDEN[f"d64/batch{batch}/score_f64"]).max() < SCORE_LIMIT[dtype]


@torch.no_grad()
def test_discriminator_refuses_a_batch_that_its_groups_do_not_divide(nets):
    with pytest.raises(ValueError, match="groups of 4"):
        nets("d64", lambda: Discriminator(64))(golden.critic_images(64, 6))


@pytest.mark.parametrize("dtype", DTYPES)
@torch.no_grad()
def test_genforce_conditional_form_equals_the_reference(nets, dtype):
    generator = nets("g64cond", lambda: Generator(64, label_size=3), dtype)
    critic = nets("d64cond", lambda: Discriminator(64, label_size=3), dtype)
    label = torch.from_numpy(GOLDEN["g64cond/labels"]).to(DTYPES[dtype])
    out = generator(golden.latents().to(DTYPES[dtype]), label)
    assert error(out["w"], GOLDEN["g64cond/w_f64"]) < W_LIMIT[dtype]
    assert error(sample(out["image"], GOLDEN["g64/image_idx"]), GOLDEN["g64cond/image_sample_f64"]) < IMAGE_LIMIT[dtype]
    assert np.abs(critic(out["image"], label).numpy() - GOLDEN["g64cond/score_f64"]).max() < SCORE_LIMIT[dtype]


# layout: arguments, and the form of the file that it is read back from
AUTHOR_NETS = {
    "g7": ({"label_size": 7, "label_dim": 16}, lambda state: state),
    "g7c24": ({"label_size": 7, "label_dim": 24}, lambda state: {"models": {"generator": state}}),
    "g3": ({"label_size": 3, "label_dim": 16}, lambda state: {"generator_smooth": state, "step": 7}),
    "g9": (
        {"label_size": 7, "label_dim": 16, "split": True},
        lambda state: {f"module.{key}": value for key, value in state.items()},
    ),
}


# Of v9 the reference keeps largest absolute values alone, of the image among the sampled pixels.
G9_LARGEST = {
    "zero": {
        "w": 7.453099848254991,
        "mapping_split1": 6.3537781509958755,
        "mapping_split2": 5.647238036873887,
        "image": 3.0615787018385663,
    },
    "rand": {
        "w": 8.710424877908498,
        "mapping_split1": 6.184364812804562,
        "mapping_split2": 6.15718454298283,
        "image": 2.884741699588165,
    },
}


def through_a_file(path, content, load):
    torch.save(content, path)
    net = load(path)
    path.unlink()  # a hundred megabytes each
    return net


@pytest.fixture(scope="module")
def author_generator(tmp_path_factory):
    """A published generator with golden weights, saved and read back; built when first asked for."""
    cache = {}

    def get(name):
        if name not in cache:
            arguments, form = AUTHOR_NETS[name]
            state = fill(Generator(256, **arguments)).state_dict()
            cache[name] = through_a_file(tmp_path_factory.mktemp("author") / "g.pth", form(state), load_generator)
        return cache[name]

    return get


@pytest.mark.parametrize("name", AUTHOR_NETS)
@torch.no_grad()
def test_published_conditional_generators_equal_the_reference(author_generator, name):
    generator = author_generator(name)
    assert {k: list(v.shape) for k, v in generator.state_dict().items()} == KEYS[name]["keys"]
    assert golden.digest(generator) == KEYS[name]["sha256"]
    for which in ("zero", "rand"):
        label = golden.labels(2, generator.label_size) * (which == "rand")
        key = f"{name}/{which}"
        if f"{key}/embedding" in AUTHOR:
            assert error(label @ generator.mapping.label_weight, AUTHOR[f"{key}/embedding"]) < 5e-5
        for stored, psi in ((f"{key}/image", (1.0, 0)), (f"{key}/image_trunc07_8", (0.7, 8))):
            if stored in AUTHOR:
                out = generator(golden.latents(), label, *psi)
                assert error(out["w"], AUTHOR[f"{key}/w"]) < 5e-5
                assert error(sample(out["image"], AUTHOR["image_idx"]), AUTHOR[stored]) < 2e-4


@pytest.mark.parametrize("which", G9_LARGEST)
@torch.no_grad()
def test_the_published_split_generator_reaches_the_reference_s_largest_values(author_generator, which):
    generator, z = author_generator("g9"), golden.latents()
    label = golden.labels(2, 7) * (which == "rand")
    found = {position: generator.encode(z, label, position) for position in G9_LARGEST[which] if position != "image"}
    found["image"] = generator.decode(found["mapping_split1"], "mapping_split1")
    found["image"] = torch.from_numpy(sample(found["image"], AUTHOR["image_idx"]))
    for name, largest in G9_LARGEST[which].items():
        assert float(found[name].abs().max()) == pytest.approx(largest, abs=5e-5), name


@pytest.mark.parametrize("name", ["g7", "g7c24", "g3"])
@torch.no_grad()
def test_w_of_published_conditional_generators_in_double_equals_the_reference(author_generator, name):
    mapping = copy.deepcopy(author_generator(name).mapping).double()
    label = golden.labels(2, mapping.label_size).double()
    assert error(mapping(golden.latents().double(), label), AUTHOR[f"{name}/rand/w"]) < 5e-5


@pytest.mark.parametrize("size", [7, 3])
@torch.no_grad()
def test_published_discriminators_with_appended_label_equal_the_reference(author_generator, tmp_path, size):
    critic = fill(Discriminator(256, label_size=size, label_concat=True, minibatch_std_group=16))
    content = critic.state_dict() if size == 7 else {"discriminator": critic.state_dict()}
    critic = through_a_file(tmp_path / "d.pth", content, load_discriminator)
    assert {k: list(v.shape) for k, v in critic.state_dict().items()} == KEYS[f"d{size}"]["keys"]
    assert golden.digest(critic) == KEYS[f"d{size}"]["sha256"]
    cases = {f"n{n}": golden.critic_images(256, n) for n in (1, 2, 8)} | {"pm1": golden.author_images()}
    if size == 3:
        cases["varied8"] = golden.varied_images()
    else:
        cases["chain_g7"] = author_generator("g7")(golden.latents(), golden.labels(2, 7))["image"]
    for name, images in cases.items():
        for which in ("zero", "rand"):
            key = f"d{size}/{name}/{which}/score"
            if key in AUTHOR:
                label = golden.labels(len(images), size) * (which == "rand")
                assert np.abs(critic(images, label).numpy() - AUTHOR[key]).max() < 5e-6, key
