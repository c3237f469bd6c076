"""How far the closed loop takes each face, and whether it keeps its promise inside that range."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from vectorfind.closed_loop import ClosedLoop
from vectorfind.model_loop import ModelLoop
from vectorfind.names import EDITED, PROPERTIES

WISH = 4.0
MET_WITHIN = 0.15
# Where in its reach a face is asked to go: shares of what it can do down and up.
SHARES = (-0.9, -0.5, 0.5, 0.9)


def to_the_letter(loop: ClosedLoop) -> ClosedLoop:
    """The loop as it walks when a reading of the scorer is what is promised: one led by a model then follows it alone.

    Between scorer and model, which spares the face the scorer's errors, a reading is missed by as much as these are.
    """
    return replace(loop, options=replace(loop.options, trust=1.0)) if isinstance(loop, ModelLoop) else loop


def reach_table(loop: ClosedLoop, seeds, progress=None) -> pd.DataFrame:
    """`reach.csv`: a row per face and property: lowest and highest change in deviations, and why it ended there."""
    loop, rows = to_the_letter(loop), []
    for seed in seeds:
        codes = loop.bench.encode(loop.bench.latents([seed]), loop.position)
        change, why = loop.reach(codes, WISH)
        for i, name in enumerate(EDITED):
            row = {"seed": seed, "property": name, "low": change[0, i, 0], "high": change[0, i, 1]}
            rows.append({**row, "low_end": why[0, i, 0], "high_end": why[0, i, 1]})
        if progress is not None:
            progress(1)
    return pd.DataFrame(rows).round(4)


def intended_table(loop: ClosedLoop, reach: pd.DataFrame, progress=None) -> pd.DataFrame:
    """`intended.csv`: wishes inside each face's reach, what was achieved, and whether it is within MET_WITHIN."""
    loop, rows = to_the_letter(loop), []
    for seed, part in reach.groupby("seed", sort=False):
        codes = loop.bench.encode(loop.bench.latents([seed]), loop.position)
        part = part.set_index("property")
        wishes = [
            (name, share * abs(part.loc[name, "low" if share < 0 else "high"])) for name in EDITED for share in SHARES
        ]
        amounts = np.zeros((len(wishes), len(EDITED)), np.float32)
        for k, (name, wish) in enumerate(wishes):
            amounts[k, EDITED.index(name)] = wish
        ends = loop.walk(np.repeat(codes, len(wishes), axis=0), amounts).codes
        start = loop.bench.measure(codes, loop.position)[0]
        change = (loop.bench.measure(ends, loop.position) - start) / loop.all_sds
        for k, (name, wish) in enumerate(wishes):
            achieved = float(change[k, PROPERTIES.index(name)])
            row = {"seed": seed, "property": name, "intended": wish, "achieved": achieved}
            rows.append({**row, "met": abs(achieved - wish) <= MET_WITHIN})
        if progress is not None:
            progress(1)
    return pd.DataFrame(rows).round(4)
