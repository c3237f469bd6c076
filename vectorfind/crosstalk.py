"""What the judge reads into renders of which only the eyes, the mouth or the roll has changed: its own error.

Renders are the one place where it is known that nothing else has changed. What the oracle reads there is no side effect
of any edit, and as much of it has to be expected where a perfect edit is judged.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from pipeline.artefacts import code_version, is_fresh, write_stamp
from pipeline.progress import progress
from vectorfind.effects import MATCHED_WITHIN, ORACLE_ATTRIBUTES, Effects, Judge, leakage
from vectorfind.graders import finder_of
from vectorfind.names import EDITED, PROPERTIES
from vectorfind.pool import pool_digest

# Seeds that no network was trained or tried on: held-out renders begin at 1,000,000, training's at 10,000,000.
FIRST_SEED, PEOPLE = 2_000_000, 60
# By how many deviations of its factor a property is moved, either way.
STEPS = (0.6, 1.2, 2.0)
BATCH = 10
# What a render comes from.
RENDERING = ("render", "geometry", "shading", "face_sheet")
NO_GLASSES = 0.02


def factors_of_people(count: int) -> torch.Tensor:
    """Factors float32 [count, K] of the first seeds whose render is a young woman of good quality with no glasses."""
    from virtual_face.population import factors_from_seeds, head_parameters

    found, seed = [], FIRST_SEED
    while sum(map(len, found)) < count:
        factors = factors_from_seeds(list(range(seed, seed + 10 * count)))
        p = head_parameters(factors)
        good = (p["gender"] >= 0.5) & (p["quality"] >= 0.5) & (p["age"] < 0.5) & (p["glasses"] < NO_GLASSES)
        found.append(factors[good])
        seed += 10 * count
    return torch.cat(found)[:count]


def moved(factors: torch.Tensor, name: str, step: float) -> torch.Tensor:
    """Factors [n, K] that differ from these in one property alone: openness of the eyes, of the mouth, or the roll."""
    from virtual_face.population import INDEX

    factors = factors.clone()
    factors[:, INDEX["roll" if name == "pose" else name]] += step
    if name == "pose":
        # A head that tilts turns a little in this population, and one that turns looks back (see `head_parameters`).
        turn = -step * 0.05 / 0.24
        factors[:, INDEX["yaw"]] += turn
        factors[:, INDEX["gaze_x"]] += turn * 0.30 / 0.35
    return factors


def crosstalk(bench, judge: Judge, sds: np.ndarray, people: int = PEOPLE, advance=None) -> pd.DataFrame:
    """A table as of `effects.leakage`, by renders instead of edits, `signed` and `size` in the oracle's own units.

    sds [8]: deviations of the finder's scores over the pool. As edits are, renders are compared at one achieved
    deviation by the finder, up and down, in between the rendered ones by straight lines. advance: called with the
    renders done.
    """
    factors = factors_of_people(people)
    scores, read = _look(bench, judge, factors, sds, advance)
    rows, changes = [], []
    for name in EDITED:
        column = PROPERTIES.index(name)
        for sign in (1.0, -1.0):
            looks = [_look(bench, judge, moved(factors, name, sign * step), sds, advance) for step in STEPS]
            achieved = np.stack([there[:, column] - scores[:, column] for there, _ in looks], 1)
            change = np.stack([there - read for _, there in looks], 1)
            for person, (own, others) in enumerate(zip(sign * achieved, change, strict=True)):
                reached, along = _where_one_is_achieved(own, others)
                matched = abs(reached - 1) <= MATCHED_WITHIN
                rows.append({"seed": person, "property": name, "achieved": sign * reached, "matched": matched})
                changes.append(along)
    return leakage(Effects(pd.DataFrame(rows), np.stack(changes), list(ORACLE_ATTRIBUTES)))


def _where_one_is_achieved(achieved: np.ndarray, changes: np.ndarray) -> tuple[float, np.ndarray]:
    """(1, changes [C] there) between renders that achieved [S] and changed [S, C]; of the farthest, where none did."""
    own, others = np.append(0.0, achieved), np.concatenate([np.zeros((1, changes.shape[1])), changes])
    for k in range(1, len(own)):
        if own[k] >= 1:
            share = (1 - own[k - 1]) / (own[k] - own[k - 1])
            return 1.0, others[k - 1] + share * (others[k] - others[k - 1])
    return float(own.max()), others[own.argmax()]


def _look(bench, judge: Judge, factors: torch.Tensor, sds: np.ndarray, advance) -> tuple[np.ndarray, np.ndarray]:
    """The finder's scores [n, 8] in deviations and the oracle's attributes [n, 7] of renders."""
    from virtual_face.render import render_factors

    scores, read = [], []
    for part in factors.split(BATCH):
        images = render_factors(part, bench.generator.resolution).images
        scores.append(bench.scores(images.to(bench.device)))
        read.append(judge.read(images)[0])
        if advance is not None:
            advance(len(part))
    return np.concatenate(scores) / sds, np.concatenate(read)


def crosstalk_of(stage) -> pd.DataFrame:
    """`crosstalk.csv` of a run, measured where it is missing or stale; empty in a world without an oracle."""
    from vectorfind.further import open_judge, oracle_file, write_csv
    from vectorfind.grounds import CODE

    judge = open_judge(stage)
    if judge is None:
        return pd.DataFrame()
    path = stage.files.run.path("vectorfind", "judgement", "crosstalk.csv")
    about = {
        "options": {
            "pool": pool_digest(stage.files.pool),
            "rows": stage.plan.rows,
            "people": PEOPLE,
            "resolution": stage.bench.generator.resolution,
        },
        "seed": FIRST_SEED,
        "inputs": {"scorer": stage.plan.models.scorer, **oracle_file(stage)},
        "code": code_version("vectorfind.crosstalk", *(f"virtual_face.{name}" for name in RENDERING), *CODE["effects"]),
    }
    if not stage.options.force and is_fresh(path, **about)[0]:
        return pd.read_csv(path)
    renders = PEOPLE * (1 + 2 * len(EDITED) * len(STEPS))
    with progress(renders, "what the oracle reads into renders") as bar:
        table = crosstalk(stage.bench, judge, finder_of(stage.bench, stage.open_pool().scores).sds, PEOPLE, bar.update)
    write_csv(path, table)
    write_stamp(path, command="run_vectorfind.py compare", rows=len(table), **about)
    return table
