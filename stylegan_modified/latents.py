"""Where the latents and labels of generated faces come from while training."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from stylegan_modified.draws import Draw
from stylegan_modified.faces import Faces
from stylegan_modified.versions import Version

REACH = 2.0  # of drawn labels; the published grids ask for eyes +-1.8, mouth -1.2 to 1.6, pose -1.2 to 3.6
EVEN = 0.75
GROUP_STEPS, KEPT = 50, 0.9
MU_WEIGHT, LOG_VARIANCE_WEIGHT = 0.2, 0.05


class Latents:
    """Standard normal latents; labels as the version says."""

    def trained(self) -> dict[str, nn.Module]:
        """Nets that train along."""
        return {}

    def own(self, labels: torch.Tensor, version: Version) -> torch.Tensor:
        """Labels of real faces as D gets them; a mended rung leaves out those that it does not obey."""
        if version.published or labels.shape[1] == len(version.obeyed):
            return labels
        result = torch.zeros_like(labels)
        result[:, list(version.obeyed)] = labels[:, list(version.obeyed)]
        return result

    def labels(self, faces: Faces, number: int, version: Version, judged: bool) -> torch.Tensor | None:
        """Labels [N, L] for the fakes of one update, None for zeros; number: of the batch of faces.

        drawn: each column from another face, so that no two go together. judged, for D: just that. Otherwise most of
        the values are spread evenly over the range of the published grids, which faces seldom reach.
        """
        if version.labels == "zeros":
            return None
        if version.labels == "faces":
            return faces.draw_labels(number)
        count, columns = faces.batch, list(version.obeyed)
        rows = torch.randint(len(faces.labels), (count, len(columns)))
        values = torch.from_numpy(faces.labels)[rows, torch.tensor(columns)]
        if not judged:
            even = (torch.rand(count, len(columns)) * 2.0 - 1.0) * REACH
            values = torch.where(torch.rand(count, len(columns)) < EVEN, even, values)
        result = torch.zeros(count, version.label_size)
        result[:, columns] = values
        return result

    def batch(self, made: Draw, step: int) -> Draw:
        """Change the draw of a whole batch."""
        return made

    def part(self, made: Draw, real: torch.Tensor | None) -> tuple[torch.Tensor, Any]:
        """z [n, z_dim] of one part of a batch, and its own loss. real: the faces of that part, for the encoder."""
        return made.z, 0.0


class Curriculum(Latents):
    """Latents and labels start as one fixed batch and are blended with new ones, 10 % more every 50 steps (v2).

    Both parts are weighted by r and 1 - r, as published; in between the blend is narrower than normal.
    """

    def __init__(self, count: int, z_dim: int, label_size: int, seed: int = 0):
        random = torch.Generator().manual_seed(seed)
        self.z = torch.randn(count, z_dim, generator=random)
        self.label = torch.randn(count, label_size, generator=random)

    def labels(self, faces: Faces, number: int, version: Version, judged: bool) -> torch.Tensor | None:
        """Standard normal labels, as published."""
        return torch.randn_like(self.label)

    def batch(self, made: Draw, step: int) -> Draw:
        kept = KEPT ** (step // GROUP_STEPS)
        made.z = kept * self.z.to(made.z.device) + (1.0 - kept) * made.z
        made.label = kept * self.label.to(made.z.device) + (1.0 - kept) * made.label
        return made


class Encoded(Latents):
    """z = mu + e exp(log variance / 2) from the encoder of v3, a conditional VAE without reconstruction.

    Published losses: 0.2 mean(mu^2) + 0.05 mean(log variance^2), and the label is that of the encoded face, which the
    encoder can pass on through z. The mended form gives the encoder the face's own label, the generator another one,
    and takes the real divergence from N(0, 1).
    """

    def __init__(self, encoder: nn.Module, published: bool):
        self.encoder, self.published = encoder, published
        self.own_labels: torch.Tensor | None = None

    def trained(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder}

    def labels(self, faces: Faces, number: int, version: Version, judged: bool) -> torch.Tensor | None:
        result = super().labels(faces, number, version, judged)
        own = self.own(faces.draw_labels(number), version)
        self.own_labels = own
        return result

    def batch(self, made: Draw, step: int) -> Draw:
        made.encoded = self.own_labels.to(made.z.device)
        return made

    def part(self, made: Draw, real: torch.Tensor | None) -> tuple[torch.Tensor, Any]:
        mu, log_variance = self.encoder(real, made.encoded)
        z = mu + made.z * torch.exp(0.5 * log_variance)
        if self.published:
            loss = MU_WEIGHT * mu.square().mean() + LOG_VARIANCE_WEIGHT * log_variance.square().mean()
        else:
            divergence = 0.5 * (mu.square() + log_variance.exp() - 1.0 - log_variance).mean()
            loss = MU_WEIGHT * divergence
        return z, loss
