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
# Where in its reach a face is asked to go: shares of what it can do, down and up.
SHARES = (0.5, 0.9)
LETTER, JUDGED = "to the letter", "as judged"


def to_the_letter(loop: ClosedLoop) -> ClosedLoop:
    """The loop as it walks when a reading of the scorer is what is promised: one led by a model then follows it alone.

    Between scorer and model, which spares the face the scorer's errors, a reading is missed by as much as these are.
    """
    if not isinstance(loop, ModelLoop):
        return loop
    return replace(loop, options=replace(loop.options, trust=1.0, backtrack=loop.options.rounds))


def reach_table(loop: ClosedLoop, seeds, progress=None) -> pd.DataFrame:
    """`reach.csv`: a row per face and property: lowest and highest change in deviations, and why it ended there."""
    loop, rows = to_the_letter(loop), []
    for block in _blocks(seeds, loop):
        codes = loop.bench.encode(loop.bench.latents(block), loop.position)
        for seed, change, why in zip(block, *loop.reach(codes, WISH), strict=True):
            for i, name in enumerate(EDITED):
                row = {"seed": seed, "property": name, "low": change[i, 0], "high": change[i, 1]}
                rows.append({**row, "low_end": why[i, 0], "high_end": why[i, 1]})
        if progress is not None:
            progress(len(block))
    return pd.DataFrame(rows).round(4)


def _blocks(seeds, loop: ClosedLoop) -> list[list[int]]:
    """Faces that are walked together: each goes its own way, but one full batch costs less than many small ones."""
    seeds, size = [int(seed) for seed in seeds], max(1, loop.bench.batch // (2 * len(EDITED)))
    return [seeds[start : start + size] for start in range(0, len(seeds), size)]


def intended_table(loop: ClosedLoop, reach: pd.DataFrame, progress=None) -> pd.DataFrame:
    """`intended.csv`: wishes inside each face's reach, what was achieved, and whether it is within MET_WITHIN.

    A wish so small that staying put would meet it is not asked: a closed mouth has none downward. `walk`: LETTER, or
    JUDGED where the loop as it is judged is another one.
    """
    walks = {LETTER: to_the_letter(loop)} | ({JUDGED: loop} if isinstance(loop, ModelLoop) else {})
    ends = reach.set_index(["seed", "property"])[["low", "high"]]
    rows = []
    for block in _blocks(reach["seed"].unique(), loop):
        wishes = [
            (k, name, share * end)
            for k, seed in enumerate(block)
            for name in EDITED
            for end in ends.loc[(seed, name)]
            for share in SHARES
        ]
        wishes = [wish for wish in wishes if abs(wish[2]) > MET_WITHIN]
        amounts = np.zeros((len(wishes), len(EDITED)), np.float32)
        for row, (_, name, wish) in enumerate(wishes):
            amounts[row, EDITED.index(name)] = wish
        codes = loop.bench.encode(loop.bench.latents(block), loop.position)
        start, owners = loop.bench.measure(codes, loop.position), [k for k, _, _ in wishes]
        for walk, walker in walks.items() if wishes else ():
            there = walker.walk(codes[owners], amounts).codes
            change = (loop.bench.measure(there, loop.position) - start[owners]) / loop.all_sds
            for row, (k, name, wish) in enumerate(wishes):
                achieved = float(change[row, PROPERTIES.index(name)])
                told = {"seed": block[k], "walk": walk, "property": name, "intended": wish, "achieved": achieved}
                rows.append({**told, "met": abs(achieved - wish) <= MET_WITHIN})
        if progress is not None:
            progress(len(block))
    return pd.DataFrame(rows, columns=["seed", "walk", "property", "intended", "achieved", "met"]).round(4)


def met_shares(met: pd.DataFrame) -> tuple[float, float]:
    """Of an `intended_table`: share of wishes that were met, and of faces all of whose wishes were."""
    return float(met["met"].mean()), float(met.groupby("seed")["met"].all().mean())
