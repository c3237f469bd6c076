"""Finds the face in a picture with MTCNN and cuts out the crop that face parsers take."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from segmentation.classes import SIZE

MARGIN = 0.25  # of the box's width and height, added on each side
SMALLEST = 20  # side in pixels of the smallest face, and so of the smallest picture, that the detector takes
NO_FACE = "no face found"
OUTSIDE = "the face lies outside the picture"

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Detection:
    """What the detector found in one picture: the largest face's box (x0, y0, x1, y1) in pixels, or a reason."""

    box: Box | None
    reason: str = ""
    faces: int = 0


class FaceCropper:
    """MTCNN of facenet-pytorch with its default thresholds; its weights come with that package."""

    def __init__(self, device: str | torch.device = "cpu"):
        from facenet_pytorch import MTCNN

        network = MTCNN(keep_all=True, device=torch.device(device)).eval().requires_grad_(False)
        # Max-pooling, a third of the detector's time, runs several times faster in this layout on a CPU.
        self._network = network.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def detect(self, images: Iterable[np.ndarray]) -> list[Detection]:
        """Find the largest face of each picture; equal pictures give equal boxes in any batch.

        images: uint8 RGB [H, W, 3] each, of any size. A picture without a face gets no box and a reason.
        """
        # One at a time: the detector compares, sorts and rounds numbers that differ in the last bit between batch
        # sizes, and a box moved by one pixel would move the scores.
        return [self._detect(image) for image in images]

    def _detect(self, image: np.ndarray) -> Detection:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"a picture is uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
        if min(image.shape[:2]) < SMALLEST:
            return Detection(None, f"the picture is smaller than {SMALLEST}x{SMALLEST} pixels")
        try:
            boxes, _ = self._network.detect(np.ascontiguousarray(image))
        except (IndexError, RuntimeError, ValueError) as error:
            # The detector trips over candidates that lie outside the picture. Anything else is not the picture's fault.
            if not isinstance(error, IndexError) and "non-empty list" not in str(error):
                raise
            return Detection(None, "the face detector found candidates outside the picture only")
        if boxes is None:
            return Detection(None, NO_FACE)
        box = tuple(round(float(value), 4) for value in boxes[0])
        x0, y0, x1, y1 = crop_corners(box, image.shape[1], image.shape[0])
        if x1 <= x0 or y1 <= y0:
            return Detection(None, OUTSIDE, len(boxes))
        return Detection(box, "", len(boxes))


def crop_corners(box: Box, width: int, height: int, margin: float = MARGIN) -> tuple[int, int, int, int]:
    """Return the whole-pixel corners (x0, y0, x1, y1) of a box grown by `margin` per side and kept in the picture."""
    x0, y0, x1, y1 = box
    grow_x, grow_y = margin * (x1 - x0), margin * (y1 - y0)
    return (
        int(max(x0 - grow_x, 0)),
        int(max(y0 - grow_y, 0)),
        int(min(x1 + grow_x, width)),
        int(min(y1 + grow_y, height)),
    )


def crop(image: np.ndarray, box: Box, margin: float = MARGIN, size: int = SIZE) -> np.ndarray:
    """Cut a box with its margin out of uint8 RGB [H, W, 3] and resize it (bicubic, both axes alone) to a square.

    Returns uint8 [size, size, 3]. ValueError when nothing of the box lies inside the picture.
    """
    x0, y0, x1, y1 = crop_corners(box, image.shape[1], image.shape[0], margin)
    if x1 <= x0 or y1 <= y0:
        raise ValueError(f"box {box} has no part inside a picture of {image.shape[1]}x{image.shape[0]}")
    return resized(image[y0:y1, x0:x1], size)


def resized(face: np.ndarray, size: int = SIZE) -> np.ndarray:
    """Resize uint8 RGB [H, W, 3] (bicubic, both axes alone) to uint8 [size, size, 3]."""
    picture = Image.fromarray(np.ascontiguousarray(face))
    return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC))
