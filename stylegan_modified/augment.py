"""What the discriminator sees: the same camera and the same small random changes for real and generated faces.

The real faces went through JPEG (halved chroma, 8 bits, clipped). A discriminator finds such traces sooner than it
finds a face's age, so both sides get them. Random changes of both sides, differentiable, keep it from learning 1,000
faces by heart; the idea is that of DiffAugment (Zhao et al. 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass
class Changes:
    """Random changes of a batch, first dimension N; None where one is turned off."""

    mirrored: torch.Tensor
    brightness: torch.Tensor
    saturation: torch.Tensor
    contrast: torch.Tensor
    moves: torch.Tensor | None
    noise: torch.Tensor | None

    def part(self, rows: slice) -> Changes:
        """The same for some rows of the batch."""
        return Changes(*(None if value is None else value[rows] for value in vars(self).values()))


@dataclass(frozen=True)
class Augment:
    """Strengths of the random changes; 0 turns one off. `shift` is a share of the image side.

    mirror and camera can be turned off for the published forms, which know neither. fakes: change generated faces
    too; the published v5 changes the real ones alone.
    """

    brightness: float = 0.1
    contrast: float = 0.15
    saturation: float = 0.15
    shift: float = 0.04
    noise: float = 0.01
    mirror: float = 0.5
    camera: bool = True
    fakes: bool = True

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Images float32 [N, 3, H, W] in [-1, 1] -> the same, changed; differentiable, random by torch's generator."""
        return self.apply(images, self.draw(len(images), images.shape[3], images.device))

    def draw(self, count: int, side: int, device: torch.device | str = "cpu") -> Changes:
        """Draw the changes of `count` images of a side."""

        def spread(strength: float) -> torch.Tensor:
            return (torch.rand(count, 1, 1, 1, device=device) * 2.0 - 1.0) * strength

        most = round(self.shift * side)
        return Changes(
            torch.rand(count, 1, 1, 1, device=device) < self.mirror,
            spread(self.brightness),
            spread(self.saturation),
            spread(self.contrast),
            torch.randint(-most, most + 1, (count, 2)) if most else None,
            torch.randn(count, 3, side, side, device=device) * self.noise if self.noise else None,
        )

    def apply(self, images: torch.Tensor, changes: Changes) -> torch.Tensor:
        """Camera, mirror, brightness, saturation, contrast, shift, noise."""
        if self.camera:
            images = camera(images)
        images = torch.where(changes.mirrored, images.flip(3), images)
        images = images + changes.brightness
        grey = images.mean(1, keepdim=True)
        images = grey + (images - grey) * (1.0 + changes.saturation)
        middle = images.mean((1, 2, 3), keepdim=True)
        images = middle + (images - middle) * (1.0 + changes.contrast)
        images = images if changes.moves is None else shifted(images, changes.moves)
        return images if changes.noise is None else images + changes.noise


PLAIN = Augment(0.0, 0.0, 0.0, 0.0, 0.0, mirror=0.0, camera=False)


def camera(images: torch.Tensor) -> torch.Tensor:
    """Clip to [-1, 1] and halve the resolution of the colour difference, as JPEG 4:2:0 does."""
    images = images.clamp(-1.0, 1.0)
    grey = (images * images.new_tensor([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)).sum(1, keepdim=True)
    colour = F.avg_pool2d(images - grey, 2)
    return grey + F.interpolate(colour, scale_factor=2, mode="bilinear", align_corners=False)


def shifted(images: torch.Tensor, moves: torch.Tensor) -> torch.Tensor:
    """Move each image by its own whole number of pixels (down, right) [N, 2], the border repeated."""
    n, _, height, width = images.shape
    most = int(moves.abs().max())
    padded = F.pad(images, (most, most, most, most), mode="replicate")
    rows = [(most - y, most - x) for y, x in moves.tolist()]
    return torch.stack([padded[k, :, y : y + height, x : x + width] for k, (y, x) in enumerate(rows)])
