"""Turns renders with their masks into training crops, a whole batch at once.

The crops imitate what the face detector cuts out of generated faces: boxes that sit and stretch differently from face
to face, and pictures that are softer, noisier, blotchier and more bent than a render.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from segmentation.classes import CLASSES, MIRRORED
from segmentation.parsenet import INPUT


def training_crops(images: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return random crops and their soft classes.

    images: uint8 [N, H, W, 3]. masks: uint8 [N, H, W] ids. generator: CPU generator of everything random.
    Returns float32 [N, 3, 128, 128] in [-1, 1] and class shares float32 [N, 11, 128, 128].
    """
    draw = _Draw(generator, len(images), images.device)
    pictures = images.permute(0, 3, 1, 2).float() / 255
    pictures, masks = _mirrored(pictures, masks.long(), draw)
    grid = _grid(masks, draw)
    mode = "bicubic" if draw.once() < 0.4 else "bilinear"
    crops = F.grid_sample(pictures, grid, mode=mode, padding_mode="border", align_corners=False).clamp(0, 1)
    shares = F.one_hot(masks, len(CLASSES)).permute(0, 3, 1, 2).float()
    shares = F.grid_sample(shares, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return _photographed(crops, draw) * 2 - 1, shares


class _Draw:
    """Random numbers with a leading batch axis; drawn on the CPU, so that a seed means the same everywhere."""

    def __init__(self, generator: torch.Generator, count: int, device: torch.device):
        self.generator, self.count, self.device = generator, count, device

    def once(self) -> float:
        return float(torch.rand((), generator=self.generator))

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return (torch.rand(self.count, *shape, generator=self.generator) * (high - low) + low).to(self.device)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(self.count, *shape, generator=self.generator).to(self.device)

    def chance(self, share: float) -> Tensor:
        """1 for a share of the batch, 0 for the rest: float32 [N]."""
        return (self.uniform(0, 1) < share).float()


def _mirrored(pictures: Tensor, masks: Tensor, draw: _Draw) -> tuple[Tensor, Tensor]:
    flip = draw.chance(0.5).bool()
    other = torch.tensor(MIRRORED, device=masks.device)
    pictures = torch.where(flip[:, None, None, None], pictures.flip(3), pictures)
    masks = torch.where(flip[:, None, None], other[masks.flip(2)], masks)
    return pictures, masks


def _grid(masks: Tensor, draw: _Draw) -> Tensor:
    """Sampling grid [N, 128, 128, 2] of crops around the faces, kept in the picture, slightly turned and bent."""
    face = (masks > 0) & (masks < 10)
    # In grid_sample's units: -1 and 1 are the borders of the picture.
    left, right = _borders(face.any(dim=1))
    top, bottom = _borders(face.any(dim=2))
    middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
    half_x, half_y = (right - left) / 2, (bottom - top) / 2
    middle_x = middle_x + half_x * 0.16 * draw.normal().clamp(-2, 2)
    middle_y = middle_y + half_y * 0.16 * draw.normal().clamp(-2, 2)
    half_x, half_y = half_x * draw.uniform(1.0, 1.9), half_y * draw.uniform(1.0, 1.7)
    x0, x1 = (middle_x - half_x).clamp(-1, 1), (middle_x + half_x).clamp(-1, 1)
    y0, y1 = (middle_y - half_y).clamp(-1, 1), (middle_y + half_y).clamp(-1, 1)

    steps = (torch.arange(INPUT, device=masks.device) + 0.5) / INPUT
    angle, shear = 0.10 * draw.normal().clamp(-2.5, 2.5), 0.04 * draw.normal()
    u, v = torch.meshgrid(steps - 0.5, steps - 0.5, indexing="xy")
    cos, sin = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
    turned_u = cos * u - sin * v + shear[:, None, None] * v
    turned_v = sin * u + cos * v
    bend = F.interpolate(draw.normal(2, 7, 7), (INPUT, INPUT), mode="bicubic") * draw.uniform(0, 0.012, 1, 1, 1)
    x = (x0 + x1)[:, None, None] / 2 + (x1 - x0)[:, None, None] * (turned_u + bend[:, 0])
    y = (y0 + y1)[:, None, None] / 2 + (y1 - y0)[:, None, None] * (turned_v + bend[:, 1])
    return torch.stack([x, y], dim=3)


def _borders(present: Tensor) -> tuple[Tensor, Tensor]:
    """First and last set place of bool [N, K] as grid_sample coordinates; the whole width where none is set."""
    size = present.shape[1]
    first = present.float().argmax(dim=1)
    last = size - 1 - present.flip(1).float().argmax(dim=1)
    return first / size * 2 - 1, (last + 1) / size * 2 - 1


def _photographed(crops: Tensor, draw: _Draw) -> Tensor:
    """Change colour, light, sharpness and noise of crops [N, 3, S, S] in [0, 1]."""
    crops = crops.clamp_min(1e-4) ** torch.exp(0.25 * draw.normal(1, 1, 1))
    grey = crops.mean(dim=1, keepdim=True)
    crops = grey + (crops - grey) * draw.uniform(0.4, 1.5, 1, 1, 1)
    level = crops.mean(dim=(1, 2, 3), keepdim=True)
    crops = level + (crops - level) * torch.exp(0.2 * draw.normal(1, 1, 1)) + 0.08 * draw.normal(1, 1, 1)
    crops = crops * (1 + 0.07 * draw.normal(3, 1, 1))
    crops = crops + _blotches(draw, 3, 4) * draw.uniform(0, 0.10, 1, 1, 1)
    crops = crops + _blotches(draw, 1, 32) * (draw.chance(0.4) * draw.uniform(0, 0.08))[:, None, None, None]

    # Positive amounts blur, negative ones sharpen.
    for amount in (draw.uniform(-0.9, 1.0, 1, 1, 1), draw.chance(0.35)[:, None, None, None]):
        soft = F.avg_pool2d(F.pad(crops, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        crops = crops + amount * (soft - crops)

    noise = (draw.chance(0.6) * draw.uniform(0, 0.06))[:, None, None, None]
    crops = crops + noise * draw.normal(3, INPUT, INPUT)
    blocks = F.interpolate(draw.normal(3, INPUT // 8, INPUT // 8), scale_factor=8, mode="nearest")
    crops = crops + blocks * (draw.chance(0.3) * draw.uniform(0, 0.03))[:, None, None, None]
    return _cut_out(crops, draw).clamp(0, 1)


def _blotches(draw: _Draw, channels: int, cells: int) -> Tensor:
    return F.interpolate(draw.normal(channels, cells, cells), (INPUT, INPUT), mode="bilinear")


def _cut_out(crops: Tensor, draw: _Draw) -> Tensor:
    """Cover a small rectangle of some crops with one colour: what is hidden must be told from what is around."""
    places = torch.arange(INPUT, device=crops.device)
    inside = []
    for _ in range(2):
        middle, reach = draw.uniform(0, INPUT, 1), draw.uniform(2, 11, 1)
        inside.append((places[None] - middle).abs() < reach)
    cover = inside[0][:, :, None] & inside[1][:, None, :] & draw.chance(0.15).bool()[:, None, None]
    return torch.where(cover[:, None], draw.uniform(0, 1, 3, 1, 1), crops)
