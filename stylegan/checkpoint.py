"""StyleGAN checkpoints: the shape of a net is read from its keys, loading is strict, every mismatch is named."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline.artefacts import digest, load_into, read_weights, save_weights
from pipeline.errors import PipelineError
from pipeline.recognition import refusal
from stylegan.discriminator import Discriminator
from stylegan.generator import Generator
from stylegan.weight_kinds import NETS, discriminator_settings, generator_settings

GENERATOR_CURE = "give a StyleGAN v1 file: the state dict of a generator, or a dict with 'generator'"
DISCRIMINATOR_CURE = "give a StyleGAN v1 file: the state dict of a discriminator, or a dict with 'discriminator'"


def load_generator(
    path: Path | str,
    device: torch.device | str = "cpu",
    which: str | None = None,
    resolution: int | None = None,
) -> Generator:
    """Read a generator in eval mode, its settings inferred from the keys.

    The file may be a plain state dict, {generator, discriminator, generator_smooth} or {"models": that}. which: the
    entry to take; None takes generator_smooth (the running average) if present, else generator. resolution: the one
    that is wanted, None for any. PipelineError names the file, what it looks like, and what does not fit.
    """
    table = read_models(path)
    names = [which] if which else ["generator_smooth", "generator"]
    name = next((name for name in names if name in table), None)
    if name is None:
        raise refusal(f"{path} has no {' or '.join(names)}", table, GENERATOR_CURE)
    state = table[name]
    settings = generator_settings(state)
    if settings is None:
        raise refusal(f"{path} is not a StyleGAN generator", state, GENERATOR_CURE)
    if resolution not in (None, settings["resolution"]):
        cure = "name the right file in [weights] of the profile, or mend its resolution"
        raise refusal(f"{path} is not a StyleGAN generator of {resolution}x{resolution} pictures", state, cure)
    generator = Generator(**settings)
    load_into(generator, state, path, GENERATOR_CURE)
    return generator.eval().to(device)


def load_discriminator(
    path: Path | str, device: torch.device | str = "cpu", minibatch_std_group: int | None = None
) -> Discriminator:
    """Read a discriminator in eval mode, its settings inferred from the keys; files as in `load_generator`.

    minibatch_std_group is in no key: None takes 16 for the form with an appended label (as published), else 4.
    """
    table = read_models(path, plain="discriminator")
    if "discriminator" not in table:
        raise refusal(f"{path} has no discriminator", table, DISCRIMINATOR_CURE)
    state = table["discriminator"]
    settings = discriminator_settings(state)
    if settings is None:
        raise refusal(f"{path} is not a StyleGAN discriminator", state, DISCRIMINATOR_CURE)
    group = minibatch_std_group or (16 if settings["label_concat"] else 4)
    discriminator = Discriminator(**settings, minibatch_std_group=group)
    load_into(discriminator, state, path, DISCRIMINATOR_CURE)
    return discriminator.eval().to(device)


def save_checkpoint(path: Path | str, half: bool = False, **models: Any) -> None:
    """Write {name: state dict} for modules or state dicts given by name; other values (step=7) become provenance.

    half stores float16, which halves the file and moves images by well below one 8-bit step on average.
    """
    table, provenance = {}, {}
    for name, value in models.items():
        if isinstance(value, torch.nn.Module):
            table[name] = value.state_dict()
        elif isinstance(value, Mapping):
            table[name] = dict(value)
        else:
            provenance[name] = value
    save_weights(path, table, half=half, **provenance)


def save_beside(path: Path | str, generator: torch.nn.Module, base: Path | str, **provenance: Any) -> None:
    """Write of a generator only the tensors that differ from those of the file `base`, in half precision.

    A fine-tuned net that trained its mapping alone takes a third of the room. `base` must stay in the same folder:
    the file remembers its name and sha256, and `read_models` joins the two. PipelineError where both are one file.
    """
    base = Path(base)
    if Path(path).resolve() == base.resolve():
        raise PipelineError(f"{path} is the base that the file is to lean on: give another name")
    known = _generator_of(base)
    own = {
        key: value
        for key, value in generator.state_dict().items()
        if key not in known or known[key].shape != value.shape or not torch.equal(known[key], value.cpu())
    }
    rest = {"file": base.name, "sha256": digest(base)}
    save_weights(path, {"generator": own, "rest": rest}, half=True, **provenance)


def read_models(path: Path | str, plain: str = "generator") -> dict[str, dict[str, torch.Tensor]]:
    """The model table of a checkpoint file; a plain state dict becomes the entry named by `plain`.

    A file of `save_beside` is joined with the one that holds its other tensors; PipelineError if that is not there or
    not the same.
    """
    content = read_weights(path)
    models = content.get("models")
    held = models if isinstance(models, Mapping) else content
    table = {name: held[name] for name in NETS if isinstance(held.get(name), Mapping)} or {plain: content}
    rest = content.get("rest")
    if isinstance(rest, Mapping) and "generator" in table:
        base = Path(path).with_name(str(rest.get("file")))
        if not base.is_file() or digest(base) != rest.get("sha256"):
            raise PipelineError(
                f"{path} holds only what differs from {base}, and that file is "
                f"{'another one now' if base.is_file() else 'missing'}: put both files of one release side by side, or "
                "train this one anew"
            )
        table["generator"] = {**_generator_of(base), **table["generator"]}
    return table


def _generator_of(path: Path | str) -> dict[str, torch.Tensor]:
    models = read_models(path)
    if "generator" not in models:
        raise PipelineError(f"{path} holds {', '.join(models)} and no generator, on which another file could lean")
    return models["generator"]


def generator_hash(generator: torch.nn.Module) -> str:
    """sha256 of all parameters and buffers: what a direction or a pool belongs to."""
    total = hashlib.sha256()
    for key, value in sorted(generator.state_dict().items()):
        total.update(f"{key} {list(value.shape)}\n".encode())
        total.update(value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()
