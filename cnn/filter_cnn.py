"""The filter CNN: one class for gender, quality, age and glass, and the ensemble of its five folds."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from cnn.fit import Window, fit_stack
from cnn.settings import FILTERS, Architecture
from cnn.stack import ConvStack
from pipeline.artefacts import load_into, provenance_of, read_weights
from pipeline.errors import PipelineError


class FilterCNN(ConvStack):
    """One filter CNN; at resolution 256 and width 1 its keys and shapes are those of the published files.

    `width` multiplies the channel counts, `head` is the size of the hidden layer, `window` replaces the published
    crop window. Input [N, 3, R, R] RGB in [0, 1]; output [N, 1], the probability of label 1.
    """

    def __init__(
        self,
        property_name: str,
        resolution: int = 256,
        width: float = 1.0,
        head: int = 512,
        window: Window | None = None,
    ):
        setting = FILTERS[property_name]
        window = window or setting.window
        super().__init__(fit_stack(setting.layers, *window.size(resolution), width))
        self.property_name, self.resolution, self.window = property_name, resolution, window
        self.fc1 = nn.Sequential(nn.Linear(self.stack.flat, head), nn.Tanh(), nn.Dropout(0.45))
        self.fc_final = nn.Sequential(nn.Linear(head, 1), nn.Sigmoid())

    def crop_logits(self, crops: torch.Tensor) -> torch.Tensor:
        """Logits [N] of windows [N, 3, h, w] in [0, 1] that are already cropped."""
        return self.fc_final[0](self.fc1(self.features(crops)))[:, 0]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Probability of label 1 [N, 1] of whole images [N, 3, R, R] in [0, 1]."""
        return torch.sigmoid(self.crop_logits(self.window.crop(images)))[:, None]


def build(property_name: str, architecture: Architecture) -> FilterCNN:
    """A filter CNN with fresh weights."""
    return FilterCNN(property_name, architecture.resolution, architecture.width, architecture.head, architecture.window)


def to_unit(images: torch.Tensor) -> torch.Tensor:
    """Images in [-1, 1] as the filter CNNs want them, in [0, 1]."""
    return images * 0.5 + 0.5


def _check_architecture(path: Path, property_name: str, architecture: Architecture) -> None:
    """PipelineError where the record beside a model tells of another crop or size than the profile gives it."""
    told, wanted = provenance_of(path).get("architecture"), json.loads(json.dumps(architecture.options()))
    if told is not None and told != wanted:
        keys = [key for key in wanted if told.get(key) != wanted[key]]
        raise PipelineError(
            f"{path} was trained with {', '.join(f'{key} {told.get(key)}' for key in keys)}, the profile says "
            f"{', '.join(f'{wanted[key]}' for key in keys)} for {property_name}; mend [cnn] (and [cnn.windows]) of the "
            "profile, or train anew with run_cnn.py --train"
        )


class FilterEnsemble:
    """The fold models of one property in eval mode; its score is the mean of their probabilities."""

    def __init__(self, models: list[FilterCNN]):
        self.models = [model.eval().requires_grad_(False) for model in models]
        self.window = self.models[0].window

    @classmethod
    def load(
        cls, property_name: str, paths: list[Path], architecture: Architecture, device: str | torch.device = "cpu"
    ) -> FilterEnsemble:
        """Models from weight files; PipelineError on a file that does not fit."""
        models = []
        for path in paths:
            model = build(property_name, architecture)
            load_into(model, read_weights(path), path)
            _check_architecture(path, property_name, architecture)
            models.append(model.to(device, memory_format=torch.channels_last))
        return cls(models)

    @torch.inference_mode()
    def model_scores(self, images: torch.Tensor) -> torch.Tensor:
        """Probability of label 1 by each model, [N, models], for images [N, 3, R, R] in [-1, 1]."""
        crops = to_unit(self.window.crop(images)).contiguous(memory_format=torch.channels_last)
        return torch.stack([torch.sigmoid(model.crop_logits(crops)) for model in self.models], dim=1)

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """Mean probability of label 1, [N], for images [N, 3, R, R] in [-1, 1]."""
        return self.model_scores(images).mean(dim=1)
