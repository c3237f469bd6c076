"""Scores of training faces by networks that never saw them.

A network knows the faces that it was trained on better than any other, so that its scores of them look too good and
are worth less downstream. Here each face is scored by a network that was trained without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.errors import PipelineError
from property_score.measure import PROPERTIES
from property_score.property_training import predict, train_property_cnn

VAL_SHARE = 0.1  # of the faces that a fold's network may use


def fold_numbers(parts: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Fold 0..folds-1 of each face that a training used ("train" and "val"), -1 for all others; by the seed."""
    used = np.flatnonzero((parts == "train") | (parts == "val"))
    if not 2 <= folds <= len(used) // 4:
        raise PipelineError(
            f"out-of-fold scores need 2 to {len(used) // 4} folds for {len(used)} faces ({len(parts)} less the "
            f"test's), got {folds}: set folds under [property_cnn] in the profile, or filter more faces"
        )
    numbers = np.full(len(parts), -1)
    numbers[np.random.default_rng([seed, folds, 0xF0]).permutation(used)] = np.arange(len(used)) % folds
    return numbers


def parts_of_fold(numbers: np.ndarray, fold: int, seed: int) -> np.ndarray:
    """Part of each face in the training of one fold: "test" within the fold, "train" or "val" outside, else ""."""
    parts = np.full(len(numbers), "", dtype="<U5")
    others = np.random.default_rng([seed, fold, 0xF1]).permutation(np.flatnonzero((numbers >= 0) & (numbers != fold)))
    count = max(1, round(VAL_SHARE * len(others)))
    parts[numbers == fold], parts[others[:count]], parts[others[count:]] = "test", "val", "train"
    return parts


def out_of_fold_scores(
    images: np.ndarray,
    labels: np.ndarray,
    parts: np.ndarray,
    folds: int,
    *,
    seed: int,
    checkpoint: Path,
    device: str | torch.device = "cpu",
    **training: Any,
) -> np.ndarray:
    """Scores float32 [N, 8] of the faces that `parts` used for training, NaN for the others.

    Each fold is one training as by `train_property_cnn` (`training`: its other arguments), with a checkpoint beside the
    given one, so that a killed call goes on where it was.
    """
    numbers, scores = fold_numbers(parts, folds, seed), np.full((len(images), len(PROPERTIES)), np.nan, np.float32)
    for fold in range(folds):
        rows = np.flatnonzero(numbers == fold)
        trained = train_property_cnn(
            images,
            labels,
            parts=parts_of_fold(numbers, fold, seed),
            seed=seed,
            checkpoint=fold_checkpoint(checkpoint, fold),
            device=device,
            **training,
        )
        scores[rows] = predict(trained.network.to(device), images, rows, torch.device(device))
    return scores


def fold_checkpoint(checkpoint: Path, fold: int) -> Path:
    """Path of the checkpoint of one fold."""
    return checkpoint.with_name(f"{checkpoint.stem}_fold_{fold}{checkpoint.suffix}")
