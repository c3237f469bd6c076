"""Ways to find the direction of one property from codes and scores: the published SVM, and a ridge on all samples."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from pipeline.errors import PipelineError
from vectorfind.groups import UNGROUPED
from vectorfind.names import PROPERTIES

# Below this many samples a group has no direction of its own and takes that of the whole pool.
SMALLEST_GROUP = 20
RANDOM_STATE = 2025  # of LinearSVC, as published
RIDGE_PENALTIES = np.logspace(-4, 1, 21)
SHRINKAGES = np.logspace(-2, 4, 25)
# Memory of an SVM's samples: float32 here, float64 in scikit-learn, nodes of 16 bytes in liblinear, and passing copies.
SVM_BYTES, BYTES_PER_NUMBER = 3_200_000_000, 32
MORE_SAMPLES = "give more samples (-n), or --groups none"


@dataclass(frozen=True)
class MethodOptions:
    """Settings of the methods; the defaults are the published ones of VectorFind v8.

    k_percent: share of a group at each end of the score that trains the SVM. c, max_iter: LinearSVC's own.
    seed: of the 80/20 split. ranks: ridge on ranks instead of scores.
    """

    k_percent: float = 20.0
    c: float = 1.0
    max_iter: int = 1000
    seed: int = 0
    ranks: bool = False


@dataclass
class Fit:
    """One found direction: normal float32 [D] of unit length, + toward higher scores as the samples say.

    After `project_off` or `along_codes` it is a move rather than a normal.
    source: "group" or "pooled" (too few samples). accuracy: of the SVM on its held-out extremes, of ridge the R² on
    what it saw. held_out: how many samples the accuracy is of (0: none).
    converged: False when the solver stopped at its iteration limit.
    """

    normal: np.ndarray
    source: str
    samples: int
    accuracy: float = float("nan")
    held_out: int = 0
    converged: bool = True
    iterations: int = 0
    shrinkage: float = float("nan")


Fits = dict[tuple[str, str], Fit]


def fit_svm(
    codes, scores: np.ndarray, groups: np.ndarray, names, properties, options: MethodOptions, progress=None
) -> Fits:
    """LinearSVC between the top and bottom k % of each group (VectorFind v6-v8; after HiGAN, arXiv 1911.09267).

    Of more than `svm_rows` extremes a random part is taken.

    codes: [n, D] array or ShardedArray; scores [n, 8]; groups: names [n]. Returns {(property, group): Fit}.
    """
    fits: Fits = {}
    pooled: dict[str, Fit] = {}
    for name in properties:
        column = scores[:, PROPERTIES.index(name)]
        for group in names:
            rows = np.flatnonzero(groups == group)
            if len(rows) >= SMALLEST_GROUP:
                fits[name, group] = _svm(codes, column, rows, options, "group")
            else:
                if name not in pooled:
                    pooled[name] = _svm(codes, column, np.arange(len(column)), options, "pooled")
                fits[name, group] = pooled[name]
            if progress is not None:
                progress(1)
    return fits


def extremes(column: np.ndarray, rows: np.ndarray, k_percent: float) -> tuple[np.ndarray, np.ndarray]:
    """(rows of the lowest, rows of the highest) k % of `rows` by score, at least one each; of the measured ones."""
    rows = rows[np.isfinite(column[rows])]
    k = max(int(len(rows) * k_percent / 100), 1)
    order = rows[np.argsort(column[rows], kind="stable")]
    return order[:k], order[-k:]


def svm_rows(dims: int) -> int:
    """Most samples that an SVM is given, for its copies of them to stay within SVM_BYTES."""
    return max(SVM_BYTES // (BYTES_PER_NUMBER * dims), 2)


def linear_svm(x: np.ndarray, labels: np.ndarray, **options):
    """(LinearSVC fitted to x [n, D] and labels [n], whether it converged, its iterations)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    svm = LinearSVC(**options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        svm.fit(x, labels)
    converged = not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
    return svm, converged, int(np.max(svm.n_iter_))


def _svm(codes, column: np.ndarray, rows: np.ndarray, options: MethodOptions, source: str) -> Fit:
    rng = np.random.default_rng([options.seed, 0])
    train, held = [], []
    for label, members in enumerate(extremes(column, rows, options.k_percent)):
        members = rng.permutation(members)[: svm_rows(codes.shape[1]) // 2]
        # 80 % of one sample would be none: very small groups train on what they have.
        cut = max(int(len(members) * 0.8), 1)
        train += [(row, label) for row in members[:cut]]
        held += [(row, label) for row in members[cut:]]
    train_rows, train_labels = np.array(train).T
    # dual is what the published scikit-learn 1.3 took by default; newer versions would choose by shape.
    settings = {"C": options.c, "max_iter": options.max_iter, "dual": True, "random_state": RANDOM_STATE}
    svm, converged, iterations = linear_svm(codes[train_rows], train_labels, **settings)
    accuracy = float("nan")
    if held:
        held_rows, held_labels = np.array(held).T
        accuracy = float(svm.score(codes[held_rows], held_labels))
    normal = unit(svm.coef_[0])
    return Fit(normal, source, len(train), accuracy, len(held), converged, iterations)


def fit_ridge(
    codes,
    scores: np.ndarray,
    groups: np.ndarray,
    names,
    properties,
    options: MethodOptions,
    progress=None,
    known: tuple[str, ...] = PROPERTIES,
) -> Fits:
    """Ridge on every sample of a group, shrunk toward the ridge common to all groups; closed form, one pass.

    With options.ranks the ranks in a group (as normal deviates) are regressed: outliers and floors bend nothing.
    Codes and scores are centred within their group, so a common direction does not trade on what separates the groups.
    Dimensions are standardised; both penalties come from generalised cross-validation (Golub, Heath, Wahba 1979).
    known: names of the columns of scores.
    """
    columns = [known.index(name) for name in properties]
    measured = np.isfinite(scores[:, columns]).all(axis=1)
    targets = {}
    for group in names:
        rows = np.flatnonzero((groups == group) & measured)
        if len(rows):
            values = scores[np.ix_(rows, columns)].astype(np.float64)
            values = normal_ranks(values) if options.ranks else values
            targets[group] = rows, values - values.mean(0)
    if max((len(rows) for rows, _ in targets.values()), default=0) < 2:
        raise PipelineError(f"no group of faces holds two of these {len(scores)} samples; {MORE_SAMPLES}")
    scatters = _scatters(codes, targets)
    if progress is not None:
        progress(len(properties) * len(names))
    total = _Scatter.sum(scatters.values())
    spread = np.sqrt(np.maximum(np.diag(total.xx), 0) / total.count)  # rounding may leave less than nothing
    spread = np.maximum(spread, 1e-6 * spread.max())
    total = total.standardised(spread)
    common, _ = _ridge(total, RIDGE_PENALTIES)
    fits: Fits = {}
    for group in names:
        scatter = scatters.get(group)
        own = scatter is not None and scatter.count >= SMALLEST_GROUP and group != UNGROUPED
        weights, shrinkages = common, np.full(len(properties), np.inf)
        if own:
            scatter = scatter.standardised(spread)
            change, shrinkages = _ridge(scatter.residual(common), SHRINKAGES)
            weights = common + change
        elif group == UNGROUPED:
            shrinkages = np.zeros(len(properties))
        judged = scatter if own else total
        for column, name in enumerate(properties):
            fits[name, group] = Fit(
                unit(weights[:, column] / spread),
                "group" if own or group == UNGROUPED else "pooled",
                judged.count,
                accuracy=judged.explained(weights)[column],
                shrinkage=float(shrinkages[column]),
            )
    return fits


def normal_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks of each column [n, P] as normal deviates (Blom 1958): float64 [n, P]."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    return ndtri((rankdata(values, axis=0) - 0.375) / (len(values) + 0.25))


@dataclass
class _Scatter:
    """Sums over centred samples: xx [D, D], xy [D, P], yy [P]; all that least squares needs."""

    count: int
    xx: np.ndarray
    xy: np.ndarray
    yy: np.ndarray

    @classmethod
    def sum(cls, parts) -> _Scatter:
        parts = list(parts)
        return cls(
            sum(part.count for part in parts),
            sum(part.xx for part in parts),
            sum(part.xy for part in parts),
            sum(part.yy for part in parts),
        )

    def standardised(self, spread: np.ndarray) -> _Scatter:
        return _Scatter(self.count, self.xx / np.outer(spread, spread), self.xy / spread[:, None], self.yy)

    def residual(self, weights: np.ndarray) -> _Scatter:
        """The sums with y replaced by y - x @ weights."""
        fitted = self.xx @ weights
        yy = self.yy - 2 * (weights * self.xy).sum(0) + (weights * fitted).sum(0)
        return _Scatter(self.count, self.xx, self.xy - fitted, yy)

    def explained(self, weights: np.ndarray) -> np.ndarray:
        return 1 - self.residual(weights).yy / np.maximum(self.yy, 1e-12)


def _scatters(codes, targets: dict, chunk: int = 16384) -> dict[str, _Scatter]:
    """The sums of every group in one pass over the codes; targets: group -> (rows in order, centred values [n, P]).

    Products of a chunk are taken in float32, less a mean that is near enough to lose no digits; the sums over chunks,
    and what that mean is wrong by for the group, in float64.
    """
    near = np.asarray(codes[:chunk], np.float32).mean(0)
    dim, found = len(near), {}
    for group, (rows, y) in targets.items():
        found[group] = _Scatter(len(rows), np.zeros((dim, dim)), np.zeros((dim, y.shape[1])), (y**2).sum(0))
    sums = {group: np.zeros(dim) for group in targets}
    for start in range(0, len(codes), chunk):
        block = np.asarray(codes[start : start + chunk], np.float32) - near
        for group, (rows, y) in targets.items():
            first, last = np.searchsorted(rows, (start, start + chunk))
            x = block[rows[first:last] - start]
            found[group].xx += x.T @ x
            found[group].xy += x.T @ y[first:last].astype(np.float32)
            sums[group] += x.sum(0, dtype=np.float64)
    for group, scatter in found.items():
        # The targets are centred, so xy needs no correction.
        scatter.xx -= np.outer(sums[group], sums[group]) / scatter.count
    return found


def _ridge(scatter: _Scatter, penalties: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights [D, P] and the penalty [P] (per sample) that generalised cross-validation picks for each column."""
    count = scatter.count
    values, vectors = np.linalg.eigh(scatter.xx / count)
    values = np.maximum(values, 0)
    rotated = vectors.T @ scatter.xy / count
    weights = np.zeros_like(scatter.xy)
    chosen = np.zeros(scatter.xy.shape[1])
    freedom = np.array([(values / (values + penalty)).sum() for penalty in penalties])
    for column, xy in enumerate(rotated.T):
        solutions = xy / (values + penalties[:, None])
        loss = scatter.yy[column] / count - 2 * solutions @ xy + (solutions**2) @ values
        gcv = np.where(freedom < count - 1, loss / np.maximum(1 - (freedom + 1) / count, 1e-9) ** 2, np.inf)
        best = int(np.argmin(gcv)) if np.isfinite(gcv).any() else len(penalties) - 1
        chosen[column] = penalties[best]
        weights[:, column] = vectors @ solutions[best]
    return weights, chosen


def project_off(fits: Fits, kept: Fits | None = None, covariance: np.ndarray | None = None) -> Fits:
    """The same fits, each made to leave alone the other properties of its group (conditional directions).

    kept: fits of further properties to leave alone (hair, background). covariance [D, D] of the codes: moves where
    codes vary; without it the directions are merely made orthogonal. Either way no direction has a component along
    another's normal.
    """
    conditioned: Fits = {}
    everyone = {**(kept or {}), **fits}
    for (name, group), fit in fits.items():
        others = [
            other.normal for (other_name, where), other in everyone.items() if where == group and other_name != name
        ]
        own = fit.normal.astype(np.float64)
        away = own if covariance is None else covariance @ own
        if others:
            normals = np.stack(others, 1).astype(np.float64)
            moves = normals if covariance is None else covariance @ normals
            away = away - moves @ np.linalg.lstsq(normals.T @ moves, normals.T @ away, rcond=1e-10)[0]
        conditioned[name, group] = Fit(**{**vars(fit), "normal": unit(away)})
    return conditioned


def along_codes(fits: Fits, covariance: np.ndarray) -> Fits:
    """The same fits as moves along which codes of this covariance [D, D] vary: the pattern that goes with a normal.

    A normal says where a score changes fastest if every move is as good as another; it leaves the codes that occur.
    covariance @ normal is how codes differ whose scores do (Haufe et al. 2014, NeuroImage 87: patterns, not filters).
    """
    return {key: replace(fit, normal=unit(covariance @ fit.normal.astype(np.float64))) for key, fit in fits.items()}


def unit(vector: np.ndarray) -> np.ndarray:
    """The vector float32 [D] at length 1; one of length 0 stays."""
    length = float(np.linalg.norm(vector))
    return (vector / length if length > 0 else vector).astype(np.float32)


METHODS: dict[str, Callable[..., Fits]] = {"svm": fit_svm, "ridge": fit_ridge}
