"""Images of a fine-tuned generator for latents and labels, truncated by label where its version does that."""

from __future__ import annotations

import torch

from stylegan.generator import Generator
from stylegan_modified.truncation import ConditionalTruncation


class Sampler:
    """Images in eval mode, stored noise, no style mixing; batches lie on a fixed grid."""

    def __init__(
        self, generator: Generator, psi: float | None = None, batch: int = 8, device: torch.device | str = "cpu"
    ):
        self.generator, self.batch, self.device = generator.eval().to(device), batch, torch.device(device)
        self.truncation = None if psi is None else ConditionalTruncation(generator.mapping, psi)

    @torch.no_grad()
    def images(self, z: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        """z [N, z_dim], label [N, label_size] or None for zeros -> float32 [N, 3, R, R] in [-1, 1], on the CPU."""
        made = []
        for start in range(0, len(z), self.batch):
            rows = slice(start, start + self.batch)
            part = None if label is None else label[rows].to(self.device)
            w = self.generator.encode(z[rows].to(self.device), part)
            w = self.truncation(w, part) if self.truncation else w
            made.append(self.generator.decode(w).float().clamp(-1.0, 1.0).cpu())
        return torch.cat(made)
