"""Small changes of a picture that leave the face what it is: what a score does under them is its noise."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from pipeline.images import through_jpeg
from stylegan.sampling import to_uint8
from virtual_face.population import INDEX
from virtual_face.render import render_factors

JPEG_QUALITY = 75
SHIFT = 2.0  # most pixels, each way
ZOOM = 0.03  # most of the side
RENDER_BATCH = 4
RENDERED = {  # what is drawn anew: factors that move, and by how much of their deviation
    "other light": (("key_azimuth", "key_elevation", "key_warm", "fill"), 0.5),
    "other wall colour": (("background_hue", "background_tint"), 0.5),
}
UNTOUCHED = {"other wall colour": ("background_mean", "background_std")}
"""Scores that a change is meant to move, and of which it therefore tells no noise."""
REPEAT = "taken again"
"""The change that stands for a second picture of the same face: moved, zoomed and saved as JPEG."""


def changed_pictures(images: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Pictures uint8 [N, R, R, 3] after each change that needs no renderer, by name."""
    random = np.random.default_rng([seed, 0x7E])
    moved = _moved(images, random.uniform(-SHIFT, SHIFT, (len(images), 2)), np.ones(len(images)))
    zooms = 1 + random.uniform(-ZOOM, ZOOM, len(images))
    again = _moved(images, random.uniform(-SHIFT, SHIFT, (len(images), 2)), zooms)
    return {
        "JPEG": through_jpeg(images, JPEG_QUALITY),
        "moved": moved,
        REPEAT: through_jpeg(again, JPEG_QUALITY),
    }


def changed_renders(factors: np.ndarray, size: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Renders uint8 [N, size, size, 3] of faces float32 [N, K] with other lights and other walls, by name."""
    results = {}
    for number, (name, (moving, amount)) in enumerate(RENDERED.items()):
        other = factors.copy()
        columns = [INDEX[factor] for factor in moving]
        random = np.random.default_rng([seed, 0x7F, number])
        other[:, columns] += amount * random.standard_normal((len(factors), len(columns))).astype(np.float32)
        starts = range(0, len(other), RENDER_BATCH)
        parts = [render_factors(torch.from_numpy(other[k : k + RENDER_BATCH]), size).images for k in starts]
        results[name] = to_uint8(torch.cat(parts))
    return results


def _moved(images: np.ndarray, shifts: np.ndarray, zooms: np.ndarray) -> np.ndarray:
    """Shift by whole and part pixels (x, y) and zoom about the middle; the border repeats its last pixels."""
    middle = (images.shape[1] - 1) / 2
    results = []
    for image, (x, y), zoom in zip(images, shifts, zooms, strict=True):
        offset = (1 - zoom) * middle
        matrix = np.array([[zoom, 0, offset + x], [0, zoom, offset + y]])
        results.append(
            cv2.warpAffine(image, matrix, image.shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        )
    return np.stack(results)
