"""Maps of codes: do the extremes of a property lie apart? Pictures only; nothing is decided by them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.plots import save_figure
from vectorfind.groups import Grouping
from vectorfind.methods import extremes
from vectorfind.names import EDITED
from vectorfind.pool import Pool

SEED, PERPLEXITY, RATE = 2025, 50, 100.0
# Principal components before the map: t-SNE on 512 dimensions takes minutes longer and looks the same.
COMPONENTS = 50


def draw_maps(folder: Path, pool: Pool, grouping: Grouping, position: str, k_percent: float, progress=None) -> list:
    """`tsne_result_{property}_{group}.png` for every property and group with ten extremes or more; returns the paths.

    2-D, perplexity min(50, N - 1), learning rate 100, random state 2025, as published.
    """
    codes, groups, drawn = pool.codes(position), grouping.assign(pool.scores), []
    for name in EDITED:
        for group in grouping.names:
            low, high = extremes(pool.score(name), np.flatnonzero(groups == group), k_percent)
            if len(low) + len(high) >= 10:
                points = embed(codes[np.concatenate([low, high])])
                path = folder / f"tsne_result_{name}_{group}.png"
                _scatter(path, points, len(low), f"{name}, {group}: {len(low)} lowest, {len(high)} highest")
                drawn.append(path)
            if progress is not None:
                progress(1)
    return drawn


def embed(codes: np.ndarray) -> np.ndarray:
    """Map of codes [n, D] in the plane: float32 [n, 2] (van der Maaten, Hinton 2008)."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    reduced = PCA(min(COMPONENTS, *codes.shape), random_state=SEED).fit_transform(codes)
    perplexity = min(PERPLEXITY, len(codes) - 1)
    return TSNE(perplexity=perplexity, learning_rate=RATE, init="pca", random_state=SEED).fit_transform(reduced)


def _scatter(path: Path, points: np.ndarray, low: int, title: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 6.0), layout="constrained")
    axis = figure.subplots()
    for part, colour, label in ((points[:low], "#2a6f97", "lowest"), (points[low:], "#c8553d", "highest")):
        axis.scatter(part[:, 0], part[:, 1], s=4, color=colour, label=label)
    axis.set_title(title)
    axis.legend(markerscale=3, frameon=False)
    axis.set_xticks([])
    axis.set_yticks([])
    save_figure(path, figure, dpi=100)
