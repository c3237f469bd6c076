"""Property scores by algorithm v1, the first of the Oh-LoRA project (published with StyleGAN-FineTune-v1).

Coordinates have y downwards; left and right are those of the picture.
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
    extent,
    histograms,
    median,
    row_counts,
)
from segmentation.classes import HAIR, INNER_MOUTH, LOWER_LIP, NOSE, SIZE, UPPER_LIP

PUBLISHED_EYE_ROWS = (56, 140)  # the published scan stops after 84 of the 112 rows of its window


def scores_v1(
    maps: np.ndarray, images: np.ndarray, published: bool = False, sums: np.ndarray | None = None
) -> tuple[np.ndarray, list[str]]:
    """Score parsing maps by algorithm v1.

    maps: uint8 [N, 224, 224] class ids. images: uint8 [N, 224, 224, 3]; face crops of the same frame, or (as the
    published pipeline had it) the whole pictures resized to 224. published: scan eyes in rows 56..139 only, measure
    heights one pixel short, count an invisible eye as height 0, and give the published values where the mouth or the
    background is missing (0, 192 and 0) instead of NaN. Where the published code stops with an error (no hair) the
    value is NaN in both forms. sums: `brightness_sums(images)`, if at hand.
    Returns float64 [N, 7] in the order of NAMES, NaN where missing, and per map why. ValueError for other shapes.
    """
    values, reasons = np.empty((len(maps), len(NAMES))), []
    for rows, part, part_sums in chunks(maps, images, sums):
        values[rows], texts = _score(part, part_sums, published)
        reasons += texts
    return values, reasons


def _score(maps: np.ndarray, sums: np.ndarray, published: bool) -> tuple[np.ndarray, list[str]]:
    reasons = Reasons(len(maps))
    top, bottom = PUBLISHED_EYE_ROWS if published else EYE_ROWS
    (left, no_left), (right, no_right) = (
        _height((maps[:, top:bottom, start:end] == eye).any(axis=2), published)
        for eye, (start, end) in EYE_COLUMNS.items()
    )
    eyes = (left + right) / 2.0
    reasons.add(("eyes",), "no eyes", no_left & no_right)

    hair = maps == HAIR
    hair_rows = row_counts(hair)
    hair_color = median(histograms(sums, hair))
    hair_length = _hair_length(hair, hair_rows)
    reasons.add(("hair_color", "hair_length"), "no hair", np.isnan(hair_color))

    lips, no_lips = _height(((maps == UPPER_LIP) | (maps == LOWER_LIP)).any(axis=2), published)
    inner, no_inner = _height((maps == INNER_MOUTH).any(axis=2), published)
    mouth = lips + inner
    reasons.add(("mouth",), "no mouth", no_lips & no_inner)

    pose = _pose(maps == NOSE)
    reasons.add(("pose",), "no nose, or one without width or height", np.isnan(pose))

    count, back_mean, back_std = background(maps, sums, published)
    reasons.add(("background_mean", "background_std"), "no background", count == 0)
    reasons.add(("background_std",), "one background pixel", count == 1)

    if not published:
        eyes = np.where(no_left, right, np.where(no_right, left, eyes))
        eyes[no_left & no_right] = np.nan
        mouth[no_lips & no_inner] = np.nan
    return np.column_stack([eyes, hair_color, hair_length, mouth, pose, back_mean, back_std]), reasons.texts()


def _height(rows: np.ndarray, published: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the height float64 [N] that the filled rows bool [N, H] span, and where there are none (height 0)."""
    first, last = extent(rows)
    absent = last < 0
    height = last - first + (0 if published else 1)
    return np.where(absent, 0, height).astype(np.float64), absent


def _hair_length(hair: np.ndarray, rows: np.ndarray) -> np.ndarray:
    _, last = extent(rows > 0)
    left, right = hair[:, -1, :HALF].sum(axis=1), hair[:, -1, HALF:].sum(axis=1)
    length = last + np.where(last == SIZE - 1, (left + right) / 2.0, 0.0)
    return np.where(last < 0, np.nan, length)


def _pose(nose: np.ndarray) -> np.ndarray:
    """Return minus the correlation of x and y over the nose pixels bool [N, H, W]: float64 [N], NaN if undefined."""
    number = len(nose)
    index, inside = np.divmod(np.flatnonzero(nose), SIZE * SIZE)
    y, x = np.divmod(inside, SIZE)
    count = np.bincount(index, minlength=number)
    # Whole numbers far below 2**53, so that these sums are exact.
    sx, sy, sxx, syy, sxy = (np.bincount(index, weights=w, minlength=number) for w in (x, y, x * x, y * y, x * y))
    with np.errstate(invalid="ignore", divide="ignore"):
        return -(count * sxy - sx * sy) / np.sqrt((count * sxx - sx * sx) * (count * syy - sy * sy))
