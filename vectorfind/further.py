"""The steps beyond the published test: graded judgement, side effects, reach, selection, maps, comparison, sweeps."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pandas as pd

from pipeline.artefacts import atomic, is_fresh, read_json, stamp_path
from pipeline.errors import PipelineError
from pipeline.profile import ROOT, Profile
from pipeline.progress import progress
from vectorfind.names import METHODS, POSITIONS
from vectorfind.setting import Files, Setting
from vectorfind.stage import Plan, Stage


def check_further(plan: Plan) -> None:
    """PipelineError for a step that could not be taken, before the first is: some come after hours."""
    options, setting = plan.options, plan.files.setting
    if "reach" in options.steps and not setting.is_loop:
        raise PipelineError(f"reach: {setting.method} has no end of its own; use --method model_loop")
    if set(options.steps) & {"judge", "effects", "select", "compare"} and "geometric" in plan.graders:
        from vectorfind.graders import check_geometric

        check_geometric(Profile.load(options.profile), plan.files.run)
    plural = {"compare", "sweep"}
    if plural & set(options.steps) and set(options.steps) <= plural | {"pool"}:
        _check_plural(options)
    if "compare" in options.steps:
        compared(options)
    if "sweep" in options.steps:
        _check_sweep(plan)


def _check_plural(options) -> None:
    """PipelineError for options that name one setting, where a step takes the lists alone."""
    given = {name: getattr(options, name) for name in ("method", "position", "mended", "conditional", "looks")}
    usual = {"method": "svm", "position": "w", "mended": False, "conditional": False, "looks": False}
    if "compare" not in options.steps:
        given, usual = given | {"groups": options.groups}, usual | {"groups": "16"}
    odd = [f"--{name}" for name, value in given.items() if value != usual[name]]
    if odd:
        raise PipelineError(
            f"{', '.join(odd)}: compare and sweep take --methods (such as ridge_mended_conditional) and --positions, "
            "sweep also --groupings; leave these out"
        )


def compared(options) -> list[Setting]:
    """The settings that compare judges: all of --methods at all of --positions; PipelineError for what cannot be."""
    wishes = (
        replace(setting, grid=options.grid)
        for position in options.positions
        for setting in named_settings(options, position, options.groups)
    )
    return list(dict.fromkeys(wishes))


def swept(plan: Plan) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Numbers of samples, and shares at either end, of a sweep."""
    return plan.options.sizes or (plan.rows,), plan.options.k_percents or (plan.k_percent,)


def _check_sweep(plan: Plan) -> None:
    options, (sizes, shares) = plan.options, swept(plan)
    for position, groups in product(options.positions, options.groupings):
        named_settings(options, position, groups)
    for size in sizes:
        if not 1 < size <= plan.rows:
            raise PipelineError(
                f"--sizes {size}: the pool has {plan.rows} samples; give at least 2 and at most that, or a larger -n"
            )
    for share in shares:
        if not 0 < share <= 50:
            raise PipelineError(
                f"--k-percents {share:g}: the top and the bottom must not overlap; give more than 0, at most 50"
            )
    if options.grid != "deviations":
        raise PipelineError(
            f"--grid {options.grid}: a sweep is tested on the grid of deviations only; leave --grid out"
        )


def open_graders(stage: Stage) -> list:
    """The graders that the options name, with their deviations over the pool; notes what the profile lacks.

    Opened and measured once in a run of the script: neither depends on a setting.
    """
    lender = stage.root
    if lender.graders is None:
        lender.graders = _measured_graders(lender)
    return lender.graders


def _measured_graders(stage: Stage) -> list:
    from vectorfind.graders import check_second, check_size, measure_spreads, open_scorers

    profile = Profile.load(stage.options.profile)
    names = [name for name in stage.plan.graders if name != "finder"]
    scorers, notes = open_scorers(profile, stage.files.run, names, stage.options.device)
    check_size(profile, scorers, stage.plan.models.generator, stage.bench.generator.resolution)
    notes.append(check_second(stage.bench.scorer, scorers))
    for note in dict.fromkeys(filter(None, notes)):
        if note not in stage.summary.notes:
            stage.summary.note(note)
    pool = stage.open_pool()
    return measure_spreads(stage.bench, scorers, pool.codes("w"), "w", pool.scores)


def open_judge(stage: Stage):
    """The oracle as judge of identity and attributes, None in a world without one."""

    profile = Profile.load(stage.options.profile)
    if profile.get("weights.attribute_net", None) is None:
        stage.summary.note("this profile has no attribute_net: identity and head attitude are not judged")
        return None
    from pipeline.command import resolve_device
    from vectorfind.effects import Judge
    from virtual_face.oracle import load_oracle

    return Judge(load_oracle(profile.weight("attribute_net"), resolve_device(stage.options.device)))


def judge(stage: Stage) -> None:
    """`judged_faces.csv` and `judgement.csv`: the test by every grader."""
    files, plan = stage.files, stage.plan
    path = files.judged("judgement.csv")
    about, beside = _about(stage, "judge"), [files.judged("judged_faces.csv")]
    if stage.is_kept("judge", path, about, beside):
        return
    from vectorfind.evaluate import check_disjoint
    from vectorfind.protocol import face_table, run_graded
    from vectorfind.protocol import judge as judge_faces

    editor, grouping = stage.open_directions()
    start = editor.provenance["pool_seed_start"]
    check_disjoint(range(start, start + editor.provenance["pool_rows"]), plan.test_seeds)
    graders, grid = open_graders(stage), stage.files.setting.test_grid
    with progress(len(grid.amounts()) * plan.faces, f"judging {files.setting.name} by {len(graders)} graders") as bar:
        tests = run_graded(stage.bench, editor, grouping, plan.test_seeds, grid, graders, bar.update)
    faces = face_table(tests)
    table = judge_faces(faces, files.setting.name)
    write_csv(beside[0], faces)
    write_csv(path, table)
    stage.stamp("judge", path, about, beside, len(table))
    stage.summary.wrote(path, f"{plan.faces} faces, graders: {', '.join(tests)}")


def effects(stage: Stage) -> None:
    """`leakage.csv` and `side_effects.csv`: what else an edit of one achieved deviation changes."""
    files, plan = stage.files, stage.plan
    path = files.judged("side_effects.csv")
    about, beside = _about(stage, "effects"), [files.judged("leakage.csv"), files.judged("matched_edits.csv")]
    if stage.is_kept("effects", path, about, beside):
        return
    from vectorfind.effects import cost, leakage, measure_effects

    editor, grouping = stage.open_directions()
    graders, oracle = open_graders(stage), open_judge(stage)
    with progress(6 * plan.faces, f"side effects of {files.setting.name}") as bar:
        found = measure_effects(stage.bench, editor, grouping, plan.test_seeds, graders, oracle, bar.update)
    write_csv(beside[0], leakage(found))
    write_csv(beside[1], found.table())
    write_csv(path, cost(found))
    stage.stamp("effects", path, about, beside, 3)
    stage.summary.wrote(path, f"{int(found.edits['matched'].sum())} of {len(found.edits)} edits matched")


def reach(stage: Stage) -> None:
    """`reach.csv`: how far the closed loop can take each property of each face, and whether wishes inside are met."""
    files = stage.files
    path = files.judged("reach.csv")
    about, beside = _reach_about(stage), [files.judged("intended.csv")]
    if stage.is_kept("reach", path, about, beside):
        return
    from vectorfind.reach import MET_WITHIN, intended_table, met_shares, reach_table

    loop, _ = stage.open_directions()
    seeds = list(stage.plan.test_seeds)
    with progress(2 * len(seeds), "reach of each face") as bar:
        table = reach_table(loop, seeds, bar.update)
        met = intended_table(loop, table, bar.update)
    write_csv(path, table)
    write_csv(beside[0], met)
    stage.stamp("reach", path, about, beside, len(table))
    stage.summary.wrote(path, f"{len(seeds)} faces")
    for walk, part in met.groupby("walk", sort=False):
        wishes, faces = met_shares(part)
        stage.summary.note(
            f"intended value met within {MET_WITHIN} deviations, {walk}: {wishes:.1%} of {len(part)} wishes inside the "
            f"reach; all wishes of {faces:.1%} of the faces"
        )


def select(stage: Stage) -> None:
    """Choose faces by the finder on one half of the noise, confirm them by every grader on the other; write them."""
    from vectorfind.selection import choose, rates_of, selected_files, sheets_of, write_selection

    path, about, beside = rates_of(stage.files), _about(stage, "select"), selected_files(stage.files)
    if stage.is_kept("select", path, about, beside):
        return
    editor, grouping = stage.open_directions()
    chosen, rates = choose(stage, editor, grouping, open_graders(stage))
    for written in write_selection(stage, editor, chosen, rates):
        stage.summary.wrote(written)
    beside += [sheet for sheet in sheets_of(stage.files) if sheet.is_file()]
    stage.stamp("select", path, about, beside, len(rates))
    for row in rates.itertuples():
        stage.summary.note(f"{row.confirmed} of {row.chosen} chosen faces confirmed by {row.grader} on other noise")


def tsne(stage: Stage) -> None:
    """Maps of the extremes' codes, one per property and group."""
    from vectorfind.tsne import draw_maps

    pool = stage.open_pool()
    grouping = stage.grouping(pool.scores)
    setting = stage.files.setting
    where = f"{setting.position}_{setting.groups}" + (f"_cuts_{setting.cuts}" if setting.cuts != "medians" else "")
    folder = stage.files.run.path("vectorfind", "tsne_result", where)
    for old in folder.glob("tsne_result_*.png"):
        old.unlink()  # of another pool
    total = 3 * len(grouping.names)
    with progress(total, "t-SNE") as bar:
        drawn = draw_maps(folder, pool, grouping, stage.files.setting.position, stage.plan.k_percent, bar.update)
    stage.summary.wrote(folder, f"{len(drawn)} maps")


def compare(stage: Stage) -> None:
    """Every method at every position: directions, judgement, side effects; then the pairs and the verdict."""
    settings = compared(stage.options)
    stage.pool()
    done: list[Files] = []
    for setting in settings:
        inner = stage.with_setting(setting)
        inner.directions()
        judge(inner)
        effects(inner)
        done.append(inner.files)
    # What this run has judged before on the same faces is part of the verdict.
    done += [Files(stage.files.run, setting) for setting in others(settings) if is_judged(stage, setting, tell=True)]
    from vectorfind.verdict import write_verdict

    for path in write_verdict(stage, done):
        stage.summary.wrote(path)


def named_settings(options, position: str, groups: str) -> list[Setting]:
    """The settings that --methods names; PipelineError for names that cannot be."""
    if options.vectors:
        raise PipelineError(
            "--vectors belongs to one method: judge it with `run_vectorfind.py pool directions judge effects --vectors "
            "FOLDER`; compare and sweep find the directions of --methods themselves"
        )
    if not options.methods:
        raise PipelineError("--methods names none; for instance --methods svm ridge_mended_conditional")
    return [replace(Setting.named(method, position, groups), cuts=options.cuts) for method in options.methods]


def others(settings: list[Setting]) -> list[Setting]:
    """The settings of every method at every position that differ from these in nothing else."""
    found, like = [], settings[0]
    for position, name in product(POSITIONS, METHODS):
        for mended, conditional, looks in product((False, True), repeat=3):
            form = {"mended": mended, "conditional": conditional, "looks": looks}
            try:
                wish = replace(like, method=name, position=position, **form)
            except PipelineError:
                continue  # no such form of this method
            if wish not in settings:
                found.append(wish)
    return found


def is_judged(stage: Stage, setting: Setting, effects: bool = True, tell: bool = False) -> bool:
    """Whether this run holds a fresh judgement of a setting, on pool and faces of the stage.

    effects: with its side effects, which are the same on every grid. tell: note a judgement that is there and stale.
    """
    inner = stage.with_setting(setting)
    judged = inner.files.judged("judgement.csv")
    wanted = [(judged, "judge"), (inner.files.judged("side_effects.csv"), "effects")][: 1 + effects]
    fresh, reason = is_fresh(inner.files.directions, **inner.direction_about())
    for path, step in wanted if fresh else ():
        fresh, reason = is_fresh(path, **_about(inner, step))
        if not fresh:
            reason = f"{step}: {reason}"
            break
    if tell and judged.is_file():
        return _told_if_stale(f"the judgement of {setting.name}", "directions judge effects", inner, fresh, reason)
    return fresh


def is_reached(stage: Stage, setting: Setting) -> bool:
    """Whether this run holds a fresh `reach.csv` of a loop, of as many faces as it names; notes what is stale."""
    inner = stage.with_setting(setting)
    path = inner.files.judged("reach.csv")
    if not setting.is_loop or not path.is_file():
        return False
    about = _reach_about(inner, _faces_of(path))
    return _told_if_stale(f"reach of {setting.name}", "reach", inner, *is_fresh(path, **about))


def is_selected(stage: Stage, setting: Setting) -> bool:
    """Whether this run holds a fresh selection of a setting, of as many faces as it names; notes what is stale."""
    from vectorfind.selection import rates_of

    inner = stage.with_setting(setting)
    path = rates_of(inner.files)
    if not path.is_file():
        return False
    about = _about(inner, "select", _faces_of(path))
    return _told_if_stale(f"select of {setting.name}", "select", inner, *is_fresh(path, **about))


def _faces_of(path) -> int | None:
    """Of how many faces a step's main file tells, by its stamp; None without one."""
    stamp = stamp_path(path)
    return (read_json(stamp).get("options") or {}).get("faces") if stamp.is_file() else None


def _told_if_stale(what: str, step: str, stage: Stage, fresh: bool, reason: str) -> bool:
    if not fresh and stage.files.setting.method == "imported":
        stage.summary.note(f"{what} is left out of the verdict: vectors that were read have tables of their own only")
    elif not fresh:
        stage.summary.note(f"{what} is left out of the verdict ({reason}): run `run_vectorfind.py {step}` for it again")
    return fresh


def sweep(stage: Stage) -> None:
    """n × k % × position × method × grouping from one pool."""
    from vectorfind.sweep import run_sweep

    stage.pool()
    for path in run_sweep(stage):
        stage.summary.wrote(path)


def write_csv(path, table: pd.DataFrame) -> None:
    """Write a table whole; floats as they are."""
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def _reach_about(stage: Stage, faces: int | None = None) -> dict:
    """What `reach.csv` rests on."""
    return stage.stamped("reach", _faces(stage, faces), stage.inputs(directions=stage.files.directions))


def _about(stage: Stage, step: str, faces: int | None = None) -> dict:
    """What a judgement (step `judge`), its side effects (`effects`) or a selection (`select`) rests on."""
    from vectorfind.graders import grader_files

    files = grader_files(Profile.load(stage.options.profile), stage.files.run, stage.plan.graders)
    if step == "effects":
        files |= oracle_file(stage)
    return stage.stamped(step, _judged(stage, faces), stage.inputs(directions=stage.files.directions, **files))


def oracle_file(stage: Stage) -> dict:
    """The oracle's weights, as an input of a stamp; empty in a world without one."""
    path = Profile.load(stage.options.profile).get("weights.attribute_net", None)
    return {} if path is None or not (ROOT / str(path)).is_file() else {"oracle": ROOT / str(path)}


def sweep_about(stage: Stage, faces: int | None = None) -> dict:
    """What the rows of `sweep.csv` rest on; faces: those of the stage's test by default."""
    from vectorfind.models import identity_files
    from vectorfind.pool import pool_digest

    profile = Profile.load(stage.options.profile)
    loops = identity_files(profile, "features") | identity_files(profile, "looks")
    wish = _faces(stage, faces) | {"cuts": stage.options.cuts, "pool": pool_digest(stage.files.pool)}
    return stage.stamped("sweep", wish, stage.inputs(**loops, **oracle_file(stage)))


def is_swept(stage: Stage) -> bool:
    """Whether this run holds a fresh sweep, of as many faces as it was made with; notes what is stale."""
    from vectorfind.sweep import table_of

    path = table_of(stage.files.run)
    if not path.is_file():
        return False
    about = sweep_about(stage, _faces_of(path))
    return _told_if_stale("the sweep", "sweep", stage, *is_fresh(path, **about))


def _judged(stage: Stage, faces: int | None = None) -> dict:
    judged = _faces(stage, faces) | {"grid": stage.files.setting.grid, "graders": list(stage.plan.graders)}
    if "geometric" in stage.plan.graders:
        judged["hairstyle"] = Profile.load(stage.options.profile).get("property_score.hairstyle", "texture")
    return judged


def _faces(stage: Stage, faces: int | None = None) -> dict:
    return {
        "faces": stage.plan.faces if faces is None else int(faces),
        "first_seed": stage.plan.test_seeds.start,
        "samples": stage.plan.rows,
        "precision": stage.plan.precision,
    }


# The steps by name, in the order in which they are taken.
FURTHER = {
    "judge": judge,
    "effects": effects,
    "reach": reach,
    "select": select,
    "tsne": tsne,
    "compare": compare,
    "sweep": sweep,
}
