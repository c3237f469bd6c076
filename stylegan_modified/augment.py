"""What the discriminator sees: the same camera and the same small random changes for real and generated faces.

The real faces went through JPEG (halved chroma, 8 bits, clipped). A discriminator finds such traces sooner than it
finds a face's age, so both sides get them. Random changes of both sides, differentiable, keep it from learning 1,000
faces by heart; the idea is that of DiffAugment (Zhao et al. 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Augment:
    """Strengths of the random changes; 0 turns one off. `shift` is a share of the image side."""

    brightness: float = 0.1
    contrast: float = 0.15
    saturation: float = 0.15
    shift: float = 0.04
    noise: float = 0.01

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Images float32 [N, 3, H, W] in [-1, 1] -> the same, changed; differentiable, random by torch's generator."""
        return self.change(camera(images))

    def change(self, images: torch.Tensor) -> torch.Tensor:
        """The random part: mirror, brightness, saturation, contrast, shift, noise, all drawn per image."""
        n = len(images)

        def draw(strength: float) -> torch.Tensor:
            return (torch.rand(n, 1, 1, 1, device=images.device) * 2.0 - 1.0) * strength

        mirrored = torch.rand(n, 1, 1, 1, device=images.device) < 0.5
        images = torch.where(mirrored, images.flip(3), images)
        images = images + draw(self.brightness)
        grey = images.mean(1, keepdim=True)
        images = grey + (images - grey) * (1.0 + draw(self.saturation))
        middle = images.mean((1, 2, 3), keepdim=True)
        images = middle + (images - middle) * (1.0 + draw(self.contrast))
        images = shifted(images, round(self.shift * images.shape[3]))
        return images + torch.randn_like(images) * self.noise if self.noise else images


def camera(images: torch.Tensor) -> torch.Tensor:
    """Clip to [-1, 1] and halve the resolution of the colour difference, as JPEG 4:2:0 does."""
    images = images.clamp(-1.0, 1.0)
    grey = (images * images.new_tensor([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)).sum(1, keepdim=True)
    colour = F.avg_pool2d(images - grey, 2)
    return grey + F.interpolate(colour, scale_factor=2, mode="bilinear", align_corners=False)


def shifted(images: torch.Tensor, most: int) -> torch.Tensor:
    """Move each image by up to `most` pixels both ways, the border repeated."""
    if most < 1:
        return images
    n, _, height, width = images.shape
    padded = F.pad(images, (most, most, most, most), mode="replicate")
    moves = torch.randint(0, 2 * most + 1, (n, 2)).tolist()
    return torch.stack([padded[k, :, y : y + height, x : x + width] for k, (y, x) in enumerate(moves)])
