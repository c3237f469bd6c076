"""Losses of generated faces beside the discriminator: do they show what their label says, are they women."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import nn

from cnn.filter_cnn import FilterCNN, to_unit

OUTPUTS = {"eyes": 0, "mouth": 3, "pose": 4}  # of the property CNN


class Term(Protocol):
    """A weighted loss of images and their labels."""

    def __call__(self, images: torch.Tensor, label: torch.Tensor | None) -> torch.Tensor:
        """images [N, 3, R, R] about [-1, 1], label [N, L] -> loss."""

    def trained(self) -> dict[str, nn.Module]:
        """Nets that train along."""


class LabelTerm:
    """Squared error between labels and what the property CNN reads, mean over `outputs`; the auxiliary regression.

    outputs: of the CNN; columns: the label entries that they are compared with. paired: the second half of the rows
    repeats the latents of the first with other labels (the trainer sees to that), and differences are compared. Then a
    face need not forget its own mouth to show the label's, and what is not the label's doing leaves the gradient.
    """

    def __init__(
        self,
        scorer: nn.Module,
        outputs: Sequence[int],
        columns: Sequence[int],
        weight: float,
        trains: bool = False,
        paired: bool = False,
    ):
        self.scorer, self.outputs, self.columns = scorer.eval().requires_grad_(trains), list(outputs), list(columns)
        self.weight, self.trains, self.paired = weight, trains, paired

    def __call__(self, images: torch.Tensor, label: torch.Tensor | None) -> torch.Tensor:
        # Faces are judged as they will be seen, clipped, but where they leave the range the slope has to stay.
        seen = images + (images.clamp(-1.0, 1.0) - images).detach()
        scores = self.scorer(seen.contiguous(memory_format=torch.channels_last))
        scores, label = scores[:, self.outputs], label[:, self.columns]
        if self.paired:
            half = len(scores) // 2
            return self.weight * 0.5 * F.mse_loss(scores[:half] - scores[half:], label[:half] - label[half:])
        return self.weight * F.mse_loss(scores, label)

    def trained(self) -> dict[str, nn.Module]:
        return {"scorer": self.scorer} if self.trains else {}


class GenderTerm:
    """Squared distance of the gender CNN's probability from 1, as in v3; one fold, where published.

    published: images go in as [-1, 1], though the CNN was trained on [0, 1].
    """

    def __init__(self, models: Sequence[FilterCNN], weight: float = 1.0, published: bool = False):
        self.models = [model.eval().requires_grad_(False) for model in models[: 1 if published else len(models)]]
        self.weight, self.published = weight, published

    def __call__(self, images: torch.Tensor, label: torch.Tensor | None) -> torch.Tensor:
        seen = images if self.published else to_unit(images.clamp(-1.0, 1.0))
        scores = torch.stack([model(seen) for model in self.models]).mean(0)
        return self.weight * (scores - 1.0).square().mean()

    def trained(self) -> dict[str, nn.Module]:
        return {}
