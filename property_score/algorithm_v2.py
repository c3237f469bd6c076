"""Property scores by algorithm v2: eyes, hair colour, hair length, mouth, pose and background from a parsing map.

Published with StyleGAN-FineTune-v2 of the Oh-LoRA project. Coordinates have y downwards; left and right are those of
the picture.
"""

import numpy as np

from property_score.facemaps import (
    EYE_COLUMNS,
    EYE_ROWS,
    HALF,
    NAMES,
    Reasons,
    background,
    chunks,
    histograms,
    mean_and_spread,
    pixel_counts,
    row_counts,
    trimmed,
)
from segmentation.classes import HAIR, INNER_MOUTH, LEFT_EYE, LOWER_LIP, RIGHT_EYE, SIZE, UPPER_LIP

HAIR_ROW_PIXELS = 20  # a row with fewer hair pixels does not count as hair


def scores_v2(
    maps: np.ndarray, images: np.ndarray, published: bool = False, sums: np.ndarray | None = None
) -> tuple[np.ndarray, list[str]]:
    """Score parsing maps by algorithm v2.

    maps: uint8 [N, 224, 224] class ids. images: uint8 [N, 224, 224, 3] face crops of the same frame. published: give
    the published values where something is missing (pose 0, eyes 0, mouth 0, hair colour 127.5, background 192 and 0;
    an infinite pose for eyes above each other) instead of NaN. One visible eye is enough for the score `eyes`.
    sums: `brightness_sums(images)`, if at hand.
    Returns float64 [N, 7] in the order of NAMES (pixels, brightness 0..255, shares, tangents), NaN where missing, and
    per map the reason what was missing. ValueError for other shapes.
    """
    values, reasons = np.empty((len(maps), len(NAMES))), []
    for rows, part, part_sums in chunks(maps, images, sums):
        values[rows], texts = _score(part, part_sums, published)
        reasons += texts
    return values, reasons


def _score(maps: np.ndarray, sums: np.ndarray, published: bool) -> tuple[np.ndarray, list[str]]:
    reasons = Reasons(len(maps))
    left, right = (_Eye(maps, eye) for eye in (LEFT_EYE, RIGHT_EYE))
    no_left, no_right = left.count == 0, right.count == 0
    neither, missing = no_left & no_right, no_left | no_right
    eyes = np.maximum(left.opening, right.opening)
    pose, stacked = _pose(left, right)
    pose[missing] = 0.0
    reasons.add(("eyes", "pose"), "no eyes", neither)
    reasons.add(("pose",), "no left eye", no_left & ~neither)
    reasons.add(("pose",), "no right eye", no_right & ~neither)
    reasons.add(("pose",), "eyes above each other", stacked & ~missing)

    hair = maps == HAIR
    hair_rows = row_counts(hair)
    _, hair_color, _ = mean_and_spread(trimmed(histograms(sums, hair), 0.1))
    reasons.add(("hair_color",), "no hair", np.isnan(hair_color))

    upper, inner, lower = pixel_counts(maps, UPPER_LIP, INNER_MOUTH, LOWER_LIP)
    all_mouth = upper + inner + lower
    mouth = inner / np.maximum(all_mouth, 1)
    reasons.add(("mouth",), "no mouth", all_mouth == 0)

    count, back_mean, back_std = background(maps, sums, published)
    reasons.add(("background_mean", "background_std"), "no background", count == 0)
    reasons.add(("background_std",), "one background pixel", count == 1)

    if published:
        hair_color = np.where(np.isnan(hair_color), 127.5, hair_color)
    else:
        eyes[neither] = pose[missing | stacked] = np.nan
        mouth[all_mouth == 0] = np.nan
    length = _hair_length(hair, hair_rows)
    return np.column_stack([eyes, hair_color, length, mouth, pose, back_mean, back_std]), reasons.texts()


class _Eye:
    """The pixels of one eye inside its search window, for each map of a chunk."""

    def __init__(self, maps: np.ndarray, eye: int):
        (top, bottom), (start, end) = EYE_ROWS, EYE_COLUMNS[eye]
        height, width, number = bottom - top, end - start, len(maps)
        place = np.flatnonzero(maps[:, top:bottom, start:end] == eye)
        index, inside = np.divmod(place, height * width)
        y, x = np.divmod(inside, width)
        y, x = y + top, x + start
        self.count = np.bincount(index, minlength=number)
        self.sum_x = np.bincount(index, weights=x, minlength=number).astype(np.int64)
        self.sum_y = np.bincount(index, weights=y, minlength=number).astype(np.int64)

        column = index * width + (x - start)
        highest, lowest = (np.full(number * width, -1) for _ in range(2))
        lowest[column] = y  # pixels come in rising y, so that the last one written is the lowest
        highest[column[::-1]] = y[::-1]
        filled = np.flatnonzero(highest >= 0)
        owner, shift = np.divmod(filled, width)
        heights = np.zeros(number)
        np.maximum.at(heights, owner, lowest[filled] - highest[filled])
        self.opening = heights * _flatness(owner, shift, highest[filled], lowest[filled], number)


def _flatness(owner: np.ndarray, x: np.ndarray, top: np.ndarray, bottom: np.ndarray, number: int) -> np.ndarray:
    """Return |dx| / distance of the farthest pair of eye pixels per map, float64 [number]; 1 below two pixels.

    owner, x, top, bottom: one entry per filled column, sorted by map and then x. The ends of the columns hold the
    convex hull, so that they hold every farthest pair. Among equally far pairs that one counts whose later point, in
    x-major order, comes first, and then the one whose earlier point does.
    """
    columns = np.bincount(owner, minlength=number)
    result = np.ones(number)
    have = np.flatnonzero(columns)
    if not len(have):
        return result
    points_x, points_y = np.repeat(x, 2), np.column_stack([top, bottom]).ravel()
    start = 2 * (np.cumsum(columns) - columns)[have]
    # Shorter lists repeat their last point; argmax takes the first of equals, so that repeats never win.
    step = np.minimum(np.arange(2 * columns.max())[None], 2 * columns[have][:, None] - 1)
    px, py = (points[start[:, None] + step].astype(np.int32) for points in (points_x, points_y))
    dx = px[:, :, None] - px[:, None, :]
    dy = py[:, :, None] - py[:, None, :]
    squared = ((dx * dx + dy * dy) * np.tri(dx.shape[1], dtype=np.int32)).reshape(len(have), -1)
    best = squared.argmax(axis=1)
    rows = np.arange(len(have))
    length = np.sqrt(squared[rows, best].astype(np.float64))
    across = np.abs(dx.reshape(len(have), -1)[rows, best])
    result[have] = np.where(length > 0, across / np.maximum(length, 1.0), 1.0)
    return result


def _pose(left: _Eye, right: _Eye) -> tuple[np.ndarray, np.ndarray]:
    """Return the slope of the line through both eye centres, float64 [N], and where that line is vertical."""
    # Both differences are scaled by the pixel counts, which keeps them whole numbers.
    rise = right.sum_y * left.count - left.sum_y * right.count
    run = right.sum_x * left.count - left.sum_x * right.count
    with np.errstate(divide="ignore", invalid="ignore"):
        return rise / run, run == 0


def _hair_length(hair: np.ndarray, rows: np.ndarray) -> np.ndarray:
    length = (rows[:, SIZE // 4 :] >= HAIR_ROW_PIXELS).sum(axis=1).astype(np.float64)
    left, right = hair[:, -1, :HALF].sum(axis=1), hair[:, -1, HALF:].sum(axis=1)
    beyond = (np.maximum(left - 10, 0) + np.maximum(right - 10, 0)) / 2.0
    return length + np.where(rows[:, -1] >= HAIR_ROW_PIXELS, beyond, 0.0)
