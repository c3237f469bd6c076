"""Markdown reports with tables, figures and honest intervals."""

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import PipelineError
from pipeline.whole import atomic

if TYPE_CHECKING:
    import pandas

Z_95 = 1.959963984540054


class Report:
    """A Markdown report put together from top to bottom; every method returns the report, so calls chain."""

    def __init__(self, title: str):
        self._parts: list[str | tuple[Path, str]] = [f"# {title}"]

    def heading(self, text: str) -> "Report":
        """Add a heading."""
        self._parts.append(f"## {text}")
        return self

    def text(self, text: str) -> "Report":
        """Add a paragraph of Markdown."""
        self._parts.append(text.strip())
        return self

    def table(self, frame: "pandas.DataFrame", caption: str = "", digits: int = 3, index: bool = False) -> "Report":
        """Add a data frame as a table; floats with `digits` decimals, missing values as a dash."""
        if index:
            frame = frame.reset_index()
        names = [str(name) for name in frame.columns]
        rows = [[_cell(value, digits) for value in row] for row in frame.itertuples(index=False, name=None)]
        numeric = [frame.iloc[:, k].dtype.kind in "iuf" for k in range(len(names))]
        ruler = ["---:" if right else "---" for right in numeric]
        lines = ["| " + " | ".join(cells) + " |" for cells in [[_escaped(name) for name in names], ruler, *rows]]
        self._parts.append("\n".join(([f"**{caption}**", ""] if caption else []) + lines))
        return self

    def figure(self, path: Path | str, caption: str) -> "Report":
        """Add a picture; the link is made relative to the report file when it is written."""
        self._parts.append((Path(path), caption))
        return self

    def write(self, path: Path | str) -> Path:
        """Write the report whole; PipelineError when a figure of it does not exist."""
        path = Path(path)
        blocks = [part if isinstance(part, str) else _figure(path, *part) for part in self._parts]
        with atomic(path) as temporary:
            temporary.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
        return path


def wilson_interval(k: int, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval (low, high) of a share of k in n; (0, 1) when n is 0. Wilson, 1927."""
    if not 0 <= k <= n:
        raise PipelineError(f"a share needs 0 <= k <= n, found k={k}, n={n}")
    if n == 0:
        return 0.0, 1.0
    share, square = k / n, Z_95**2 / n
    middle = (share + square / 2) / (1 + square)
    reach = Z_95 / (1 + square) * math.sqrt(share * (1 - share) / n + square / (4 * n))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def mean_interval(values: Iterable[float]) -> tuple[float, float, float]:
    """Return (mean, low, high) with the 95 % interval of the mean by Student's t; missing values are left out."""
    from scipy.stats import t

    numbers = np.asarray(list(values), dtype=np.float64)
    numbers = numbers[~np.isnan(numbers)]
    if len(numbers) < 2:
        mean = float(numbers[0]) if len(numbers) else math.nan
        return mean, math.nan, math.nan
    mean = float(numbers.mean())
    reach = float(t.ppf(0.975, len(numbers) - 1) * numbers.std(ddof=1) / math.sqrt(len(numbers)))
    return mean, mean - reach, mean + reach


def _figure(report: Path, figure: Path, caption: str) -> str:
    if not figure.is_file():
        raise PipelineError(f"report {report}: figure {figure} does not exist; write it before the report")
    link = Path(os.path.relpath(figure.resolve(), report.resolve().parent)).as_posix().replace(" ", "%20")
    return f"![{caption}]({link})\n\n*{caption}*"


def _cell(value: Any, digits: int) -> str:
    if value is None or (isinstance(value, (float, np.floating)) and math.isnan(value)):
        return "-"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (float, np.floating)):
        return f"{value:.{digits}f}"
    return _escaped(str(value))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
