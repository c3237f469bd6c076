"""StyleGAN checkpoints: the shape of a net is read from its keys, loading is strict, every mismatch is named."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline.artefacts import load_into, read_weights, save_weights
from pipeline.errors import PipelineError
from stylegan.discriminator import Discriminator
from stylegan.generator import Generator

NAMES = ("generator", "discriminator", "generator_smooth")


def load_generator(path: Path | str, device: torch.device | str = "cpu", which: str | None = None) -> Generator:
    """Read a generator in eval mode, its settings inferred from the keys.

    The file may be a plain state dict, {generator, discriminator, generator_smooth} or {"models": that}. which: the
    entry to take; None takes generator_smooth (the running average) if present, else generator. PipelineError names
    the file.
    """
    table = read_models(path)
    names = [which] if which else ["generator_smooth", "generator"]
    state = next((table[name] for name in names if name in table), None)
    if state is None:
        raise PipelineError(f"{path} has no {' or '.join(names)} (it holds {', '.join(table)}); give a generator file")
    generator = Generator(**generator_settings(state, path))
    load_into(generator, state, path)
    return generator.eval().to(device)


def load_discriminator(
    path: Path | str, device: torch.device | str = "cpu", minibatch_std_group: int | None = None
) -> Discriminator:
    """Read a discriminator in eval mode, its settings inferred from the keys; files as in `load_generator`.

    minibatch_std_group is in no key: None takes 16 for the form with an appended label (as published), else 4.
    """
    table = read_models(path, plain="discriminator")
    if "discriminator" not in table:
        raise PipelineError(f"{path} has no discriminator (it holds {', '.join(table)}); give a discriminator file")
    state = table["discriminator"]
    settings = discriminator_settings(state, path)
    group = minibatch_std_group or (16 if settings["label_concat"] else 4)
    discriminator = Discriminator(**settings, minibatch_std_group=group)
    load_into(discriminator, state, path)
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


def read_models(path: Path | str, plain: str = "generator") -> dict[str, dict[str, torch.Tensor]]:
    """The model table of a checkpoint file; a plain state dict becomes the entry named by `plain`."""
    content = read_weights(path)
    content = content.get("models", content)
    table = {name: content[name] for name in NAMES if isinstance(content.get(name), Mapping)}
    if not table:
        table = {plain: content}
    return {name: _without_prefix(state) for name, state in table.items()}


def generator_settings(state: Mapping[str, torch.Tensor], source: Path | str) -> dict[str, Any]:
    """Arguments of the Generator that has these keys and shapes; PipelineError when they describe none."""
    layers = _indices(state, r"synthesis\.layer(\d+)\.bias")
    dense = _shape(state, "mapping.dense0.weight")
    style = _shape(state, "synthesis.layer0.style.weight")
    if len(layers) < 4 or len(layers) % 2 or layers != list(range(len(layers))) or not dense or not style:
        raise PipelineError(f"{source} holds no StyleGAN v1 generator (first keys: {', '.join(list(state)[:3])})")
    resolution = 4 << (len(layers) // 2 - 1)
    channels = {4 << (k // 2): _shape(state, f"synthesis.layer{k}.bias")[0] for k in layers[::2]}
    base, largest = _channel_rule(channels, source)
    label = _shape(state, "mapping.label_weight")
    new = _shape(state, "mapping.dense_new0.weight")
    return {
        "resolution": resolution,
        "channel_base": base,
        "channel_max": largest,
        "label_size": label[0] if label else 0,
        "label_dim": label[1] if label else None,
        "split": bool(new),
        "z_dim": dense[1] - (label[1] if label else 0),
        "w_dim": style[1],
        "mapping_width": dense[0],
        "split_width": new[0] if new else 2048,
    }


def discriminator_settings(state: Mapping[str, torch.Tensor], source: Path | str) -> dict[str, Any]:
    """Arguments of the Discriminator that has these keys and shapes, without the minibatch group."""
    inputs = _indices(state, r"input(\d+)\.bias")
    levels = len(inputs)
    dense = _shape(state, f"layer{2 * levels - 1}.weight")
    last = _shape(state, f"layer{2 * levels}.weight")
    if levels < 2 or inputs != list(range(levels)) or not dense or not last:
        raise PipelineError(f"{source} holds no StyleGAN v1 discriminator (first keys: {', '.join(list(state)[:3])})")
    resolution = 4 << (levels - 1)
    channels = {resolution >> b: _shape(state, f"input{b}.bias")[0] for b in inputs} | {2: dense[0]}
    base, largest = _channel_rule(channels, source)
    appended = last[1] - dense[0]
    return {
        "resolution": resolution,
        "channel_base": base,
        "channel_max": largest,
        "label_size": appended if appended else (last[0] if last[0] > 1 else 0),
        "label_concat": appended > 0,
    }


def generator_hash(generator: torch.nn.Module) -> str:
    """sha256 of all parameters and buffers: what a direction or a pool belongs to."""
    total = hashlib.sha256()
    for key, value in sorted(generator.state_dict().items()):
        total.update(f"{key} {list(value.shape)}\n".encode())
        total.update(value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def _channel_rule(channels: dict[int, int], source: Path | str) -> tuple[int, int]:
    """(channel_base, channel_max) with channels == min(base // resolution, max) at every resolution."""
    largest = max(channels.values())
    # The smallest base that gives these counts; a larger one that rounds down to them builds the same net.
    base = max(c * res for res, c in channels.items())
    wrong = {res: c for res, c in channels.items() if min(base // res, largest) != c}
    if wrong:
        raise PipelineError(f"{source}: channels {channels} follow no rule min(base // resolution, maximum)")
    return base, largest


def _without_prefix(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    if state and all(key.startswith("module.") for key in state):
        return {key[len("module.") :]: value for key, value in state.items()}
    return dict(state)


def _indices(state: Mapping[str, torch.Tensor], pattern: str) -> list[int]:
    return sorted(int(found[1]) for key in state if (found := re.fullmatch(pattern, key)))


def _shape(state: Mapping[str, torch.Tensor], key: str) -> list[int]:
    value = state.get(key)
    return list(value.shape) if hasattr(value, "shape") else []
