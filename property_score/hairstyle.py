"""The hairstyle score: low for straight hair, high for curls (published with StyleGAN-FineTune-v8 of Oh-LoRA).

Straight hair hangs down, so that brightness changes across the strands and hardly along them. The score compares 4x4
blocks of hair with the blocks 8 pixels below (V) and to the left and right (H): the mean of V / (H + 5).
"""

import numpy as np

from property_score.facemaps import Reasons, chunks
from segmentation.classes import HAIR

TOP = 112  # blocks start in rows 112..212 and columns 8..212
HEIGHT, WIDTH = 101, 205
LEFT = 8
STEP = 8
PUBLISHED_WITHOUT_HAIR = 0.45
OFFSET = 5 * 48  # the 5 of the formula in units of a block's sum over 4x4 pixels and 3 channels


def scores_hairstyle(
    maps: np.ndarray, images: np.ndarray, published: bool = False, sums: np.ndarray | None = None
) -> tuple[np.ndarray, list[str]]:
    """Score how curly the hair in the lower half of face crops is.

    maps: uint8 [N, 224, 224] class ids. images: uint8 [N, 224, 224, 3] face crops. published: test two pixels of each
    block for hair as the published code does (for the left block a wrong one, which wraps to the far side at the
    border) instead of all 16, and give 0.45 instead of NaN where no block qualifies. sums: `brightness_sums(images)`.
    Returns float64 [N], NaN where missing, and per map the reason. ValueError for other shapes.
    """
    values, reasons = np.empty(len(maps)), Reasons(len(maps))
    for rows, part, part_sums in chunks(maps, images, sums):
        values[rows] = _score(part[:, TOP:] == HAIR, part_sums[:, TOP:], published)
    reasons.add(("hairstyle",), "no block of hair in the lower half", np.isnan(values))
    if published:
        values[np.isnan(values)] = PUBLISHED_WITHOUT_HAIR
    return values, reasons.texts()


def _score(hair: np.ndarray, sums: np.ndarray, published: bool) -> np.ndarray:
    blocks = _pairs(_pairs(sums, 1, np.add), 2, np.add)
    here, below = _window(blocks, 0, 0), _window(blocks, STEP, 0)
    left, right = _window(blocks, 0, -STEP), _window(blocks, 0, STEP)
    valid = _published_valid(hair) if published else _valid(hair)
    place = np.flatnonzero(valid)
    centre, below, left, right = (block[valid].astype(np.int32) for block in (here, below, left, right))
    across = np.maximum(np.abs(centre - left), np.abs(centre - right))
    ratio = np.abs(centre - below) / (across + OFFSET)
    index = place // (HEIGHT * WIDTH)
    count = np.bincount(index, minlength=len(hair))
    with np.errstate(invalid="ignore"):
        return np.bincount(index, weights=ratio, minlength=len(hair)) / count


def _pairs(values: np.ndarray, axis: int, combine: np.ufunc) -> np.ndarray:
    """Combine each value with its next three along axis 1 or 2, in two steps of pairs; the axis gets 3 shorter."""
    for distance in (1, 2):
        size = values.shape[axis] - distance
        first, second = (
            values[:, start : start + size] if axis == 1 else values[:, :, start : start + size]
            for start in (0, distance)
        )
        values = combine(first, second)
    return values


def _window(blocks: np.ndarray, down: int, across: int) -> np.ndarray:
    """Return what lies `down` and `across` from each tested position, [N, 101, 205]."""
    return blocks[:, down : down + HEIGHT, LEFT + across : LEFT + across + WIDTH]


def _valid(hair: np.ndarray) -> np.ndarray:
    whole = _pairs(_pairs(hair, 1, np.logical_and), 2, np.logical_and)
    valid = _window(whole, 0, 0) & _window(whole, STEP, 0)
    return valid & _window(whole, 0, -STEP) & _window(whole, 0, STEP)


def _published_valid(hair: np.ndarray) -> np.ndarray:
    # Three columns of the far side stand left of the picture: where a negative column index of numpy leads.
    hair = np.concatenate([hair[:, :, -3:], hair], axis=2)
    valid = np.ones((len(hair), HEIGHT, WIDTH), bool)
    for down, across in ((0, 0), (STEP, 0), (0, -STEP), (0, STEP)):
        corner = -3 if across == -STEP else 3
        valid &= _window(hair, down, 3 + across)
        valid &= _window(hair, down + 3, 3 + across + corner)
    return valid
