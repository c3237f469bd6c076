"""Scores of every sampled face by the twenty models, each picture read once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cnn.pictures import picture_batches
from cnn.settings import FOLDS, FilterSettings
from pipeline.progress import progress
from pipeline.run import Run

DECIMALS = 6


def score_pictures(
    run: Run, pictures: pd.DataFrame, models: dict[str, list[Path]], settings: FilterSettings, device
) -> dict[str, np.ndarray]:
    """Probabilities of label 1, float64 [N, folds], for each property of `models`; rows as in `pictures`."""
    import torch

    from cnn.filter_cnn import FilterEnsemble

    ensembles = {
        name: FilterEnsemble.load(name, paths, settings.architectures[name], device) for name, paths in models.items()
    }
    resolution = next(iter(settings.architectures.values())).resolution
    scores = {name: np.empty((len(pictures), FOLDS)) for name in models}
    with progress(len(pictures), "score faces") as bar:
        for rows, pixels in picture_batches(run, pictures, resolution, settings.batch):
            images = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
            for name, ensemble in ensembles.items():
                scores[name][rows] = ensemble.model_scores(images).double().cpu().numpy()
            bar.update(len(pixels))
    return scores


def inference_table(pictures: pd.DataFrame, property_name: str, scores: np.ndarray) -> pd.DataFrame:
    """The table cnn/inference_result/{property}.csv: the ensemble mean and each model's score."""
    columns = {f"score_model_{fold}": scores[:, fold].round(DECIMALS) for fold in range(FOLDS)}
    final = {f"property_{property_name}_final_score": scores.mean(axis=1).round(DECIMALS)}
    return pictures[["img_no", "img_path"]].assign(**final, **columns)
