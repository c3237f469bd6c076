"""Labels of real faces: what the property CNN reads, in units of its spread over these faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pipeline.errors import PipelineError
from pipeline.tables import read_table
from property_score.measure import PROPERTIES
from property_score.tables import SCORE_COLUMNS, score_schema
from stylegan.sampling import from_uint8
from stylegan_modified.versions import LABELS, Version, obeyed_columns

CHUNK = 64


class StandardScorer(nn.Module):
    """The property CNN in eval mode with standardised outputs: [N, 3, R, R] in [-1, 1] -> [N, 8] in label units."""

    def __init__(self, network: nn.Module, mean: torch.Tensor, spread: torch.Tensor):
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean)
        self.register_buffer("spread", spread)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (self.network(images) - self.mean) / self.spread

    @torch.no_grad()
    def score(self, images: torch.Tensor) -> torch.Tensor:
        """The same for any number of images, on the CPU, without gradient."""
        parts = [self(part.to(self.mean.device, memory_format=torch.channels_last)) for part in images.split(CHUNK)]
        return torch.cat(parts).cpu()


@dataclass
class Labels:
    """Labels float32 [N, label_size] of the faces and the scorer that speaks their units."""

    values: np.ndarray
    scorer: StandardScorer
    source: str


def label_faces(
    images: np.ndarray, network: nn.Module, version: Version, table: Path | None, numbers: list[int], device
) -> Labels:
    """Score faces uint8 [N, R, R, 3]; standardised, or as they are for published versions.

    table: scores of algorithm v1 in its published form (published v1 learnt from those), used where it is given;
    numbers: img_no per face.
    """
    if not getattr(network, "has_hairstyle", True):
        raise PipelineError(
            "the property CNN tells seven scores, and the family wants all eight; join the hairstyle network to it "
            "(property_score.property_cnn.merge_property_cnns)"
        )
    ones = torch.ones(len(PROPERTIES), device=device)
    raw = StandardScorer(network, torch.zeros_like(ones), ones).eval().requires_grad_(False)
    scores = torch.cat([raw.score(from_uint8(images[k : k + CHUNK])) for k in range(0, len(images), CHUNK)])
    scorer, source = raw, "the property CNN"
    if not version.published:
        mean, spread = scores.mean(0), scores.std(0).clamp_min(1e-6)
        scorer = StandardScorer(network, mean.to(device), spread.to(device)).eval().requires_grad_(False)
        scores, source = (scores - mean) / spread, "the property CNN, standardised over the faces"
    if table is not None:
        # The hairstyle, which came later, is no label.
        known = read_table(table, score_schema()).set_index("img_no")[list(SCORE_COLUMNS[:LABELS])].reindex(numbers)
        measured = known.notna().all(axis=1).to_numpy()
        scores[torch.tensor(measured), :LABELS] = torch.tensor(known[measured].to_numpy(np.float32))
        missing = int((~measured).sum())
        source = "algorithm v1 as published"
        source += f", the property CNN for {missing} faces that it could not measure" if missing else ""
    columns = (
        [PROPERTIES.index(name) for name in ("eyes", "mouth", "pose")] if version.label_size == 3 else range(LABELS)
    )
    return Labels(scores[:, list(columns)].numpy().astype(np.float32), scorer, source)


def normal_labels(seeds: Sequence[int], label_size: int) -> np.ndarray:
    """Labels float32 [n, label_size] for a data set: eyes, mouth and pose normal, others 0; row k by seed k alone."""
    labels = np.zeros((len(seeds), label_size), dtype=np.float32)
    columns = list(obeyed_columns(label_size))
    for row, seed in zip(labels, seeds, strict=True):
        row[columns] = np.random.default_rng([seed, 7]).standard_normal(3)
    return labels
