"""How the published convolution stacks are fitted to any resolution, and the crop windows they look through.

A stack is written as the published layer list, for instance ``"32 64 P 128 P"``: a number is a 3x3 valid convolution
with that many channels, P is a 2x2 max-pool. The published lists are for 256x256 pictures. A window of a smaller
picture would be eaten up by the last layers, hence the one rule of `fit_stack`: the list is followed as published, and
for as long as the final map would be smaller than 2x2 the last pool is dropped; when no pool is left, the last
convolution is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

POOL = "P"
SMALLEST_MAP = 2


@dataclass(frozen=True)
class FittedStack:
    """Layers that fit a window: `steps` (channel counts and "P"), final map `channels` x `height` x `width`."""

    steps: tuple[int | str, ...]
    channels: int
    height: int
    width: int

    @property
    def flat(self) -> int:
        """Number of values of the flattened final map."""
        return self.channels * self.height * self.width


def _shrink(steps: list[str], size: int) -> int:
    for step in steps:
        size = size // 2 if step == POOL else size - 2
        if size < 1:
            return 0
    return size


def _last_index(steps: list[str], pool: bool) -> int | None:
    return next((i for i in reversed(range(len(steps))) if (steps[i] == POOL) == pool), None)


def fit_stack(layers: str, height: int, width: int, multiplier: float = 1.0) -> FittedStack:
    """The published `layers` fitted to a window of height x width pixels, channel counts times `multiplier`.

    Raises ValueError if the window is too small for a single convolution.
    """
    steps = layers.split()
    while min(_shrink(steps, height), _shrink(steps, width)) < SMALLEST_MAP:
        drop = _last_index(steps, pool=True)
        if drop is None:
            drop = _last_index(steps, pool=False)
        if drop is None or len(steps) == 1:
            raise ValueError(f"a window of {height}x{width} pixels is too small for the layers {layers!r}")
        del steps[drop]
    fitted = tuple(s if s == POOL else max(4, round(int(s) * multiplier)) for s in steps)
    channels = [s for s in fitted if s != POOL][-1]
    return FittedStack(fitted, channels, _shrink(steps, height), _shrink(steps, width))


@dataclass(frozen=True)
class Window:
    """A crop window as fractions of the picture's height (top, bottom) and width (left, right)."""

    top: float = 0.0
    bottom: float = 1.0
    left: float = 0.0
    right: float = 1.0

    def __post_init__(self):
        if not (0 <= self.top < self.bottom <= 1 and 0 <= self.left < self.right <= 1):
            raise ValueError(f"not a crop window (top < bottom, left < right, all within 0..1): {self}")

    def pixels(self, resolution: int) -> tuple[int, int, int, int]:
        """First row, end row, first column, end column at `resolution`."""
        return tuple(round(fraction * resolution) for fraction in (self.top, self.bottom, self.left, self.right))

    def size(self, resolution: int) -> tuple[int, int]:
        """Height and width in pixels at `resolution`."""
        top, bottom, left, right = self.pixels(resolution)
        return bottom - top, right - left

    def crop(self, images: torch.Tensor) -> torch.Tensor:
        """The window of square pictures [N, C, R, R], as a view."""
        top, bottom, left, right = self.pixels(images.shape[-1])
        return images[..., top:bottom, left:right]
