"""The SVM mended: standardised codes, primal solver run to convergence, tuned C, groups shrunk toward the pool's."""

from __future__ import annotations

import numpy as np

from vectorfind.groups import UNGROUPED
from vectorfind.methods import SMALLEST_GROUP, Fit, Fits, MethodOptions, extremes, linear_svm, svm_rows, unit
from vectorfind.names import PROPERTIES

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
TUNING_ROWS = 10_000
HELD_SHARE = 0.2
MOST_ITERATIONS = 5000


def fit_svm_mended(
    codes, scores: np.ndarray, groups: np.ndarray, names, properties, options: MethodOptions, progress=None
) -> Fits:
    """As `fit_svm`, with every doubtful setting mended.

    C is the one whose direction ranks held-out samples best (Spearman, the middle of the scores included), once per
    property. A group's direction is a mixture of its own and the pool's; the share is chosen the same way. accuracy in
    the Fit is that rank correlation on the group's held-out fifth (which has chosen C and share, so that it flatters a
    little), shrinkage the pool's share.
    """
    rng = np.random.default_rng([options.seed, 11])
    held_out = rng.random(len(scores)) < HELD_SHARE
    fits: Fits = {}
    for name in properties:
        column = scores[:, PROPERTIES.index(name)]
        known = np.isfinite(column)
        train, held = np.flatnonzero(known & ~held_out), np.flatnonzero(known & held_out)
        tuning = train[:TUNING_ROWS]
        candidates = {c: _solve(codes, column, tuning, options.k_percent, c) for c in PENALTIES}
        judged = held[:TUNING_ROWS]
        ranks = {c: rank_corr(codes[judged] @ fit.normal, column[judged]) for c, fit in candidates.items()}
        best = max(ranks, key=ranks.get)
        pooled = (
            candidates[best] if len(tuning) == len(train) else _solve(codes, column, train, options.k_percent, best)
        )
        pooled.source, pooled.accuracy, pooled.held_out = "pooled", ranks[best], len(judged)
        if UNGROUPED in names:  # all faces are the group
            pooled.source = "group"
        own = {}
        for group in names:
            rows = train[groups[train] == group]
            if group != UNGROUPED and len(rows) >= SMALLEST_GROUP:
                own[group] = _solve(codes, column, rows, options.k_percent, best)
            if progress is not None:
                progress(1)
        inside = {group: held[groups[held] == group] for group in own}
        share = _best_share(codes, column, pooled, own, inside)
        for group in names:
            if group not in own:
                fits[name, group] = pooled
                continue
            fit, rows = own[group], inside[group]
            fit.normal = unit(share * pooled.normal + (1 - share) * fit.normal)
            fit.shrinkage, fit.held_out = share, len(rows)
            fit.accuracy = rank_corr(codes[rows] @ fit.normal, column[rows])
            fits[name, group] = fit
    return fits


def rank_corr(values: np.ndarray, scores: np.ndarray) -> float:
    """Spearman's rank correlation; NaN below three samples."""
    from scipy.stats import spearmanr

    return float(spearmanr(values, scores).statistic) if len(scores) > 2 else float("nan")


def _solve(codes, column: np.ndarray, rows: np.ndarray, k_percent: float, c: float) -> Fit:
    most = svm_rows(codes.shape[1]) // 2
    # Of more than memory holds, evenly spaced ones.
    low, high = (
        ends[np.linspace(0, len(ends) - 1, min(len(ends), most)).astype(int)]
        for ends in extremes(column, rows, k_percent)
    )
    x = codes[np.concatenate([low, high])]
    labels = np.repeat([0, 1], [len(low), len(high)])
    spread = x.std(0)
    spread = np.maximum(spread, 1e-6 * spread.max() or 1.0)
    x -= x.mean(0)
    x /= spread
    svm, converged, iterations = linear_svm(x, labels, C=c, dual=False, max_iter=MOST_ITERATIONS)
    return Fit(unit(svm.coef_[0] / spread), "group", len(x), converged=converged, iterations=iterations)


def _best_share(codes, column: np.ndarray, pooled: Fit, own: dict[str, Fit], inside: dict[str, np.ndarray]) -> float:
    """Share of the pool's direction that ranks the held-out samples of all groups best."""
    found = np.zeros(len(SHARES))
    for group, fit in own.items():
        rows = inside[group]
        if len(rows) < 3:
            continue
        x = codes[rows]
        along, common = x @ fit.normal, x @ pooled.normal
        ranks = [rank_corr(share * common + (1 - share) * along, column[rows]) for share in SHARES]
        found += len(rows) * np.nan_to_num(ranks)  # a group whose scores are all the same has no say
    return SHARES[int(found.argmax())]
