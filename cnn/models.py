"""The twenty filter models of a run: bundled ones copied, or trained here, each with its training record beside it.

The record (provenance in the JSON beside a model) holds the log of its training, so that the log tables of a run come
out whole whether the models were copied, trained in one go or trained with interruptions.
"""

from __future__ import annotations

import hashlib
import io
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cnn.labels import deal_folds
from cnn.pictures import read_pictures
from cnn.settings import FILTER_NAMES, FOLDS, FilterSettings
from pipeline.artefacts import (
    atomic,
    code_version,
    digest,
    is_fresh,
    provenance_of,
    read_json,
    refuse_stranger,
    stamp_path,
    write_json,
    write_stamp,
)
from pipeline.errors import PipelineError
from pipeline.progress import progress
from pipeline.run import Run

COMMAND = "run_cnn.py"
TRAINING_CODE = ("cnn.fit", "cnn.stack", "cnn.filter_cnn", "cnn.training", "cnn.metrics")


def model_path(run: Run, property_name: str, fold: int) -> Path:
    """Where a run keeps a model."""
    return run.path("cnn", "models", f"{property_name}_model_{fold}.pt")


def model_paths(run: Run) -> dict[str, list[Path]]:
    """All models of a run by property."""
    return {name: [model_path(run, name, fold) for fold in range(FOLDS)] for name in FILTER_NAMES}


def bundled_path(folder: Path, property_name: str, fold: int) -> Path:
    """Where a folder of bundled weights keeps a model."""
    return folder / f"{property_name}_model_{fold}.pth"


def is_trained_here(path: Path) -> bool:
    """Tell whether a run's model was trained in that run (and not copied)."""
    if not path.exists() or not stamp_path(path).exists():
        return False
    return (read_json(stamp_path(path)).get("options") or {}).get("source") == "trained"


def check_one_training(run: Run) -> None:
    """PipelineError where the models of a run come from different trainings: one that was stopped halfway."""
    kinds = {}
    for name, paths in model_paths(run).items():
        for path in paths:
            record = provenance_of(path)
            common = [record.get(key) for key in ("labels_sha256", "fold_seed", "seed", "faces", "faces_from")]
            kinds.setdefault(repr(common), path)
            kinds.setdefault(name + repr([record.get(key) for key in ("architecture", "training")]), path)
    if len(kinds) > 1 + len(FILTER_NAMES):
        raise PipelineError(
            f"the filter CNNs of {run} come from different trainings, as when one is stopped halfway "
            f"({', '.join(sorted(path.name for path in kinds.values()))} differ); go on with run_cnn.py --train and "
            "the same labels, begin anew with --train --force, or take the bundled ones, if any, with --force"
        )


@dataclass(frozen=True)
class ModelPlan:
    """One model of the run: where it comes from and whether it is already there."""

    property_name: str
    fold: int
    path: Path
    stamp: dict[str, Any]  # options, seed, inputs, code: what it is made of
    fresh: bool
    bundled: Path | None  # copy this file; None: train


def plan_bundled(run: Run, folder: Path, force: bool = False) -> list[ModelPlan]:
    """Copies of the bundled models, which have to be there."""
    plans = []
    for name in FILTER_NAMES:
        for fold in range(FOLDS):
            source, path = bundled_path(folder, name, fold), model_path(run, name, fold)
            stamp = {"options": {"source": "bundled"}, "seed": None, "inputs": {"bundled": source}, "code": ""}
            fresh, _ = is_fresh(path, **stamp)
            if not force:
                refuse_stranger(path, source, "[cnn] bundled (a folder)")
            plans.append(ModelPlan(name, fold, path, stamp, fresh and not force, source))
    return plans


def plan_training(
    run: Run, settings: FilterSettings, seed: int, labelled: pd.DataFrame, force: bool = False
) -> list[ModelPlan]:
    """Models to train on the labelled faces (columns of the labels and img_path)."""
    sizes = [(path, run.path(path).stat().st_size) for path in labelled["img_path"]]
    code = code_version(*TRAINING_CODE)
    plans = []
    for name in FILTER_NAMES:
        options = {
            "source": "trained",
            "architecture": settings.architectures[name].options(),
            "learning_rate": settings.learning_rates[name],
            "training": asdict(settings.trainings[name]),
            "fold_seed": settings.fold_seed,
            "faces": _text_digest(sizes),
        }
        for fold in range(FOLDS):
            stamp = {"options": options, "seed": seed, "inputs": {"labels": settings.labels}, "code": code}
            path = model_path(run, name, fold)
            fresh, _ = is_fresh(path, **stamp)
            plans.append(ModelPlan(name, fold, path, stamp, fresh and not force, None))
    return plans


def _text_digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]


def copy_bundled(plan: ModelPlan) -> None:
    """Copy one bundled model with its training record."""
    with atomic(plan.path) as temporary:
        shutil.copyfile(plan.bundled, temporary)
    write_json(stamp_path(plan.path), {"provenance": provenance_of(plan.bundled), "sha256": digest(plan.path)})
    write_stamp(plan.path, command=COMMAND, **plan.stamp)


def deal_faces(
    plans: list[ModelPlan], settings: FilterSettings, labels: pd.DataFrame, labelled: pd.DataFrame
) -> dict[str, np.ndarray]:
    """The fold of every labelled face [n], for each property of the plans; PipelineError for a class that is too rare.

    labels: the whole label table, which the folds depend on; labelled: its rows whose pictures the run has.
    """
    dealt = {}
    for name in dict.fromkeys(plan.property_name for plan in plans):
        folds = deal_folds(labels, name, settings.fold_seed, path=settings.labels)
        dealt[name] = folds.reindex(labelled["img_no"]).to_numpy()
        _check_classes(name, labelled[name].to_numpy(), dealt[name])
    return dealt


def train_models(
    run: Run,
    plans: list[ModelPlan],
    settings: FilterSettings,
    dealt: dict[str, np.ndarray],
    labelled: pd.DataFrame,
    origin: dict[str, Any],
    seed: int,
    device,
) -> None:
    """Train every stale model of `plans`; one that is whole on disk is never trained again.

    dealt: the fold of each of the labelled faces, by property.
    """
    from cnn.training import FoldData, crop_pixels, train_fold
    from pipeline.artefacts import save_weights

    pixels = read_pictures(
        [run.path(path) for path in labelled["img_path"]], settings.architectures["gender"].resolution
    )
    with progress(len(plans), "train filter CNNs") as bar:
        for name in FILTER_NAMES:
            stale = [plan for plan in plans if plan.property_name == name]
            if not stale:
                continue
            architecture = settings.architectures[name]
            data = FoldData(crop_pixels(pixels, architecture), labelled[name].to_numpy(), dealt[name])
            for plan in stale:
                trained = train_fold(
                    name,
                    data,
                    plan.fold,
                    architecture,
                    settings.trainings[name],
                    settings.learning_rates[name],
                    settings.cutoffs[name],
                    seed,
                    device,
                )
                record = {
                    "property": name,
                    "fold": plan.fold,
                    "fold_seed": settings.fold_seed,
                    "seed": seed,
                    "labels_sha256": digest(settings.labels),
                    "faces": len(labelled),
                    "faces_from": origin,
                    "architecture": architecture.options(),
                    "training": {**asdict(settings.trainings[name]), "learning_rate": settings.learning_rates[name]},
                    "log": trained.log,
                    "epochs": trained.epochs.to_csv(index=False, float_format="%.6g", lineterminator="\n"),
                    "seconds": round(trained.seconds, 1),
                    "device": str(device),
                }
                save_weights(plan.path, trained.state, **record)
                write_stamp(plan.path, command=f"{COMMAND} --train", **plan.stamp)
                bar.update()


def _check_classes(name: str, labels: np.ndarray, folds: np.ndarray) -> None:
    for fold in range(FOLDS):
        for value in (0, 1):
            count = int((labels[folds != fold] == value).sum())
            if count < 2 or not (labels[folds == fold] == value).any():
                raise PipelineError(
                    f"too few labelled faces of the run have {name} = {value} to train fold {fold}; "
                    "sample more of the labelled faces, or label more (--labels)"
                )


def write_logs(run: Run, property_name: str, models: list[Path]) -> list[Path]:
    """Training logs of one property: cnn/log/train_log_{property}.csv and epoch_detail_{property}_{fold}.csv.

    Seconds are not in these tables, which shall be equal for equal seeds; they are in the JSON beside each model. Where
    no model has a record (published files) there is no log, and that of models before them is deleted. Returns the
    files written, the train log last.
    """
    from cnn import schemas
    from pipeline.tables import write_table

    records = [provenance_of(path) for path in models]
    written = []
    for fold, record in enumerate(records):
        path = run.path("cnn", "log", f"epoch_detail_{property_name}_{fold}.csv")
        if "epochs" in record:
            write_table(path, pd.read_csv(io.StringIO(record["epochs"])), schemas.EPOCH_DETAIL)
            written.append(path)
        else:
            path.unlink(missing_ok=True)
    rows = [record["log"] for record in records if "log" in record]
    log = run.path("cnn", "log", f"train_log_{property_name}.csv")
    if rows:
        write_table(log, pd.DataFrame(rows), schemas.TRAIN_LOG)
        written.append(log)
    else:
        for path in (log, stamp_path(log)):
            path.unlink(missing_ok=True)
    return written
