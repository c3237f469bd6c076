"""Schemas of the tables that this stage writes and reads again."""

from __future__ import annotations

import pandera.pandas as pa

from vectorfind.names import EDITED, PROPERTIES

_CORR = pa.Column(float, pa.Check.in_range(-1.0, 1.0), nullable=True)
_NUMBER = pa.Column(float, nullable=True)

# The published columns come first, in the published order; what follows is ours. GRID holds all faces, where a
# published file holds one: case and seed before them tell which.
RESULT = pa.DataFrameSchema(
    {
        "case": pa.Column(int),
        "vector_no": pa.Column(int),
        "passed": pa.Column(str, pa.Check.isin(["O", "X"])),
        "group_name": pa.Column(str),
        **{f"{name}_corr": _CORR for name in EDITED},
        "sum_abs_corr": _NUMBER,
        "seed": pa.Column(int),
        **{f"{name}_{what}": _NUMBER for name in EDITED for what in ("slope", "monotone", "range")},
        "measured": pa.Column(float, pa.Check.in_range(0.0, 1.0)),
    },
    strict=True,
)
STATISTICS = pa.DataFrameSchema(
    {
        "": pa.Column(int),  # the published file numbers its one row
        **{f"{name}_corr_mean": _CORR for name in EDITED},
        "sum_abs_corr_mean": _NUMBER,
        "passed": pa.Column(int),
        "passed_ratio": pa.Column(float, pa.Check.in_range(0.0, 1.0)),
    },
    strict=True,
)
_SHARES = ("pass_share", "pass_low", "pass_high", "slope", "range", "monotone", "reversed", "unmeasured")
SUMMARY = pa.DataFrameSchema(
    {
        "property": pa.Column(str),
        **dict.fromkeys(("corr", "corr_low", "corr_high", "bar", *_SHARES), _NUMBER),
    },
    strict=True,
)
GRID = pa.DataFrameSchema(
    {
        "case": pa.Column(int),
        "seed": pa.Column(int),
        "pm_idx": pa.Column(int),
        **{f"{name}_pm": pa.Column(float) for name in EDITED},
        **{f"{name}_score": _NUMBER for name in (*EDITED, *(p for p in PROPERTIES if p not in EDITED))},
    },
    strict=True,
)
FITS = pa.DataFrameSchema(
    {
        "property": pa.Column(str),
        "group_name": pa.Column(str),
        "faces": pa.Column(int),
        "source": pa.Column(str, pa.Check.isin(["group", "pooled", "network"])),
        "samples": pa.Column(int),
        "accuracy": _NUMBER,
        "held_out": pa.Column(int),
        "converged": pa.Column(bool),
        "iterations": pa.Column(int),
        "shrinkage": _NUMBER,
        "step": pa.Column(float),
        "flipped": pa.Column(bool),
        "capped": pa.Column(bool),
    },
    strict=True,
)
