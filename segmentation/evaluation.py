"""How well a parser finds the classes of renders whose true masks are known."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from segmentation.classes import CLASSES, SIZE
from segmentation.face_crop import FaceCropper, crop, crop_corners
from segmentation.parser import FaceParser, to_tensor

BATCH = 32


@dataclass(frozen=True)
class ParserQuality:
    """Confusion of true (rows) and found (columns) classes, int64 [11, 11], over all pixels of the face crops."""

    confusion: np.ndarray
    images: int
    without_face: int

    def iou(self) -> np.ndarray:
        """Return intersection over union per class, float64 [11]; NaN for a class that never occurs."""
        hit = np.diag(self.confusion).astype(np.float64)
        union = self.confusion.sum(axis=0) + self.confusion.sum(axis=1) - hit
        return np.divide(hit, union, out=np.full(len(hit), np.nan), where=union > 0)

    def mean_iou(self) -> float:
        """Return the mean over the classes that occur."""
        values = self.iou()
        return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")

    def table(self) -> pd.DataFrame:
        """Return IoU and the share of true pixels per class, with the mean in the last row."""
        share = self.confusion.sum(axis=1) / max(self.confusion.sum(), 1)
        frame = pd.DataFrame({"class": CLASSES, "iou": self.iou(), "pixels": share})
        frame.loc[len(frame)] = ["mean", self.mean_iou(), share.sum()]
        return frame


def evaluate(parser: FaceParser, cropper: FaceCropper, images: np.ndarray, masks: np.ndarray) -> ParserQuality:
    """Compare a parser with true masks, at the pixels of the pictures, inside the face crops.

    images: uint8 [N, H, W, 3]. masks: uint8 [N, H, W] ids. Pictures without a found face are counted and left out.
    """
    confusion, without = np.zeros((len(CLASSES), len(CLASSES)), np.int64), 0
    for start in range(0, len(images), BATCH):
        part = images[start : start + BATCH]
        found = [(k, hit.box) for k, hit in enumerate(cropper.detect(part)) if hit.box is not None]
        without += len(part) - len(found)
        if not found:
            continue
        maps = parser.parse(to_tensor(np.stack([crop(part[k], box) for k, box in found])))
        for (k, box), parsing in zip(found, maps, strict=True):
            x0, y0, x1, y1 = crop_corners(box, part.shape[2], part.shape[1])
            true = masks[start + k, y0:y1, x0:x1]
            seen = parsing[np.ix_(_places(y1 - y0), _places(x1 - x0))]
            pairs = true.ravel().astype(np.int64) * len(CLASSES) + seen.ravel()
            confusion += np.bincount(pairs, minlength=confusion.size).reshape(confusion.shape)
    return ParserQuality(confusion, len(images), without)


def _places(size: int) -> np.ndarray:
    """Return the row (or column) of a 224-pixel map under the middle of each of `size` crop pixels."""
    return ((np.arange(size) + 0.5) / size * SIZE).astype(np.int64)
