"""The property CNN: eight property scores read from the pixels of fixed windows, as one network."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from cnn.fit import Window, fit_stack
from cnn.stack import ConvStack
from pipeline.artefacts import load_into, read_weights
from pipeline.errors import PipelineError
from property_score.measure import PROPERTIES

MERGED_FILE = "merged_property_cnn.pth"
_DEEP = "32 64 P 64 P 128 P 128 P 128"

# name of the sub-network: window, layers at 256x256, outputs
SUBNETS: dict[str, tuple[Window, str, int]] = {
    "eyes_score_cnn": (Window(3 / 8, 9 / 16, 1 / 4, 3 / 4), "32 64 P 64 P 128 P", 1),
    "mouth_score_cnn": (Window(5 / 8, 13 / 16, 3 / 8, 5 / 8), "32 64 P 64 P 128 P", 1),
    "pose_score_cnn": (Window(7 / 16, 5 / 8, 11 / 32, 21 / 32), "32 64 P 64 P 128 128", 1),
    "hair_color_score_cnn": (Window(), "32 64 P 64 P 128 P 128 P 128 P", 1),
    "hair_length_score_cnn": (Window(1 / 2, 1, 0, 1), _DEEP, 1),
    "background_score_cnn": (Window(0, 1 / 2, 0, 1), _DEEP, 2),
}
OUTPUT_ORDER = ("eyes", "hair_color", "hair_length", "mouth", "pose", "background")  # then hairstyle
HAIRSTYLE_WINDOWS = {
    "bottom_left_cnn": Window(1 / 2, 1, 0, 3 / 8),
    "bottom_right_cnn": Window(1 / 2, 1, 5 / 8, 1),
}
HAIRSTYLE_LAYERS = "32 64 P 64 P 96 P 128 128"
CANDIDATE_RESOLUTIONS = (16, 32, 64, 128, 256, 512, 1024)


class WindowCNN(ConvStack):
    """One sub-network: a window of the picture to `outputs` scores."""

    def __init__(self, window: Window, layers: str, outputs: int, resolution: int, width: float):
        super().__init__(fit_stack(layers, *window.size(resolution), width))
        head = max(8, round(256 * width))
        self.window = window
        self.fc1 = nn.Sequential(nn.Linear(self.stack.flat, head), nn.Tanh(), nn.Dropout(0.45))
        self.fc_final = nn.Linear(head, outputs)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores [N, outputs] of images [N, 3, R, R] in [-1, 1]."""
        return self.fc_final(self.fc1(self.features(self.window.crop(images))))


class HairstyleCNN(nn.Module):
    """Hairstyle (straight low, curly high) from two towers on the lower left and lower right of the picture."""

    def __init__(self, resolution: int = 256, width: float = 1.0):
        super().__init__()
        head, flat = max(8, round(512 * width)), 0
        for name, window in HAIRSTYLE_WINDOWS.items():
            tower = ConvStack(fit_stack(HAIRSTYLE_LAYERS, *window.size(resolution), width))
            self.add_module(name, tower)
            flat += tower.stack.flat
        self.fc1 = nn.Sequential(nn.Linear(flat, head), nn.Tanh(), nn.Dropout(0.25))
        self.fc_final = nn.Linear(head, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Score [N, 1] of images [N, 3, R, R] in [-1, 1]."""
        towers = [getattr(self, name).features(window.crop(images)) for name, window in HAIRSTYLE_WINDOWS.items()]
        return self.fc_final(self.fc1(torch.cat(towers, dim=1)))


class MergedPropertyCNN(nn.Module):
    """The property CNN; at resolution 256 and width 1 its keys and shapes are those of the published files.

    Input [N, 3, R, R] RGB in [-1, 1]; output [N, 8] z-scores in the order of PROPERTIES, or [N, 7] without the
    hairstyle towers (`hairstyle=False`, the first published layout). Windows and layers: see SUBNETS; layers that a
    smaller picture cannot hold are dropped by the rule of cnn.stack.
    """

    def __init__(self, resolution: int = 256, width: float = 1.0, hairstyle: bool = True):
        super().__init__()
        if width < 1 / 8 or width * 32 != round(width * 32):
            raise ValueError(f"width must be a multiple of 1/32 from 1/8 on, so that a file tells it; got {width}")
        self.resolution, self.width, self.has_hairstyle = resolution, width, hairstyle
        for name, (window, layers, outputs) in SUBNETS.items():
            self.add_module(name, WindowCNN(window, layers, outputs, resolution, width))
        if hairstyle:
            self.hairstyle_score_cnn = HairstyleCNN(resolution, width)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores [N, 8 or 7] of images [N, 3, R, R] in [-1, 1]; ValueError for another size."""
        if images.shape[-2:] != (self.resolution, self.resolution):
            raise ValueError(f"the property CNN is for {self.resolution}x{self.resolution} pictures, "
                             f"got {tuple(images.shape)}")
        parts = [getattr(self, f"{name}_score_cnn")(images) for name in OUTPUT_ORDER]
        if self.has_hairstyle:
            parts.append(self.hairstyle_score_cnn(images))
        return torch.cat(parts, dim=1)


def _architecture(state: dict[str, torch.Tensor], source: Path) -> dict:
    """Arguments of MergedPropertyCNN that a state dict was made with, read off its shapes."""
    first = state.get("eyes_score_cnn.conv1.0.weight")
    if first is None:
        raise PipelineError(f"{source} is not a property CNN: it has no key 'eyes_score_cnn.conv1.0.weight'. "
                            "Name a file written by run_property_cnn.py, or a published merged property CNN.")
    width = first.shape[0] / 32
    hairstyle = any(re.match(r"hairstyle_score_cnn\.", key) for key in state)
    for resolution in CANDIDATE_RESOLUTIONS:
        try:
            stacks = {name: fit_stack(layers, *window.size(resolution), width)
                      for name, (window, layers, _) in SUBNETS.items()}
        except ValueError:
            continue
        shapes = {name: state.get(f"{name}.fc1.0.weight") for name in stacks}
        if all(shapes[name] is not None and shapes[name].shape[1] == stack.flat for name, stack in stacks.items()):
            return {"resolution": resolution, "width": width, "hairstyle": hairstyle}
    raise PipelineError(f"{source}: its layer sizes belong to no property CNN of a known resolution "
                        f"({', '.join(map(str, CANDIDATE_RESOLUTIONS))}). Train one with run_property_cnn.py --train.")


def load_property_cnn(path: str | Path, device: str | torch.device = "cpu") -> MergedPropertyCNN:
    """The property CNN of a file in eval mode, its resolution and width inferred; PipelineError if it does not fit."""
    path = Path(path)
    state = read_weights(path)
    network = MergedPropertyCNN(**_architecture(state, path))
    load_into(network, state, path)
    return network.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)


class CNNScorer:
    """A Scorer that reads the eight property scores from pixels; always in eval mode, independent of the batch size."""

    def __init__(self, network: MergedPropertyCNN, device: str | torch.device = "cpu", batch: int = 64):
        if not network.has_hairstyle:
            raise ValueError("a scorer needs all eight outputs; this property CNN has no hairstyle towers")
        self.network = network.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
        self.device, self.batch = torch.device(device), batch

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu", batch: int = 64) -> CNNScorer:
        """The scorer of a weight file; PipelineError if the file is missing, broken or of another layout."""
        return cls(load_property_cnn(path, device), device, batch)

    @property
    def resolution(self) -> int:
        """Side in pixels of the pictures that the network reads."""
        return self.network.resolution

    @torch.inference_mode()
    def score_tensor(self, images: torch.Tensor) -> torch.Tensor:
        """Scores float32 [N, 8] (order of PROPERTIES, z units) of images [N, 3, R, R] in [-1, 1], on the device."""
        parts = [self.network(chunk.to(self.device, memory_format=torch.channels_last))
                 for chunk in images.split(self.batch)]
        return torch.cat(parts) if parts else torch.empty(0, len(PROPERTIES), device=self.device)

    def score(self, images: torch.Tensor) -> pd.DataFrame:
        """Table of the eight scores (z units) and `reason`, which is empty: pixels can always be read."""
        frame = pd.DataFrame(self.score_tensor(images).cpu().numpy().astype(np.float64), columns=list(PROPERTIES))
        frame["reason"] = ""
        return frame
