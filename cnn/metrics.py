"""Figures of a 0/1 classifier on one set of faces."""

from __future__ import annotations

import numpy as np


def binary_figures(labels: np.ndarray, scores: np.ndarray, cutoff: float) -> dict[str, float]:
    """Counts and rates of `scores` [N] in 0..1 against `labels` [N] of 0/1; positive from `cutoff` on.

    AUROC and AUPRC are NaN when only one class is there; a rate whose denominator is 0 is 0.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    truth, positive = labels.astype(bool), scores >= cutoff
    tp, tn = int((positive & truth).sum()), int((~positive & ~truth).sum())
    fp, fn = int((positive & ~truth).sum()), int((~positive & truth).sum())
    recall, precision = tp / max(tp + fn, 1), tp / max(tp + fp, 1)
    both = 0 < truth.sum() < len(truth)
    return {
        "accuracy": (tp + tn) / max(len(truth), 1),
        "tp": tp,
        "tn": tn,
        "fp": fp,
        "fn": fn,
        "recall": recall,
        "precision": precision,
        "f1_score": 2 * precision * recall / max(precision + recall, 1e-12),
        "auroc": float(roc_auc_score(truth, scores)) if both else float("nan"),
        "auprc": float(average_precision_score(truth, scores)) if both else float("nan"),
    }
