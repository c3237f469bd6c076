"""From a pool to a calibrated set of directions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import pandas as pd

from vectorfind.bench import Bench
from vectorfind.calibration import calibrate
from vectorfind.directions import DirectionSet
from vectorfind.groups import Grouping
from vectorfind.methods import METHODS, MethodOptions, project_off
from vectorfind.names import EDITED, PROPERTIES
from vectorfind.pool import Pool
from vectorfind.setting import Setting

CALIBRATION = (
    "probe: faces of the group from the pool, decoded at plus and minus one step; central difference of the score"
)


def find_directions(
    bench: Bench,
    pool: Pool,
    grouping: Grouping,
    setting: Setting,
    options: MethodOptions,
    progress: Callable[[int], None] | None = None,
) -> tuple[DirectionSet, pd.DataFrame]:
    """Fit one direction per edited property and group, then measure its sign and step.

    progress: called with the number of directions fitted, then of faces probed. Returns the set and a table with a row
    per direction: faces of the group, source, samples, accuracy, convergence, what the calibration found.
    """
    codes, scores = pool.codes(setting.position), pool.scores
    groups, names = grouping.assign(scores), grouping.names
    fits = METHODS[setting.method](codes, scores, groups, names, EDITED, options, progress)
    if setting.conditional:
        fits = project_off(fits)
    units = np.stack([np.stack([fits[name, group].normal for group in names]) for name in EDITED])
    sds = np.array([np.nanstd(pool.score(name), ddof=1) for name in EDITED])
    found = calibrate(bench, codes, groups, names, units, EDITED, setting.position, sds, progress)
    directions = DirectionSet(
        properties=EDITED,
        groups=tuple(names),
        position=setting.position,
        units=found.units,
        steps=found.steps,
        score_sds=sds.astype(np.float32),
        grouping=grouping.kind,
        cuts=grouping.cuts,
        provenance={
            "generator_hash": bench.generator_hash,
            "scorer_hash": bench.scorer_hash,
            "method": setting.method,
            "conditional": setting.conditional,
            "options": asdict(options),
            "pool_rows": len(pool),
            "pool_seed_start": pool.plan.seed_start,
            "calibration": CALIBRATION,
        },
    )
    rows = []
    for i, name in enumerate(EDITED):
        for j, group in enumerate(names):
            fit = fits[name, group]
            rows.append(
                {
                    "property": name,
                    "group_name": group,
                    "faces": int((groups == group).sum()),
                    "source": fit.source,
                    "samples": fit.samples,
                    "accuracy": fit.accuracy,
                    "held_out": fit.held_out,
                    "converged": fit.converged,
                    "iterations": fit.iterations,
                    "shrinkage": fit.shrinkage,
                    "step": float(found.steps[i, j]),
                    "flipped": bool(found.flipped[i, j]),
                    "capped": bool(found.capped[i, j]),
                }
            )
    return directions, pd.DataFrame(rows).round(6)


def accuracy_table(fits: pd.DataFrame) -> pd.DataFrame:
    """One row per property: accuracy pooled over the groups' hold-outs (as published), and counts of doubtful fits."""
    rows = []
    for name, part in fits.groupby("property", sort=False):
        weights = part["held_out"].where(part["held_out"] > 0, part["samples"])
        rows.append(
            {
                "property": name,
                "accuracy": float((part["accuracy"] * weights).sum() / max(weights.sum(), 1)),
                "held_out": int(part["held_out"].sum()),
                "unconverged": int((~part["converged"]).sum()),
                "flipped": int(part["flipped"].sum()),
                "capped": int(part["capped"].sum()),
                "pooled_groups": int((part["source"] == "pooled").sum()),
            }
        )
    return pd.DataFrame(rows)


def finite_scores(pool: Pool) -> tuple[np.ndarray, pd.DataFrame]:
    """(rows whose eight scores are all measured, those scores as a table)."""
    rows = np.flatnonzero(np.isfinite(pool.scores).all(axis=1))
    return rows, pd.DataFrame(pool.scores[rows], columns=list(PROPERTIES))
