"""z-scores with a mean and spread that are fitted once, saved, and applied everywhere after."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.artefacts import read_json, write_json
from pipeline.errors import PipelineError

IQR_OF_NORMAL = 1.3489795003921634  # interquartile range of the standard normal distribution


@dataclass(frozen=True)
class Normalisation:
    """Centre and scale of each score; `apply` turns raw values into z-scores."""

    centre: dict[str, float]
    scale: dict[str, float]
    count: dict[str, int]
    kind: str = "mean"

    @classmethod
    def fit(cls, frame: pd.DataFrame, columns: tuple[str, ...] | None = None, robust: bool = False) -> "Normalisation":
        """Fit on the measured (finite) values of a table, all its number columns by default.

        robust: median and interquartile range (scaled to the normal distribution) instead of mean and sample standard
        deviation (ddof 1); where the quartiles of a column coincide, the deviation is its scale all the same. A column
        with fewer than two different values gets the scale 1.
        """
        columns = columns or tuple(frame.select_dtypes("number").columns)
        centre, scale, count = {}, {}, {}
        for name in columns:
            values = frame[name].to_numpy(np.float64)
            values = values[np.isfinite(values)]
            centre[name], scale[name], count[name] = 0.0, 1.0, len(values)
            if len(values):
                centre[name] = float(np.median(values) if robust else values.mean())
            if len(values) > 1:
                low, high = np.quantile(values, [0.25, 0.75])
                spreads = [float(values.std(ddof=1)), 1.0]
                if robust:
                    spreads.insert(0, float((high - low) / IQR_OF_NORMAL))
                # A constant column can keep a spread of rounding errors.
                scale[name] = next(spread for spread in spreads if spread > 1e-12 * max(1.0, abs(centre[name])))
        return cls(centre, scale, count, "median" if robust else "mean")

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return a copy with the fitted columns as z-scores (infinite values become NaN); other columns stay.

        PipelineError when a fitted column is absent.
        """
        result = frame.copy()
        for name in self._present(frame):
            values = (frame[name].to_numpy(np.float64) - self.centre[name]) / self.scale[name]
            result[name] = np.where(np.isfinite(values), values, np.nan)
        return result

    def record(self) -> dict[str, Any]:
        """Return it as plain numbers and texts, for JSON."""
        columns = {
            name: {"centre": self.centre[name], "scale": self.scale[name], "count": self.count[name]}
            for name in self.centre
        }
        return {"kind": self.kind, "columns": columns}

    def save(self, path: Path | str) -> None:
        """Write as JSON."""
        write_json(path, self.record())

    @classmethod
    def load(cls, path: Path | str) -> "Normalisation":
        """Read what `save` wrote; PipelineError when the file is missing or something else."""
        return cls.from_record(read_json(path), path)

    @classmethod
    def from_record(cls, value: Any, source: Path | str) -> "Normalisation":
        """Make one of what `record` returned; PipelineError, which names the source, for something else."""
        try:
            columns = value["columns"]
            centre, scale, count = (
                {name: kind(entry[key]) for name, entry in columns.items()}
                for key, kind in (("centre", float), ("scale", float), ("count", int))
            )
            return cls(centre, scale, count, str(value["kind"]))
        except (KeyError, TypeError, AttributeError, ValueError):
            raise PipelineError(
                f"{source} is not a normalisation of scores; delete it and run compute_property_scores.py again"
            ) from None

    def z(self, name: str, value: float | np.ndarray) -> float | np.ndarray:
        """Return the z-score of raw values of one column."""
        return (value - self.centre[name]) / self.scale[name]

    def raw(self, name: str, z: float | np.ndarray) -> float | np.ndarray:
        """Return the raw values of z-scores of one column."""
        return z * self.scale[name] + self.centre[name]

    def _present(self, frame: pd.DataFrame) -> list[str]:
        absent = [name for name in self.centre if name not in frame]
        if absent:
            raise PipelineError(
                f"the normalisation is for the column {', '.join(absent)}, which the table lacks "
                f"(found: {', '.join(map(str, frame.columns))}); fit it again with compute_property_scores.py"
            )
        return list(self.centre)
