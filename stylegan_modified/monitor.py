"""Watching a fine-tuning: share of the concept, spread, life of the new branch, and how well D tells faces apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch

from pipeline.artefacts import save_image
from pipeline.progress import progress
from pipeline.report import wilson_interval
from pipeline.sheets import contact_sheet
from stylegan.discriminator import Discriminator
from stylegan.generator import Generator
from stylegan.sampling import sample, to_uint8
from stylegan_modified.carry import branch_share
from stylegan_modified.faces import Faces
from stylegan_modified.trainer import auroc

DIVERSITY_IMAGES = 512


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


def measure(
    generator: Generator, judge: Judge, seeds: Sequence[int], batch: int, device: torch.device | str, title: str = ""
) -> Measured:
    """Judge the generated faces of these seeds: zero labels, no truncation; distances over 512 faces at most.

    Batches lie on a fixed grid, so equal seeds give equal rows.
    """
    frames, features = [], []
    with progress(len(seeds), title or "measure faces") as bar:
        for part, _, images in sample(generator, seeds, batch=batch, device=device):
            frame, seen = judge.read(images.clamp(-1.0, 1.0))
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
    return Measured(frame, mean_distance(rows[:DIVERSITY_IMAGES]), mean_distance(inside[:DIVERSITY_IMAGES]))


def mean_distance(features: torch.Tensor) -> float:
    """Mean Euclidean distance over all pairs of rows [N, F]; 0: all faces look alike to the judge; nan: no pair."""
    return float(torch.pdist(features.double()).mean()) if len(features) > 1 else float("nan")


class Monitor:
    """Looks at a generator and a discriminator on fixed latents and fixed faces, in eval mode."""

    def __init__(self, judge: Judge, faces: Faces, seeds: Sequence[int], batch: int, device, strip: int = 12):
        self.judge, self.faces, self.seeds = judge, faces, list(seeds)
        self.batch, self.device, self.strip = batch, device, strip

    def look(self, generator: Generator, discriminator: Discriminator) -> dict[str, Any]:
        """Columns for the log: concept share with its Wilson interval, means, diversity, branch share, AUROC of D."""
        measured = measure(generator, self.judge, self.seeds, self.batch, self.device, "monitor")
        frame = measured.frame
        hits, count = int(frame["concept"].sum()), len(frame)
        low, high = wilson_interval(hits, count)
        return {
            "concept_share": hits / count,
            "concept_low": low,
            "concept_high": high,
            **{f"mean_{name}": float(frame[name].mean()) for name in ("gender", "quality", "age", "glasses")},
            "diversity": measured.diversity,
            "branch_share": branch_share(generator) if generator.split else float("nan"),
            "monitor_auroc": self.separation(generator, discriminator),
        }

    @torch.no_grad()
    def separation(self, generator: Generator, discriminator: Discriminator) -> float:
        """AUROC of D between the faces (as they are) and generated ones; .5 means that it cannot tell them apart."""
        discriminator.eval()
        size = self.faces.batch
        real = self.faces.first(len(self.seeds)).split(size)
        whole = len(self.seeds) // size * size
        fake = (images.clamp(-1.0, 1.0) for _, _, images in sample(generator, self.seeds[:whole], size, self.device))
        scores = [
            torch.cat([discriminator(part.to(self.device), lod=0.0).flatten() for part in side]).cpu().numpy()
            for side in (real, fake)
        ]
        discriminator.train()
        return auroc(*scores)

    def save_strip(self, generator: Generator, path: Path) -> None:
        """Write one row of samples, always of the same latents."""
        save_image(path, contact_sheet(self.pictures(generator), columns=self.strip))

    def pictures(self, generator: Generator) -> np.ndarray:
        """The samples of the strip, uint8 [strip, R, R, 3]."""
        seeds = self.seeds[: self.strip]
        return np.concatenate([to_uint8(images) for _, _, images in sample(generator, seeds, self.batch, self.device)])
