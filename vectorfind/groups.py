"""Groups of faces that share hair and background, so that a direction need not hold for all faces at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.artefacts import write_json
from pipeline.errors import PipelineError
from vectorfind.names import PROPERTIES

# Letters of a group name, in this order: h when the score is at or above the cut, l below.
LETTERS = {
    "none": (),
    "8": ("hair_color", "hair_length", "background_mean"),
    "16": ("hair_color", "hair_length", "background_mean", "hairstyle"),
}
UNGROUPED = "all"
# For runs on published weights and scores. v8, v9: medians over 20,000 faces of that generator; v7, and v6 before it:
# over the 4,703 filtered faces that fine-tune v1 was trained on.
PUBLISHED_CUTS = {
    "v7": (-0.2709, 0.3052, 0.0742),
    "v8": (-0.4574, 0.5734, 0.7618, -0.0167),
    "v9": (-0.4315, 0.5685, 0.6753, 0.0372),
}


@dataclass(frozen=True)
class Grouping:
    """A partition of faces by the scores that a direction should leave alone.

    kind: "none", "8" or "16". cuts: one score per letter.
    """

    kind: str
    cuts: tuple[float, ...]

    @property
    def letters(self) -> tuple[str, ...]:
        return LETTERS[self.kind]

    @property
    def names(self) -> list[str]:
        """Every group name in alphabetical order of its letters, h before l."""
        names = [""]
        for _ in self.letters:
            names = [name + letter for name in names for letter in "hl"]
        return names if self.letters else [UNGROUPED]

    @classmethod
    def at_medians(cls, kind: str, scores: np.ndarray) -> Grouping:
        """Cut at the medians of scores [n, 8], so that each letter halves the pool."""
        _known(kind)
        return cls(kind, tuple(float(np.median(scores[:, PROPERTIES.index(name)])) for name in LETTERS[kind]))

    @classmethod
    def published(cls, version: str) -> Grouping:
        """The cuts of a published VectorFind version: v7 (8 groups), v8 or v9 (16 groups)."""
        if version not in PUBLISHED_CUTS:
            raise PipelineError(f"no published group cuts for '{version}': choose one of {', '.join(PUBLISHED_CUTS)}")
        cuts = PUBLISHED_CUTS[version]
        return cls("8" if len(cuts) == 3 else "16", cuts)

    def assign(self, scores: np.ndarray) -> np.ndarray:
        """Group names [n] of scores [n, 8]; PipelineError when a score that decides is missing."""
        scores = np.asarray(scores)
        if not self.letters:
            return np.full(len(scores), UNGROUPED)
        decisive = scores[:, [PROPERTIES.index(name) for name in self.letters]]
        missing = np.argwhere(~np.isfinite(decisive))
        if len(missing):
            row, column = missing[0]
            raise PipelineError(
                f"sample {row} has no {self.letters[column]} score, so it belongs to no group: "
                "use a scorer that measures every face, or --groups none"
            )
        high = decisive >= np.asarray(self.cuts, np.float64)
        return np.array(["".join("h" if flag else "l" for flag in row) for row in high])

    def save(self, path) -> None:
        """Write kind and cuts as JSON."""
        write_json(Path(path), {"kind": self.kind, "cuts": dict(zip(self.letters, self.cuts, strict=True))})


def _known(kind) -> None:
    if kind not in LETTERS:
        raise PipelineError(f"unknown grouping '{kind}': choose one of {', '.join(LETTERS)}")
