"""The 50 edits of the image generation test: 5 of the mouth, 2 of the eyes, 5 of the pose, in every combination."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.errors import PipelineError
from vectorfind.names import EDITED


@dataclass(frozen=True)
class Grid:
    """Edit weights per property. raw: plain latent units along unit vectors (published); else score deviations."""

    name: str
    eyes: tuple[float, ...]
    mouth: tuple[float, ...]
    pose: tuple[float, ...]
    raw: bool = False

    def levels(self, name: str) -> tuple[float, ...]:
        """The weights of one property, in grid order."""
        return getattr(self, name)

    def amounts(self) -> np.ndarray:
        """float32 [50, 3] weights in the order of EDITED; rows in the published loop order: mouth, eyes, pose."""
        rows = [(eyes, mouth, pose) for mouth in self.mouth for eyes in self.eyes for pose in self.pose]
        return np.array(rows, np.float32)


# Published vectors point toward lower scores, ours toward higher: the published pose weights -1.8 … 0.6 are here
# 1.8 … -0.6.
GRIDS = {
    "deviations": Grid("deviations", (-1.2, 1.2), (-1.8, -0.9, 0.0, 0.9, 1.8), (-1.2, -0.6, 0.0, 0.6, 1.2)),
    "published": Grid("published", (1.2, -1.2), (1.8, 0.9, 0.0, -0.9, -1.8), (1.8, 1.2, 0.6, 0.0, -0.6), raw=True),
}


def grid_named(name: str) -> Grid:
    """A grid of GRIDS; PipelineError for another name."""
    if name not in GRIDS:
        raise PipelineError(f"unknown grid '{name}': choose one of {', '.join(GRIDS)}")
    return GRIDS[name]


def alone(levels) -> np.ndarray:
    """float32 [3 * L, 3]: each property of EDITED in turn at every level, the other two at 0."""
    amounts = np.zeros((len(EDITED), len(levels), len(EDITED)), np.float32)
    for i in range(len(EDITED)):
        amounts[i, :, i] = levels
    return amounts.reshape(-1, len(EDITED))
