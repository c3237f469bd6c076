"""Filter CNN weight files: what they look like."""

from collections.abc import Mapping
from typing import Any

from cnn.fit import POOL, fit_stack
from cnn.settings import FILTERS
from pipeline.recognition import shape

RESOLUTIONS = (256, 128, 64, 32, 512, 1024)
CHANNELS = 32  # of the first convolution as published


def kind(content: Mapping[str, Any]) -> str:
    """Say which filter CNN this is, "" for others."""
    convolutions = [found for k in range(1, 7) if (found := shape(content, f"conv{k}.0.weight", 4))]
    hidden, last = shape(content, "fc1.0.weight", 2), shape(content, "fc_final.0.weight", 2)
    if not convolutions or convolutions[0][2:] != (3, 3) or not hidden or not last:
        return ""
    channels, width = [found[0] for found in convolutions], convolutions[0][0] / CHANNELS
    fitting = [
        (name, f"{resolution}x{resolution}")
        for resolution in RESOLUTIONS
        for name in FILTERS
        if _fits(name, resolution, width, channels, hidden[1])
    ]
    if not fitting:
        return f"filter CNN of {len(channels)} convolutions and {hidden[1]} features"
    if width == 1:  # keys do not always tell the resolution; of full width are the published ones, which come first
        fitting = [(name, size) for name, size in fitting if size == fitting[0][1]]
    names, sizes = (" or ".join(dict.fromkeys(column)) for column in zip(*fitting))
    return f"filter CNN ({names}), {sizes}{'' if width == 1 else ', narrowed'}"


def _fits(name: str, resolution: int, width: float, channels: list[int], flat: int) -> bool:
    setting = FILTERS[name]
    try:
        stack = fit_stack(setting.layers, *setting.window.size(resolution), width)
    except ValueError:
        return False
    return stack.flat == flat and [step for step in stack.steps if step != POOL] == channels
