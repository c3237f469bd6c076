"""StyleGAN v1 weight files: what they look like, and the settings of a net read off its keys and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pipeline.recognition import shape

NETS = ("generator", "discriminator", "generator_smooth")


def kind(content: Mapping[str, Any]) -> str:
    """Say which StyleGAN file this is, "" for others."""
    models = content.get("models")
    table = models if isinstance(models, Mapping) else content
    held = [f"{name} ({kind(table[name]) or 'unknown'})" for name in NETS if isinstance(table.get(name), Mapping)]
    if held:
        return f"StyleGAN checkpoint with {', '.join(held)}{' under models' if table is models else ''}"
    return _generator(content) or _discriminator(content)


def generator_settings(state: Mapping[str, Any]) -> dict[str, Any] | None:
    """Arguments of the Generator that has these keys and shapes; None when they describe none."""
    layers = _indices(state, r"synthesis\.layer(\d+)\.bias")
    dense = shape(state, "mapping.dense0.weight", 2)
    style = shape(state, "synthesis.layer0.style.weight", 2)
    biases = [shape(state, f"synthesis.layer{k}.bias", 1) for k in layers[::2]]
    whole = layers == list(range(len(layers))) and len(layers) >= 4 and len(layers) % 2 == 0
    if not whole or not dense or not style or not all(biases):
        return None
    rule = _channel_rule({4 << b: bias[0] for b, bias in enumerate(biases)})
    label = shape(state, "mapping.label_weight", 2)
    new = shape(state, "mapping.dense_new0.weight", 2)
    if rule is None:
        return None
    return {
        "resolution": 4 << (len(layers) // 2 - 1),
        "channel_base": rule[0],
        "channel_max": rule[1],
        "label_size": label[0] if label else 0,
        "label_dim": label[1] if label else None,
        "split": bool(new),
        "z_dim": dense[1] - (label[1] if label else 0),
        "w_dim": style[1],
        "mapping_width": dense[0],
        "split_width": new[0] if new else 2048,
    }


def discriminator_settings(state: Mapping[str, Any]) -> dict[str, Any] | None:
    """Arguments of the Discriminator that has these keys and shapes, without the minibatch group; None for others."""
    inputs = _indices(state, r"input(\d+)\.bias")
    levels = len(inputs)
    dense = shape(state, f"layer{2 * levels - 1}.weight", 2)
    last = shape(state, f"layer{2 * levels}.weight", 2)
    biases = [shape(state, f"input{b}.bias", 1) for b in inputs]
    if levels < 2 or inputs != list(range(levels)) or not (dense and last and all(biases)):
        return None
    resolution = 4 << (levels - 1)
    rule = _channel_rule({resolution >> b: bias[0] for b, bias in enumerate(biases)} | {2: dense[0]})
    appended = last[1] - dense[0]
    if rule is None or appended < 0:
        return None
    return {
        "resolution": resolution,
        "channel_base": rule[0],
        "channel_max": rule[1],
        "label_size": appended if appended else (last[0] if last[0] > 1 else 0),
        "label_concat": appended > 0,
    }


def _generator(state: Mapping[str, Any]) -> str:
    settings = generator_settings(state)
    if settings is None:
        parts = {key.split(".")[0] for key in state}
        return "StyleGAN generator, incomplete" if {"mapping", "synthesis"} <= parts else ""
    label = f", {settings['label_size']} labels embedded to {settings['label_dim']}" if settings["label_size"] else ""
    return f"StyleGAN generator, {_square(settings)}{label}{', split mapping' if settings['split'] else ''}"


def _discriminator(state: Mapping[str, Any]) -> str:
    settings = discriminator_settings(state)
    if settings is None:
        parts = {key.split(".")[0] for key in state}
        return "StyleGAN discriminator, incomplete" if {"input0", "input1", "layer0"} <= parts else ""
    how = "appended" if settings["label_concat"] else "as weights of the outputs"
    label = f", {settings['label_size']} labels {how}" if settings["label_size"] else ""
    return f"StyleGAN discriminator, {_square(settings)}{label}"


def _square(settings: dict[str, Any]) -> str:
    return f"{settings['resolution']}x{settings['resolution']}"


def _channel_rule(channels: dict[int, int]) -> tuple[int, int] | None:
    """(channel_base, channel_max) with channels == min(base // resolution, max) at every resolution, if any has."""
    largest = max(channels.values())
    # The smallest base that gives these counts; a larger one that rounds down to them builds the same net.
    base = max(count * resolution for resolution, count in channels.items())
    follows = all(min(base // resolution, largest) == count for resolution, count in channels.items())
    return (base, largest) if follows else None


def _indices(state: Mapping[str, Any], pattern: str) -> list[int]:
    return sorted(int(found[1]) for key in state if (found := re.fullmatch(pattern, key)))
