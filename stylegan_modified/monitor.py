"""Watching a fine-tuning: share of the concept, spread, life of the new branch, obedience, and the work of D."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch

from pipeline.artefacts import save_image
from pipeline.progress import progress
from pipeline.report import wilson_interval
from pipeline.seeds import latents_from_seeds
from pipeline.sheets import contact_sheet
from stylegan.discriminator import Discriminator
from stylegan.generator import Generator
from stylegan.sampling import to_uint8
from stylegan_modified.carry import branch_share
from stylegan_modified.faces import Faces
from stylegan_modified.sampler import Sampler
from stylegan_modified.spread import IDENTITY, identity_distance, kernel_distance, recall
from stylegan_modified.trainer import auroc

DIVERSITY_IMAGES = 512
IDENTITY_FACES = 64


class Judge(Protocol):
    """Measures images in [-1, 1]; `virtual_face.oracle.Oracle` is one."""

    def read(self, images: torch.Tensor, batch: int = 64) -> tuple[pd.DataFrame, Any]:
        """Return attributes and features [N, F]."""

    def concept(self, frame: pd.DataFrame) -> np.ndarray:
        """Return which rows meet the concept."""


@dataclass
class Measured:
    """What the judge sees in samples of one generator."""

    frame: pd.DataFrame
    """img_no, seed, the judge's attributes, concept (bool)."""
    diversity: float
    """Mean distance between the features of two faces."""
    concept_diversity: float
    """The same among the faces that meet the concept: what a generator of nothing else should have."""
    features: torch.Tensor | None = None
    """The judge's features [n, F]; None when read back from a table."""


def latents_of(seeds: Sequence[int], dim: int) -> torch.Tensor:
    """Latents float32 [n, dim] of seeds."""
    return torch.from_numpy(latents_from_seeds(seeds, dim))


def measure(
    generator: Generator,
    judge: Judge,
    seeds: Sequence[int],
    batch: int,
    device: torch.device | str,
    title: str = "",
    labels: torch.Tensor | None = None,
    psi: float | None = None,
) -> Measured:
    """Judge the generated faces of these seeds, no truncation but that of the label; distances over 512 faces at most.

    labels: [L, label_size], dealt to the seeds in turn; zeros unless given. Batches lie on a fixed grid, so equal seeds
    give equal rows.
    """
    sampler, seeds = Sampler(generator, psi, batch, device), list(seeds)
    frames, features = [], []
    with progress(len(seeds), title or "measure faces") as bar:
        for start in range(0, len(seeds), batch):
            part = seeds[start : start + batch]
            dealt = None if labels is None else labels[torch.arange(start, start + len(part)) % len(labels)]
            frame, seen = judge.read(sampler.images(latents_of(part, generator.z_dim), dealt))
            frame.insert(0, "seed", part)
            frames.append(frame)
            features.append(torch.as_tensor(seen).float().flatten(1))
            bar.update(len(part))
    frame = pd.concat(frames, ignore_index=True)
    frame.insert(0, "img_no", np.arange(len(frame)))
    hits = np.asarray(judge.concept(frame), dtype=bool)
    frame["concept"] = hits
    rows = torch.cat(features)
    inside = rows[torch.tensor(hits)]
    return Measured(frame, mean_distance(rows[:DIVERSITY_IMAGES]), mean_distance(inside[:DIVERSITY_IMAGES]), rows)


def mean_distance(features: torch.Tensor) -> float:
    """Mean Euclidean distance over all pairs of rows [N, F]; 0: all faces look alike to the judge; nan: no pair."""
    return float(torch.pdist(features.double()).mean()) if len(features) > 1 else float("nan")


class Monitor:
    """Looks at a generator and a discriminator on fixed latents and fixed faces, in eval mode.

    Faces with labels are compared with generated faces of the same labels. origin: the generator of the previous rung;
    identity is compared with it at equal latents. obey: called with the generator, returns further columns. psi:
    truncation by label.
    """

    def __init__(
        self,
        judge: Judge,
        faces: Faces,
        seeds: Sequence[int],
        batch: int,
        device,
        strip: int = 12,
        origin: Generator | None = None,
        obey: Callable[[Generator], dict[str, float]] | None = None,
        psi: float | None = None,
    ):
        self.judge, self.faces, self.seeds = judge, faces, list(seeds)
        self.batch, self.device, self.strip = batch, device, strip
        self.origin, self.obey, self.psi = origin, obey, psi
        self._real: torch.Tensor | None = None
        self._before: pd.DataFrame | None = None

    def look(self, generator: Generator, discriminator: Discriminator | None) -> dict[str, Any]:
        """Columns for the log: concept share with its Wilson interval, means, spread, branch share, AUROC of D, ..."""
        labels = self.faces.first_labels(len(self.seeds)) if generator.label_size else None
        measured = measure(generator, self.judge, self.seeds, self.batch, self.device, "monitor", labels, self.psi)
        frame = measured.frame
        hits, count = int(frame["concept"].sum()), len(frame)
        low, high = wilson_interval(hits, count)
        real = self.real_features()
        values = {
            "concept_share": hits / count,
            "concept_low": low,
            "concept_high": high,
            **{f"mean_{name}": float(frame[name].mean()) for name in ("gender", "quality", "age", "glasses")},
            "diversity": measured.diversity,
            "kid": kernel_distance(real, measured.features),
            "recall": recall(real, measured.features),
            "identity_change": self.identity_change(generator),
            "branch_share": branch_share(generator) if generator.split else float("nan"),
            "monitor_auroc": self.separation(generator, discriminator) if discriminator else float("nan"),
        }
        return values | (self.obey(generator) if self.obey else {})

    def real_features(self) -> torch.Tensor:
        """The judge's features of as many faces as are watched, read once."""
        if self._real is None:
            self._real = self.features_of_faces(len(self.seeds))
        return self._real

    def features_of_faces(self, most: int) -> torch.Tensor:
        """The judge's features [n, F] of the first faces, `most` of them or all there are."""
        _, seen = self.judge.read(self.faces.first(min(most, len(self.faces.images))))
        return torch.as_tensor(seen).float().flatten(1)

    def identity_change(self, generator: Generator) -> float:
        """Mean distance of persons at equal latents and zero labels from the previous rung; 0 same, about 1 another.

        NaN where the judge does not read what makes a person, as the filter CNNs do not.
        """
        if self.origin is None:
            return float("nan")
        z = latents_of(self.seeds[:IDENTITY_FACES], generator.z_dim)
        if self._before is None:
            self._before, _ = self.judge.read(Sampler(self.origin, None, self.batch, self.device).images(z))
        if not set(IDENTITY) <= set(self._before):
            return float("nan")
        after, _ = self.judge.read(Sampler(generator, self.psi, self.batch, self.device).images(z))
        return float(identity_distance(self._before, after, self._before.std()).mean())

    @torch.no_grad()
    def separation(self, generator: Generator, discriminator: Discriminator) -> float:
        """AUROC of D between the faces (as they are) and generated ones; .5 means that it cannot tell them apart."""
        discriminator.eval()
        size = self.faces.batch
        whole = len(self.seeds) // size * size
        count = min(whole, len(self.faces.images) // size * size)
        labels = self.faces.first_labels(len(self.seeds)) if generator.label_size else None
        given = None if labels is None else labels[torch.arange(whole) % len(labels)]
        fake = Sampler(generator, self.psi, size, self.device).images(
            latents_of(self.seeds[:whole], generator.z_dim), given
        )
        scores = []
        for images, own in ((self.faces.first(count), labels), (fake, given)):
            rows = []
            for start in range(0, len(images), size):
                part = None if own is None else own[start : start + size].to(self.device)
                rows.append(discriminator(images[start : start + size].to(self.device), part, lod=0.0).flatten())
            scores.append(torch.cat(rows).cpu().numpy())
        discriminator.train()
        return auroc(*scores)

    def save_strip(self, generator: Generator, path: Path) -> None:
        """Write one row of samples, always of the same latents, with zero labels."""
        save_image(path, contact_sheet(self.pictures(generator), columns=self.strip))

    def pictures(self, generator: Generator) -> np.ndarray:
        """The samples of the strip, uint8 [strip, R, R, 3]."""
        z = latents_of(self.seeds[: self.strip], generator.z_dim)
        return to_uint8(Sampler(generator, self.psi, self.batch, self.device).images(z))
