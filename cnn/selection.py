"""From scores to the faces that pass: labels before CNN scores, cutoffs, figures on held-out folds, the folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from cnn.labels import deal_folds
from cnn.metrics import binary_figures
from cnn.pictures import FILTERED, FOLDER
from cnn.settings import FILTER_NAMES, FILTERS, FOLDS, FilterSettings
from pipeline.artefacts import atomic, record_beside, remove_leftovers
from pipeline.errors import PipelineError
from pipeline.images import NUMBERED
from pipeline.run import Run

WANTED = {"gender": "woman", "quality": "good quality", "age": "young", "glass": "no glasses"}


def meets(name: str, scores: np.ndarray, cutoff: float) -> np.ndarray:
    """Which scores [N] of one property meet its cutoff."""
    return scores >= cutoff if FILTERS[name].keep_high else scores <= cutoff


def all_scores(
    pictures: pd.DataFrame, inference: dict[str, pd.DataFrame], labelled: pd.DataFrame, cutoffs: dict[str, float]
) -> pd.DataFrame:
    """The table cnn/all_image_scores.csv: the label of a labelled face, else the ensemble mean, and who passes."""
    table = pictures[["img_no", "img_path"]].copy()
    is_labelled = table["img_no"].isin(labelled["img_no"]).to_numpy()
    passed = np.ones(len(table), bool)
    for name in FILTER_NAMES:
        score_of = inference[name].set_index("img_no")[f"property_{name}_final_score"]
        scores = score_of.reindex(table["img_no"]).to_numpy().copy()
        label_of = labelled.set_index("img_no")[name]
        scores[is_labelled] = label_of.reindex(table["img_no"][is_labelled]).to_numpy()
        table[f"{name}_score"] = scores
        passed &= meets(name, scores, cutoffs[name])
    return table.assign(source=np.where(is_labelled, "label", "cnn"), passed=passed)


def out_of_fold(inference: pd.DataFrame, labelled: pd.DataFrame, folds: pd.Series) -> pd.DataFrame:
    """For each labelled face its fold and the score of the one model that did not train on it."""
    fold = folds.reindex(labelled["img_no"]).to_numpy()
    models = inference.set_index("img_no")[[f"score_model_{k}" for k in range(FOLDS)]].reindex(labelled["img_no"])
    return pd.DataFrame({"fold": fold, "score": models.to_numpy()[np.arange(len(fold)), fold]})


def held_out_tables(
    inference: dict[str, pd.DataFrame],
    labels: pd.DataFrame,
    labelled: pd.DataFrame,
    settings: FilterSettings,
    table: pd.DataFrame,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables heldout_auroc.csv and cutoffs.csv, both of out-of-fold scores.

    cutoffs.csv says what each cutoff lets through: precision (share of the wanted kind among labelled faces that
    pass), recall, and the share of all faces of the run; the row "all" is for the four conditions together.
    """
    rows, kinds = [], []
    wanted_all, passed_all = np.ones(len(labelled), bool), np.ones(len(labelled), bool)
    for name in FILTER_NAMES:
        folds = deal_folds(labels, name, settings.fold_seed, path=settings.labels)
        scored = out_of_fold(inference[name], labelled, folds)
        truth = labelled[name].to_numpy()
        fold_rows = []
        for fold in (*range(FOLDS), "all"):
            chosen = np.ones(len(scored), bool) if fold == "all" else (scored["fold"] == fold).to_numpy()
            figures = binary_figures(truth[chosen], scored["score"].to_numpy()[chosen], settings.cutoffs[name])
            fold_rows.append(
                {
                    "property": name,
                    "fold": str(fold),
                    "faces": int(chosen.sum()),
                    "positives": int(truth[chosen].sum()),
                    "auroc": round(figures["auroc"], 4),
                    "auprc": round(figures["auprc"], 4),
                }
            )
        means = pd.DataFrame(fold_rows[:FOLDS])[["auroc", "auprc"]].mean().round(4)
        rows += [*fold_rows[:FOLDS], {**fold_rows[-1], "fold": "mean", **means}, fold_rows[-1]]
        wanted = truth == (1 if FILTERS[name].keep_high else 0)
        passes = meets(name, scored["score"].to_numpy(), settings.cutoffs[name])
        wanted_all, passed_all = wanted_all & wanted, passed_all & passes
        share = meets(name, table[f"{name}_score"].to_numpy(), settings.cutoffs[name]).mean()
        kinds.append(_kind(name, WANTED[name], settings.cutoffs[name], wanted, passes, share))
    kinds.append(_kind("all", ", ".join(WANTED.values()), np.nan, wanted_all, passed_all, table["passed"].mean()))
    return pd.DataFrame(rows), pd.DataFrame(kinds)


def _kind(name: str, wanted_kind: str, cutoff: float, wanted: np.ndarray, passes: np.ndarray, share: float) -> dict:
    both = int((wanted & passes).sum())
    return {
        "property": name,
        "wanted": wanted_kind,
        "cutoff": cutoff,
        "labelled_faces": len(wanted),
        "precision": round(both / passes.sum(), 4) if passes.any() else np.nan,
        "recall": round(both / wanted.sum(), 4) if wanted.any() else np.nan,
        "pass_share_all_faces": round(float(share), 4),
    }


def check_enough(table: pd.DataFrame, cutoffs: dict[str, float], least: int, run: Run) -> None:
    """PipelineError with the share of each condition if fewer than `least` faces pass."""
    passing = int(table["passed"].sum())
    if passing >= least:
        return
    shares = ", ".join(
        f"{WANTED[name]} {meets(name, table[f'{name}_score'].to_numpy(), cutoffs[name]).mean():.0%}"
        for name in FILTER_NAMES
    )
    raise PipelineError(
        f"only {passing} of {len(table)} faces in {run} pass the filter, the next stages need {least} ({shares}); "
        "sample more faces (run_original_generator.py -n), loosen [cnn.cutoffs] in the profile, or allow fewer with "
        "--min-passed"
    )


def check_own_folder(run: Run, command: str) -> None:
    """PipelineError if the filtered folder has no record of `command` and holds pictures that the run did not sample.

    They are somebody's, as stages 3 to 5 take them, and not to delete.
    """
    folder = run.path(*FILTERED)
    if record_beside(folder).get("command") == command or not folder.is_dir():
        return
    numbered = sorted(path for path in folder.iterdir() if NUMBERED.fullmatch(path.name))
    strangers = [path.name for path in numbered if not _is_copy(run.path(*FOLDER, path.name), path)]
    if strangers:
        raise PipelineError(
            f"{folder} holds {len(strangers)} pictures that stage 2 did not put there, the first is {strangers[0]}; to "
            f"go on with them start at stage 3: run_pipeline.py --from 3 --run {run}, with the same --profile. Else "
            "choose another run with --run, move them away, or replace them with --force"
        )


def _is_copy(source: Path, target: Path) -> bool:
    if not source.exists() or not target.exists():
        return False
    return os.path.samefile(source, target) or source.read_bytes() == target.read_bytes()


def sync_filtered(run: Run, table: pd.DataFrame) -> tuple[int, int]:
    """Bring the filtered folder in step with the table; returns how many pictures were added and removed.

    A picture is a hard link to the sampled one, or a copy where links are not possible.
    """
    folder = run.path(*FILTERED)
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    wanted = {Path(path).name: run.path(path) for path in table.loc[table["passed"], "img_path"]}
    removed = 0
    for path in folder.iterdir():
        if NUMBERED.fullmatch(path.name) and path.name not in wanted:
            path.unlink()
            removed += 1
    added = 0
    for name, source in wanted.items():
        target = folder / name
        if _is_copy(source, target):
            continue
        with atomic(target) as temporary:
            try:
                os.link(source, temporary)
            except OSError:  # another file system, or one without links
                shutil.copyfile(source, temporary)
        added += 1
    return added, removed
