"""The property CNN: eight property scores read from the pixels of fixed windows, as one network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from cnn.fit import Window, fit_stack
from cnn.stack import ConvStack
from pipeline.artefacts import digest, load_into, provenance_of, read_weights
from pipeline.recognition import refusal, shape
from property_score.measure import PROPERTIES
from property_score.second_grader import SecondGrader, is_second_grader, load_second_grader

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
CURE = "use a published property CNN or one written by run_property_cnn.py, or train one: run_property_cnn.py --train"


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
    smaller picture cannot hold are dropped by the rule of cnn.fit.
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
            raise ValueError(
                f"the property CNN is for {self.resolution}x{self.resolution} pictures, got {tuple(images.shape)}"
            )
        parts = [getattr(self, f"{name}_score_cnn")(images) for name in OUTPUT_ORDER]
        if self.has_hairstyle:
            parts.append(self.hairstyle_score_cnn(images))
        return torch.cat(parts, dim=1)


def property_settings(state: Mapping[str, Any]) -> dict[str, Any] | None:
    """Arguments of the MergedPropertyCNN that has these keys and shapes; None when they describe none."""
    hairstyle = any(key.startswith("hairstyle_score_cnn.") for key in state)
    heads = {f"{name}.fc1.0.weight": [(window, layers)] for name, (window, layers, _) in SUBNETS.items()}
    settings = _sizes(state, "eyes_score_cnn", heads)
    return settings and {**settings, "hairstyle": hairstyle}


def hairstyle_settings(state: Mapping[str, Any]) -> dict[str, Any] | None:
    """Arguments of the HairstyleCNN that has these keys and shapes; None when they describe none."""
    towers = [(window, HAIRSTYLE_LAYERS) for window in HAIRSTYLE_WINDOWS.values()]
    return _sizes(state, "bottom_left_cnn", {"fc1.0.weight": towers})


def _sizes(state: Mapping[str, Any], first: str, heads: dict[str, list[tuple[Window, str]]]) -> dict[str, Any] | None:
    """Resolution and width at which every head has the inputs that its windows and layers give."""
    channels = shape(state, f"{first}.conv1.0.weight", 4)
    flats = {key: shape(state, key, 2)[1:] for key in heads}
    for resolution in CANDIDATE_RESOLUTIONS if channels else ():
        width = channels[0] / 32
        try:
            fitted = {
                key: sum(fit_stack(layers, *window.size(resolution), width).flat for window, layers in parts)
                for key, parts in heads.items()
            }
        except ValueError:
            continue
        if all(flats[key] == (flat,) for key, flat in fitted.items()):
            return {"resolution": resolution, "width": width}
    return None


def load_property_cnn(path: str | Path, device: str | torch.device = "cpu") -> MergedPropertyCNN:
    """The property CNN of a file, 8 or 7 scores, in eval mode, its settings inferred; PipelineError if it is none."""
    state = read_weights(path)
    if "eyes_score_cnn.conv1.0.weight" not in state:
        raise refusal(f"{path} is not a property CNN", state, CURE)
    settings = property_settings(state)
    if settings is None:
        known = ", ".join(map(str, CANDIDATE_RESOLUTIONS))
        raise refusal(f"{path}: its layer sizes belong to no property CNN of a known resolution ({known})", state, CURE)
    return _loaded(MergedPropertyCNN(**settings), state, path, device)


def load_hairstyle_cnn(path: str | Path, device: str | torch.device = "cpu") -> HairstyleCNN:
    """The hairstyle CNN of a published file in eval mode, its settings inferred; PipelineError if it is none."""
    state = read_weights(path)
    settings = hairstyle_settings(state)
    if settings is None:
        raise refusal(f"{path} is not a hairstyle CNN", state, "give the file ohlora_v3_hairstyle_property_cnn.pth")
    return _loaded(HairstyleCNN(**settings), state, path, device)


def merge_property_cnns(scores: MergedPropertyCNN, hairstyle: HairstyleCNN) -> MergedPropertyCNN:
    """One network of eight scores out of a published one of seven and the hairstyle CNN, as published with v3."""
    merged = MergedPropertyCNN(scores.resolution, scores.width)
    towers = {f"hairstyle_score_cnn.{key}": value for key, value in hairstyle.state_dict().items()}
    load_into(merged, {**scores.state_dict(), **towers}, "the merged property CNN")
    return merged.to(next(scores.parameters()).device, memory_format=torch.channels_last).eval().requires_grad_(False)


def _loaded(network: nn.Module, state: Mapping[str, Any], path: str | Path, device: str | torch.device) -> nn.Module:
    load_into(network, state, path, CURE)
    return network.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)


def weight_record(path: str | Path) -> dict[str, Any]:
    """What the JSON beside a weight file tells of the faces it was trained on and the units of its scores.

    sha256; trained_on: their seeds in the grammar of `pipeline.seeds`; normalisation: that of its z-scores. The last
    two are absent where the file does not say.
    """
    provenance = provenance_of(path)
    known = {name: provenance[name] for name in ("trained_on", "normalisation") if name in provenance}
    return {"sha256": digest(path), **known}


class CNNScorer:
    """A Scorer that reads the eight property scores from pixels; always in eval mode, independent of the batch size.

    network: a MergedPropertyCNN with hairstyle towers or a SecondGrader. record: what its weight file tells of it.
    """

    def __init__(
        self,
        network: MergedPropertyCNN | SecondGrader,
        device: str | torch.device = "cpu",
        batch: int = 64,
        record: Mapping[str, Any] | None = None,
    ):
        if not getattr(network, "has_hairstyle", True):
            raise ValueError("a scorer needs all eight outputs; this property CNN has no hairstyle towers")
        self.record = dict(record or {})
        self.network = network.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
        self.device, self.batch = torch.device(device), batch

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu", batch: int = 64) -> CNNScorer:
        """The scorer of a property CNN's or second grader's weight file; PipelineError if the file is neither."""
        state = read_weights(path)
        network = load_second_grader(path, device) if is_second_grader(state) else load_property_cnn(path, device)
        if not getattr(network, "has_hairstyle", True):
            cure = "use the merged property CNN, or join this one with the hairstyle CNN (merge_property_cnns)"
            raise refusal(f"{path} is not a property CNN of eight scores", state, cure)
        return cls(network, device, batch, weight_record(path))

    @property
    def provenance(self) -> dict[str, Any]:
        """What distinguishes this scorer from another, for tables and reports."""
        kind = "second grader" if isinstance(self.network, SecondGrader) else "property CNN"
        return {"scorer": kind, "resolution": self.resolution, "units": "z", **self.record}

    @property
    def resolution(self) -> int:
        """Side in pixels of the pictures that the network reads."""
        return self.network.resolution

    @torch.inference_mode()
    def score_tensor(self, images: torch.Tensor) -> torch.Tensor:
        """Scores float32 [N, 8] (order of PROPERTIES, z units) of images [N, 3, R, R] in [-1, 1], on the device."""
        parts = [
            self.network(chunk.to(self.device, memory_format=torch.channels_last)) for chunk in images.split(self.batch)
        ]
        return torch.cat(parts) if parts else torch.empty(0, len(PROPERTIES), device=self.device)

    def score(self, images: torch.Tensor) -> pd.DataFrame:
        """Table of the eight scores (z units) and `reason`, which is empty: pixels can always be read."""
        frame = pd.DataFrame(self.score_tensor(images).cpu().numpy().astype(np.float64), columns=list(PROPERTIES))
        frame["reason"] = ""
        return frame
