"""Stage 4b: the property CNN, which predicts the eight property scores of stage 4 from the pixels alone."""

from __future__ import annotations

import hashlib
import io
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cnn.pictures import FILTERED, read_pictures
from cnn.settings import read_training
from pipeline.artefacts import (
    atomic,
    check_whole,
    code_version,
    digest,
    is_fresh,
    provenance_of,
    read_json,
    refuse_stranger,
    remove_leftovers,
    stamp_path,
    write_json,
    write_stamp,
)
from pipeline.command import StageOptions, Summary, limit_threads, main, resolve_device
from pipeline.errors import PipelineError
from pipeline.images import NUMBERED
from pipeline.precision import half_precision, wants_half
from pipeline.profile import Profile, shown
from pipeline.run import Run
from pipeline.tables import read_table, write_table
from property_score.graders import RUN_MODEL
from property_score.measure import PROPERTIES
from property_score.property_settings import PARTS, PropertyTraining
from property_score.seen_faces import SOURCES, SeenFaces, picture_digests, picture_path, source_of, trained_on

if TYPE_CHECKING:
    from property_score.property_cnn import CNNScorer

COMMAND = "run_property_cnn.py"
EXAMPLES = """
python run_property_cnn.py
python run_property_cnn.py --train --epochs 30 --run runs/demo
python run_property_cnn.py --evaluate
"""
SCORES = ("segmentation", "property_score_results", "all_scores_v2.csv")
NORMALISATION = ("segmentation", "property_score_results", "normalisation.json")
CNN_SCORES = ("segmentation", "property_score_results", "all_scores_v2_cnn.csv")
CODE = (
    "cnn.fit",
    "cnn.stack",
    "property_score.out_of_fold",
    "property_score.property_cnn",
    "property_score.property_training",
)
SCORING_CODE = (
    "run_property_cnn",
    "cnn.fit",
    "cnn.stack",
    "cnn.pictures",
    "property_score.normalisation",
    "property_score.property_cnn",
    "property_score.property_training",
    "property_score.seen_faces",
)
BATCH = 64


@dataclass
class Options(StageOptions):
    """Stage 4b: score the filtered faces with the property CNN and compare it with stage 4.

    Takes the bundled property CNN of the profile (trains where it names none); --train trains all eight outputs
    together on the z-scores of stage 4: 80 % of the faces, early stop on 10 %, figures from the last 10 %. Resumable.
    The faces that it trained on are scored by networks that did not see them (column source: out of fold); a face
    that a model from elsewhere was trained on is named so (trained on) and has no part in the figures. --force without
    --train takes the bundled model instead of the one that was trained in the run.
    """

    train: bool = False
    """Train anew on the scores of stage 4."""
    evaluate: bool = False
    """Change no model: print the figures of the one that is there, from faces that it was not trained on."""
    epochs: int | None = None
    """Most epochs to train, with --train (default: that of the profile)."""


@dataclass
class Plan:
    """What one call of this stage will do, known before the first picture is read."""

    run: Run
    resolution: int
    half: bool
    width: float
    folds: int
    training: dict[str, Any]
    numbers: np.ndarray
    bundled: Path | None
    model: Path
    model_stamp: dict[str, Any] | None
    notes: list[str] = field(default_factory=list)

    def log(self, name: str) -> Path:
        """Path of a log table of this stage."""
        return self.run.path("property_score", "log", name)


def score_schema():
    """What this stage wants of a table of scores: img_no and eight {property}_score columns, empty where missing."""
    from pandera.pandas import Check, Column, DataFrameSchema

    columns = {f"{name}_score": Column(float, nullable=True) for name in PROPERTIES}
    return DataFrameSchema({"img_no": Column(int, Check.ge(0), unique=True), "img_path": Column(str), **columns})


def cnn_score_schema():
    """Schema of all_scores_v2_cnn.csv: as `score_schema`, and where each row comes from, one of SOURCES."""
    from pandera.pandas import Check, Column

    return score_schema().add_columns({"source": Column(str, Check.isin(SOURCES))})


def plan(options: Options) -> Plan:
    """Resolve the options and check that faces, scores and the model to take are there.

    PipelineError for what is not, for impossible settings, and for --epochs where nothing is trained.
    """
    if options.train and options.evaluate:
        raise PipelineError("--train and --evaluate exclude each other; a training ends with its evaluation")
    profile, run = Profile.load(options.profile), Run(options.run)
    profile.refuse_unknown("property_cnn", profile.section("property_cnn"), ("width", "folds", "training"))
    training = read_training(profile, "property_cnn.training", PropertyTraining)
    width = profile.read("property_cnn.width", float, 0.25, low=1 / 8)
    if not (width * 32).is_integer():
        raise PipelineError(
            f"profile {profile.path}: [property_cnn] width = {width:g}; write a multiple of 1/32, which a file can tell"
        )
    folds = profile.read("property_cnn.folds", int, 3, low=2)
    if options.epochs is not None:
        if options.epochs < 1:
            raise PipelineError(f"--epochs {options.epochs}: give at least 1")
        training["epochs"] = options.epochs
    check_whole(run.path(*FILTERED), f"run run_cnn.py --run {run} again")
    names = [path.stem for path in run.path(*FILTERED).glob("*.jpg") if NUMBERED.fullmatch(path.name)]
    numbers = np.array(sorted(map(int, names)), dtype=int)
    if not len(numbers) and not _none_passed(run):
        raise PipelineError(f"no filtered faces in {run.path(*FILTERED)}; run run_cnn.py --run {run} first")
    scores = run.path(*SCORES)
    if not scores.exists():
        raise PipelineError(f"{scores} is missing; run compute_property_scores.py --run {run} first")
    model = run.path(*RUN_MODEL)
    work = Plan(run, profile.resolution, wants_half(profile), width, folds, training, numbers, None, model, None)
    here = source_of(model) == "trained"
    if options.evaluate:
        if not source_of(model):
            lacks = "has no record of this stage beside it" if model.exists() else "is missing"
            raise PipelineError(f"{model} {lacks}; run run_property_cnn.py --run {run} first, with or without --train")
    elif not options.train and here and not options.force:
        bundled = profile.get("weights.property_cnn", None)
        instead = "--force goes back to the bundled one" if bundled else "--train --force trains anew"
        work.notes.append(f"the property CNN that was trained in this run is kept; {instead}")
    elif not options.train and profile.get("weights.property_cnn", None):
        work.bundled = profile.weight("property_cnn")
        if not options.force:
            refuse_stranger(model, work.bundled, "property_cnn under [weights]")
        inputs = {"bundled": work.bundled}
        work.model_stamp = {"options": {"source": "bundled"}, "seed": None, "inputs": inputs, "code": ""}
    else:
        normalisation = run.path(*NORMALISATION)
        if not normalisation.exists():
            raise PipelineError(f"{normalisation} is missing; run compute_property_scores.py --run {run} again")
        settings = {"width": width, "folds": folds, "training": training, "resolution": work.resolution}
        work.model_stamp = {
            "options": {"source": "trained", **settings},
            "seed": options.seed,
            "inputs": {"scores": scores, "normalisation": normalisation, "images": run.path(*FILTERED)},
            "code": code_version(*CODE),
        }
        return work
    if options.epochs is not None:
        raise PipelineError(f"--epochs {options.epochs} concerns a training, and this call trains nothing; add --train")
    return work


def _none_passed(run: Run) -> bool:
    """Tell whether stage 2 has run and let no face pass."""
    stamp = stamp_path(run.path(*FILTERED))
    return stamp.exists() and read_json(stamp).get("rows") == 0


def run(options: Options) -> None:
    """Bring the model, its figures and its scores of the filtered faces up to date."""
    work = plan(options)
    for folder in (work.model.parent, work.log("figures.csv").parent, work.run.path(*CNN_SCORES).parent):
        remove_leftovers(folder)
    summary = Summary("4b property CNN")
    for text in work.notes:
        summary.note(text)
    _model(work, options, summary)
    figures = _scores(work, options, summary)
    if options.evaluate:
        print(_told(figures))
    summary.print()


def _told(figures: pd.DataFrame) -> str:
    """The figures as a table for people, with the 95 % interval of each correlation."""
    from property_score.correlation import interval

    ends = [interval(row.r, row.faces) for row in figures.itertuples()]
    shown = figures.assign(**{"95 %": [f"{low:.3f} to {high:.3f}" for low, high in ends]})
    columns = ["property", "of", "faces", "r", "95 %", "mae", "mse"]
    text = shown[columns].to_string(index=False, float_format=lambda value: f"{value:.3f}", na_rep="-")
    known = figures.loc[figures["faces"] > 0, "mae"].notna().all()
    return text if known else f"{text}\nmae and mse are empty: which scale the CNN's scores have is not recorded"


def _model(work: Plan, options: Options, summary: Summary) -> None:
    if work.model_stamp is None or (is_fresh(work.model, **work.model_stamp)[0] and not options.force):
        summary.kept(work.model)
    elif work.bundled:
        with atomic(work.model) as temporary:
            shutil.copyfile(work.bundled, temporary)
        write_json(stamp_path(work.model), {"provenance": provenance_of(work.bundled), "sha256": digest(work.model)})
        write_stamp(work.model, command=COMMAND, **work.model_stamp)
        summary.wrote(work.model, f"bundled, from {shown(work.bundled)}")
    else:
        _train(work, options)
        summary.wrote(work.model, "trained")


def _train(work: Plan, options: Options) -> None:
    from pipeline.artefacts import save_weights
    from property_score.normalisation import Normalisation
    from property_score.out_of_fold import fold_checkpoint, fold_numbers, out_of_fold_scores
    from property_score.property_training import remove_checkpoint, split_parts, train_property_cnn

    limit_threads()
    table = read_table(work.run.path(*SCORES), score_schema())
    if table.empty:
        raise PipelineError(
            f"{work.run.path(*SCORES)} holds no face to train the property CNN on: stage 3 found none in any picture; "
            "name a property CNN in [weights] of the profile, or sample and filter pictures that show faces"
        )
    known = table[table["img_no"].isin(work.numbers)].sort_values("img_no", ignore_index=True)
    if len(known) < len(table):
        raise PipelineError(
            f"{work.run.path(*SCORES)} holds {len(table) - len(known)} faces that are not filtered any more; "
            f"run compute_property_scores.py --run {work.run} again"
        )
    # Folds that do not fit the faces are refused here, not after the main training.
    fold_numbers(split_parts(len(known), options.seed), work.folds, options.seed)
    images = read_pictures([picture_path(work.run, img_no) for img_no in known["img_no"]], work.resolution)
    labels = known[[f"{name}_score" for name in PROPERTIES]].to_numpy(np.float32)
    normalisation = Normalisation.load(work.run.path(*NORMALISATION))
    checkpoint = work.log("training_checkpoint.pt")
    settings = PropertyTraining(**work.training)
    shared = {
        "width": work.width,
        "settings": settings,
        "seed": options.seed,
        "level_pose": normalisation.z("pose", 0.0),
        "checkpoint": checkpoint,
        "device": resolve_device(options.device),
    }
    trained = train_property_cnn(images, labels, **shared)
    scores = out_of_fold_scores(images, labels, trained.parts, work.folds, **shared)
    used = trained.parts != "test"
    out_of_fold = pd.DataFrame(scores[used], columns=[f"{name}_score" for name in PROPERTIES])
    out_of_fold.insert(0, "img_no", known.loc[used, "img_no"].to_numpy())
    split = known[["img_no"]].assign(part=trained.parts, picture=picture_digests(work.run, known["img_no"]))
    save_weights(
        work.model,
        trained.network.state_dict(),
        half=True,
        faces=len(known),
        seed=options.seed,
        width=work.width,
        resolution=work.resolution,
        training=asdict(settings),
        normalisation=normalisation.record(),
        test_figures=_text(trained.test_figures),
        log=_text(trained.log),
        split=_text(split),
        out_of_fold=_text(out_of_fold),
        **trained_on(work.run, known["img_no"]),
    )
    write_stamp(work.model, command=f"{COMMAND} --train", **work.model_stamp)
    for path in (checkpoint, *(fold_checkpoint(checkpoint, fold) for fold in range(work.folds))):
        remove_checkpoint(path)


def _text(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def _scores(work: Plan, options: Options, summary: Summary) -> pd.DataFrame:
    """Bring scores and figures up to date and return the figures."""
    target, figures = work.run.path(*CNN_SCORES), work.log("figures.csv")
    # Other folds give other scores of the training's own faces and leave the weights as they are.
    record = provenance_of(work.model)
    known = hashlib.sha256("".join(str(record.get(name)) for name in ("split", "out_of_fold")).encode()).hexdigest()
    stamp = {
        "options": {"resolution": work.resolution, "half": work.half, "known_scores": known[:16]},
        "seed": None,
        "inputs": {"model": work.model, "scores": work.run.path(*SCORES), "images": work.run.path(*FILTERED)},
        "code": code_version(*SCORING_CODE),
    }
    tables = (target, figures)
    if all(is_fresh(path, **stamp)[0] for path in tables) and not options.force:
        for path in tables:
            summary.kept(path)
        return read_table(figures, _figure_schema())
    from property_score.property_cnn import CNNScorer

    limit_threads()
    scorer = CNNScorer.load(work.model, resolve_device(options.device), BATCH)
    if scorer.resolution != work.resolution:
        raise PipelineError(
            f"{work.model} is a property CNN for {scorer.resolution} pixels, the profile's resolution "
            f"is {work.resolution}; name the right file in [weights], or use --train"
        )
    seen = SeenFaces.of_model(work.model, work.run, work.numbers)
    scores = seen.mark(_score_all(work, scorer), [f"{name}_score" for name in PROPERTIES])
    write_table(target, scores, cnn_score_schema())
    compared = _compare(work, scores, seen.split)
    write_table(figures, compared, _figure_schema())
    if not compared["faces"].any():
        summary.note("no face that the CNN has not seen has a score of stage 4: there is nothing to compare it with")
    elif compared["mae"].isna().all():
        summary.note("the CNN's errors are not told: its record or stage 4's lacks the normalisation of the scores")
    _write_logs(work, seen.split)
    for path in tables:
        write_stamp(path, command=COMMAND, rows=len(scores), **stamp)
        summary.wrote(path, f"{len(scores)} faces" if path == target else "the CNN against stage 4")
    elsewhere = int((scores["source"] == "trained on").sum())
    if elsewhere:
        summary.note(f"{elsewhere} faces are of seeds that the CNN was trained on; they have no part in its figures")
    folded = int((scores["source"] == "out of fold").sum())
    if folded:
        summary.note(f"{folded} faces that the CNN was trained on are scored by networks that did not see them")
    return compared


def _score_all(work: Plan, scorer: CNNScorer) -> pd.DataFrame:
    import torch

    from pipeline.progress import progress

    parts = [np.empty((0, len(PROPERTIES)), np.float32)]
    with progress(len(work.numbers), "score faces with the property CNN") as bar:
        for start in range(0, len(work.numbers), BATCH):
            paths = [picture_path(work.run, img_no) for img_no in work.numbers[start : start + BATCH]]
            pixels = torch.from_numpy(read_pictures(paths, work.resolution))
            with half_precision(scorer.device, work.half):
                scores = scorer.score_tensor(pixels.permute(0, 3, 1, 2).float() / 127.5 - 1)
            parts.append(scores.float().cpu().numpy())
            bar.update(len(paths))
    values = np.concatenate(parts).astype(np.float64).round(5)
    frame = pd.DataFrame(values, columns=[f"{name}_score" for name in PROPERTIES])
    frame.insert(0, "img_no", work.numbers)
    paths = [work.run.relative(picture_path(work.run, img_no)) for img_no in work.numbers]
    frame.insert(1, "img_path", pd.Series(paths, dtype=str))
    return frame


def _compare(work: Plan, scores: pd.DataFrame, split: pd.DataFrame | None) -> pd.DataFrame:
    """Figures of the CNN against stage 4: of the test part for a CNN trained here, else of all filtered faces.

    The CNN's z-scores are turned into those of stage 4 first. Where the one's normalisation or the other's is not known
    (published files have none), the errors are left empty; correlation needs no common unit.
    """
    from property_score.normalisation import Normalisation
    from property_score.property_training import property_figures

    stage4 = read_table(work.run.path(*SCORES), score_schema())
    faces = "test" if split is not None else "all filtered"
    scores = scores[scores["source"] != "trained on"]
    if split is not None:
        stage4 = stage4[stage4["img_no"].isin(split.loc[split["part"] == "test", "img_no"])]
    both = scores.merge(stage4, on="img_no", suffixes=("_cnn", "_v2"), validate="one_to_one")
    columns = {side: [f"{name}_score_{side}" for name in PROPERTIES] for side in ("cnn", "v2")}
    found = both[columns["cnn"]].to_numpy(np.float64)
    record, here = provenance_of(work.model).get("normalisation"), work.run.path(*NORMALISATION)
    known = record is not None and here.exists()
    if known:
        own, units = Normalisation.from_record(record, stamp_path(work.model)), Normalisation.load(here)
        found = np.stack([units.z(name, own.raw(name, found[:, k])) for k, name in enumerate(PROPERTIES)], axis=1)
    figures = property_figures(found, both[columns["v2"]].to_numpy(np.float64))
    if not known:
        figures[["mae", "mse"]] = np.nan
    figures.insert(1, "of", faces)
    return figures.round({"r": 4, "mae": 4, "mse": 4})


def _write_logs(work: Plan, split: pd.DataFrame | None) -> None:
    """Write split and epochs of the model's training from the record beside it; a bundled model has no split here."""
    from pandera.pandas import Check, Column, DataFrameSchema

    record = provenance_of(work.model)
    paths = {"split": work.log("split.csv"), "log": work.log("train_log_property_cnn.csv")}
    if split is not None:
        number, part = Column(int, unique=True), Column(str, Check.isin(PARTS))
        write_table(paths["split"], split[["img_no", "part"]], DataFrameSchema({"img_no": number, "part": part}))
    else:
        paths["split"].unlink(missing_ok=True)
    if "log" in record:
        schema = DataFrameSchema({"epoch": Column(int), "val_loss": Column(float, coerce=True)})
        write_table(paths["log"], pd.read_csv(io.StringIO(record["log"])), schema)
    else:
        paths["log"].unlink(missing_ok=True)


def _figure_schema():
    from pandera.pandas import Check, Column, DataFrameSchema

    return DataFrameSchema(
        {
            "property": Column(str, Check.isin(PROPERTIES)),
            "of": Column(str, Check.isin(("test", "all filtered"))),
            "faces": Column(int),
            "r": Column(float, Check.in_range(-1, 1), nullable=True),
            "mae": Column(float, nullable=True),
            "mse": Column(float, nullable=True),
        }
    )


if __name__ == "__main__":
    main(Options, run, EXAMPLES)
