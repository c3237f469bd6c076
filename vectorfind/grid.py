"""The 50 edits of the image generation test: 5 of the mouth, 2 of the eyes, 5 of the pose, in every combination."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.errors import PipelineError
from vectorfind.names import EDITED, PROPERTIES


@dataclass(frozen=True)
class Grid:
    """Edit weights per property. raw: plain latent units along unit vectors (published); else score deviations.

    fitted: the weights of a face are slid, and where need be narrowed, into what its scores can reach: a closed mouth
    cannot close, so its five weights are five ways to open.
    """

    name: str
    eyes: tuple[float, ...]
    mouth: tuple[float, ...]
    pose: tuple[float, ...]
    raw: bool = False
    fitted: bool = False

    def levels(self, name: str) -> tuple[float, ...]:
        """The weights of one property, in grid order."""
        return getattr(self, name)

    def amounts(self) -> np.ndarray:
        """float32 [50, 3] weights in the order of EDITED; rows in the published loop order: mouth, eyes, pose."""
        rows = [(eyes, mouth, pose) for mouth in self.mouth for eyes in self.eyes for pose in self.pose]
        return np.array(rows, np.float32)


FIVE, WIDE, TWO = (-1.2, -0.6, 0.0, 0.6, 1.2), (-1.8, -0.9, 0.0, 0.9, 1.8), (-1.2, 1.2)
# Published vectors point toward lower scores, ours toward higher: the published pose weights -1.8 … 0.6 are here
# 1.8 … -0.6.
GRIDS = {
    "deviations": Grid("deviations", TWO, WIDE, FIVE),
    "reachable": Grid("reachable", TWO, WIDE, FIVE, fitted=True),
    "published": Grid("published", (1.2, -1.2), (1.8, 0.9, 0.0, -0.9, -1.8), (1.8, 1.2, 0.6, 0.0, -0.6), raw=True),
}


# Elsewhere than for SVMs at w and the split positions (v7-v9): the gradient networks of v9, whose positive weights
# raise, and v6, which edited z by other weights.
PUBLISHED_GRADIENT = Grid("published", TWO, (-1.6, -0.8, 0.0, 0.8, 1.6), (-1.4, -0.7, 0.0, 0.7, 1.4), raw=True)
PUBLISHED_Z = Grid("published", (1.2, -1.8), (2.4, 1.2, 0.0, -1.2, -2.4), (1.8, 1.2, 0.6, 0.0, -0.6), raw=True)


def grid_named(name: str, method: str = "svm", position: str = "w") -> Grid:
    """A grid of GRIDS, the published one as it was for the method and the position; PipelineError for another name."""
    if name not in GRIDS:
        raise PipelineError(f"unknown grid '{name}': choose one of {', '.join(GRIDS)}")
    if name == "published" and method == "gradient":
        return PUBLISHED_GRADIENT
    if name == "published" and position == "z":
        return PUBLISHED_Z
    return GRIDS[name]


def ends_of(scores: np.ndarray) -> np.ndarray:
    """First and last percentile float32 [8, 2] of scores [n, 8]: about where each of them ends."""
    return np.nanpercentile(scores, [1, 99], axis=0).T.astype(np.float32)


def face_amounts(grid: Grid, base: np.ndarray, sds: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The weights float32 [F, A, 3] of each face: those of the grid, fitted to its scores where the grid says so.

    base [F, 8]: scores of the unedited faces. sds [3]: deviations of the edited scores. ends [8, 2]: see `ends_of`.
    """
    amounts = np.repeat(grid.amounts()[None], len(base), axis=0)
    if not grid.fitted:
        return amounts
    for i, name in enumerate(EDITED):
        column = PROPERTIES.index(name)
        low, high = ((ends[column, k] - base[:, column]) / sds[i] for k in (0, 1))
        low, high = np.minimum(low, 0), np.maximum(high, 0)
        levels = np.asarray(grid.levels(name), np.float64)
        width = np.minimum(levels.max() - levels.min(), high - low)
        start = np.clip(levels.min(), low, high - width)
        share = (amounts[:, :, i] - levels.min()) / (levels.max() - levels.min())
        amounts[:, :, i] = start[:, None] + share * width[:, None]
    return amounts
