"""Conditional truncation of fine-tune v5, third experiment: w is pulled toward the centre of its own label."""

from __future__ import annotations

import torch

from stylegan.mapping import MappingNetwork

LATENTS = 1000
SEED = 20250502


class ConditionalTruncation:
    """w' = c + psi (w - c) on all layers; c is the mean of w over 1,000 latents with the label of w.

    Published, c is drawn anew for every image of every pass and gradients run through it. Here the latents are fixed, c
    has no gradient, and is kept until `forget` says that the mapping has changed, unless `gradient` asks for the
    published form.
    """

    def __init__(self, mapping: MappingNetwork, psi: float = 0.5, gradient: bool = False, latents: int = LATENTS):
        self.mapping, self.psi, self.gradient = mapping, psi, gradient
        self.z = torch.randn(latents, mapping.z_dim, generator=torch.Generator().manual_seed(SEED))
        self._kept: dict[bytes, torch.Tensor] = {}

    def __call__(self, w: torch.Tensor, label: torch.Tensor | None) -> torch.Tensor:
        """w [N, W] and its labels [N, L] (None: zeros, or none where the mapping takes none) -> truncated w [N, W]."""
        if label is None:
            label = w.new_zeros(len(w), self.mapping.label_size)
        centres = torch.stack([self._centre(row) for row in label])
        return centres + self.psi * (w - centres)

    def forget(self) -> None:
        """Compute all centres anew: the mapping has changed, which fused optimisers do not tell."""
        self._kept.clear()

    def _centre(self, label: torch.Tensor) -> torch.Tensor:
        labels = label.expand(len(self.z), -1) if self.mapping.label_size else None
        if self.gradient:
            return self.mapping(torch.randn_like(self.z.to(label.device)), labels).mean(0)
        key = label.detach().cpu().numpy().tobytes()
        if key not in self._kept:
            with torch.no_grad():
                self._kept[key] = self.mapping(self.z.to(label.device), labels).mean(0)
        return self._kept[key]
