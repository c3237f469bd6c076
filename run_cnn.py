"""Stage 2: score every sampled face by gender, quality, age and glasses, and keep those that pass the cutoffs."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from cnn.labels import Origin, match_labels, read_labels
from cnn.models import (
    ModelPlan,
    bundled_path,
    check_one_training,
    copy_bundled,
    deal_faces,
    is_trained_here,
    model_paths,
    plan_bundled,
    plan_training,
    train_models,
    write_logs,
)
from cnn.pictures import FILTERED, FOLDER, list_pictures
from cnn.selection import all_scores, check_enough, check_own_folder, held_out_tables, sync_filtered
from cnn.settings import FILTER_NAMES, FOLDS, FilterSettings
from pipeline.artefacts import (
    atomic,
    code_version,
    digest,
    is_fresh,
    provenance_of,
    record_beside,
    remove_leftovers,
    stamp_path,
    write_json,
    write_stamp,
)
from pipeline.command import StageOptions, Summary, limit_threads, main, resolve_device
from pipeline.errors import PipelineError
from pipeline.precision import half_precision, wants_half
from pipeline.profile import Profile, shown
from pipeline.run import Run
from pipeline.tables import read_table, write_table

COMMAND = "run_cnn.py"
SCORES = ("cnn", "all_image_scores.csv")
GIVEN = ("cnn", "labels.csv")  # the table that --labels gave, kept for later calls
LABEL_TABLE = "columns img_no, gender, quality, age, glass; 1 is a woman, good quality, old, with glasses"
EXAMPLES = """
python run_cnn.py
python run_cnn.py --run runs/small --min-passed 20
python run_cnn.py --train --run runs/demo --device auto
"""
SCORING_CODE = ("cnn.fit", "cnn.stack", "cnn.filter_cnn", "cnn.scoring", "cnn.pictures")
SELECTION_CODE = ("cnn.settings", "cnn.selection", "cnn.labels", "cnn.metrics", "cnn.schemas")
LOG_CODE = ("cnn.models", "cnn.schemas")


@dataclass
class Options(StageOptions):
    """Stage 2: score all sampled faces with the filter CNNs and fill stylegan/synthesize_results_filtered.

    Takes the bundled models of the profile (trains where it names none); --train trains five folds per property on the
    labelled faces, resumable after each fold. Labelled faces keep their labels, all others get the mean of five models.
    --force without --train takes the bundled models instead of those that were trained in the run. Where the filtered
    folder holds pictures that this stage did not put there, it refuses, unless --force replaces them.
    """

    train: bool = False
    """Train the twenty models anew on the labelled faces."""
    labels: str = ""
    """Label table to use instead of the profile's (columns img_no, gender, quality, age, glass). A copy stays in the
    run and serves later calls; --force without it goes back to the profile's."""
    min_passed: int | None = None
    """Fewest faces that must pass (default: that of the profile)."""


@dataclass
class Plan:
    """What one call of this stage will do, known before the first picture is read."""

    profile: Profile
    run: Run
    settings: FilterSettings
    pictures: pd.DataFrame
    labels: pd.DataFrame | None
    labelled: pd.DataFrame
    models: list[ModelPlan]
    origin: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    def table(self, *parts: str) -> Path:
        """Path of an artefact below cnn/."""
        return self.run.path("cnn", *parts)


def plan(options: Options) -> Plan:
    """Resolve the options and check pictures, labels and models."""
    profile, run = Profile.load(options.profile), Run(options.run)
    kept = "" if options.force or not run.path(*GIVEN).is_file() else str(run.path(*GIVEN))
    given = options.labels or kept
    settings = FilterSettings.of(profile, given)
    if options.min_passed is not None:
        settings = replace(settings, min_passed=options.min_passed)
    pictures = list_pictures(run)
    if not options.force:
        check_own_folder(run, COMMAND)
    origin = Origin.of_stamp(run.path(*FOLDER))
    labels, labelled, notes = None, pd.DataFrame(columns=["img_no", *FILTER_NAMES]), []
    if settings.labels is not None:
        labels = read_labels(settings.labels)
        idle = len(_trained(run)) == len(FILTER_NAMES) * FOLDS and not options.force
        needed = options.train or not (settings.bundled or idle)
        labelled, notes = match_labels(settings.labels, labels, pictures, run, needed, given=bool(options.labels))
        labelled = labelled.merge(pictures[["img_no", "img_path"]], on="img_no", validate="one_to_one")
    if given and not options.labels:
        notes.append(f"the labels are those that --labels gave before, {shown(given)}; --labels gives others")
    faces_from = {"generator": origin.generator, "psi": origin.psi}
    work = Plan(profile, run, settings, pictures, labels, labelled, [], faces_from, notes)
    work.models = _plan_models(work, options)
    return work


def _keep_labels(work: Plan, options: Options) -> None:
    """Copy the table of --labels, and what is recorded of its faces, into the run; --force without one removes it."""
    copy = work.run.path(*GIVEN)
    if not options.labels and options.force:
        copy.unlink(missing_ok=True)
        stamp_path(copy).unlink(missing_ok=True)
    if not options.labels or copy.is_file() and copy.samefile(options.labels):
        return
    record = record_beside(Path(options.labels))
    stamp_path(copy).unlink(missing_ok=True)
    with atomic(copy) as temporary:
        shutil.copyfile(options.labels, temporary)
    if record:
        write_json(stamp_path(copy), record)


def _trained(run: Run) -> list[Path]:
    return [path for paths in model_paths(run).values() for path in paths if is_trained_here(path)]


def _plan_models(work: Plan, options: Options) -> list[ModelPlan]:
    run, settings = work.run, work.settings
    trained = _trained(run)
    whole = len(trained) == len(FILTER_NAMES) * FOLDS
    if not options.train and trained and not options.force and (whole or settings.bundled):
        if not whole:
            raise PipelineError(
                f"only {len(trained)} of {len(FILTER_NAMES) * FOLDS} filter CNNs of {run} are trained; "
                "go on with run_cnn.py --train, or take the bundled ones with run_cnn.py --force"
            )
        check_one_training(run)
        instead = "--force goes back to the bundled ones" if settings.bundled else "--train --force trains anew"
        work.notes.append(f"the models that were trained in this run are kept; {instead}")
        return []
    if not options.train and settings.bundled:
        _check_bundled(work.profile, settings.bundled)
        return plan_bundled(run, settings.bundled, options.force)
    if work.labels is None or not len(work.labelled):
        raise PipelineError(
            f"no labelled faces to train the filter CNNs of {run} on; name a label table with --labels "
            f"({LABEL_TABLE}) whose img_no are among the sampled faces"
        )
    return plan_training(run, settings, options.seed, work.labelled, options.force)


def _check_bundled(profile: Profile, folder: Path) -> None:
    """PipelineError that says which models the profile's folder lacks, and both ways to come by models."""
    paths = [bundled_path(folder, name, fold) for name in FILTER_NAMES for fold in range(FOLDS)]
    absent = [path for path in paths if not path.is_file()]
    if not absent:
        return
    count = f"{len(absent)} of {len(paths)} are" if len(absent) < len(paths) else "all of them are"
    names = f"({{{','.join(FILTER_NAMES)}}}_model_{{0..{FOLDS - 1}}}.pth)"
    source = profile.get("weights_from.cnn", "git checkout brings the bundled files back; see MODELS.md")
    raise PipelineError(
        f"filter CNN {shown(absent[0])} is missing ({count}; {names})\n  cure: {source}\n"
        f"  or label the first faces and train: run_cnn.py --train --labels TABLE.csv ({LABEL_TABLE})"
    )


def run(options: Options) -> None:
    """Bring models, scores and the filtered folder up to date."""
    work = plan(options)
    for folder in ("models", "log", "inference_result", "."):
        remove_leftovers(work.run.path("cnn", folder))
    summary = Summary("2 score and filter faces")
    for text in work.notes:
        summary.note(text)
    limits = _Lazy(options.device)
    _models(work, options, summary, limits)
    _logs(work, summary)
    _scores(work, options, summary, limits)
    _selection(work, options, summary)
    summary.print()


class _Lazy:
    """The device, resolved when first needed: a run with nothing to do need not load torch."""

    def __init__(self, name: str):
        self.name, self.device = name, None

    def __call__(self):
        if self.device is None:
            limit_threads()
            self.device = resolve_device(self.name)
        return self.device


def _models(work: Plan, options: Options, summary: Summary, device: _Lazy) -> None:
    folder = work.table("models")
    stale = [model for model in work.models if not model.fresh]
    to_train = [model for model in stale if not model.bundled]
    # A class that is too rare is told before anything is kept, and before the first training.
    dealt = deal_faces(to_train, work.settings, work.labels, work.labelled) if to_train else {}
    _keep_labels(work, options)
    if not stale:
        summary.kept(folder, f"{len(FILTER_NAMES) * FOLDS} models")
        return
    copies = [model for model in stale if model.bundled]
    for model in copies:
        copy_bundled(model)
    if to_train:
        train_models(work.run, to_train, work.settings, dealt, work.labelled, work.origin, options.seed, device())
    summary.wrote(folder, f"{len(copies)} bundled models" if copies else f"{len(to_train)} models trained")


def _logs(work: Plan, summary: Summary) -> None:
    written = 0
    for name, paths in model_paths(work.run).items():
        log = work.table("log", f"train_log_{name}.csv")
        stamp = {
            "options": {},
            "seed": None,
            "inputs": {path.name: path for path in paths},
            "code": code_version(*LOG_CODE),
        }
        if is_fresh(log, **stamp)[0]:
            continue
        files = write_logs(work.run, name, paths)
        if files:
            write_stamp(log, command=COMMAND, **stamp)
        written += len(files)
    if written:
        summary.wrote(work.table("log"), f"{written} training logs")


def _scores(work: Plan, options: Options, summary: Summary, device: _Lazy) -> None:
    half = wants_half(work.profile)
    stamps = {
        name: {
            "options": {"architecture": work.settings.architectures[name].options(), "half": half},
            "seed": None,
            "inputs": {"images": work.run.path(*FOLDER), **{path.name: path for path in paths}},
            "code": code_version(*SCORING_CODE),
        }
        for name, paths in model_paths(work.run).items()
    }
    tables = {name: work.table("inference_result", f"{name}.csv") for name in FILTER_NAMES}
    stale = [name for name in FILTER_NAMES if options.force or not is_fresh(tables[name], **stamps[name])[0]]
    if not stale:
        summary.kept(work.table("inference_result"))
        return
    from cnn.schemas import INFERENCE
    from cnn.scoring import inference_table, score_pictures

    models = {name: model_paths(work.run)[name] for name in stale}
    with half_precision(device(), half):
        scores = score_pictures(work.run, work.pictures, models, work.settings, device())
    for name in stale:
        write_table(tables[name], inference_table(work.pictures, name, scores[name]), INFERENCE[name])
        write_stamp(tables[name], command=COMMAND, rows=len(work.pictures), **stamps[name])
        summary.wrote(tables[name], f"{len(work.pictures)} faces, {FOLDS} models")


def _selection(work: Plan, options: Options, summary: Summary) -> None:
    inputs = {name: work.table("inference_result", f"{name}.csv") for name in FILTER_NAMES}
    if work.settings.labels is not None:
        inputs["labels"] = work.settings.labels
    honest = _are_held_out(work)
    stamp = {
        "options": {"cutoffs": work.settings.cutoffs, "fold_seed": work.settings.fold_seed, "held_out": honest},
        "seed": None,
        "inputs": inputs,
        "code": code_version(*SELECTION_CODE),
    }
    scores, filtered = work.run.path(*SCORES), work.run.path(*FILTERED)
    figures = [work.table("log", "heldout_auroc.csv"), work.table("log", "cutoffs.csv")]
    tables = [scores, *figures] if honest else [scores]
    if options.force or not all(is_fresh(path, **stamp)[0] for path in tables):
        _write_tables(work, honest, scores, figures)
        for path in tables:
            write_stamp(path, command=COMMAND, **stamp)
            summary.wrote(path)
    else:
        summary.kept(scores)
    if not honest and work.settings.labels is not None:
        summary.note("no held-out figures: these models were not trained on these labels and folds")

    folder_stamp = {
        "options": {"min_passed": work.settings.min_passed},
        "seed": None,
        "inputs": {"scores": scores, "images": work.run.path(*FOLDER)},
        "code": code_version(*SELECTION_CODE),
    }
    if is_fresh(filtered, **folder_stamp)[0] and not options.force:
        summary.kept(filtered)
        return
    from cnn.schemas import ALL_SCORES

    table = read_table(scores, ALL_SCORES)
    # Begun: neither a kill in between nor too few faces must look like the end, with the faces of another sampling.
    write_json(stamp_path(filtered), {"command": COMMAND})
    check_enough(table, work.settings.cutoffs, work.settings.min_passed, work.run)
    added, removed = sync_filtered(work.run, table)
    passing = int(table["passed"].sum())
    write_stamp(filtered, command=COMMAND, rows=passing, **folder_stamp)
    summary.wrote(filtered, f"{passing} of {len(table)} faces pass; {added} added, {removed} removed")


def _are_held_out(work: Plan) -> bool:
    """Tell whether the labelled faces can be scored by models that did not train on them."""
    if work.labels is None or not len(work.labelled):
        return False
    expected = (digest(work.settings.labels), work.settings.fold_seed)
    records = [provenance_of(path) for paths in model_paths(work.run).values() for path in paths]
    return all((record.get("labels_sha256"), record.get("fold_seed")) == expected for record in records)


def _write_tables(work: Plan, honest: bool, scores: Path, figures: list[Path]) -> None:
    from cnn.schemas import ALL_SCORES, CUTOFFS, HELD_OUT, INFERENCE

    inference = {
        name: read_table(work.table("inference_result", f"{name}.csv"), INFERENCE[name]) for name in FILTER_NAMES
    }
    table = all_scores(work.pictures, inference, work.labelled, work.settings.cutoffs)
    if honest:
        held_out, cutoffs = held_out_tables(inference, work.labels, work.labelled, work.settings, table)
        write_table(figures[0], held_out, HELD_OUT)
        write_table(figures[1], cutoffs, CUTOFFS)
    else:
        for path in figures:
            for gone in (path, stamp_path(path)):
                gone.unlink(missing_ok=True)
    write_table(scores, table, ALL_SCORES)


if __name__ == "__main__":
    main(Options, run, EXAMPLES)
