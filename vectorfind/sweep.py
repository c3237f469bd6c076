"""Samples, extremes, position, method and grouping against what comes of it: one pool, one test, a row per setting."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.artefacts import atomic, is_fresh, stamp_path, write_stamp
from pipeline.profile import shown
from pipeline.progress import progress
from pipeline.report import Report
from pipeline.run import Run
from vectorfind.evaluate import BARS, DIGITS, passed, per_face
from vectorfind.graders import FINDER, finder_of
from vectorfind.grid import grid_named
from vectorfind.names import EDITED
from vectorfind.protocol import bootstrap, run_graded
from vectorfind.setting import Setting

KEY = ["samples", "k_percent", "position", "method", "groups"]
AXES = ("samples", "k_percent")
EFFECT_FACES = 50
EVERY = 100.0  # per cent of the samples, for methods that look at all of them
LEGEND = """
`_corr`: mean signed correlation of asked and measured over the faces, `_low` and `_high` its 95 % interval.
`reversed`: largest share of faces with a correlation below 0. `pass_`: share of faces that hold the bars .92 /
.88 / .92 (v7) or .92 / .88 / .88 (v8). `matched`: share of edits that could be brought to one deviation; of
these `drift`: distance of the oracle's features (1: between two people), `pixel`: mean change of 255 outside
the property's region, `largest_leak`: mean signed deviations of the score that is dragged along most.
`seconds`: to find the directions.
"""


def run_sweep(stage) -> list[Path]:
    """Measure every combination that is not in `sweep.csv` yet; write the table, the plots and the report."""
    from vectorfind.further import open_judge, sweep_about, swept

    options, plan = stage.options, stage.plan
    sizes, shares = swept(plan)
    shares = [round(share, DIGITS) for share in shares]  # as the table holds them
    path = table_of(stage.files.run)
    about = sweep_about(stage)
    fresh, reason = is_fresh(path, **about)
    is_kept = fresh and not options.force
    if path.is_file() and not is_kept:
        stage.summary.note(f"all rows of the sweep again: {'--force' if options.force else reason}")
        if not options.force:
            stage.summary.note(f"the rows before are kept in {shown(_kept_aside(path))}")
    table = read_sweep(path) if is_kept else pd.DataFrame(columns=KEY)
    # One row for what is named twice.
    wishes = dict.fromkeys(
        (n, k, position, method, groups)
        for method, position, groups, n in product(options.methods, options.positions, options.groupings, sizes)
        # Only the SVM looks at extremes.
        for k in (shares if method.startswith(("svm", "mixed")) else (EVERY,))
    )
    finder, oracle = [finder_of(stage.bench, stage.open_pool().scores)], open_judge(stage)
    there = set(table[KEY].itertuples(index=False, name=None))
    for old in sweep_figures(stage.files.run):
        old.unlink()  # so that plots of other rows never lie beside the table, should this be stopped
    with progress(len(wishes), "sweep") as bar:
        for wish in wishes:
            if wish not in there:
                row = _measure(stage, finder, oracle, *wish)
                table = pd.DataFrame([*table.to_dict("records"), row])
                with atomic(path) as temporary:
                    table.to_csv(temporary, index=False, lineterminator="\n")
                write_stamp(path, command="run_vectorfind.py sweep", rows=len(table), **about)
            bar.update(1)
    for axis_name in AXES:
        _plot(path.parent, table, axis_name)
    figures = sweep_figures(stage.files.run)
    report = Report("VectorFind: sweep").text(
        f"Each row: directions from the first samples of one pool, tested on the same {plan.faces} faces by the scorer "
        f"that found them; side effects at one achieved deviation, on {min(plan.faces, EFFECT_FACES)} of the faces."
    )
    report.table(table).text(LEGEND)
    for figure in figures:
        report.figure(figure, f"Mean signed correlation against {figure.stem.removeprefix('corr_')}")
    return [path, *figures, report.write(stage.files.run.path("reports", "vectorfind_sweep.md"))]


def _measure(stage, finder, oracle, samples: int, k_percent: float, position: str, method: str, groups: str) -> dict:
    from vectorfind.effects import cost, largest_leak, leakage, measure_effects
    from vectorfind.finding import find_editor

    setting = replace(Setting.named(method, position, groups), cuts=stage.options.cuts)
    pool = stage.open_pool().head(samples)
    inner = stage.with_setting(setting)
    grouping = inner.grouping(pool.scores)
    options = replace(inner.method_options(), k_percent=k_percent)
    clock = time.perf_counter()
    editor, _ = find_editor(stage.bench, pool, grouping, setting, options, inner.identity)
    seconds = time.perf_counter() - clock
    seeds = stage.plan.test_seeds
    test = run_graded(stage.bench, editor, grouping, seeds, grid_named("deviations"), finder)[FINDER]
    faces = per_face(test)
    row = dict(zip(KEY, (samples, k_percent, position, method, groups), strict=True))
    for name in EDITED:
        row[f"{name}_corr"], row[f"{name}_low"], row[f"{name}_high"] = bootstrap(faces[f"{name}_corr"].to_numpy())
    row["reversed"] = float(np.max([(faces[f"{name}_corr"] < 0).mean() for name in EDITED]))
    row |= {f"pass_{version}": float(passed(faces, bars).mean()) for version, bars in BARS.items()}
    found = measure_effects(stage.bench, editor, grouping, seeds[:EFFECT_FACES], finder, oracle)
    costs = cost(found)
    row |= {what: float(costs[what].mean()) for what in ("drift", "pixel", "matched")}
    leaks = leakage(found)
    row["largest_leak"] = abs(largest_leak(leaks[leaks["column"].str.startswith(f"{FINDER} ")])[1])
    return {key: round(value, DIGITS) if isinstance(value, float) else value for key, value in row.items()} | {
        "seconds": round(seconds, 2)
    }


def _kept_aside(path: Path) -> Path:
    """Rename a table to `sweep_before_1.csv` or the first number that is free: its rows took hours."""
    number = 1
    while (other := path.with_name(f"{path.stem}_before_{number}.csv")).exists():
        number += 1
    stamp_path(path).unlink(missing_ok=True)
    return path.rename(other)


def table_of(run: Run) -> Path:
    """Where a sweep of this run lies."""
    return run.path("vectorfind", "sweep", "sweep.csv")


def read_sweep(path: Path) -> pd.DataFrame:
    """`sweep.csv`; groups are names, though some look like numbers."""
    return pd.read_csv(path, dtype={"groups": str})


def sweep_figures(run: Run) -> list[Path]:
    """The plots that a sweep of this run has drawn."""
    paths = [run.path("vectorfind", "sweep", f"corr_{name}.png") for name in AXES]
    return [path for path in paths if path.is_file()]


def _plot(folder: Path, table: pd.DataFrame, axis_name: str) -> None:
    """Correlation against one axis: a line per method, position, grouping and the other axis that has two points."""
    path = folder / f"corr_{axis_name}.png"
    path.unlink(missing_ok=True)  # of a sweep before this one
    from vectorfind.figures import draw_lines

    others = [name for name in KEY if name != axis_name]
    lines = {
        _line_name(dict(zip(others, key, strict=True))): part.sort_values(axis_name)
        for key, part in table.groupby(others)
        if part[axis_name].nunique() > 1
    }
    if lines:
        draw_lines(path, lines, axis_name)


def _line_name(setting: dict) -> str:
    """What stays the same along a line of a plot, as in `svm in w, 20 %, 16 groups`."""
    count = f"{setting['samples']:,} samples" if "samples" in setting else f"{setting['k_percent']:g} %"
    groups = "no groups" if setting["groups"] == "none" else f"{setting['groups']} groups"
    return f"{setting['method']} in {setting['position']}, {count}, {groups}"
