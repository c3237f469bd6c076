"""Is the latent space honest: how far scores are linear in z and in w, and how far properties are entangled in w."""

from __future__ import annotations

import numpy as np
import pandas as pd

PENALTIES = np.logspace(-5, 2, 15)
TRAIN_SHARE, CHOOSE_SHARE = 0.7, 0.15


def linear_fit(codes: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(held-out R² [T], gradients float64 [D, T]) of a ridge from codes [n, D] to targets [n, T].

    Rows are split in order 70/15/15: fit, choose the penalty per target, judge. Dimensions are standardised for the
    penalty; gradients are per unit of the code. Targets must be finite.
    """
    n = len(codes)
    cut, judge = int(n * TRAIN_SHARE), int(n * (TRAIN_SHARE + CHOOSE_SHARE))
    x, y = codes.astype(np.float64), targets.astype(np.float64)
    mean, spread = x[:cut].mean(0), x[:cut].std(0)
    spread = np.where(spread > 1e-6 * spread.max(), spread, np.inf)
    x = (x - mean) / spread
    centre = y[:cut].mean(0)
    values, vectors = np.linalg.eigh(x[:cut].T @ x[:cut] / cut)
    values = np.maximum(values, 0)
    rotated = vectors.T @ (x[:cut].T @ (y[:cut] - centre)) / cut
    solutions = [vectors @ (rotated / (values[:, None] + penalty)) for penalty in PENALTIES]
    chosen = np.stack([_r2(x[cut:judge] @ weights + centre, y[cut:judge]) for weights in solutions])
    best = np.nan_to_num(chosen, nan=-np.inf).argmax(0)
    weights = np.stack([solutions[best[t]][:, t] for t in range(y.shape[1])], 1)
    return _r2(x[judge:] @ weights + centre, y[judge:]), weights / spread[:, None]


def _r2(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    rest = ((true - predicted) ** 2).sum(0)
    whole = ((true - true.mean(0)) ** 2).sum(0)
    return np.where(whole > 1e-12, 1 - rest / np.maximum(whole, 1e-12), np.nan)


def honest_space(codes: dict[str, np.ndarray], targets: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How linear each target is at each position, and the cosines between the targets' gradients at the last position.

    codes: {"z": [n, D], "w": [n, D]}; targets: one finite column per score or attribute, same rows.
    Returns (table with a row per target: r2_z, r2_w, …; square cosine table). Serves scores and true attributes alike.
    """
    table = pd.DataFrame({"property": list(targets.columns)})
    gradients = None
    for position, code in codes.items():
        r2, gradients = linear_fit(np.asarray(code), targets.to_numpy())
        table[f"r2_{position}"] = r2
    lengths = np.maximum(np.linalg.norm(gradients, axis=0), 1e-12)
    cosines = (gradients / lengths).T @ (gradients / lengths)
    names = list(targets.columns)
    return table.round(4), pd.DataFrame(cosines, index=names, columns=names).round(4)
