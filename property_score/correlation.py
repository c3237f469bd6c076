"""Correlations of measurements, some of which may be missing."""

import math

import numpy as np

from pipeline.report import Z_95


def pearson(first: np.ndarray, second: np.ndarray) -> tuple[float, int]:
    """Pearson's r of two arrays [N] and the number of rows where both are there; NaN below 3 or without variation."""
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    known = np.isfinite(first) & np.isfinite(second)
    first, second = first[known], second[known]
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return math.nan, len(first)
    return float(np.corrcoef(first, second)[0, 1]), len(first)


def spearman(first: np.ndarray, second: np.ndarray) -> tuple[float, int]:
    """Spearman's rank correlation of two arrays [N] and the number of rows where both are there; ties share a rank."""
    from scipy.stats import rankdata

    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    known = np.isfinite(first) & np.isfinite(second)
    return pearson(rankdata(first[known]), rankdata(second[known]))


def interval(r: float, count: int) -> tuple[float, float]:
    """95 % interval of a correlation of `count` rows by Fisher's z (1921); NaN below 4 rows."""
    if count < 4 or not math.isfinite(r):
        return math.nan, math.nan
    reach, middle = Z_95 / math.sqrt(count - 3), math.atanh(min(max(r, -1 + 1e-12), 1 - 1e-12))
    return math.tanh(middle - reach), math.tanh(middle + reach)


def standardised_effects(values: np.ndarray, causes: np.ndarray) -> tuple[np.ndarray, float]:
    """Effect of each cause on a value with the others held, in standard deviations of both, and the R² of all of them.

    values: [N], rows where it is missing are left out. causes: [N, K] without gaps. NaN where too few rows are left.
    """
    known = np.isfinite(values)
    y, x = np.asarray(values, np.float64)[known], np.asarray(causes, np.float64)[known]
    if len(y) < x.shape[1] + 2 or np.ptp(y) == 0:
        return np.full(x.shape[1], math.nan), math.nan
    y, x = (y - y.mean()) / y.std(), (x - x.mean(axis=0)) / x.std(axis=0)
    effects, *_ = np.linalg.lstsq(x, y, rcond=None)
    return effects, float(1 - np.square(y - x @ effects).mean())
