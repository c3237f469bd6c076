"""The oracle of the virtual world: a network that reads the true attributes off a picture.

It stands where the human labeller stands. Trained on renders whose attributes are known (`virtual_face.train_oracle`),
it labels generated faces and measures what a generator makes.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.artefacts import load_into, read_weights
from virtual_face.population import ATTRIBUTES

SHARES = ("gender", "quality", "age", "glasses")  # attributes between 0 and 1, read through a sigmoid
WIDTHS = (24, 48, 80, 128, 192)


class Block(nn.Module):
    """Halves the picture, then a residual convolution."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.down = nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)
        self.norm_down = nn.GroupNorm(8, outputs)
        self.conv = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norm_conv = nn.GroupNorm(8, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.norm_down(self.down(x)))
        return x + F.silu(self.norm_conv(self.conv(x)))


class AttributeNet(nn.Module):
    """Images [n, 3, 128, 128] in [-1, 1] -> standardised attributes [n, A] (logits for the shares)."""

    def __init__(self):
        super().__init__()
        sizes = (3, *WIDTHS)
        self.blocks = nn.ModuleList(Block(a, b) for a, b in zip(sizes[:-1], sizes[1:]))
        self.squeeze = nn.Conv2d(WIDTHS[-1], 64, 1)
        self.hidden = nn.Linear(64 * 16, 256)
        self.head = nn.Linear(256, len(ATTRIBUTES))
        self.register_buffer("mean", torch.zeros(len(ATTRIBUTES)))
        self.register_buffer("spread", torch.ones(len(ATTRIBUTES)))

    def maps(self, images: Tensor) -> list[Tensor]:
        """Feature maps after each block, from half the picture's side to a 32nd."""
        maps = []
        for block in self.blocks:
            images = block(images)
            maps.append(images)
        return maps

    def features(self, images: Tensor) -> Tensor:
        """Penultimate features float [n, 256]."""
        return F.silu(self.hidden(F.silu(self.squeeze(self.maps(images)[-1])).flatten(1)))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))

    def attributes(self, output: Tensor) -> Tensor:
        """Network output -> attributes in their own units."""
        shares = torch.tensor([name in SHARES for name in ATTRIBUTES], device=output.device)
        return torch.where(shares, torch.sigmoid(output), output * self.spread + self.mean)


class Oracle:
    """Reads attributes and features off pictures float32 [n, 3, R, R] in [-1, 1]; other sizes than 128 are resized."""

    def __init__(self, network: AttributeNet, device: torch.device | str = "cpu"):
        self.network, self.device = network.eval().to(device), torch.device(device)

    def _batches(self, images: Tensor, batch: int):
        for part in images.split(batch):
            part = part.to(self.device)
            if part.shape[-1] != 128:
                part = F.interpolate(part, size=(128, 128), mode="bilinear", antialias=True, align_corners=False)
            yield part

    @torch.inference_mode()
    def attributes(self, images: Tensor, batch: int = 64) -> pd.DataFrame:
        """A row per picture, a column per name in `ATTRIBUTES` (units as in `population.true_attributes`)."""
        rows = [self.network.attributes(self.network(part)).cpu() for part in self._batches(images, batch)]
        return pd.DataFrame(torch.cat(rows).numpy(), columns=list(ATTRIBUTES))

    @torch.inference_mode()
    def features(self, images: Tensor, batch: int = 64) -> Tensor:
        """Penultimate features float32 [n, 256]."""
        return torch.cat([self.network.features(part).cpu() for part in self._batches(images, batch)])

    @torch.inference_mode()
    def read(self, images: Tensor, batch: int = 64) -> tuple[pd.DataFrame, Tensor]:
        """Attributes and features in one pass."""
        features = self.features(images, batch)
        output = self.network.attributes(self.network.head(features.to(self.device))).cpu()
        return pd.DataFrame(output.numpy(), columns=list(ATTRIBUTES)), features

    @staticmethod
    def concept(table: pd.DataFrame):
        """Whether each face is a young woman of good quality without glasses: bool array [n]."""
        return ((table.gender >= 0.5) & (table.quality >= 0.5) & (table.age < 0.5) & (table.glasses < 0.5)).to_numpy()


def load_oracle(path: Path | str, device: torch.device | str = "cpu") -> Oracle:
    """Loads the bundled oracle; PipelineError for a missing or foreign file."""
    network = AttributeNet()
    load_into(network, read_weights(path), str(path))
    return Oracle(network, device)
