"""`reports/vectorfind.md`: all methods side by side, by every grader, with what they cost and what it answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.errors import PipelineError
from pipeline.report import Report
from vectorfind.crosstalk import PEOPLE, crosstalk_of
from vectorfind.effects import FEWEST, WAYS, largest_leak
from vectorfind.evaluate import ENOUGH
from vectorfind.graders import SPREAD_FACES
from vectorfind.leaks import (
    NOTABLE,
    beside_renders,
    in_deviations,
    in_own_units,
    over_shared_edits,
    person_of,
    person_units,
    scores_of,
)
from vectorfind.names import EDITED
from vectorfind.protocol import bootstrap, compare
from vectorfind.questions import many_samples, obedience
from vectorfind.reach import LETTER, MET_WITHIN, SHARES, met_shares
from vectorfind.selection import rates_of
from vectorfind.setting import Files, Setting
from vectorfind.sweep import read_sweep, sweep_figures, table_of
from vectorfind.targets import LEAK_ASKED, WISHES_ASKED, against_reference, person_leak_otherwise, strictest, targets
from vectorfind.truth import FACES, latent_map_behind, moves_of, summary

DUEL_FACES = 2
# What a newcomer needs to read the tables.
WORDS = """- *Deviation*: the standard deviation of a score among the faces of the pool. *Edit*: in the
  test a wish for eyes, mouth and pose at once, 50 for each face (on the usual grid eyes by -1.2 or 1.2, mouth by five
  steps from -1.8 to 1.8, pose by five from -1.2 to 1.2 deviations, each with each); for side effects one property
  alone, by one deviation. *Correlation*: of what was asked with what was measured, over the 50. It is blind to the size
  of a change, which `slope` and `range` tell.
- *Graders*: `finder`, the scorer that the directions were found by; `second`, a CNN trained on other faces;
  `geometric`, face parser and geometry. All three measure by one definition of open and tilted: the CNNs learnt what
  parser and geometry say, each on its own faces.
- *Passes*: eyes / mouth / pose of a face correlate by .92 / .88 / .88 (v8) or .92 / .88 / .92 (v7). *Reversed*: a
  correlation below 0.
- *Leak*: mean change of something else per achieved deviation of what is meant. *Oracle*: a network that reads head
  and person of a picture; it trained no direction and no scorer."""
# What only some settings need.
WORDS_OF_METHODS = {
    "model_loop": "- `model_loop` plans by a network that learnt the scores from the codes. What an edit has changed "
    "is taken to be the mean of what that network and the finder say. It also keeps colours and places of the face's "
    "parts as they are, which it learnt from the parser that `geometric` grades by; how far eyes and mouth are open, "
    "and the roll, are not among them.",
    "closed_loop": "- `closed_loop` follows the gradient of generator and finder, and keeps features of filter CNNs as "
    "they are, which learnt from the oracle's labels.",
}
WORDS_OF_NAMES = {
    "_mended": "the published settings mended",
    "_conditional": "each direction is projected off those of all other scores",
    "_8": "8 groups of faces by hair and background instead of 16",
    "_ungrouped": "one group of all faces instead of 16",
    "_cuts": "groups divided at published cuts instead of medians",
}
GRIDS_MEAN = {
    "deviations": "Every face is asked for the same changes, in deviations of the score, whether it can follow or not. "
    "A closed mouth cannot close further: `best possible` is the mean correlation, about, of an editor that obeys to "
    "the letter until the score ends (first and last percentile of that grader's scores: the finder's in the whole "
    f"pool, the others' in {SPREAD_FACES} of its faces).",
    "reachable": "The changes that a face is asked for are slid, and where need be narrowed, into what its scores can "
    "reach (first to last percentile over the pool): the five weights of a closed mouth are five ways to open it. "
    "Correlations are of these weights with the measured score.",
    "published": "The changes are the published ones, in units of the latent space; `slope` is per such unit.",
}
ONE_WAY = (
    "Leaks are means over edits up and down: what moves the same way in both cancels. `one way`: of the edits up "
    f"alone, or of those down, whichever drags more along; of {FEWEST} edits at least. Each method's leaks are of the "
    "edits that it could bring to one deviation; a row tells those of the edits that both could."
)
GRIDS_IN_TITLE = {
    "deviations": "",
    "reachable": ", each face asked for what it can do",
    "published": ", asked for the published weights",
}


def write_verdict(stage, done: list[Files]) -> list[Path]:
    """Paired comparison, figures and the one-page verdict of settings that were judged before; returns the paths."""
    from vectorfind.figures import draw_duel, draw_leakage, draw_passes
    from vectorfind.further import is_reached, is_selected, is_swept, write_csv

    run = stage.files.run
    names = [files.setting.name for files in done]
    judged = pd.concat([_read(files.judged("judgement.csv")) for files in done], ignore_index=True)
    faces = {files.setting.name: _read(files.judged("judged_faces.csv")) for files in done}
    leaks = {files.setting.name: _read(files.judged("leakage.csv")) for files in done}
    costs = {files.setting.name: _read(files.judged("side_effects.csv")) for files in done}
    edits = {files.setting.name: _read(files.judged("matched_edits.csv")) for files in done}
    reference = _reference([files.setting for files in done])
    paired = compare(faces, reference)
    grid = stage.files.setting.grid
    suffix = stage.files.setting.suffix
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
    files_of = {files.setting.name: files for files in done}
    settings = {name: files.setting for name, files in files_of.items()}
    editors = {name: stage.with_setting(settings[name]).open_directions() for name in rivals}
    draw_duel(strips, stage.bench, editors, stage.plan.test_seeds[:DUEL_FACES])
    report = Report(f"VectorFind: the verdict, pool of {stage.plan.rows:,}{GRIDS_IN_TITLE[grid]}")
    for note in stage.plan.models.notes:
        report.text(f"> **Note.** {note}")
    report.text(_verdict(stage, judged, best)).text(_words(settings.values()))
    latent_map = latent_map_behind(stage)
    units, fitted = person_units(stage, latent_map), _within_reach(stage, settings[best])
    own_error = in_deviations(crosstalk_of(stage), units)
    moves = {name: moves_of(stage.with_setting(settings[name]), latent_map) for name in names}
    alike = over_shared_edits(edits, (best, reference))
    walked = files_of[best] if is_reached(stage, settings[best]) else None
    met = None if walked is None else _read(walked.judged("intended.csv"))
    asked = targets(judged, leaks, best, reference, fitted, alike, met)
    report.table(asked, "Asked of the best method, and measured").text(GRIDS_MEAN[grid]).text(ONE_WAY)
    if fitted is not None:
        report.text(f"`reachable grid`: the same method on `--grid reachable`. {GRIDS_MEAN['reachable']}")
    otherwise = person_leak_otherwise(leaks, best, reference, units, own_error, moves)
    if len(otherwise):
        report.table(otherwise, f"The largest leak to head or person in other units (asked: {LEAK_ASKED})").text(
            "The leak to head or person above is told in deviations among this generator's faces, which are so alike "
            "that what the oracle reads of them varies little, and partly by its own noise. The first row tells the "
            "same readings in deviations among people of every kind, as the base generator draws them. The second "
            "takes from them what the oracle reads into renders of which nothing but the meant property was moved "
            "(see The judge judged). The third asks no network: a code of this world tells what it stands for."
        )
        report.text(in_own_units(leaks[best], units))
    if len(paired):
        report.table(
            against_reference(paired, judged),
            f"Gain on {reference} in mean correlation by the '{strictest(judged)}' grader, the same faces; in brackets "
            "95 % intervals, surely: all of it on one side of 0",
        )
    report.figure(
        strips,
        f"The first {DUEL_FACES} faces of the test, each property moved alone, by {' (left) and '.join(rivals)}"
        f"{' (right)' * (len(rivals) > 1)}; under each picture the deviations asked for and reached (finder)",
    )
    report.heading("Methods and graders").table(
        _overview(judged, faces), "Mean signed correlation, and share of passes"
    ).text(
        "In brackets: 95 % intervals over faces. `|corr|` and `monotone` (share of rising steps between the levels of "
        "the grid): means of the three properties. `slope`: deviations per deviation asked for; `range`: "
        "deviations from the lowest to the highest level; eyes / mouth / pose. `reversed`: of the worst property. "
        f"`measured`: share of edits that the grader could read; a face of which it read less than {ENOUGH:.0%} does "
        "not pass. An unmoved score has correlation 0."
    )
    report.figure(passes, "Share of faces that pass .92 / .88 / .88, by method and grader")
    report.heading("What else an edit changes")
    report.table(_costs(leaks, costs, edits, reference), "At one achieved deviation of a property alone").text(
        "`drift`: distance of the oracle's features, less what it reads as eyes, mouth and attitude of the head; 1 is "
        "the distance between two people. The oracle's features helped to train the generator. `pixel`: mean change of "
        "255 outside the property's region. `matched`: share of edits that could be brought to one deviation; `more "
        "than`: mean difference from the reference, over faces, by the edits that both could. These are means of the "
        "three properties. `leak to a score`: mean signed deviations of the score that is dragged along most, by the "
        "least favourable grader; `change of a face`: mean size, whatever the sign, of the score where it is largest. "
        "`leak to a person`: as `leak to a score`, of what the oracle reads (yaw, pitch, roll, gender, age, quality, "
        "glasses), in deviations among the generator's faces: where hardly a face wears glasses, their deviation is "
        "little."
    )
    report.figure(
        heat,
        "Leakage: deviations of each score (finder), head and person (oracle) per deviation of the intended one (rows)",
    )
    _tell_factors(report, moves)
    _tell_own_error(report, leaks[best], own_error)
    reached = [files for files in done if is_reached(stage, files.setting)]
    written = [path for files in reached for path in _tell_reach(report, folder, files)]
    for files in done:
        if is_selected(stage, files.setting):
            report.heading(f"Faces that {files.setting.name} is kept for").table(_read(rates_of(files))).text(
                "Chosen by the finder at .92 / .88 / .88, confirmed by each grader at the same bars on other noise: of "
                "the generator, and of a camera that takes every picture anew. `noise`: what these alone change, in "
                "deviations of the edited scores. Of the published hand-kept cases 9 of 22 passed again."
            )
    report.heading("Two questions that the published project left open")
    swept = is_swept(stage)
    report.text(obedience(faces, edits, best)).text(many_samples(read_sweep(table_of(run)) if swept else None))
    for figure in sweep_figures(run) if swept else ():
        axis = figure.stem.removeprefix("corr_")
        report.figure(figure, f"Mean signed correlation against {axis}, from the sweep (finder, grid of deviations)")
    return [
        *(run.path("vectorfind", "judgement", f"{name}{suffix}.csv") for name in tables),
        heat,
        passes,
        strips,
        *written,
        report.write(run.path("reports", f"vectorfind{suffix}.md")),
    ]


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise PipelineError(f"{path} is missing: run `run_vectorfind.py judge effects` for this setting first")
    try:
        return pd.read_csv(path, dtype={"group_name": str})
    except ValueError as error:
        raise PipelineError(f"{path} is damaged ({error}): delete it and run the step that writes it again") from error


def _reference(settings: list[Setting]) -> str:
    """The published SVM that all else is compared with, at w where it was judged there; else the first setting."""
    published = [one for one in settings if one.is_published_svm]
    at_w = [one for one in published if one.position == "w"]
    return [*at_w, *published, *settings][0].name


def _best(judged: pd.DataFrame) -> str:
    part = judged[judged["grader"] == strictest(judged)]
    return str(part.groupby("method", sort=False)["corr"].mean().idxmax())


def _words(settings) -> str:
    """What a newcomer needs to read the tables of some settings."""
    told = [words for method, words in WORDS_OF_METHODS.items() if method in {one.method for one in settings}]
    endings = [
        f"`{ending}`, {words}"
        for ending, words in WORDS_OF_NAMES.items()
        if any(ending in one.name for one in settings)
    ]
    names = "; ".join(["- Names: the method, and the position in the generator that it edits", *endings]) + "."
    return "\n".join([WORDS, *told, names])


def _verdict(stage, judged: pd.DataFrame, best: str) -> str:
    return (
        f"{stage.plan.rows} samples, {stage.plan.faces} faces that trained nothing, 50 edits each. Best by the "
        f"'{strictest(judged)}' grader, on these same faces: **{best}**."
    )


def _within_reach(stage, setting: Setting) -> pd.DataFrame | None:
    """The judgement of a setting on the grid that asks no face for more than it can, where this run holds one."""
    from vectorfind.further import is_judged

    wish = replace(setting, grid="reachable")
    if setting.grid != "deviations" or not is_judged(stage.with_setting(wish), wish, effects=False, tell=True):
        return None
    return _read(Files(stage.files.run, wish).judged("judgement.csv"))


def _overview(judged: pd.DataFrame, faces: dict[str, pd.DataFrame]) -> pd.DataFrame:
    rows = []
    for (method, grader), part in judged.groupby(["method", "grader"], sort=False):
        part = part.set_index("property")
        row = {"method": method, "grader": grader}
        for name in EDITED:
            one = part.loc[name]
            row[name] = f"{one['corr']:.3f} ({one['corr_low']:.3f}-{one['corr_high']:.3f})"
        own = faces[str(method)][faces[str(method)]["grader"] == grader]
        size, low, high = bootstrap(own[[f"{name}_corr" for name in EDITED]].abs().mean(axis=1).to_numpy())
        row["|corr|"] = f"{size:.3f} ({low:.3f}-{high:.3f})"
        row |= {what: " / ".join(f"{part.loc[name, what]:.2f}" for name in EDITED) for what in ("slope", "range")}
        row |= {"monotone": part["monotone"].mean(), "reversed": part["reversed"].max()}
        row |= {"pass v7": part["pass_v7"].iloc[0], "pass v8": part["pass_v8"].iloc[0]}
        rows.append({**row, "faces": int(part["faces"].iloc[0]), "measured": part["measured_edits"].iloc[0]})
    return pd.DataFrame(rows)


def _costs(leaks: dict, costs: dict, edits: dict, reference: str) -> pd.DataFrame:
    keys, rows = ["seed", "property", "asked"], []
    base = edits[reference][edits[reference]["matched"]].set_index(keys)
    for name, table in costs.items():
        row = {"method": name, "matched": table["matched"].mean()}
        both = edits[name][edits[name]["matched"]].set_index(keys).join(base, rsuffix="_base", how="inner")
        for what in ("drift", "pixel"):
            row[what] = table[what].mean()
            if len(costs) > 1:
                gaps = (both[what] - both[f"{what}_base"]).groupby(level="seed").mean()
                gap, low, high = bootstrap(gaps.to_numpy())
                row[f"{what} more than {reference}"] = (
                    "-" if name == reference or np.isnan(gap) else f"{gap:+.3f} ({low:+.3f} to {high:+.3f})"
                )
        for what, which in (("score", scores_of), ("person", person_of)):
            part = which(leaks[name])
            where, row[f"leak to a {what}"] = largest_leak(part)
            row[f"{what} that leaks most"] = where
            where, size = largest_leak(part, WAYS)
            row[f"to a {what}, one way"] = "-" if np.isnan(size) else f"{size:+.3f} ({where})"
            if what == "score":
                row["change of a face"] = part.loc[~part["intended"], "size"].max()
        rows.append(row)
    return pd.DataFrame(rows)


def _tell_factors(report: Report, moves: dict[str, pd.DataFrame]) -> None:
    """The factors behind the codes, where the world knows them."""
    known = [summary(table).assign(method=name) for name, table in moves.items() if len(table)]
    if not known:
        return
    columns = ["method", "property", "factor", "moves", "low", "high", "beside", "most", "edits"]
    report.heading("What an edit truly moves")
    report.table(pd.concat(known)[columns], f"Factors behind the codes, {FACES} faces, per achieved deviation").text(
        "In this world a code tells what it stands for: the latent map reads 48 factors from w, and the generator "
        "learnt to draw these. A factor has deviation 1 among all people. `moves`: mean move of the factor that is "
        "meant. `beside`: length of a face's move along the 47 others, median; those of `most` move most in the "
        "mean. Some belong to the edit: a smile narrows the eyes and opens the mouth, lifted brows open the eyes. "
        "Factors are not what one sees: the one of roll turns the head as well, by .2 deviations of its yaw per "
        "deviation, so that the yaw of the head (`pose > yaw`, above) and the factor of yaw can move apart."
    )


def _tell_own_error(report: Report, leaks: pd.DataFrame, own_error: pd.DataFrame) -> None:
    """What the oracle reads into renders, beside what it reads into edits."""
    beside = beside_renders(leaks, own_error) if len(own_error) else own_error
    if not len(beside):
        return
    report.heading("The judge judged").text(
        f"The oracle errs too. In renders of {PEOPLE} young women without glasses the eyes alone, the mouth alone "
        "or the roll alone was moved by one deviation, as the finder reads it; all else is known to be as it was. "
        "What the oracle reads into these is its own error, and a perfect edit would be told to drag it along:"
    )
    report.table(beside, f"Deviations per deviation, from {NOTABLE} on")


def _tell_reach(report: Report, folder: Path, files: Files) -> list[Path]:
    """How far a loop takes each face, drawn and listed in `folder`; returns the paths."""
    from vectorfind.figures import draw_reach
    from vectorfind.further import write_csv

    reach, met = _read(files.judged("reach.csv")), _read(files.judged("intended.csv"))
    drawn, listed, wishes = (folder / f"reach_{files.setting.name}{end}" for end in (".png", ".csv", "_wishes.csv"))
    draw_reach(drawn, reach, met[met["walk"] == LETTER])
    write_csv(listed, reach)
    write_csv(wishes, met)
    report.heading(f"The reach of {files.setting.name}").text(_reach(reach, met)).figure(
        drawn,
        "A line for each face: how far it can be taken; dots: the wishes, black met, red missed, where the "
        "loop follows the finder alone",
    ).text(f"Every number: [{listed.name}]({folder.name}/{listed.name}), [{wishes.name}]({folder.name}/{wishes.name}).")
    return [drawn, listed, wishes]


def _reach(reach: pd.DataFrame, met: pd.DataFrame) -> str:
    """How far the loop takes a face, and how often a wish inside that range is met."""
    shares = " and ".join(f"{share:g}" for share in SHARES)
    lines = [
        f"{reach['seed'].nunique()} faces, each asked for {shares} of how far it can go, up and down, property by "
        f"property; wishes of less than {MET_WITHIN} deviations, which staying put would meet, are left out. Met "
        f"within {MET_WITHIN} deviations by the finder (asked: {WISHES_ASKED:.0%} of wishes):",
        "",
    ]
    for walk, part in met.groupby("walk", sort=False):
        wishes, faces = met_shares(part)
        verdict = "met" if wishes >= WISHES_ASKED else "MISSED"
        how = "the loop follows the finder alone" if walk == LETTER else "the loop as it is judged above"
        lines.append(
            f"- {how}: {wishes:.1%} of {len(part)} wishes ({verdict}); {faces:.1%} of {part['seed'].nunique()} faces "
            "had all of theirs met"
        )
    lines += ["", "How far a face goes, in deviations of the score, median and 10 to 90 %:", ""]
    literal = met[met["walk"] == LETTER]
    for name in EDITED:
        part, told = reach[reach["property"] == name], []
        for side in ("low", "high"):
            few, half, many = np.percentile(part[side], [10, 50, 90])
            told.append(f"{side} {half:+.1f} ({few:+.1f} to {many:+.1f})")
        own = literal[literal["property"] == name]
        lines.append(
            f"- {name}: {', '.join(told)}; {len(own)} wishes"
            + (f", following the finder alone {own['met'].mean():.1%} met" if len(own) else "")
        )
    return "\n".join(lines)
