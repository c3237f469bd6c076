"""From seeds to images: each image depends on its own seed alone, whatever the batch size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from pipeline.seeds import latents_from_seeds
from stylegan.generator import Generator

TRUNCATED_LAYERS = 8  # the reference truncates the first 8 layers when psi < 1


def sample(
    generator: Generator,
    seeds: Sequence[int],
    batch: int = 32,
    device: torch.device | str = "cpu",
    psi: float = 1.0,
    trunc_layers: int = TRUNCATED_LAYERS,
    label: Sequence[float] | None = None,
) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Yield (seeds, z float32 [n, z_dim], images float32 [n, 3, R, R] about [-1, 1], not clipped) on the CPU, in order.

    The generator is put into eval mode on `device`; stored noise, no style mixing. label: one for all images, None
    for zeros. psi: truncation of the first trunc_layers layers, 1.0 for none.
    """
    generator.eval().to(device)
    for start in range(0, len(seeds), batch):
        part = list(seeds[start : start + batch])
        z = torch.from_numpy(latents_from_seeds(part, generator.z_dim))
        yield part, z, images_of(generator, z, device, psi, trunc_layers, label)


@torch.no_grad()
def images_of(
    generator: Generator,
    z: torch.Tensor,
    device: torch.device | str = "cpu",
    psi: float = 1.0,
    trunc_layers: int = TRUNCATED_LAYERS,
    label: Sequence[float] | Sequence[Sequence[float]] | None = None,
) -> torch.Tensor:
    """Images float32 [n, 3, R, R] on the CPU for latents z [n, z_dim], in one batch.

    label: one [L] for all, or one for each [n, L]; None for zeros.
    """
    labels = None
    if label is not None:
        labels = torch.tensor(list(label), dtype=torch.float32, device=device).expand(len(z), -1)
    image = generator(z.to(device), labels, trunc_psi=psi, trunc_layers=trunc_layers)["image"]
    return image.float().cpu()


def to_uint8(images: torch.Tensor) -> np.ndarray:
    """Images [N, 3, H, W] in [-1, 1] -> uint8 RGB [N, H, W, 3]: clip((x + 1) * 127.5 + 0.5) cut down, in double.

    Bytes are made on the images' device. ValueError for anything but floats [N, 3, H, W].
    """
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(f"images are float [N, 3, H, W] in [-1, 1], got {images.dtype} {list(images.shape)}")
    scaled = (images.detach().double() + 1.0) * 127.5 + 0.5
    return scaled.clamp_(0.0, 255.0).to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def from_uint8(images: np.ndarray) -> torch.Tensor:
    """uint8 RGB [N, H, W, 3] -> float32 [N, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1.0
