"""`reports/vectorfind.md`: all methods side by side, by every grader, with what they cost and what it answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.errors import PipelineError
from pipeline.report import Report
from vectorfind.effects import largest_leak
from vectorfind.graders import FINDER, GRADERS
from vectorfind.names import EDITED
from vectorfind.protocol import compare
from vectorfind.setting import Files
from vectorfind.sweep import sweep_figures

ASKED = {"second": (0.97, 0.95, 0.97), "geometric": (0.93, 0.90, 0.93)}
DUEL_FACES = 2
GRIDS_MEAN = {
    "deviations": "Every face is asked for the same changes, in deviations of the score, whether it can follow or not. "
    "A closed mouth cannot close further: `most` is the mean correlation of an editor that obeys to the letter until "
    "the score ends (at the first and last percentile of that grader's scores over the pool).",
    "reachable": "The changes that a face is asked for are slid, and where need be narrowed, into what its scores can "
    "reach (first to last percentile over the pool): the five weights of a closed mouth are five ways to open it. "
    "Correlations are of these weights with the measured score.",
    "published": "The changes are the published ones, in units of the latent space.",
}


def write_verdict(stage, done: list[Files]) -> list[Path]:
    """Paired comparison, figures and the one-page verdict of settings that were judged before; returns the paths."""
    from vectorfind.figures import draw_duel, draw_leakage, draw_passes
    from vectorfind.further import write_csv

    run = stage.files.run
    names = [files.setting.name for files in done]
    judged = pd.concat([_read(files.judged("judgement.csv")) for files in done], ignore_index=True)
    faces = {files.setting.name: _read(files.judged("judged_faces.csv")) for files in done}
    leaks = {files.setting.name: _read(files.judged("leakage.csv")) for files in done}
    costs = {files.setting.name: _read(files.judged("side_effects.csv")) for files in done}
    edits = {files.setting.name: _read(files.judged("matched_edits.csv")) for files in done}
    reference = next((name for name in names if name.startswith("svm_")), names[0])
    paired = compare(faces, reference)
    grid = stage.files.setting.grid
    suffix = "" if grid == "deviations" else f"_{grid}_grid"
    folder = run.path("reports", f"vectorfind{suffix}")
    tables = {"judgement": judged, "paired": paired}
    for name, table in tables.items():
        write_csv(run.path("vectorfind", "judgement", f"{name}{suffix}.csv"), table)
    best = _best(judged)
    heat, passes = folder / "leakage.png", folder / "passes.png"
    draw_leakage(heat, {name: leaks[name] for name in dict.fromkeys((best, reference))})
    draw_passes(passes, judged)
    rivals = list(dict.fromkeys((reference, best)))
    strips = folder / "strips.jpg"
    editors = [stage.with_setting(files.setting).open_directions() for name in rivals for files in _named(done, name)]
    draw_duel(strips, stage.bench, editors, stage.plan.test_seeds[:DUEL_FACES])
    report = Report("VectorFind: the verdict")
    for note in stage.plan.models.notes:
        report.text(f"> **Note.** {note}")
    report.text(_verdict(stage, judged, leaks, best, reference))
    report.text(GRIDS_MEAN[grid])
    report.figure(
        strips,
        f"The first {DUEL_FACES} faces of the test, each property moved alone, by {' (left) and '.join(rivals)}"
        f"{' (right)' * (len(rivals) > 1)}; under each picture the deviations asked for and reached (finder)",
    )
    report.heading("Methods and graders").table(_overview(judged), "Mean signed correlation, and share of passes")
    report.figure(passes, "Share of faces that pass .92 / .88 / .88, by method and grader")
    report.heading("What else an edit changes")
    report.table(_costs(leaks, costs), "At one achieved deviation, mean of the three properties").text(
        "`drift`: distance of the oracle's features, less what it reads as eyes, mouth and attitude of the head; 1 is "
        "the distance between two people. The oracle trained no direction and no scorer, but its features helped to "
        "train the generator. `pixel`: mean change of 255 outside the property's region. `matched`: share of edits "
        "that could be brought to one deviation. `largest leak`: deviations of another score per deviation, by finder."
    )
    report.figure(heat, "Leakage: deviations of each score (columns) per deviation of the intended one (rows)")
    report.heading("The two open questions")
    report.text(_obedience(faces, edits, best)).text(_many_samples(run))
    for figure in sweep_figures(run):
        report.figure(figure, f"Mean signed correlation against {figure.stem.removeprefix('corr_')}, from the sweep")
    report.heading(f"Against {reference}, face by face").table(paired)
    return [
        *(run.path("vectorfind", "judgement", f"{name}{suffix}.csv") for name in tables),
        heat,
        passes,
        strips,
        report.write(run.path("reports", f"vectorfind{suffix}.md")),
    ]


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise PipelineError(f"{path} is missing: run `run_vectorfind.py judge effects` for this setting first")
    return pd.read_csv(path, dtype={"group_name": str})


def _named(done: list[Files], name: str) -> list[Files]:
    return [files for files in done if files.setting.name == name]


def _strictest(judged: pd.DataFrame) -> str:
    """The grader whose word counts most: one that did not find the directions, where there is one."""
    there = set(judged["grader"])
    return next((name for name in GRADERS if name != FINDER and name in there), FINDER)


def _best(judged: pd.DataFrame) -> str:
    part = judged[judged["grader"] == _strictest(judged)]
    return str(part.groupby("method", sort=False)["corr"].mean().idxmax())


def _verdict(stage, judged: pd.DataFrame, leaks: dict, best: str, reference: str) -> str:
    lines = [
        f"{stage.plan.rows} samples, {stage.plan.faces} faces that trained nothing, 50 edits each. Best by the "
        f"'{_strictest(judged)}' grader: **{best}**."
    ]
    mine = judged[judged["method"] == best].set_index(["grader", "property"])
    for grader in judged["grader"].unique():
        found = [mine.loc[(grader, name), "corr"] for name in EDITED]
        row = mine.loc[(grader, EDITED[0])]
        text = " / ".join(f"{value:.3f}" for value in found)
        asked = ASKED.get(grader)
        aim = "" if asked is None else f" (aim {' / '.join(f'{value:.2f}' for value in asked)})"
        most = " / ".join(f"{mine.loc[(grader, name), 'most']:.3f}" for name in EDITED)
        aim += f"; at most {most} while scores end where they do"
        lines.append(f"- {grader}: {text}{aim}; {row['pass_v8']:.0%} pass at .88 for pose, {row['pass_v7']:.0%} at .92")
    for name in dict.fromkeys((best, reference)):
        where, size = largest_leak(leaks[name], FINDER)
        lines.append(f"- largest leak of {name}: {size:+.2f} ({where})")
    worst = mine["reversed"].max()
    lines.append(f"- reversed faces of {best}: {worst:.1%} at most by any grader and property")
    return "\n".join([lines[0], "", *lines[1:]])


def _overview(judged: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for (method, grader), part in judged.groupby(["method", "grader"], sort=False):
        part = part.set_index("property")
        row = {"method": method, "grader": grader}
        for name in EDITED:
            one = part.loc[name]
            row[name] = f"{one['corr']:.3f} ({one['corr_low']:.3f}-{one['corr_high']:.3f})"
        row |= {"|corr|": part["abs_corr"].mean(), "slope": part["slope"].mean(), "monotone": part["monotone"].mean()}
        row |= {"reversed": part["reversed"].max(), "pass v7": part["pass_v7"].iloc[0]}
        rows.append({**row, "pass v8": part["pass_v8"].iloc[0], "faces": int(part["faces"].iloc[0])})
    return pd.DataFrame(rows)


def _costs(leaks: dict, costs: dict) -> pd.DataFrame:
    rows = []
    for name, table in costs.items():
        where, size = largest_leak(leaks[name], FINDER)
        row = {"method": name, "matched": table["matched"].mean(), "drift": table["drift"].mean()}
        rows.append({**row, "pixel": table["pixel"].mean(), "largest leak": size, "of": where})
    return pd.DataFrame(rows)


def _obedience(faces: dict, edits: dict, best: str) -> str:
    """Question one: do faces that obey better change less elsewhere? Rank correlation over faces, per method."""
    from scipy.stats import spearmanr

    lines = [
        "**Does a better-obeyed intention disturb the face less?** Rank correlation, over the faces, of obedience "
        "(mean of the three correlations, finder) and disturbance at one achieved deviation:",
        "",
    ]
    for name, table in faces.items():
        own = table[table["grader"] == FINDER].set_index("seed")
        obedience = own[[f"{prop}_corr" for prop in EDITED]].mean(axis=1)
        matched = edits[name][edits[name]["matched"]].groupby("seed")[["drift", "pixel"]].mean()
        both = matched.join(obedience.rename("obedience"), how="inner")
        if len(both) < 4:
            lines.append(f"- {name}: too few matched faces ({len(both)})")
            continue
        told = []
        for what in ("pixel", "drift"):
            if both[what].notna().all() and both[what].nunique() > 1:
                found = spearmanr(both["obedience"], both[what])
                told.append(f"{what} {found.statistic:+.2f} (p {found.pvalue:.2g})")
        lines.append(f"- {name}{' (best)' if name == best else ''}, {len(both)} faces: {', '.join(told)}")
    return "\n".join(lines)


def _many_samples(run) -> str:
    """Question two, from the sweep's table where one was made."""
    question = "**Does an SVM trained on too many samples make edits unnatural?** "
    path = run.path("vectorfind", "sweep", "sweep.csv")
    if not path.is_file():
        return question + "Not measured in this run: `run_vectorfind.py sweep --methods svm --sizes 1000 4000 …` does."
    table = pd.read_csv(path)
    table = table[table["method"] == "svm"].sort_values("samples")
    if table["samples"].nunique() < 2:
        return question + "Not measured in this run: the sweep holds one size of the SVM only."
    first, last = table.iloc[0], table.iloc[-1]
    trend = np.polyfit(np.log10(table["samples"]), table["drift"].astype(float), 1)[0]
    return question + (
        f"From {first['samples']} to {last['samples']} samples identity drift at one achieved deviation goes from "
        f"{first['drift']:.3f} to {last['drift']:.3f} ({trend:+.3f} per tenfold), the pixel change outside from "
        f"{first['pixel']:.2f} to {last['pixel']:.2f}, the largest leak from {first['largest_leak']:.2f} to "
        f"{last['largest_leak']:.2f}."
    )
