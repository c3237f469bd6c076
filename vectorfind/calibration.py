"""How far one score deviation is along a direction, and which way is up: measured on decoded faces.

A regression on the pool would tell how the score varies *with* a direction; an edit needs to know what it *does*.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vectorfind.bench import Bench
from vectorfind.names import PROPERTIES

# A step is at most this many standard deviations of the codes along the direction: a direction that hardly moves its
# property must show as a flat curve, not as a face blown out of the latent space.
LONGEST_STEP = 4.0
FIRST_FACES, SECOND_FACES = 4, 8


@dataclass
class Calibration:
    """units float32 [P, G, D] turned so that + raises, steps float32 [P, G] (latent units per score deviation), flipped
    [P, G] (the samples had the sign wrong), capped [P, G] (limited by LONGEST_STEP)."""

    units: np.ndarray
    steps: np.ndarray
    flipped: np.ndarray
    capped: np.ndarray


def calibrate(
    bench: Bench, codes, groups: np.ndarray, names, units: np.ndarray, properties, position: str, sds, progress=None
) -> Calibration:
    """Probe every direction at plus and minus a step on faces of its own group: a guess, then the guess corrected.

    codes: the pool's [n, D] at `position` (array or ShardedArray); groups [n]: their group names; names: of the G
    groups. units [P, G, D]: directions of unit length, of the P properties. sds [P]: score deviations, above 0.
    progress: called with the faces probed. The probed faces are evenly spaced in the group, none picked by its score.
    """
    count, spread = units.shape[:2], _spread(codes, groups, names, units)
    targets = [PROPERTIES.index(name) for name in properties]
    sds = np.asarray(sds, np.float64)
    faces = [_probe_rows(groups, group, SECOND_FACES) for group in names]

    first = _effects(
        bench,
        codes,
        [rows[:: SECOND_FACES // FIRST_FACES] for rows in faces],
        units,
        spread,
        position,
        targets,
        progress,
    )
    first = first / sds[:, None]
    flipped = first < 0
    units = np.where(flipped[:, :, None], -units, units).astype(np.float32)
    guess = np.minimum(1 / np.maximum(np.abs(first), 1e-6), LONGEST_STEP) * spread

    effect = _effects(bench, codes, faces, units, guess, position, targets, progress) / sds[:, None]
    # More faces outvote fewer about the sign.
    turned = effect < 0
    units = np.where(turned[:, :, None], -units, units)
    flipped, effect = flipped ^ turned, np.abs(effect)
    # Far from linear, one correction may overshoot; twice or half the guess is as far as two probes can be trusted.
    steps = guess / np.clip(effect, 0.5, 2.0)
    capped = steps >= LONGEST_STEP * spread * (1 - 1e-9)
    steps = np.minimum(steps, LONGEST_STEP * spread)
    assert steps.shape == count, f"{steps.shape} steps for {count} directions"
    return Calibration(units, steps.astype(np.float32), flipped, capped)


def probes(properties, names) -> int:
    """How many faces `calibrate` decodes: for a progress bar."""
    return 2 * (FIRST_FACES + SECOND_FACES) * len(properties) * len(names)


def _probe_rows(groups: np.ndarray, group: str, count: int) -> np.ndarray:
    rows = np.flatnonzero(groups == group)
    if not len(rows):
        # A group without samples has the pooled direction: probe it on any faces.
        rows = np.arange(len(groups))
    return rows[np.linspace(0, len(rows) - 1, count).round().astype(int)]


def _spread(codes, groups, names, units) -> np.ndarray:
    """Standard deviation of the codes along each direction [P, G], within the group (the pool for tiny ones)."""
    spread = np.empty(units.shape[:2])
    for column, group in enumerate(names):
        rows = np.flatnonzero(groups == group)
        if len(rows) < 20:
            rows = np.arange(len(groups))
        rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), 2000)).astype(int)]
        spread[:, column] = (codes[rows] @ units[:, column].T).std(axis=0)
    return np.maximum(spread, 1e-8)


def _effects(bench: Bench, codes, faces, units, steps, position, targets, progress) -> np.ndarray:
    """Mean change of the property's own score per step [P, G], by central differences."""
    moved = []
    for column, rows in enumerate(faces):
        base = codes[rows]
        for i in range(len(targets)):
            for sign in (1.0, -1.0):
                moved.append(base + np.float32(sign * steps[i, column]) * units[i, column])
    scores = bench.measure(np.concatenate(moved), position, progress).astype(np.float64)
    effects, start = np.zeros(units.shape[:2]), 0
    for column, rows in enumerate(faces):
        for i, target in enumerate(targets):
            up, down = scores[start : start + 2 * len(rows), target].reshape(2, -1)
            start += 2 * len(rows)
            known = np.isfinite(up - down)  # a face of which one side is missing tells nothing
            effects[i, column] = (up - down)[known].mean() / 2 if known.any() else 0.0
    return effects
