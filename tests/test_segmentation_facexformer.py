"""FaceXFormer equals the reference in layout and numbers, loads its published file, and is a face parser."""

import dataclasses
from pathlib import Path

import facexformer_golden as golden
import numpy as np
import pytest
import torch
from facexformer_golden import FACE_BOXES, GOLDEN, KEYS
from stylegan_golden import digest, error

from pipeline.artefacts import save_weights
from pipeline.errors import PipelineError
from pipeline.profile import Profile
from property_score.head_pose import load_head_pose
from segmentation.face_crop import crop, crop_corners
from segmentation.facexformer import HEADS, FaceXFormer, load_facexformer
from segmentation.facexformer_parser import FaceXFormerParser, described, prepare
from segmentation.parser import PARSERS, load_parser, to_tensor

DTYPES = {"float32": torch.float32, "float64": torch.float64}
HEAD_LIMIT = {"float32": 1e-5, "float64": 1e-9}
LIMIT = {"float32": 2e-5, "float64": 1e-9}


@pytest.fixture(scope="module")
def network() -> FaceXFormer:
    return golden.fill(FaceXFormer()).requires_grad_(False)


@pytest.fixture(scope="module")
def run(network):
    """What the network makes of the noise, in all its parts: alone in float64, beside another picture in float32."""
    cache = {}

    def get(dtype: str) -> dict[str, torch.Tensor]:
        if dtype not in cache:
            images = torch.cat([golden.noise(), golden.blocks()]) if dtype == "float32" else golden.noise()
            network.to(DTYPES[dtype])
            cache[dtype] = traced(network, images.to(DTYPES[dtype]))
            network.float()
        return cache[dtype]

    return get


def traced(network: FaceXFormer, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Everything that the golden data names, for the first image; the whole batch of logits as "batch"."""
    decoder, values, hooks = network.face_decoder, {}, []

    def watch(module: torch.nn.Module, name: str) -> None:
        hooks.append(module.register_forward_hook(lambda _, __, out: values.update({name: out})))

    for k, place in enumerate((1, 3, 5, 7)):
        watch(network.backbone[0][place], f"tap{k}")
    watch(network.linear_fuse, "fused")
    watch(decoder.transformer, "transformer")
    watch(decoder.output_upscaling, "upscaled")
    watch(decoder.output_hypernetwork_mlps, "hyper")
    with torch.inference_mode():
        values.update(network(images))
    for hook in hooks:
        hook.remove()
    values["tokens_out"], values["image_out"] = values.pop("transformer")
    for k in range(4):
        values[f"tap{k}"] = values[f"tap{k}"].permute(0, 3, 1, 2)
    return {name: value[:1].contiguous() for name, value in values.items()} | {"batch": values["segmentation"]}


def test_layout_and_key_order_are_the_published_ones(network):
    state = network.state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == KEYS["keys"]
    assert list(state) == list(KEYS["keys"]) and len(state) == 505
    assert sum(value.numel() for value in network.parameters()) == KEYS["parameters"] == 91_985_943
    assert digest(network) == KEYS["sha256"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_head_equals_the_reference(run, dtype):
    values = run(dtype)
    for name, size in HEADS.items():
        assert values[name].shape == (1, size) and values[name].dtype == DTYPES[dtype]
        assert error(values[name], GOLDEN[f"noise/{name}_f64"]) < HEAD_LIMIT[dtype], name


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_inner_part_equals_the_reference(run, dtype):
    values = run(dtype)
    for name in ("tap0", "tap1", "tap2", "tap3", "fused", "image_out", "upscaled"):
        assert error(golden.sample(values[name], f"noise/{name}_f64"), GOLDEN[f"noise/{name}_f64"]) < LIMIT[dtype], name
    assert error(values["hyper"], GOLDEN["noise/hyper_f64"]) < HEAD_LIMIT[dtype]
    # The reference tokens were stored in float32.
    assert error(values["tokens_out"], GOLDEN["noise/tokens_out_f64"]) < max(HEAD_LIMIT[dtype], 2e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_segmentation_logits_and_classes_equal_the_reference(run, dtype):
    logits = run(dtype)["segmentation"]
    assert logits.shape == (1, 11, 224, 224)
    flat = logits.numpy().ravel()
    assert error(flat[GOLDEN["noise/seg_idx"]], GOLDEN["noise/seg_sample_f64"]) < LIMIT[dtype]
    pooled = torch.nn.functional.avg_pool2d(logits, 8)
    # This reference was computed in float32: its rounding adds to ours.
    assert error(pooled, GOLDEN["noise/seg_pool28_f32"]) < 2 * LIMIT["float32"]
    stats = torch.stack([logits.mean(dim=(2, 3)), logits.std(dim=(2, 3), correction=0)], dim=2)
    assert error(stats, GOLDEN["noise/seg_class_stats_f64"]) < LIMIT[dtype]
    same = logits.argmax(dim=1)[0].numpy() == GOLDEN["noise/argmax_f64"]
    clear = np.unpackbits(GOLDEN["noise/argmax_margin_over_1e-3"])[: 224 * 224].reshape(224, 224).astype(bool)
    assert clear.mean() > 0.95 and same[clear].all()
    assert same.all() if dtype == "float64" else same.mean() >= 0.999


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_position_code_equals_the_reference(network, dtype):
    code = network.pe_layer.to(DTYPES[dtype])(56)
    network.float()
    code = code.T.reshape(1, 256, 56, 56)
    assert error(golden.sample(code, "pe_f64"), GOLDEN["pe_f64"]) < LIMIT[dtype]


def test_a_picture_gives_the_same_alone_and_beside_another(network, run):
    with torch.inference_mode():
        alone = network(golden.blocks())["segmentation"]
    assert error(run("float32")["batch"][1:], alone) < LIMIT["float32"]


def test_pictures_of_another_size_are_refused_by_the_network(network):
    with pytest.raises(ValueError, match=r"\[N, 3, 224, 224\], got \[1, 3, 256, 256\]"):
        network(torch.zeros(1, 3, 256, 256))


@pytest.mark.parametrize("name", FACE_BOXES)
def test_crop_and_preprocessing_equal_the_published_path(name):
    image, box = golden.photo(), FACE_BOXES[name]
    assert crop_corners(box, 260, 300) == tuple(GOLDEN[f"preproc/{name}/crop_ints"])
    ready = prepare(to_tensor(np.stack([crop(image, box)])))
    assert ready.shape == (1, 3, 224, 224) and ready.dtype == torch.float32
    values = ready.numpy().ravel()[GOLDEN[f"preproc/{name}/tensor_idx"]]
    assert np.abs(values - GOLDEN[f"preproc/{name}/tensor_sample"]).max() < 1e-5
    stats = torch.stack([ready[0].mean(dim=(1, 2)), ready[0].std(dim=(1, 2))], dim=1)
    assert np.abs(stats.numpy() - GOLDEN[f"preproc/{name}/tensor_stats"]).max() < 1e-3


def test_crops_of_another_size_are_resized_like_the_published_path():
    image, box = golden.photo(), FACE_BOXES["inside"]
    x0, y0, x1, y1 = crop_corners(box, 260, 300)
    step = 1 / 255 / 0.224  # one step of 8 bits, which only the published path rounds to
    apart = (prepare(to_tensor(image[None, y0:y1, x0:x1])) - prepare(to_tensor(np.stack([crop(image, box)])))).abs()
    assert apart.max() < 2 * step and apart.mean() < 0.5 * step


def test_raw_heads_become_pixels_flags_and_classes():
    heads = {name: np.zeros((2, size), np.float32) for name, size in HEADS.items()}
    heads["landmarks"][:] = GOLDEN["noise/landmarks_f64"]
    heads["headpose"][0] = (0.1, -0.2, 0.3)
    heads["attributes"][1] = -1.0
    heads["visibility"][0, 3], heads["visibility"][1, :] = -0.001, 4.0
    for name, best in (("age", 7), ("gender", 1), ("race", 4)):
        heads[name][0, best] = 2.0
    faces = described(np.zeros((2, 224, 224), np.uint8), heads)
    assert np.abs(faces.landmarks - GOLDEN["post/landmarks_px_noise"]).max() < 1e-3
    assert faces.headpose[0].tolist() == pytest.approx([0.1, -0.2, 0.3])  # pitch, yaw, roll
    assert faces.attributes.dtype == bool and faces.attributes[0].all() and not faces.attributes[1].any()
    assert not faces.visibility[0, 3] and faces.visibility.sum() == 28 + 29
    assert (faces.age.tolist(), faces.gender.tolist(), faces.race.tolist()) == ([7, 0], [1, 0], [4, 0])


def test_a_crop_has_the_same_map_alone_and_in_any_batch_and_one_pass_tells_all(network):
    parser = FaceXFormerParser(network)
    crops = torch.rand(2, 3, 96, 80, generator=torch.Generator().manual_seed(0)) * 2 - 1
    maps = parser.parse(crops)
    assert maps.shape == (2, 224, 224) and maps.dtype == np.uint8 and len(np.unique(maps)) > 3 and maps.max() <= 10
    faces = parser.describe(crops[1:])
    assert np.array_equal(faces.parsing[0], maps[1])
    with torch.inference_mode():
        pixels = described(maps[1:], {k: v.numpy() for k, v in network(prepare(crops[1:])).items()})
    for field in dataclasses.fields(faces):
        assert np.array_equal(getattr(faces, field.name), getattr(pixels, field.name)), field.name
    assert parser.parse(crops[:0]).shape == (0, 224, 224) and parser.describe(crops[:0]).landmarks.shape == (0, 68, 2)


def test_reduced_precision_keeps_almost_all_classes_and_fills_up_its_last_batch(network, run):
    parser = FaceXFormerParser(network, batch=2, precision=torch.bfloat16)
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    image = (golden.noise() * std + mean) * 2 - 1
    (found,) = parser.parse(image)
    assert 0.9 < (found == GOLDEN["noise/argmax_f64"]).mean() < 1


class _Loud(torch.nn.Module):
    """Stands for the network: its numbers are right in float32 and too large for half precision."""

    def encode(self, images):
        return images, images

    def segment(self, images, _):
        weights = torch.linspace(-900, 900, 11).reshape(11, 1, 1, 1)
        return torch.nn.functional.conv2d(images[:, :1] * 1000, weights)


def test_a_batch_that_half_precision_cannot_hold_is_computed_in_float32():
    crops = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1
    maps = [FaceXFormerParser(_Loud(), precision=p).parse(crops) for p in (torch.float32, torch.float16)]
    assert np.array_equal(*maps) and len(np.unique(maps[0])) == 2


def test_pictures_in_bytes_are_refused_by_the_parser(network):
    with pytest.raises(ValueError, match="uint8"):
        FaceXFormerParser(network).parse(torch.zeros(1, 3, 224, 224, dtype=torch.uint8))


def test_the_published_checkpoint_loads_through_a_profile(network, write_profile, tmp_path):
    path = tmp_path / "model.pt"
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    save_weights(path, {"epoch": 12, "state_dict_backbone": state, "optimizer": {"state": {0: {"step": 3.0}}}})
    sections = {"weights": {"facexformer": path}, "segmentation": {"parser": "facexformer"}}
    parser = load_parser(Profile.load(write_profile(**sections)))
    assert parser.name == "facexformer" and (parser.batch, parser.precision) == (1, torch.float32)
    assert digest(parser._network) == KEYS["sha256"]
    assert not any(value.requires_grad for value in parser._network.parameters()) and not parser._network.training
    path.unlink()  # a third of a gigabyte


@pytest.mark.parametrize("half", [True, False])
def test_the_profile_decides_about_half_precision(half, monkeypatch, tmp_path):
    (tmp_path / "model.pt").touch()
    path = tmp_path / "own.toml"
    lines = ['extends = "demo"', f"half = {str(half).lower()}", "[weights]", f"facexformer = '{tmp_path / 'model.pt'}'"]
    path.write_text("\n".join([*lines, "[segmentation]", "parser = 'facexformer'"]))
    monkeypatch.setitem(PARSERS, "facexformer", lambda *arguments: arguments)
    assert load_parser(Profile.load(path), "cuda") == (tmp_path / "model.pt", "cuda", half)
    monkeypatch.setattr(FaceXFormerParser, "load", lambda *arguments: arguments)
    reader = load_head_pose("facexformer", Profile.load(path), "cuda")
    assert reader._parser == (tmp_path / "model.pt", "cuda", half)


def test_a_plain_state_dict_in_half_precision_loads_too(network, tmp_path):
    path = tmp_path / "half.pt"
    save_weights(path, network.state_dict(), half=True)
    loaded = load_facexformer(path)
    for key, value in loaded.state_dict().items():
        expected = network.state_dict()[key]
        assert value.dtype == expected.dtype and torch.allclose(value, expected, rtol=1e-3, atol=1e-6), key
    path.unlink()


WRONG_FILES = {
    "foreign": ({"down.0.0.0.weight": torch.zeros(2)}, r"is not a FaceXFormer(.|\n)*down\.0\.0\.0\.weight"),
    "nested": ({"state_dict_backbone": {"layer.weight": torch.zeros(2)}}, r"is not a FaceXFormer(.|\n)*foreign"),
    "unnamed": ({"state_dict_backbone": torch.zeros(2)}, "is not a FaceXFormer"),
    "partial": (
        {
            "state_dict_backbone": {
                "face_decoder.mask_tokens.weight": torch.zeros(11, 256),
                "linear_fuse.bias": torch.zeros(3),
            }
        },
        r"does not fit FaceXFormer(.|\n)*missing: backbone\.0\.0\.0\.weight.* and 496 more"
        r"(.|\n)*unexpected: linear_fuse\.bias",
    ),
    "shape": (
        {"face_decoder.mask_tokens.weight": torch.zeros(19, 256)},
        r"wrong shape: face_decoder\.mask_tokens\.weight \(file \[19, 256\], expected \[11, 256\]\)",
    ),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_a_wrong_file_is_refused_with_its_name_what_it_holds_and_the_cure(name, tmp_path):
    content, message = WRONG_FILES[name]
    path: Path = tmp_path / f"{name}.pt"
    save_weights(path, content)
    with pytest.raises(PipelineError, match=message) as refused:
        load_facexformer(path)
    assert path.name in str(refused.value) and "state_dict_backbone is the network" in str(refused.value)
