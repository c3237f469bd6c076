"""`reports/vectorfind.md`: all methods side by side, by every grader, with what they cost and what it answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.errors import PipelineError
from pipeline.report import Report
from vectorfind.crosstalk import PEOPLE, crosstalk_of
from vectorfind.effects import largest_leak
from vectorfind.graders import FINDER, GRADERS
from vectorfind.names import EDITED
from vectorfind.protocol import compare
from vectorfind.reach import MET_WITHIN
from vectorfind.selection import rates_of
from vectorfind.setting import Files, Setting
from vectorfind.sweep import read_sweep, sweep_figures
from vectorfind.truth import FACES, latent_map_behind, moves_of, person_moves, summary, true_attributes

# What the project asks of its best method: mean signed correlations, share of passes, deviations per deviation.
ASKED = {"second": (0.97, 0.95, 0.97), "geometric": (0.93, 0.90, 0.93)}
PASS_ASKED, LEAK_ASKED = 0.75, 0.15
DUEL_FACES = 2
SURE = 0.05
NOTABLE = 0.1  # share by which a side effect has to grow before the verdict speaks of it
GRIDS_MEAN = {
    "deviations": "Every face is asked for the same changes, in deviations of the score, whether it can follow or not. "
    "A closed mouth cannot close further: `most` is the mean correlation, about, of an editor that obeys to the letter "
    "until the score ends (at the first and last percentile of that grader's scores over the pool).",
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
    settings = {files.setting.name: files.setting for files in done}
    editors = [stage.with_setting(settings[name]).open_directions() for name in rivals]
    draw_duel(strips, stage.bench, editors, stage.plan.test_seeds[:DUEL_FACES])
    report = Report("VectorFind: the verdict")
    for note in stage.plan.models.notes:
        report.text(f"> **Note.** {note}")
    report.text(_verdict(stage, judged, best))
    latent_map = latent_map_behind(stage)
    units, fitted = person_units(stage, latent_map), _within_reach(stage, settings[best])
    own_error = _in_deviations(crosstalk_of(stage), units)
    moves = {name: moves_of(stage.with_setting(settings[name]), latent_map) for name in names}
    asked = _targets(judged, leaks, best, reference, units, own_error, fitted, moves)
    report.table(asked, "Asked of the best method, and measured")
    report.text(_in_own_units(leaks[best], units))
    report.text(GRIDS_MEAN[grid])
    if fitted is not None:
        report.text(f"Last column but one: the same method on `--grid reachable`. {GRIDS_MEAN['reachable']}")
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
        "that could be brought to one deviation. `leak to a score`: mean signed deviations of the score that is "
        "dragged along most, per deviation, by the least favourable grader. `leak to a person`: the same of what the "
        "oracle reads (yaw, pitch, roll, gender, age, quality, glasses), in deviations among the generator's faces: "
        "where hardly a face wears glasses, a deviation of glasses is little."
    )
    report.figure(heat, "Leakage: deviations of each score (columns) per deviation of the intended one (rows)")
    known = {name: table for name, table in moves.items() if len(table)}
    if known:
        report.heading("What an edit truly moves")
        told = [summary(table).assign(method=name) for name, table in known.items()]
        report.table(
            pd.concat(told)[["method", "property", "factor", "moves", "low", "high", "beside", "most", "edits"]],
            f"Factors behind the codes, {FACES} faces, per achieved deviation",
        ).text(
            "In this world a code tells what it stands for: the latent map reads 48 factors from w, and the generator "
            "learnt to draw these. A factor has deviation 1 among all people. `moves`: mean move of the factor that is "
            "meant. `beside`: length of a face's move along the 47 others, median; those of `most` move most in the "
            "mean. Some belong to the edit: a smile narrows the eyes and opens the mouth, lifted brows open the eyes."
        )
    beside = _beside_renders(leaks[best], own_error) if len(own_error) else own_error
    if len(beside):
        report.heading("The judge judged")
        report.text(
            f"The oracle errs too. In renders of {PEOPLE} young women without glasses the eyes alone, the mouth alone "
            "or the roll alone was moved by one deviation, as the finder reads it; all else is known to be as it was. "
            "What the oracle reads into these is its own error, and a perfect edit would be told to drag it along:"
        )
        report.table(beside, f"Deviations per deviation, from {NOTABLE} on")
    for files in done:
        if files.setting.is_loop and files.judged("intended.csv").is_file():
            report.heading(f"The reach of {files.setting.name}").text(_reach(files))
    for files in done:
        if rates_of(files).is_file():
            report.heading(f"Faces that {files.setting.name} is kept for").table(_read(rates_of(files))).text(
                "Chosen by the finder at .92 / .88 / .88 under one noise of the generator, confirmed by each grader at "
                "the same bars under another. Of the published hand-kept cases 9 of 22 passed again."
            )
    report.heading("The two open questions")
    report.text(_obedience(faces, edits, best)).text(_many_samples(run))
    for figure in sweep_figures(run):
        axis = figure.stem.removeprefix("corr_")
        report.figure(figure, f"Mean signed correlation against {axis}, from the sweep (finder, grid of deviations)")
    if len(paired):
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


def _strictest(judged: pd.DataFrame) -> str:
    """The grader whose word counts most: one that did not find the directions, where there is one."""
    there = set(judged["grader"])
    return next((name for name in GRADERS if name != FINDER and name in there), FINDER)


def _best(judged: pd.DataFrame) -> str:
    part = judged[judged["grader"] == _strictest(judged)]
    return str(part.groupby("method", sort=False)["corr"].mean().idxmax())


def _verdict(stage, judged: pd.DataFrame, best: str) -> str:
    return (
        f"{stage.plan.rows} samples, {stage.plan.faces} faces that trained nothing, 50 edits each. Best by the "
        f"'{_strictest(judged)}' grader: **{best}**."
    )


def _within_reach(stage, setting: Setting) -> pd.DataFrame | None:
    """The judgement of a setting on the grid that asks no face for more than it can, where this run holds one."""
    from vectorfind.further import is_judged

    wish = replace(setting, grid="reachable")
    if setting.grid != "deviations" or not is_judged(stage.with_setting(wish), wish):
        return None
    return _read(Files(stage.files.run, wish).judged("judgement.csv"))


def _targets(
    judged: pd.DataFrame,
    leaks: dict,
    best: str,
    reference: str,
    units: pd.DataFrame,
    own_error: pd.DataFrame,
    fitted: pd.DataFrame | None,
    moves: dict,
) -> pd.DataFrame:
    """What is asked of the best method, what it reaches, and what the reference reaches.

    units: see `person_units`. own_error: what the oracle reads into renders, in deviations. fitted: judgement of the
    best method on the reachable grid, or None. moves: see `truth.moves_of`, by method.
    """
    rows = []

    def add(what: str, wish: str, values: list[float], is_met: bool, most: str = "-", within: float = np.nan) -> None:
        measured = [f"{value:.3f}" for value in values]
        row = {"asked": what, "at": wish, best: measured[0], reference: measured[1], "most": most}
        row |= {} if fitted is None else {"within reach": f"{within:.3f}" if np.isfinite(within) else "-"}
        rows.append(row | {"": "met" if is_met else "MISSED"})

    tables = [judged[judged["method"] == name].set_index(["grader", "property"]) for name in (best, reference)]
    other = None if fitted is None else fitted.set_index(["grader", "property"])

    def within(grader: str, name: str, column: str) -> float:
        return (
            np.nan if other is None or (grader, name) not in other.index else float(other.loc[(grader, name), column])
        )

    for grader, bars in ASKED.items():
        if grader not in set(judged["grader"]):
            continue
        for name, bar in zip(EDITED, bars, strict=True):
            values = [table.loc[(grader, name), "corr"] for table in tables]
            most = f"{tables[0].loc[(grader, name), 'most']:.3f}"
            add(
                f"corr of {name}, {grader}",
                f">= {bar:.2f}",
                values,
                values[0] >= bar,
                most,
                within(grader, name, "corr"),
            )
    grader = _strictest(judged)
    for version in ("v8", "v7"):
        column = f"pass_{version}"
        values = [float(table.loc[(grader, EDITED[0]), column]) for table in tables]
        share = within(grader, EDITED[0], column)
        add(f"share that passes {version}, {grader}", f">= {PASS_ASKED}", values, values[0] >= PASS_ASKED, within=share)
    parts = {"score, any grader": _scores_of, "head or person, oracle": _person_of}
    if len(units):
        parts["head or person, in deviations of all faces"] = lambda table: _in_units_of_all(_person_of(table), units)
    if len(own_error):
        parts["head or person, beyond the oracle's own error"] = lambda table: _beyond(_person_of(table), own_error)
    for what, which in parts.items():
        found = [largest_leak(which(leaks[name])) for name in (best, reference)]
        if np.isfinite(found[0][1]):
            values = [abs(size) for _, size in found]
            add(f"leak to a {what} ({found[0][0]})", f"<= {LEAK_ASKED}", values, values[0] <= LEAK_ASKED)
    if all(len(moves[name]) for name in (best, reference)):
        found = [largest_leak(person_moves(moves[name])) for name in (best, reference)]
        if np.isfinite(found[0][1]):
            values = [abs(size) for _, size in found]
            what = f"move of a factor of head or person behind the code ({found[0][0]})"
            add(what, f"<= {LEAK_ASKED}", values, values[0] <= LEAK_ASKED)
    graders = set(judged["grader"])
    for who, which in {"any grader": graders, "independent graders": graders - {FINDER}}.items():
        if which:
            values = [_turned(table.reset_index(), which) for table in tables]
            within_reach = np.nan if fitted is None else _turned(fitted, which)
            add(f"reversed faces, {who}, any property", "0", values, values[0] == 0, within=within_reach)
    return pd.DataFrame(rows)


def _turned(table: pd.DataFrame, graders: set) -> float:
    """Largest share of faces with a correlation below 0, over properties, by some graders."""
    return float(table.loc[table["grader"].isin(graders), "reversed"].max())


def person_units(stage, latent_map) -> pd.DataFrame:
    """Deviations of what the oracle reads, in its own units: a row per attribute.

    persona: among the test's unedited faces; all: among faces of the same seeds by the profile's base generator, people
    of every kind. follows: rank correlation, over the persona's faces, of the reading with the attribute that the
    factors behind w make, which latent_map reads (NaN where it is None). Empty in a world without an oracle.
    """
    import torch
    from scipy.stats import spearmanr

    from pipeline.command import resolve_device
    from pipeline.profile import Profile
    from stylegan.checkpoint import load_generator
    from stylegan.sampling import sample
    from vectorfind.effects import ORACLE_ATTRIBUTES
    from vectorfind.further import open_judge

    judge, bench, seeds = open_judge(stage), stage.bench, list(stage.plan.test_seeds)
    if judge is None:
        return pd.DataFrame()
    codes = bench.encode(bench.latents(seeds), "w")
    parts = [codes[start : start + bench.batch] for start in range(0, len(codes), bench.batch)]
    device = resolve_device(stage.options.device)
    everyone = load_generator(Profile.load(stage.options.profile).weight("generator"), device)
    faces = {
        "persona": (bench.images(part, "w") for part in parts),
        "all": (images for _, _, images in sample(everyone, seeds, bench.batch, device)),
    }
    read = {name: np.concatenate([judge.read(i)[0] for i in some]) for name, some in faces.items()}
    units = pd.DataFrame({name: some.std(0, ddof=1) for name, some in read.items()}, index=list(ORACLE_ATTRIBUTES))
    if latent_map is None:
        return units.assign(follows=np.nan)
    true = true_attributes(latent_map, torch.from_numpy(codes))
    found = [spearmanr(read["persona"][:, k], true[name]).statistic for k, name in enumerate(units.index)]
    return units.assign(follows=found)


def _in_units_of_all(table: pd.DataFrame, units: pd.DataFrame) -> pd.DataFrame:
    return table.assign(signed=table["signed"] * table["column"].map(units["persona"] / units["all"]))


def _in_deviations(table: pd.DataFrame, units: pd.DataFrame) -> pd.DataFrame:
    """A leakage table in the oracle's own units, in deviations of the persona."""
    if not len(table):
        return table
    numbers = ["signed", "low", "high", "size"]
    return table.assign(**table[numbers].div(table["column"].map(units["persona"]), axis=0))


def _beyond(table: pd.DataFrame, own_error: pd.DataFrame) -> pd.DataFrame:
    """A leakage table less what the oracle reads into renders of which nothing else has changed."""
    keys = ["property", "column"]
    own = own_error.set_index(keys)["signed"].reindex(pd.MultiIndex.from_frame(table[keys])).to_numpy()
    return table.assign(signed=table["signed"] - own)


def _beside_renders(table: pd.DataFrame, own_error: pd.DataFrame) -> pd.DataFrame:
    """What the oracle reads into edits and into renders, with intervals, where either is NOTABLE."""
    both = _person_of(table).merge(own_error, on=["property", "column"], suffixes=("", "_own"))
    notable = both[["signed", "signed_own"]].abs().max(axis=1) >= NOTABLE
    rows = []
    for row in both[notable & ~both["intended"]].itertuples():
        told = {"moved": row.property, "read": row.column}
        told |= {"edits": f"{row.signed:+.2f} ({row.low:+.2f} to {row.high:+.2f})"}
        told |= {"renders": f"{row.signed_own:+.2f} ({row.low_own:+.2f} to {row.high_own:+.2f})"}
        rows.append(told | {"beyond": f"{row.signed - row.signed_own:+.2f}"})
    return pd.DataFrame(rows, columns=["moved", "read", "edits", "renders", "beyond"])


def _in_own_units(table: pd.DataFrame, units: pd.DataFrame) -> str:
    """The largest changes of the person in the oracle's own units: a deviation of what never varies is little."""
    person = _person_of(table)
    person = person[~person["intended"] & person["column"].isin(("gender", "age", "quality", "glasses"))]
    if not len(units) or not len(person):
        return ""
    told = []
    for column, part in person.groupby("column", sort=False):
        worst = part.loc[part["signed"].abs().idxmax()]
        own = worst["signed"] * units.loc[column, "persona"]
        told.append(f"{column} {own:+.3f} ({worst['signed']:+.2f} deviations)")
    return (
        "What the best method drags along of the person, per deviation, on the oracle's scales from 0 to 1: "
        + (
            ", ".join(told)
            + ". The persona hardly varies in these, so that a deviation of hers is small; among all faces "
            "of the base generator the deviations are "
        )
        + ", ".join(
            f"{name} {units.loc[name, 'all']:.2f} (hers {units.loc[name, 'persona']:.3f})"
            for name in units.index
            if name in set(person["column"])
        )
        + "."
        + _readable(units)
    )


def _readable(units: pd.DataFrame) -> str:
    """How far the oracle's readings among the persona's faces are readings of anything."""
    if units["follows"].isna().all():
        return ""
    told = ", ".join(f"{name} {r:+.2f}" for name, r in units["follows"].items())
    return (
        " Among the test's faces the oracle's readings follow what the factors behind the codes make with a rank "
        f"correlation of {told}: where that is near 0, a deviation of hers is the oracle's own noise."
    )


def _scores_of(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["column"].str.contains(" ")]


def _person_of(table: pd.DataFrame) -> pd.DataFrame:
    return table[~table["column"].str.contains(" ")]


def _overview(judged: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for (method, grader), part in judged.groupby(["method", "grader"], sort=False):
        part = part.set_index("property")
        row = {"method": method, "grader": grader}
        for name in EDITED:
            one = part.loc[name]
            row[name] = f"{one['corr']:.3f} ({one['corr_low']:.3f}-{one['corr_high']:.3f})"
        slopes = " / ".join(f"{part.loc[name, 'slope']:.2f}" for name in EDITED)
        row |= {"|corr|": part["abs_corr"].mean(), "slope": slopes, "monotone": part["monotone"].mean()}
        row |= {"reversed": part["reversed"].max(), "pass v7": part["pass_v7"].iloc[0]}
        rows.append({**row, "pass v8": part["pass_v8"].iloc[0], "faces": int(part["faces"].iloc[0])})
    return pd.DataFrame(rows)


def _costs(leaks: dict, costs: dict) -> pd.DataFrame:
    rows = []
    for name, table in costs.items():
        row = {"method": name, "matched": table["matched"].mean(), "drift": table["drift"].mean()}
        row["pixel"] = table["pixel"].mean()
        for what, which in (("score", _scores_of), ("person", _person_of)):
            where, row[f"leak to a {what}"] = largest_leak(which(leaks[name]))
            row[f"{what} that leaks most"] = where
        rows.append(row)
    return pd.DataFrame(rows)


def _reach(files: Files) -> str:
    """How far the loop takes a face, and how often a wish inside that range is met."""
    reach, met = _read(files.judged("reach.csv")), _read(files.judged("intended.csv"))
    lines = [
        f"Wishes inside the reach of {reach['seed'].nunique()} faces, met within {MET_WITHIN} deviations: "
        f"{met['met'].mean():.1%} of {len(met)} (asked: 95 %), by the finder, which the loop follows to the letter for "
        "this. How far a face goes, in deviations of the score, median and 10 to 90 %:",
        "",
    ]
    for name in EDITED:
        part, told = reach[reach["property"] == name], []
        for side in ("low", "high"):
            few, half, many = np.percentile(part[side], [10, 50, 90])
            told.append(f"{side} {half:+.1f} ({few:+.1f} to {many:+.1f})")
        lines.append(f"- {name}: {', '.join(told)}; met {met[met['property'] == name]['met'].mean():.1%}")
    return "\n".join(lines)


def _obedience(faces: dict, edits: dict, best: str) -> str:
    """Question one: do faces that obey better change less elsewhere? Rank correlation over faces, per method."""
    from scipy.stats import spearmanr

    lines, less, more = [], 0, 0
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
                less += found.pvalue < SURE and found.statistic < 0
                more += found.pvalue < SURE and found.statistic > 0
        lines.append(f"- {name}{' (best)' if name == best else ''}, {len(both)} faces: {', '.join(told)}")
    answer = "Yes" if less > more == 0 else "No: it disturbs it more" if more > less == 0 else "That is not settled"
    return "\n".join(
        [
            f"**Does a better-obeyed intention disturb the face less?** {answer}: of the rank correlations, over "
            "faces, of obedience (mean of the three correlations, finder) with the disturbance at one achieved "
            f"deviation, {less} are surely negative and {more} surely positive (p < {SURE}).",
            "",
            *lines,
        ]
    )


def _many_samples(run) -> str:
    """Question two, from the sweep's table where one was made."""
    question = "**Does an SVM trained on too many samples make edits unnatural?** "
    path = run.path("vectorfind", "sweep", "sweep.csv")
    if not path.is_file():
        return question + "Not measured in this run: `run_vectorfind.py sweep --methods svm --sizes 1000 4000 …` does."
    table = read_sweep(path)
    table = table[table["method"] == "svm"]
    # Of the settings that were swept, the one with most sizes: sizes are compared with all else equal.
    same = [part.sort_values("samples") for _, part in table.groupby(["k_percent", "position", "groups"])]
    table = max(same, key=len, default=table)
    if table["samples"].nunique() < 2:
        return question + "Not measured in this run: the sweep holds one size of the SVM only."
    best, last = table.loc[table["largest_leak"].idxmin()], table.iloc[-1]
    worse = [name for name in ("drift", "pixel", "largest_leak") if last[name] > (1 + NOTABLE) * best[name]]
    answer = "Yes" if len(worse) == 3 else "In part" if worse else "No"

    def told(row) -> str:
        corr = " / ".join(f"{row[f'{name}_corr']:.2f}" for name in EDITED)
        return (
            f"{row['samples']} samples: corr {corr}, identity drift {row['drift']:.3f}, pixel change outside "
            f"{row['pixel']:.2f}, largest leak {row['largest_leak']:.2f}"
        )

    rows = "\n".join(f"- {told(row)}" for _, row in table.iterrows())
    return question + (
        f"{answer}. At the published settings ({last['position']}, {last['k_percent']:g} % at either end, groups "
        f"{last['groups']}) it leaks least with {best['samples']} samples; with {last['samples']} "
        f"{', '.join(worse) if worse else 'nothing'} is more than {NOTABLE:.0%} worse (per achieved "
        "deviation; corr by the finder, on the grid of deviations):"
        f"\n\n{rows}"
    )
