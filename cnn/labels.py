"""The 0/1 labels of the first faces, whose faces they are, and the five folds they are dealt into."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cnn.pictures import FOLDER
from cnn.settings import FILTER_NAMES, FOLDS
from pipeline.artefacts import record_beside
from pipeline.errors import PipelineError
from pipeline.profile import shown
from pipeline.run import Run
from pipeline.seeds import parse_seeds
from pipeline.tables import read_table

CURE = (
    f"mend this label table: columns img_no, {', '.join(FILTER_NAMES)}; one row per face, every label 0 or 1 "
    "(1 is a woman, good quality, old, with glasses)"
)


@dataclass(frozen=True)
class Origin:
    """Where faces come from, as the stamp beside them records it under "origin"; what is not known is None.

    generator: sha256 of the generator's weight file; seeds: the seed of each img_no, in the seed grammar.
    """

    generator: str | None = None
    psi: float | None = None
    seeds: str | None = None

    @classmethod
    def of_stamp(cls, path: Path) -> Origin:
        """The origin recorded beside a file or folder."""
        record = record_beside(path).get("origin") or {}
        return cls(record.get("generator"), record.get("psi"), record.get("seeds"))


def read_labels(path: Path) -> pd.DataFrame:
    """The label table: img_no, then gender (1 woman), quality (1 good), age (1 old), glass (1 glasses).

    The published table calls img_no idx, which is read as well. PipelineError names the file, row and column of
    anything else than 0 and 1, and how to mend it.
    """
    if not path.is_file():
        raise PipelineError(f"label table {shown(path)} is missing; name the right file with --labels")
    from pandera.pandas import Check, Column, DataFrameSchema

    number = _number_column(path)
    columns = {name: Column(int, Check.isin([0, 1])) for name in FILTER_NAMES}
    schema = DataFrameSchema({number: Column(int, Check.ge(0), unique=True), **columns})
    table = read_table(path, schema, CURE).rename(columns={number: "img_no"})
    return table[["img_no", *FILTER_NAMES]].sort_values("img_no", ignore_index=True)


def _number_column(path: Path) -> str:
    """Name of the column of numbers: idx, as published, where its first row names that and no img_no."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as rows:
        names = rows.readline().strip().replace('"', "").split(",")
    return "idx" if "idx" in names and "img_no" not in names else "img_no"


def label_seeds(path: Path, labels: pd.DataFrame) -> np.ndarray:
    """The generator seed of each labelled face: what the stamp says, else its img_no."""
    recorded = Origin.of_stamp(path).seeds
    if recorded is None:
        return labels["img_no"].to_numpy()
    seeds = np.array(parse_seeds(str(recorded)))
    if labels["img_no"].max() >= len(seeds):
        raise PipelineError(
            f"{shown(path)} labels img_no {labels['img_no'].max()}, but its stamp names only "
            f"{len(seeds)} seeds; restore the file and its .json together"
        )
    return seeds[labels["img_no"].to_numpy()]


def match_labels(
    path: Path, labels: pd.DataFrame, pictures: pd.DataFrame, run: Run, needed: bool = True, given: bool = True
) -> tuple[pd.DataFrame, list[str]]:
    """The label rows that belong to the run's pictures, and notes for the summary.

    A row counts when the picture of the same img_no came from the same seed, or when the table records no origin at
    all; of pictures whose generator is not recorded none does, unless the labels name none either. PipelineError if the
    labels were made for the faces of another generator or another truncation; where nothing has to be labelled (not
    `needed`: nothing is trained) and the table is not `given` but the profile's own, no labels are used instead.
    """
    notes = []
    made_for, found = Origin.of_stamp(path), Origin.of_stamp(run.path(*FOLDER))
    others = made_for.generator and found.generator and made_for.generator != found.generator
    stretched = made_for.psi is not None and found.psi is not None and made_for.psi != found.psi
    if (others or stretched) and not needed and not given:
        what = "another generator's faces" if others else f"faces of truncation psi {made_for.psi}"
        notes.append(f"{shown(path)} labels {what}; no labels are used, the CNNs score all faces")
        return labels[:0].reset_index(drop=True), notes
    if others:
        raise PipelineError(
            f"the labels {shown(path)} were made for the faces of generator {made_for.generator[:12]}, but the "
            f"faces in {run} come from generator {found.generator[:12]}; label these faces anew and give the "
            "table with --labels, or sample the faces again with the generator of the profile"
        )
    if stretched:
        raise PipelineError(
            f"the labels {shown(path)} were made for faces with truncation psi {made_for.psi}, but those in {run} have "
            f"psi {found.psi}; sample the faces again with psi {made_for.psi}, or label these and use --labels"
        )
    if made_for.generator and not found.generator:
        # Somebody's own pictures: labels that name the faces they belong to say nothing about these.
        notes.append(
            f"{shown(path)} labels faces of a generator, and these pictures are not known to be its; no "
            "labels are used. Give your own with --labels"
        )
        return labels[:0].reset_index(drop=True), notes
    if not made_for.generator:
        notes.append("which generator the labelled faces come from is not recorded; labels are taken on trust")
    seed_of = pictures.set_index("img_no")["seed"].reindex(labels["img_no"]).to_numpy()
    known = ~np.isnan(seed_of)
    if given and not known.all():
        first = labels["img_no"].to_numpy()[~known][0]
        if not known.any():
            raise PipelineError(
                f"{shown(path)}: none of the {len(labels)} labelled faces is in {run}; it labels img_no {first} and so "
                f"on, the run has {pictures['img_no'].min()} to {pictures['img_no'].max()}; number the rows as the "
                "pictures are"
            )
        notes.append(f"{(~known).sum()} of {len(labels)} labels belong to no picture of this run, the first to {first}")
    # A table without an origin, as one made by hand, names pictures of this run and knows of no seeds.
    on_trust = made_for.seeds is None and not made_for.generator
    same = known & ((seed_of == -1) | on_trust | (seed_of == label_seeds(path, labels)))
    if known.sum() > same.sum():
        notes.append(f"{known.sum() - same.sum()} labels left out: the faces of these img_no come from other seeds")
    return labels[same].reset_index(drop=True), notes


def deal_folds(
    labels: pd.DataFrame, property_name: str, fold_seed: int, folds: int = FOLDS, path: Path | None = None
) -> pd.Series:
    """Stratified fold (0..folds-1) of each labelled face, indexed by img_no.

    It depends on the whole label table and the seed only, so that a model never sees its held-out faces, however many
    pictures a run has. PipelineError if a class is too rare; it names `path`, the file of the labels.
    """
    values = labels[property_name].to_numpy()
    order = np.random.default_rng([fold_seed, zlib.crc32(property_name.encode())])
    fold, dealt = np.empty(len(values), int), 0
    for value in (0, 1):
        members = np.flatnonzero(values == value)
        if len(members) < folds:
            raise PipelineError(
                f"{f'{shown(path)}: ' if path else ''}only {len(members)} faces are labelled "
                f"{property_name} = {value}, at least {folds} are needed for the folds; label more faces"
            )
        fold[order.permutation(members)] = (dealt + np.arange(len(members))) % folds
        dealt += len(members)
    return pd.Series(fold, index=pd.Index(labels["img_no"], name="img_no"), name="fold")
