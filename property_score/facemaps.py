"""What the score algorithms share: checked batches of maps, brightness, and exact statistics from histograms.

Brightness is the mean of the three 8-bit channels. It is kept as the sum R+G+B (a whole number up to 765), so that
means, medians and spreads are exact integer sums and do not depend on the order of pixels or on the batch.
"""

from collections.abc import Iterator

import cv2
import numpy as np

from segmentation.classes import BACKGROUND, LEFT_EYE, RIGHT_EYE, SIZE

NAMES = ("eyes", "hair_color", "hair_length", "mouth", "pose", "background_mean", "background_std")
"""The scores of algorithms v1 and v2, in the order of their columns."""
EYE_ROWS = (56, 168)
EYE_COLUMNS = {LEFT_EYE: (0, 168), RIGHT_EYE: (56, 224)}

LEVELS = 766
CHUNK = 16  # maps worked on together; their arrays then fit into the cache
SPLIT = 4  # pictures whose channels are added together, for the same reason
HALF = SIZE // 2

Chunk = tuple[slice, np.ndarray, np.ndarray]


def chunks(maps: np.ndarray, images: np.ndarray, sums: np.ndarray | None = None) -> Iterator[Chunk]:
    """Yield (rows, maps, brightness sums) of a checked batch, CHUNK maps at a time.

    maps: uint8 [N, 224, 224] class ids 0..10. images: uint8 [N, 224, 224, 3] face crops. sums: what
    `brightness_sums(images)` returned, if it is at hand. ValueError for another shape, dtype or id.
    """
    if maps.dtype != np.uint8 or maps.ndim != 3 or maps.shape[1:] != (SIZE, SIZE):
        raise ValueError(f"maps must be uint8 [N, {SIZE}, {SIZE}], got {maps.dtype} {list(maps.shape)}")
    if images.dtype != np.uint8 or images.shape != (*maps.shape, 3):
        raise ValueError(f"images must be uint8 {[*maps.shape, 3]}, got {images.dtype} {list(images.shape)}")
    if len(maps) and maps.max() > 10:
        raise ValueError(f"maps hold class ids 0..10, found {maps.max()}")
    for start in range(0, len(maps), CHUNK):
        rows = slice(start, min(start + CHUNK, len(maps)))
        yield rows, maps[rows], brightness_sums(images[rows]) if sums is None else sums[rows]


def brightness_sums(images: np.ndarray) -> np.ndarray:
    """Return R+G+B uint16 [N, H, W] of images uint8 [N, H, W, 3]."""
    result = np.empty(images.shape[:3], np.uint16)
    planes = None
    for start in range(0, len(images), SPLIT):
        part = np.ascontiguousarray(images[start : start + SPLIT]).reshape(-1, images.shape[2], 3)
        # OpenCV takes the channels apart several times faster than strided numpy does.
        planes = red, green, blue = cv2.split(part, planes)
        total = result[start : start + SPLIT].reshape(red.shape)
        np.add(red, green, out=total, dtype=np.uint16)
        total += blue
    return result


def row_counts(mask: np.ndarray) -> np.ndarray:
    """Return the number of set pixels in each row, int64 [N, H], of a mask bool [N, H, W] with W < 256."""
    return np.add.reduce(mask.view(np.uint8), axis=2, dtype=np.uint8).astype(np.int64)


def pixel_counts(maps: np.ndarray, *ids: int) -> list[np.ndarray]:
    """Return how many pixels each class has in each map: int64 [N] per id, of maps uint8 [N, H, W]."""
    return [row_counts(maps == number).sum(axis=1) for number in ids]


def extent(present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and last set index along the last axis of bool [N, K]; (0, -1) where none is set."""
    any_set = present.any(axis=1)
    first = np.where(any_set, present.argmax(axis=1), 0)
    last = np.where(any_set, present.shape[1] - 1 - present[:, ::-1].argmax(axis=1), -1)
    return first, last


def histograms(sums: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return how often each brightness sum occurs in a mask: int64 [N, 766] of uint16 [N, H, W], bool [N, H, W]."""
    result = np.empty((len(mask), LEVELS), np.int64)
    for k, (values, chosen) in enumerate(zip(sums, mask, strict=True)):
        result[k] = np.bincount(values[chosen], minlength=LEVELS)
    return result


def trimmed(histogram: np.ndarray, share: float) -> np.ndarray:
    """Return the histograms [N, 766] of what stays when the `share` darkest and brightest pixels are cut off.

    Kept are the ranks int(share * n) up to, not including, int((1 - share) * n) of the n sorted pixels.
    """
    upto = np.cumsum(histogram, axis=1)
    count = upto[:, -1:]
    low, high = (share * count).astype(np.int64), ((1 - share) * count).astype(np.int64)
    return np.maximum(np.minimum(upto, high) - np.maximum(upto - histogram, low), 0)


def mean_and_spread(histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return count, mean and population standard deviation of brightness (0..255) of histograms [N, 766].

    Mean and spread are NaN where the count is 0.
    """
    levels = np.arange(LEVELS)
    count, total, squares = histogram.sum(axis=1), histogram @ levels, histogram @ (levels * levels)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / (3.0 * count)
        spread = np.sqrt(count * squares - total * total) / (3.0 * count)
    return count, mean, spread


def median(histogram: np.ndarray) -> np.ndarray:
    """Return the median brightness (0..255) of histograms [N, 766]; NaN where they are empty."""
    upto = np.cumsum(histogram, axis=1)
    count = upto[:, -1]
    lower = (upto > ((count - 1) // 2)[:, None]).argmax(axis=1)
    upper = (upto > (count // 2)[:, None]).argmax(axis=1)
    return np.where(count > 0, (lower + upper) / 6.0, np.nan)


def background(maps: np.ndarray, sums: np.ndarray, published: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return count, mean and spread of the background's brightness in the upper half, 5 % trimmed at both ends.

    Published: (192, 0) without a background pixel and (its value, 0) with a single one. Else NaN where there is no
    pixel, and a NaN spread where there is one.
    """
    upper = np.ascontiguousarray(maps[:, :HALF]) == BACKGROUND
    histogram = histograms(sums[:, :HALF], upper)
    count = histogram.sum(axis=1)
    kept = np.where((count > 1)[:, None], trimmed(histogram, 0.05), histogram)
    _, mean, spread = mean_and_spread(kept)
    if published:
        mean, spread = np.where(count == 0, 192.0, mean), np.where(count == 0, 0.0, spread)
    else:
        spread = np.where(count < 2, np.nan, spread)
    return count, mean, spread


class Reasons:
    """Collects, per map, what could not be measured and why."""

    def __init__(self, count: int):
        self._texts: list[dict[str, list[str]]] = [{} for _ in range(count)]

    def add(self, names: tuple[str, ...], why: str, where: np.ndarray) -> None:
        """Note for the maps where bool [N] is set that the scores `names` lack something."""
        for index in np.flatnonzero(where):
            self._texts[index].setdefault(why, []).extend(names)

    def texts(self) -> list[str]:
        """Return one text per map, such as "no hair: hair_color, hairstyle"; empty where all was measured."""
        return ["; ".join(f"{why}: {', '.join(names)}" for why, names in text.items()) for text in self._texts]
