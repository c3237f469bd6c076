"""Directions: unit vectors that raise one property, the step that moves it by one deviation, and their generator."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline.artefacts import atomic, read_arrays, save_arrays
from pipeline.errors import PipelineError
from pipeline.whole import plain

if TYPE_CHECKING:
    from vectorfind.bench import Bench


@dataclass(frozen=True)
class Direction:
    """One way to raise `property` in the codes of `position`, for faces of `group`.

    unit: float32 [D], length 1, + raises the property. step: how far along it one standard deviation of the score is.
    """

    property: str
    position: str
    group: str
    unit: np.ndarray
    step: float


@dataclass
class DirectionSet:
    """The directions of all properties and groups of one method at one position.

    units: float32 [P, G, D]; steps: float32 [P, G]; score_sds: the deviation of each property's score in the pool [P].
    cuts: the grouping, as `kind` and cuts. provenance: generator_hash, scorer_hash, method, options, pool rows and
    seeds, how the steps were calibrated.
    """

    properties: tuple[str, ...]
    groups: tuple[str, ...]
    position: str
    units: np.ndarray
    steps: np.ndarray
    score_sds: np.ndarray
    grouping: str
    cuts: tuple[float, ...]
    provenance: dict = field(default_factory=dict)

    def get(self, name: str, group: str) -> Direction:
        """The direction of a property for a group; PipelineError if this set has none."""
        i, j = self._index(name, group)
        return Direction(name, self.position, group, self.units[i, j], float(self.steps[i, j]))

    def edit(self, codes: np.ndarray, groups, amounts: np.ndarray, raw: bool = False) -> np.ndarray:
        """Move codes [N, D] of faces in `groups` [N] along all properties at once.

        amounts: [N, P] in score deviations, or in plain latent units when `raw` (the published way).
        Returns float32 [N, D].
        """
        rows = np.array([self._index(self.properties[0], group)[1] for group in groups])
        amounts = np.asarray(amounts, np.float32)
        if not raw:
            amounts = amounts * self.steps[:, rows].T
        return np.asarray(codes, np.float32) + np.einsum("np,pnd->nd", amounts, self.units[:, rows])

    def save(self, path) -> None:
        """Write the whole set as one .npz (plain arrays, no pickle)."""
        about = {
            "properties": self.properties,
            "groups": self.groups,
            "position": self.position,
            "grouping": self.grouping,
            "cuts": self.cuts,
            "provenance": self.provenance,
        }
        text = np.array(json.dumps(about, default=plain))
        save_arrays(path, units=self.units, steps=self.steps, score_sds=self.score_sds, about=text)

    @classmethod
    def load(cls, path, bench: Bench) -> DirectionSet:
        """Read a set; PipelineError if it is unreadable, or was found on another generator or by another scorer."""
        path = Path(path)
        if not path.is_file():
            raise PipelineError(f"{path} does not exist: run `python run_vectorfind.py` for this run folder first")
        arrays = read_arrays(path, ("units", "steps", "score_sds", "about"))
        about = json.loads(str(arrays["about"]))
        loaded = cls(
            properties=tuple(about["properties"]),
            groups=tuple(about["groups"]),
            position=about["position"],
            units=arrays["units"],
            steps=arrays["steps"],
            score_sds=arrays["score_sds"],
            grouping=about["grouping"],
            cuts=tuple(about["cuts"]),
            provenance=about["provenance"],
        )
        check_belongs(path, loaded.provenance, bench)
        return loaded

    def _index(self, name: str, group: str) -> tuple[int, int]:
        try:
            return self.properties.index(name), self.groups.index(str(group))
        except ValueError as error:
            raise PipelineError(
                f"no direction for {name} of group '{group}': this set has {', '.join(self.properties)} "
                f"for the groups {', '.join(self.groups)}"
            ) from error


def check_belongs(path, provenance: dict, bench: Bench) -> None:
    """PipelineError when what lies at `path` was found on another generator than the bench's, or by another scorer."""
    for what, here, why in (
        ("generator", bench.generator_hash, "directions of one generator mean nothing in another"),
        ("scorer", bench.scorer_hash, "its steps are deviations of that scorer"),
    ):
        found = str(provenance.get(f"{what}_hash"))
        if found != here:
            raise PipelineError(
                f"{path} belongs to another {what} ({found[:12]}… instead of {here[:12]}…), and {why}: run "
                f"`run_vectorfind.py directions` with this {what}, or edit with theirs"
            )


def write_vector(path, vector: np.ndarray) -> None:
    """One vector [D], or several [rows, D], as the published CSV: header `,0,1,…,D-1`, then numbered rows."""
    vectors = np.atleast_2d(np.asarray(vector, np.float32))
    with atomic(Path(path)) as temporary:
        # float_format keeps every bit of a float32, so that the file reads back to the same vector.
        pd.DataFrame(vectors).to_csv(temporary, float_format="%.9g", lineterminator="\n")


def read_vectors(path, numbered: bool = True) -> np.ndarray:
    """float32 [rows, D] of a CSV in the published format; PipelineError naming the file and row of what does not fit.

    Rows are told as the lines of the file, blank ones counted. numbered: rows begin with their number, as those of
    vectors do. The published project's own vectors point toward LOWER scores; calibration measures the sign and turns
    them.
    """
    path = Path(path)
    try:
        frame = pd.read_csv(path, index_col=0 if numbered else None, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise PipelineError(
            f"{path} cannot be read as a CSV of numbers ({str(error).strip()}): save it with commas, in UTF-8"
        ) from error
    named = list(frame.columns) == [str(i) for i in range(frame.shape[1])]
    if named and frame.shape[1] and not len(frame):
        raise PipelineError(f"{path} holds no rows, as where select kept no face: give one that does (--faces)")
    if not named or frame.empty:
        header = f"{',' * numbered}0,1,…"
        raise PipelineError(f"{path}, row 1: expected the header '{header}', found {list(frame.columns)[:3]}…")
    numbers = frame.apply(pd.to_numeric, errors="coerce").to_numpy(np.float32)
    bad = np.argwhere(~np.isfinite(numbers))
    if len(bad):
        row, column = bad[0]
        raise PipelineError(
            f"{path}, row {_line_of(path, row)}, column {column}: expected a number, found "
            f"{frame.iloc[row, column]!r}; mend it, or bring back the file that it was"
        )
    return numbers


def _line_of(path: Path, row: int) -> int:
    """The line of a CSV, counted from 1, of a row behind the header; pandas, which counts rows, skips blank lines."""
    with path.open(encoding="utf-8-sig") as file:
        filled = [number for number, line in enumerate(file, 1) if line.strip()]
    return filled[row + 1]
