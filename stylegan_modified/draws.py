"""What is random in one update, drawn for the whole batch, so that any part of it can be computed anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from stylegan.generator import Generator, Noise, Synthesis


@dataclass
class Draw:
    """Latents and all else that the fakes of one update need."""

    z: torch.Tensor
    """float32 [N, z_dim], standard normal."""
    label: torch.Tensor | None
    """float32 [N, label_size], or None for zeros."""
    noise: list[torch.Tensor]
    """One map [N, 1, r, r] per synthesis layer; empty for the stored noise."""
    mixed_from: int | None = None
    """Layer from which a second latent takes over (style mixing), if any."""
    other: torch.Tensor | None = None
    """That second latent, [N, z_dim]."""
    encoded: torch.Tensor | None = None
    """Labels of the real faces that an encoder turns into latents (v3), [N, label_size]."""

    def part(self, rows: slice) -> Draw:
        """The same for some rows of the batch."""
        label, other, encoded = (
            None if value is None else value[rows] for value in (self.label, self.other, self.encoded)
        )
        return Draw(self.z[rows], label, [maps[rows] for maps in self.noise], self.mixed_from, other, encoded)


def draw(
    generator: Generator,
    count: int,
    label: torch.Tensor | None,
    device: torch.device,
    noise: bool = True,
    style_mixing: float = 0.0,
) -> Draw:
    """Draw for `count` images, from torch's own generators."""
    z = torch.randn(count, generator.z_dim).to(device)
    maps = []
    if noise:
        maps = [torch.randn(count, *layer.noise.shape[1:], device=device) for layer in _noises(generator.synthesis)]
    made = Draw(z, None if label is None else label.to(device), maps)
    if style_mixing and float(torch.rand(())) < style_mixing:
        made.mixed_from = int(torch.randint(1, generator.num_layers, ()))
        made.other = torch.randn(count, generator.z_dim).to(device)
    return made


@contextmanager
def given_noise(synthesis: Synthesis, maps: list[torch.Tensor]) -> Iterator[None]:
    """Put maps [n, 1, r, r] in place of the stored noise for one pass; none keep the stored noise."""
    layers = _noises(synthesis)
    stored = [layer.noise for layer in layers]
    try:
        for layer, values in zip(layers, maps or stored, strict=True):
            layer.noise = values
        yield
    finally:
        for layer, values in zip(layers, stored, strict=True):
            layer.noise = values


def _noises(synthesis: Synthesis) -> list[Noise]:
    return [module for module in synthesis.modules() if isinstance(module, Noise)]
