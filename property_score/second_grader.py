"""The second grader: another architecture for the same eight scores, so that no scorer has to judge its own finds.

A small residual network (He et al., 2016) that looks at the whole picture, where the property CNN looks through windows
and has neither skips nor normalisation. It is trained on faces that the property CNN never saw.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.artefacts import load_into, read_weights
from pipeline.recognition import refusal, shape
from property_score.measure import PROPERTIES

WIDTHS = (16, 32, 64, 96, 112)  # channels at 1/2, 1/4, ... 1/32 of the picture's side
SQUEEZED, GRID, HIDDEN, DROPOUT = 32, 4, 128, 0.2
CURE = "use the profile's file, or train one: python -m property_score.train_bundled --network second_grader"


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut; halves the picture's side."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(inner + self.shortcut(F.avg_pool2d(x, 2)))


class SecondGrader(nn.Module):
    """Pictures float32 [N, 3, R, R] RGB in [-1, 1], R a multiple of 32, to z-scores [N, 8] in the order of PROPERTIES.

    width: factor on the channel counts. ValueError for another resolution.
    """

    def __init__(self, resolution: int = 128, width: float = 1.0):
        super().__init__()
        if resolution % 32:
            raise ValueError(f"the second grader reads pictures whose side is a multiple of 32, got {resolution}")
        widths = [max(8, round(width * channels)) for channels in WIDTHS]
        self.stem = nn.Conv2d(3, widths[0], 4, stride=2, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))
        self.squeeze = nn.Conv2d(widths[-1], SQUEEZED, 1)
        self.hidden = nn.Linear(SQUEEZED * GRID * GRID, HIDDEN)
        self.dropout = nn.Dropout(DROPOUT)
        self.head = nn.Linear(HIDDEN, len(PROPERTIES))
        self.register_buffer("settings", torch.tensor([float(resolution), width]))
        self.resolution, self.outputs = resolution, len(PROPERTIES)

    def forward(self, images: Tensor) -> Tensor:
        """Scores [N, 8]; ValueError for pictures of another size."""
        if images.shape[-2:] != (self.resolution, self.resolution):
            raise ValueError(
                f"the second grader is for {self.resolution}x{self.resolution} pictures, got {tuple(images.shape)}"
            )
        x = F.relu(self.stem(images))
        for block in self.blocks:
            x = block(x)
        x = F.adaptive_avg_pool2d(F.relu(self.squeeze(x)), GRID)
        return self.head(self.dropout(F.relu(self.hidden(x.flatten(1)))))


def is_second_grader(state: Mapping[str, Any]) -> bool:
    """Tell whether a dict of tensors looks like a SecondGrader."""
    return "blocks.0.shortcut.weight" in state and shape(state, "settings") == (2,)


def load_second_grader(path: Path | str, device: str | torch.device = "cpu") -> SecondGrader:
    """The second grader of a file in eval mode, resolution and width read off it; PipelineError if it is none."""
    state = read_weights(path)
    if not is_second_grader(state):
        raise refusal(f"{path} is not a second grader", state, CURE)
    resolution, width = state["settings"].tolist()
    network = SecondGrader(round(resolution), width)
    load_into(network, state, path, CURE)
    return network.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
