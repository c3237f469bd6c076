"""`reports/vectorfind.md`: all methods side by side, by every grader, with what they cost and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.errors import PipelineError
from pipeline.report import Report
from pipeline.tables import read_table
from vectorfind import verdict_words as words
from vectorfind.crosstalk import PEOPLE, crosstalk_of
from vectorfind.effects import WAYS, largest_leak
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
from vectorfind.reach import LETTER, MET_WITHIN, SHARES, WISH, met_shares
from vectorfind.selection import rates_of
from vectorfind.setting import Files, Setting
from vectorfind.sweep import read_sweep, sweep_figures, table_of
from vectorfind.tables import FITS
from vectorfind.targets import LEAK_ASKED, WISHES_ASKED, against_reference, person_leak_otherwise, strictest, targets
from vectorfind.truth import latent_map_behind, moves_of, summary

DUEL_FACES = 2
PICTURES = {"strips": "strips.jpg", "passes": "passes.png", "leakage": "leakage.png"}


@dataclass
class Judged:
    """What the settings of a verdict left on disk, tables by the name of the setting, in the order of their judgement.

    judgement: `judgement.csv` of all, one below the other. reference: what all else is compared with. best: by the
    strictest grader.
    """

    files: dict[str, Files]
    judgement: pd.DataFrame
    faces: dict[str, pd.DataFrame]
    leaks: dict[str, pd.DataFrame]
    costs: dict[str, pd.DataFrame]
    edits: dict[str, pd.DataFrame]
    reference: str
    best: str

    @classmethod
    def read(cls, done: list[Files]) -> Judged:
        """PipelineError for a table that is missing or damaged."""
        files = {one.setting.name: one for one in done}

        def tables(name: str) -> dict[str, pd.DataFrame]:
            return {setting: _read(one.judged(name)) for setting, one in files.items()}

        judgement = pd.concat(tables("judgement.csv").values(), ignore_index=True)
        parts = (tables(f"{name}.csv") for name in ("judged_faces", "leakage", "side_effects", "matched_edits"))
        return cls(files, judgement, *parts, _reference([one.setting for one in done]), _best(judgement))

    @property
    def rivals(self) -> list[str]:
        """The reference, then the best where that is another one."""
        return list(dict.fromkeys((self.reference, self.best)))


@dataclass
class Beside:
    """What a verdict rests on besides the judgements; see `leaks`, `crosstalk`, `truth`, `reach`.

    units, own_error: of the oracle. moves: of the factors, by method. fitted: `judgement.csv` and `judged_faces.csv` of
    the best method on the reachable grid, met: `intended.csv` of it; None without.
    """

    units: pd.DataFrame
    own_error: pd.DataFrame
    moves: dict[str, pd.DataFrame]
    fitted: tuple[pd.DataFrame, pd.DataFrame] | None
    met: pd.DataFrame | None

    @classmethod
    def measure(cls, stage, known: Judged) -> Beside:
        """Minutes of work; what is there and fresh is not measured again."""
        from vectorfind.further import is_reached

        latent_map, best = latent_map_behind(stage), known.files[known.best]
        units = person_units(stage, latent_map)
        own_error = in_deviations(crosstalk_of(stage), units)
        moves = {name: moves_of(stage.with_setting(one.setting), latent_map) for name, one in known.files.items()}
        met = _read(best.judged("intended.csv")) if is_reached(stage, best.setting) else None
        return cls(units, own_error, moves, _within_reach(stage, best.setting), met)


def write_verdict(stage, done: list[Files]) -> list[Path]:
    """Paired comparison, figures and the one-page verdict of settings that were judged before; returns the paths."""
    from vectorfind.further import is_reached, is_selected, write_csv

    run, suffix = stage.files.run, stage.files.setting.suffix
    known = Judged.read(done)
    beside = Beside.measure(stage, known)
    paired = compare(known.faces, known.reference)
    tables = {"judgement": known.judgement, "paired": paired}
    written = [run.path("vectorfind", "judgement", f"{name}{suffix}.csv") for name in tables]
    for path, table in zip(written, tables.values(), strict=True):
        write_csv(path, table)
    folder = run.path("reports", f"vectorfind{suffix}")
    pictures = _draw(stage, known, folder)
    grid = stage.files.setting.grid
    report = Report(f"VectorFind: the verdict, pool of {stage.plan.rows:,}{words.GRIDS_IN_TITLE[grid]}")
    for note in stage.plan.models.notes:
        report.text(f"> **Note.** {note}")
    report.text(_verdict(stage, known)).text(
        words.words_for([one.setting for one in done], set(known.judgement["grader"]), len(beside.units) > 0)
    )
    _tell_asked(report, known, beside, grid)
    if len(paired):
        report.table(
            against_reference(paired, known.judgement),
            f"Gain on {known.reference} in mean correlation by the '{strictest(known.judgement)}' grader, the same "
            "faces; in brackets 95 % intervals, surely: all of it on one side of 0",
        )
    report.figure(
        pictures["strips"],
        f"The first {DUEL_FACES} faces of the test, each property moved alone, by {' (left) and '.join(known.rivals)}"
        f"{' (right)' * (len(known.rivals) > 1)}; under each picture the deviations asked for and reached (finder)",
    )
    report.heading("Methods and graders")
    report.table(_overview(known), "Mean signed correlation, and share of passes").text(words.METHODS)
    if told := _unconverged(known):
        report.text(told)
    report.figure(pictures["passes"], "Share of faces that pass .92 / .88 / .88, by method and grader")
    report.heading("What else an edit changes")
    report.table(_costs(known), "At one achieved deviation of a property alone").text(words.COSTS)
    report.figure(
        pictures["leakage"],
        "Leakage: deviations of each score (finder), head and person (oracle) per deviation of the intended one (rows)",
    )
    _tell_factors(report, beside.moves)
    _tell_own_error(report, known.leaks[known.best], beside.own_error)
    for files in done:
        if is_reached(stage, files.setting):
            written += _tell_reach(report, folder, files)
    for files in done:
        if is_selected(stage, files.setting):
            report.heading(f"Faces that {files.setting.name} is kept for")
            report.table(_read(rates_of(files))).text(words.SELECTED)
    _tell_questions(report, stage, known)
    return [*written, *pictures.values(), report.write(run.path("reports", f"vectorfind{suffix}.md"))]


def _draw(stage, known: Judged, folder: Path) -> dict[str, Path]:
    """The pictures of a verdict: strips of both rivals, shares of passes, heat maps of leaks."""
    from vectorfind.figures import draw_duel, draw_leakage, draw_passes

    pictures = {name: folder / file for name, file in PICTURES.items()}
    editors = {name: stage.with_setting(known.files[name].setting).open_directions() for name in known.rivals}
    draw_duel(pictures["strips"], stage.bench, editors, stage.plan.test_seeds[:DUEL_FACES])
    draw_passes(pictures["passes"], known.judgement)
    draw_leakage(pictures["leakage"], {name: known.leaks[name] for name in reversed(known.rivals)})
    return pictures


def _tell_asked(report: Report, known: Judged, beside: Beside, grid: str) -> None:
    """What is asked of the best method, and what it drags along of the person, read in several ways."""
    best, reference, leaks = known.best, known.reference, known.leaks
    alike = over_shared_edits(known.edits, (best, reference))
    asked = targets(known.judgement, known.faces, leaks, best, reference, beside.fitted, alike, beside.met)
    report.table(asked, "Asked of the best method, and measured").text(words.GRIDS_MEAN[grid])
    report.text(words.ONE_WAY + words.ALIKE * bool(alike))
    if beside.fitted is not None:
        report.text(f"`reachable grid`: the same method on `--grid reachable`. {words.GRIDS_MEAN['reachable']}")
    otherwise = person_leak_otherwise(leaks, best, reference, beside.units, beside.own_error, beside.moves)
    if len(otherwise):
        report.table(otherwise, f"The largest leak to head or person in other units (asked: {LEAK_ASKED})")
        report.text(words.OTHERWISE).text(in_own_units(leaks[best], beside.units))


def _tell_questions(report: Report, stage, known: Judged) -> None:
    """The two open questions, answered from the judgements and from a sweep of the same run."""
    from vectorfind.further import is_swept

    run, swept = stage.files.run, is_swept(stage)
    report.heading("Two questions that the published project left open")
    report.text(obedience(known.faces, known.edits, known.best))
    report.text(many_samples(read_sweep(table_of(run)) if swept else None))
    for figure in sweep_figures(run) if swept else ():
        axis = figure.stem.removeprefix("corr_")
        report.figure(figure, f"Mean signed correlation against {axis}, from the sweep (finder, grid of deviations)")


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


def _verdict(stage, known: Judged) -> str:
    return (
        f"{stage.plan.rows} samples, {stage.plan.faces} faces that trained nothing, 50 edits each. Best by the "
        f"'{strictest(known.judgement)}' grader, on these same faces: **{known.best}**."
    )


def _within_reach(stage, setting: Setting) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Judgement and judged faces of a setting on the grid that asks no face for more than it can, where there are."""
    from vectorfind.further import is_judged

    wish = replace(setting, grid="reachable")
    if setting.grid != "deviations" or not is_judged(stage.with_setting(wish), wish, effects=False, tell=True):
        return None
    files = Files(stage.files.run, wish)
    return _read(files.judged("judgement.csv")), _read(files.judged("judged_faces.csv"))


def _overview(known: Judged) -> pd.DataFrame:
    """A row per method and grader."""
    rows, faces = [], known.faces
    for (method, grader), part in known.judgement.groupby(["method", "grader"], sort=False):
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


def _unconverged(known: Judged) -> str:
    """Which fits stopped at their limit of iterations, "" where none did."""
    told = []
    for name, files in known.files.items():
        if files.fits in files.direction_files():
            fits = read_table(files.fits, FITS)
            if stopped := int((~fits["converged"]).sum()):
                told.append(f"{name} {stopped} of {len(fits)}")
    return f"Fits that stopped at their limit of iterations: {', '.join(told)}." if told else ""


def _costs(known: Judged) -> pd.DataFrame:
    """A row per method: what an edit of one deviation costs beside its property."""
    leaks, costs, edits, reference = known.leaks, known.costs, known.edits, known.reference
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
    faces = max(table["seed"].nunique() for table in moves.values() if len(table))
    report.heading("What an edit truly moves")
    report.table(pd.concat(known)[columns], f"Factors behind the codes, {faces} faces, per achieved deviation").text(
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
        f"within {MET_WITHIN} deviations by the finder (asked: {WISHES_ASKED:.0%}):",
        "",
    ]
    for walk, part in met.groupby("walk", sort=False):
        wishes, faces = met_shares(part)
        verdicts = ["met" if share >= WISHES_ASKED else "MISSED" for share in (wishes, faces)]
        how = "the loop follows the finder alone" if walk == LETTER else "the loop as it is judged above"
        lines.append(
            f"- {how}: {wishes:.1%} of {len(part)} wishes ({verdicts[0]}); {faces:.1%} of {part['seed'].nunique()} "
            f"faces had all of theirs met ({verdicts[1]})"
        )
    ends = pd.concat([reach["low_end"], reach["high_end"]]).value_counts(normalize=True)
    ended = ", ".join(f"{why} {share:.0%}" for why, share in ends.items())
    lines += ["", f"Asked for {WISH:g} deviations, following the finder alone, a walk ended so: {ended}. {words.ENDS}"]
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
