"""A weight file loads whole or not at all, and a wrong one is refused with what it is, what was wanted and a cure."""

from __future__ import annotations

import os
import pickle
import re
import tarfile
import zipfile

import pytest
import torch
import weight_files
from weight_files import LOADERS, discriminator, facexformer_state, generator, load_gender_cnn, states

from cnn.filter_cnn import FilterCNN
from pipeline.artefacts import load_into, read_weights
from pipeline.errors import PipelineError
from pipeline.recognition import describe
from property_score.property_cnn import MergedPropertyCNN, load_property_cnn
from stylegan.checkpoint import load_discriminator, load_generator


@pytest.fixture(scope="module")
def small_files(tmp_path_factory):
    """Path of a small file of each kind."""
    folder = tmp_path_factory.mktemp("kinds")
    paths = {kind: folder / f"{number}.pth" for number, kind in enumerate(states())}
    for kind, state in states().items():
        torch.save(state, paths[kind])
    return paths


@pytest.mark.parametrize("kind", LOADERS)
def test_every_kind_is_recognised_and_read_by_its_own_loader(small_files, kind):
    assert describe(read_weights(small_files[kind])) == kind
    if kind != "FaceXFormer checkpoint":  # the small one has too few keys to load
        assert LOADERS[kind](small_files[kind]) is not None


@pytest.mark.parametrize("wanted", LOADERS)
def test_every_loader_refuses_the_files_of_all_others_and_says_what_they_are(small_files, wanted):
    for kind, path in small_files.items():
        if kind == wanted:
            continue
        with pytest.raises(PipelineError) as refused:
            LOADERS[wanted](path)
        message = str(refused.value)
        first = next(iter(read_weights(path)))
        for words in (path.name, f"looks like: {kind}\n", f"its keys: {first}", "cure: "):
            assert words in message, (kind, message)


def truncated(path):
    torch.save(generator().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-2000])


def html(path):
    path.write_text("\n<!DOCTYPE html><html><title>Sign in</title></html>")


class Code:
    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def code(path):
    harm = Code()
    harm.mark = path.with_suffix(".ran")
    torch.save({"generator": harm}, path)


def bare_pickle(path):
    path.write_bytes(pickle.dumps({"weight": [1.0]}))


def whole_module(path):
    torch.save(generator(), path)


def pointer(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 104\n")


def tar(path):
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "readme.txt")


def gzipped_tar(path):
    with tarfile.open(path, "w:gz") as archive:
        archive.add(__file__, "readme.txt")


def foreign_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/weights.pth", "x")


def script(path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)


def safetensors(path):
    path.write_bytes((60).to_bytes(8, "little") + b'{"weight":{"dtype":"F32"}}')


NO_WEIGHTS = {
    "truncated": (truncated, "truncated or damaged"),
    "HTML page saved as .pth": (html, "is a web page.*fetch it again"),
    "pickle with code": (code, r"code or objects \((posix|nt)\.system\), expected a dict of plain tensors"),
    "bare pickle": (bare_pickle, "more than plain tensors"),
    "whole module": (whole_module, r"code or objects \(stylegan\.generator\.Generator\)"),
    "LFS pointer": (pointer, "Git LFS pointer.*git lfs pull"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "folder": (lambda path: path.mkdir(), "is a folder; name the file inside"),
    "nothing there": (lambda path: None, "is missing"),
    "tar": (tar, "tar or gzip archive; unpack it"),
    "tar.gz": (gzipped_tar, "tar or gzip archive; unpack it"),
    "zip without weights": (foreign_zip, r"zip archive of model/weights\.pth; unpack it"),
    "error text": (lambda path: path.write_text("Entry not found"), "begins with b'Entry not found'.*fetch it again"),
    "TorchScript": (script, "TorchScript program; get the file that holds its state dict"),
    "safetensors": (safetensors, "safetensors file"),
    "list": (lambda path: torch.save([torch.zeros(2)], path), "holds a list, expected a dict of tensors"),
    "tensor": (lambda path: torch.save(torch.zeros(2), path), "holds a Tensor, expected a dict of tensors"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NO_WEIGHTS)
def test_what_is_no_file_of_weights_is_refused_by_every_loader(tmp_path, name):
    make, words = NO_WEIGHTS[name]
    make(tmp_path / "wrong.pth")
    for load in LOADERS.values():
        with pytest.raises(PipelineError, match=rf"weight file .*wrong\.pth.*{words}"):
            load(tmp_path / "wrong.pth")
    assert not (tmp_path / "wrong.ran").exists(), "code of the file was run"


def without(state, key):
    return {name: value for name, value in state.items() if name != key}


def spoiled(state, key):
    value = state[key].clone()
    value.view(-1)[0] = float("nan")
    return {**state, key: value}


def pair(first, second):
    return {"generator": first.state_dict(), "discriminator": second.state_dict()}


G, D = generator().state_dict(), discriminator().state_dict()
KEY = "synthesis.layer3.weight"

# what the file holds, loader, what the message says in this order
WRONG = {
    "discriminator as generator": (
        lambda: D,
        load_generator,
        "is not a StyleGAN generator",
        "looks like: StyleGAN discriminator, 16x16",
    ),
    "generator as discriminator": (
        lambda: G,
        load_discriminator,
        "is not a StyleGAN discriminator",
        "looks like: StyleGAN generator, 16x16",
    ),
    "swapped, read as generator": (
        lambda: pair(discriminator(), generator()),
        load_generator,
        "is not a StyleGAN generator",
        "looks like: StyleGAN discriminator, 16x16",
    ),
    "swapped, read as discriminator": (
        lambda: {"models": pair(discriminator(), generator())},
        load_discriminator,
        "is not a StyleGAN discriminator",
        "looks like: StyleGAN generator, 16x16",
    ),
    "discriminator alone in a checkpoint": (
        lambda: {"discriminator": D},
        load_generator,
        "has no generator_smooth or generator",
        r"looks like: StyleGAN checkpoint with discriminator \(StyleGAN disc",
    ),
    "wrong resolution": (
        lambda: G,
        lambda path: load_generator(path, resolution=32),
        "is not a StyleGAN generator of 32x32",
        "looks like: StyleGAN generator, 16x16",
    ),
    "filter CNN of another resolution": (
        lambda: FilterCNN("gender", 32, 0.25, 16).state_dict(),
        load_gender_cnn,
        r"does not fit FilterCNN \(filter CNN \(gender\), 128",
        "looks like: .*or 32x32",
        "wrong shape: fc1",
    ),
    "filter CNN of another property": (
        lambda: FilterCNN("glass", 64, 0.25, 16).state_dict(),
        load_gender_cnn,
        "does not fit FilterCNN",
        r"looks like: filter CNN \(glass",
    ),
    "FaceXFormer as StyleGAN": (
        lambda: {"state_dict_backbone": facexformer_state()},
        load_generator,
        "is not a StyleGAN generator",
        "looks like: FaceXFormer checkpoint",
        "its keys: state_dict_backbone",
    ),
    "one key missing": (
        lambda: without(G, KEY),
        load_generator,
        r"does not fit Generator \(StyleGAN generator, 16x16\)",
        f"missing: {re.escape(KEY)}\n",
    ),
    "one key missing that tells the sizes": (
        lambda: without(G, "mapping.dense0.weight"),
        load_generator,
        "is not a StyleGAN generator",
        "looks like: StyleGAN generator, incomplete",
    ),
    "one key too many": (lambda: {**G, "extra": torch.zeros(1)}, load_generator, "does not fit", "unexpected: extra\n"),
    "a NaN": (lambda: spoiled(G, KEY), load_generator, "does not fit Generator", f"not finite: {re.escape(KEY)}\n"),
    "a NaN in a discriminator": (
        lambda: spoiled(D, "layer0.weight"),
        load_discriminator,
        "does not fit",
        "not finite: layer0.weight\n",
    ),
    "another shape": (
        lambda: {**G, KEY: torch.zeros(8, 8, 5, 5)},
        load_generator,
        rf"wrong shape: {re.escape(KEY)} \(file \[8, 8, 5, 5\], expected \[8, 8, 3, 3\]\)",
    ),
    "whole numbers for weights": (
        lambda: {**G, KEY: G[KEY].to(torch.int8)},
        load_generator,
        r"wrong shape: .*\(file \[8, 8, 3, 3\] whole",
    ),
    "a number for a tensor": (lambda: {**G, KEY: 3.0}, load_generator, r"wrong shape: .*\(file float, expected"),
    "property CNN with a missing tower": (
        lambda: without(MergedPropertyCNN(32, 0.125).state_dict(), "pose_score_cnn.conv1.0.bias"),
        load_property_cnn,
        "does not fit MergedPropertyCNN",
        "looks like: property CNN, 8",
        "missing: pose_score_cnn.conv1.0.bias\n",
    ),
    "something else": (
        lambda: {"conv.weight": torch.zeros(3, 3)},
        load_property_cnn,
        "is not a property CNN",
        "looks like: no weight file that this project knows",
        "its keys: conv.weight\n",
    ),
    "empty dict": (dict, load_generator, "is not a StyleGAN generator", "its keys: none"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_refused_with_what_it_is_and_a_cure(tmp_path, name):
    make, load, *words = WRONG[name]
    torch.save(make(), tmp_path / "wrong.pth")
    with pytest.raises(PipelineError, match="(?s)wrong.pth.*" + ".*".join([*words, "cure: "])):
        load(tmp_path / "wrong.pth")


@pytest.mark.parametrize("name", [name for name, row in WRONG.items() if row[1] is load_generator])
def test_a_refused_file_leaves_the_net_as_it_was(name):
    net = weight_files.generator()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(PipelineError):
        load_into(net, WRONG[name][0](), "wrong.pth")
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("kind", [kind for kind in LOADERS if kind != "FaceXFormer checkpoint"])
def test_files_of_parallel_training_load_with_their_prefix(tmp_path, kind):
    state = states()[kind]
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "parallel.pth")
    assert describe(read_weights(tmp_path / "parallel.pth")) == kind
    assert LOADERS[kind](tmp_path / "parallel.pth") is not None
