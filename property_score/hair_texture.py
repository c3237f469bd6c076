"""The mended hairstyle score: low for straight hair, high for curls, measured from the direction of the strands.

The brightness of straight hair changes across the strands and hardly along them, so that all gradients of a
neighbourhood share one direction; those of curls point everywhere. Measured is one minus the coherence of the structure
tensor (Bigun and Granlund, 1987). Unlike the published score it reads short hair too, does not depend on contrast, and
tells strands that hang aslant from curls. The top of the head is left out: there strands run apart from the parting.
"""

import cv2
import numpy as np

from property_score.facemaps import Reasons, chunks
from segmentation.classes import HAIR, SIZE

TOP = SIZE // 4  # first row that counts, as for the hair length of algorithm v2
WINDOW = 24  # side of a neighbourhood in pixels: several strands wide, narrow enough that straight hair does not bend
EDGE = 2  # pixels next to other classes that are left out: their gradients are the outline's
SMOOTHING = 1.5  # in pixels, against noise and the blocks of JPEG
SMALLEST = 500  # pixels of hair, its edge left out, that a score needs
FILLED = 0.3  # share of a neighbourhood that must be hair

_EDGE_KERNEL = np.ones((2 * EDGE + 1, 2 * EDGE + 1), np.uint8)


def scores_hair_texture(
    maps: np.ndarray, images: np.ndarray, sums: np.ndarray | None = None
) -> tuple[np.ndarray, list[str]]:
    """Score how curly the hair below the crown of face crops is: 0 all strands run one way, 1 no direction at all.

    maps: uint8 [N, 224, 224] class ids. images: uint8 [N, 224, 224, 3] face crops. sums: `brightness_sums(images)`.
    Returns float64 [N], NaN where there is too little hair, and per map the reason. ValueError for other shapes.
    """
    values, reasons = np.full(len(maps), np.nan), Reasons(len(maps))
    for rows, part, part_sums in chunks(maps, images, sums):
        for k, (parsing, brightness) in enumerate(zip(part, part_sums, strict=True), rows.start):
            values[k] = _disorder((parsing == HAIR).view(np.uint8), brightness.astype(np.float32))
    reasons.add(("hairstyle",), "too little hair to see its strands", np.isnan(values))
    return values, reasons.texts()


def _disorder(hair: np.ndarray, brightness: np.ndarray) -> float:
    inner = cv2.erode(hair, _EDGE_KERNEL, borderType=cv2.BORDER_CONSTANT, borderValue=1)
    inner[:TOP] = 0
    if int(inner.sum()) < SMALLEST:
        return np.nan
    smooth = cv2.GaussianBlur(brightness, (0, 0), SMOOTHING)
    weight = inner.astype(np.float32)
    across, down = (cv2.Sobel(smooth, cv2.CV_32F, *order) * weight for order in ((1, 0), (0, 1)))
    xx, yy, xy, filled = (_around(product) for product in (across * across, down * down, across * down, weight))
    total = xx + yy
    counted = (inner > 0) & (filled > FILLED) & (total > 0)
    if not counted.any():
        return np.nan
    total = total[counted].astype(np.float64)
    coherence = np.hypot((xx - yy)[counted], 2 * xy[counted]) / total
    return float(1 - coherence.mean())


def _around(values: np.ndarray) -> np.ndarray:
    """Return the mean of float32 [224, 224] over the neighbourhood of each pixel; outside the picture is 0."""
    return cv2.boxFilter(values, -1, (WINDOW, WINDOW), borderType=cv2.BORDER_CONSTANT)
