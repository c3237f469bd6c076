"""Which of a run's filtered faces the property CNN has seen in training, as the record beside its weights tells it."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cnn.labels import Origin
from cnn.pictures import FILTERED, FOLDER, LATENTS
from pipeline.artefacts import digest, provenance_of, read_arrays, read_json, stamp_path
from pipeline.errors import PipelineError
from pipeline.run import Run
from pipeline.seeds import format_seeds, parse_seeds

SOURCES = ("unseen", "out of fold", "trained on")
AGAIN = "train again with --train --force"


def source_of(model: Path) -> str:
    """How the run came by its property CNN: "trained" there, "bundled", or "" where there is none."""
    if not model.exists() or not stamp_path(model).exists():
        return ""
    return (read_json(stamp_path(model)).get("options") or {}).get("source", "")


def picture_path(run: Run, img_no: int) -> Path:
    """Path of a filtered face."""
    return run.path(*FILTERED, f"{img_no:06d}.jpg")


def picture_digests(run: Run, numbers: Iterable[int]) -> list[str]:
    """What tells the picture of each filtered face from another one of the same number."""
    return [digest(picture_path(run, img_no))[:16] for img_no in numbers]


def trained_on(run: Run, numbers: pd.Series) -> dict[str, Any]:
    """What a weight file tells of its faces: seeds as `trained_on`, in the grammar of `pipeline.seeds`, and generator.

    Pictures that are not known to be a generator's have none, and nothing is recorded: "" would mean no scored face.
    """
    path = run.path(*LATENTS)
    if not path.exists():
        return {}
    arrays = read_arrays(path, ("img_no", "seed"))
    seeds = arrays["seed"][np.isin(arrays["img_no"], numbers)]
    if len(seeds) != len(numbers):
        return {}
    generator = Origin.of_stamp(run.path(*FOLDER)).generator
    told = {"generators": {"generator": generator}} if generator else {}
    return told | {"trained_on": format_seeds(int(seed) for seed in seeds)}


@dataclass(frozen=True)
class SeenFaces:
    """The training's faces among the filtered ones (numbers, int [N]) of a run.

    split: img_no and part ("train", "val", "test") of those that a training in this run dealt out, None where it has
    none of them; out_of_fold: img_no and the scores of those by networks that did not see them, or None; elsewhere:
    numbers of faces that the model was trained on in another run, or in this one under another number, as far as seeds
    tell.
    """

    split: pd.DataFrame | None
    out_of_fold: pd.DataFrame | None
    elsewhere: np.ndarray

    @classmethod
    def of_model(cls, model: Path, run: Run, numbers: np.ndarray) -> SeenFaces:
        """Read the record beside the model. PipelineError where a model trained in this run lacks its tables."""
        record = provenance_of(model)
        if source_of(model) != "trained":
            return cls(None, None, _elsewhere(record, run))
        split, scores = (_table(record, name, model) for name in ("split", "out_of_fold"))
        # A face counts while its number shows the picture that it showed then.
        if "picture" in split:
            there = split[split["img_no"].isin(numbers)]
            now = np.array(picture_digests(run, there["img_no"]), dtype=object)
            split = there[there["picture"].to_numpy() == now]
        # Under another number, or drawn anew, a face is known by its seed, if the generator is known to be the same.
        here = Origin.of_stamp(run.path(*FOLDER)).generator
        same = here is not None and here in (record.get("generators") or {}).values()
        moved = np.setdiff1d(_elsewhere(record, run), split["img_no"]) if same else np.empty(0, int)
        if split.empty:
            return cls(None, None, moved)
        return cls(split, scores[scores["img_no"].isin(split["img_no"])], moved)

    def mark(self, scores: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
        """The scores (img_no and columns) with column `source`, out-of-fold scores in place of the model's own."""
        marked = scores.assign(source=np.where(scores["img_no"].isin(self.elsewhere), "trained on", "unseen"))
        if self.out_of_fold is not None:
            rows = marked["img_no"].isin(self.out_of_fold["img_no"]).to_numpy()
            folded = self.out_of_fold.set_index("img_no").loc[marked.loc[rows, "img_no"], columns]
            marked.loc[rows, columns] = folded.to_numpy().round(5)
            marked.loc[rows, "source"] = "out of fold"
        return marked


def _table(record: dict[str, Any], name: str, model: Path) -> pd.DataFrame:
    if name not in record:
        raise PipelineError(f"{stamp_path(model)} lacks the training's {name}; {AGAIN}")
    return pd.read_csv(io.StringIO(record[name]), dtype={"picture": str})


def _elsewhere(record: dict[str, Any], run: Run) -> np.ndarray:
    """Numbers of the run's faces whose seeds the record names, where they are of the generator that it names."""
    path = run.path(*LATENTS)
    seeds, generators = record.get("trained_on"), record.get("generators")
    here = Origin.of_stamp(run.path(*FOLDER)).generator
    others = bool(here and generators) and here not in generators.values()
    if not seeds or others or not path.exists():
        return np.empty(0, int)
    arrays = read_arrays(path, ("img_no", "seed"))
    return arrays["img_no"][np.isin(arrays["seed"], parse_seeds(seeds))]
