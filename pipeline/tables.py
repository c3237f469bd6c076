"""CSV tables with one schema each: written whole, read with errors that name file, row and column."""

import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline.errors import PipelineError
from pipeline.whole import atomic

if TYPE_CHECKING:
    from pandera.pandas import DataFrameSchema

CURE = "mend it, or delete the file and run the stage that writes it again"
TRUTH = {"True": True, "true": True, "1": True, "False": False, "false": False, "0": False}


def write_table(path: Path | str, frame: pd.DataFrame, schema: "DataFrameSchema") -> None:
    """Check a frame against its schema and write it whole as UTF-8 CSV, without the index."""
    checked = _validated(path, frame, schema, list(range(2, len(frame) + 2)), CURE)
    with atomic(path) as temporary:
        checked.to_csv(temporary, index=False, encoding="utf-8", lineterminator="\n")


def read_table(path: Path | str, schema: "DataFrameSchema", cure: str = CURE) -> pd.DataFrame:
    """Read a CSV and check it against its schema; text columns hold "" and number columns NaN where empty.

    PipelineError names the file, row (line of the file, from 1), column, what was expected and what was found, and
    ends with `cure`: what to do about a table that no stage can write again.
    """
    names, rows, lines = _read_rows(Path(path), cure)
    missing = [name for name, column in schema.columns.items() if _lacks(column, name, names)]
    if missing:
        raise PipelineError(f"{path}: column {', '.join(missing)} is missing (found: {', '.join(names)}); {cure}")
    frame = pd.DataFrame(
        {name: _converted(path, name, [row[k] for row in rows], lines, schema, cure) for k, name in enumerate(names)}
    )
    return _validated(path, frame, schema, lines, cure)


def _read_rows(path: Path, cure: str) -> tuple[list[str], list[list[str]], list[int]]:
    rows, lines = [], []
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            names = next(reader, None)
            if not names:
                raise PipelineError(f"{path} is empty; {cure}")
            for row in reader:
                if row and len(row) != len(names):
                    raise PipelineError(
                        f"{path}, row {reader.line_num}: expected {len(names)} fields, found {len(row)}; {cure}"
                    )
                if row:
                    rows.append(row)
                    lines.append(reader.line_num)
    except FileNotFoundError:
        raise PipelineError(f"table {path} is missing; run the stage that writes it") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise PipelineError(f"{path} is not a UTF-8 CSV ({error}); {cure}") from None
    doubled = {name for name in names if names.count(name) > 1}
    if doubled:
        raise PipelineError(f"{path}: column {', '.join(sorted(doubled))} occurs twice in the first row; {cure}")
    return names, rows, lines


def _lacks(column, name: str, names: list[str]) -> bool:
    if not column.required:
        return False
    return not any(re.match(name, other) for other in names) if column.regex else name not in names


def _kind(name: str, schema: "DataFrameSchema") -> str:
    """Return what a column holds: "number", "integer", "truth", "text", or "" when the schema does not say."""
    for key, column in schema.columns.items():
        if (re.match(key, name) if column.regex else key == name) and column.dtype is not None:
            text = str(column.dtype).lower()
            for start, kind in (("float", "number"), ("int", "integer"), ("uint", "integer"), ("bool", "truth")):
                if text.startswith(start):
                    return kind
            return "text"
    return ""


def _converted(
    path: Path | str, name: str, cells: list[str], lines: list[int], schema: "DataFrameSchema", cure: str
) -> pd.Series:
    kind = _kind(name, schema)
    values = pd.Series(cells, dtype=object)
    if kind == "text":
        return pd.Series(cells, dtype=str)
    if kind == "truth":
        result = values.map(TRUTH)
        bad = result.isna()
        expected = "True or False"
    else:
        result = pd.to_numeric(values.replace("", np.nan), errors="coerce")
        bad = result.isna() & ~values.isin(["", "nan", "NaN"])
        expected = "a number"
        if kind == "" and bad.any():
            return pd.Series(cells, dtype=str)
        if kind == "integer":
            bad, expected = result.isna() | (result % 1 != 0) | (result.abs() >= 2**63), "a whole number"
    if bad.any():
        row = int(np.flatnonzero(bad.to_numpy())[0])
        raise PipelineError(
            f"{path}, row {lines[row]}, column {name}: expected {expected}, found '{cells[row]}'; {cure}"
        )
    dtype = {"truth": bool, "integer": np.int64, "number": np.float64}.get(kind)
    return result.astype(dtype) if dtype else result


def _validated(
    path: Path | str, frame: pd.DataFrame, schema: "DataFrameSchema", lines: list[int], cure: str
) -> pd.DataFrame:
    from pandera.errors import SchemaErrors

    frame = frame.reset_index(drop=True)
    try:
        return schema.validate(frame, lazy=True)
    except SchemaErrors as errors:
        failures = errors.failure_cases
        first = failures.iloc[0]
        index = pd.to_numeric(pd.Series([first["index"]]), errors="coerce").iloc[0]
        row = f", row {lines[int(index)]}" if not np.isnan(index) else ""
        column = f", column {first['column']}" if isinstance(first["column"], str) and row else ""
        more = f" ({len(failures)} failures in all)" if len(failures) > 1 else ""
        raise PipelineError(
            f"{path}{row}{column}: expected {first['check']}, found '{first['failure_case']}'{more}; {cure}"
        ) from None
