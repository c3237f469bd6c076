"""Do faces show what their label asks for: correlation and error on the published grids of labels."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from pandera.pandas import Column, DataFrameSchema

from stylegan_modified.monitor import Judge, latents_of
from stylegan_modified.sampler import Sampler
from stylegan_modified.spread import identity_distance
from stylegan_modified.terms import OUTPUTS
from stylegan_modified.versions import OBEYED, Version

# eyes, mouth, pose. v3 and v4 tried 50 labels per latent (mouth outermost), v5 eight.
GRID_50 = tuple(
    (eyes, mouth, pose)
    for mouth, eyes, pose in itertools.product((-1.2, -0.6, 0.0, 0.8, 1.6), (-1.8, 1.8), (-1.2, 0.0, 1.2, 2.4, 3.6))
)
GRID_8 = tuple(itertools.product((-1.6, 1.6), (-1.2, 1.6), (-1.2, 2.4)))
ORACLE = {"eyes": "eyes", "mouth": "mouth", "pose": "roll"}  # what the independent judge reads for each
TABLE = DataFrameSchema(
    {
        "case": Column(int),
        **{f"{name}_{kind}": Column(float) for kind in ("label", "cnn_score", "oracle") for name in OBEYED},
        "identity_change": Column(float),
    }
)


def label_rows(grid: Sequence[tuple[float, float, float]], version: Version) -> torch.Tensor:
    """Labels float32 [G, label_size] of a grid of (eyes, mouth, pose); other entries are 0."""
    labels = torch.zeros(len(grid), version.label_size)
    labels[:, list(version.obeyed)] = torch.tensor(grid)
    return labels


def try_labels(
    sampler: Sampler,
    score: Callable[[torch.Tensor], torch.Tensor],
    judge: Judge,
    version: Version,
    seeds: Sequence[int],
    grid: Sequence[tuple[float, float, float]],
    spread: pd.Series,
) -> pd.DataFrame:
    """Every latent with every label: what the property CNN and the judge read, and how far the person moved.

    score: images -> scores [N, 8] in units of the labels. spread: standard deviation of the judge's attributes
    over different persons. identity_change compares with the same latent under zero labels. Columns as in TABLE.
    """
    z, labels = latents_of(seeds, sampler.generator.z_dim), label_rows(grid, version)
    plain, _ = judge.read(sampler.images(z))
    rows = []
    for case, latent in enumerate(z):
        images = sampler.images(latent.expand(len(labels), -1), labels)
        scores = score(images).numpy()
        seen, _ = judge.read(images)
        frame = pd.DataFrame({"case": [case] * len(grid)})
        for k, name in enumerate(OBEYED):
            frame[f"{name}_label"] = [float(entry[k]) for entry in grid]
            frame[f"{name}_cnn_score"] = scores[:, OUTPUTS[name]].astype(float)
            frame[f"{name}_oracle"] = seen[ORACLE[name]].to_numpy(float)
        still = plain.iloc[[case] * len(grid)].reset_index(drop=True)
        frame["identity_change"] = identity_distance(seen, still, spread)
        rows.append(frame)
    return pd.concat(rows, ignore_index=True)


def summarise(frame: pd.DataFrame) -> dict[str, float]:
    """Figures of a table of `try_labels`.

    {name}_corr: mean over latents of the correlation of label and CNN score (as for v3 and v4); {name}_pooled: over all
    images at once (v5); {name}_oracle: as the first, by the independent judge; {name}_mae: mean absolute error.
    """
    result = {}
    for name in OBEYED:
        label, score, seen = (frame[f"{name}_{kind}"] for kind in ("label", "cnn_score", "oracle"))
        result[f"{name}_corr"] = _per_case(frame, label, score)
        result[f"{name}_pooled"] = correlation(label, score)
        result[f"{name}_oracle"] = _per_case(frame, label, seen)
        result[f"{name}_mae"] = float((label - score).abs().mean())
    result["identity_under_labels"] = float(frame["identity_change"].mean())
    return result


def correlation(a: pd.Series, b: pd.Series) -> float:
    """Pearson correlation; 0 when one side does not vary at all."""
    if a.std() < 1e-12 or b.std() < 1e-12:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def _per_case(frame: pd.DataFrame, label: pd.Series, score: pd.Series) -> float:
    return float(np.mean([correlation(label[rows], score[rows]) for rows in frame.groupby("case").groups.values()]))
