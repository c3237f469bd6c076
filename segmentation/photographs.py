"""Photographs of any kind: which a folder holds, and their pixels, read piece by piece.

A file is decoded once, in its own pixel format. Only what is looked at becomes upright RGB pixels: a reduced copy for
the face detector and the crop around the face, so that memory stays a few bytes per pixel of the file.
"""

import hashlib
import math
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from segmentation.face_crop import Detection, FaceCropper

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
FORMATS = ("JPEG", "PNG", "WEBP")
MOST_PIXELS = 250_000_000
DETECTOR_PIXELS = (1_000_000, 9_000_000)
"""Most pixels of the copy that the detector sees; the second where the first shows no face."""
GROUND = "white"
"""What shows through transparent parts."""

_WIDE = ("I;16", "I;16L", "I;16B", "I")  # how Pillow names 16-bit grey
_STRIP = 64  # rows of a reduced copy that are made at a time
_DAMAGE = (
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, IndexError, KeyError, OverflowError),
    *(struct.error, zlib.error),
)


class UnreadablePhotograph(Exception):
    """A file that yields no picture; the message is the reason, without the file's name."""


class Photograph:
    """One decoded file; width, height and all coordinates are those of the upright picture (EXIF orientation).

    transparent: some of it is, and shows GROUND.
    """

    def __init__(self, raw: Image.Image, orientation: int = 1):
        self._raw, self._orientation = raw, orientation if 1 <= orientation <= 8 else 1
        self.width, self.height = raw.size if self._orientation < 5 else raw.size[::-1]
        self.transparent = _is_transparent(raw)

    @classmethod
    def open(cls, path: Path | str) -> "Photograph":
        """Decode a JPEG, PNG or WebP of at most MOST_PIXELS; UnreadablePhotograph says why one cannot be read."""
        try:
            with _any_size(), Image.open(path, formats=FORMATS) as raw:
                if raw.width * raw.height > MOST_PIXELS:
                    raise UnreadablePhotograph(
                        f"{raw.width}x{raw.height} pixels are more than {MOST_PIXELS // 10**6} million; "
                        "save a smaller copy"
                    )
                orientation = _orientation(raw)
                raw.load()
                return cls(raw, orientation)
        except Image.UnidentifiedImageError:
            raise UnreadablePhotograph("it is no JPEG, PNG or WebP file, whatever its name says") from None
        except OSError as error:
            raise UnreadablePhotograph(error.strerror or str(error)) from None
        except _DAMAGE as error:
            raise UnreadablePhotograph(f"it is damaged ({str(error) or type(error).__name__})") from None

    def region(self, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
        """Return the pixels of columns x0..x1-1 and rows y0..y1-1 as uint8 RGB [y1 - y0, x1 - x0, 3]."""
        part = _rgb(self._raw.crop(self._raw_box(x0, y0, x1, y1)))
        turn = _TURNS.get(self._orientation)
        return np.asarray(part if turn is None else part.transpose(turn))

    def reduced(self, most_pixels: int) -> tuple[np.ndarray, int]:
        """Return a copy of at most about `most_pixels`, uint8 RGB, and the whole number that divided both sides.

        Each of its pixels is the mean of factor x factor pixels (fewer at the right and lower edge).
        """
        factor = max(1, math.ceil(math.sqrt(self.width * self.height / most_pixels)))
        if factor == 1:
            return self.region(0, 0, self.width, self.height), 1
        rows = range(0, self.height, factor * _STRIP)
        strips = (self.region(0, y, self.width, min(y + factor * _STRIP, self.height)) for y in rows)
        return np.concatenate([np.asarray(Image.fromarray(strip).reduce(factor)) for strip in strips]), factor

    def _raw_box(self, x0: int, y0: int, x1: int, y1: int) -> tuple[int, int, int, int]:
        """Where a box of the upright picture lies in the stored one."""
        width, height = self._raw.size
        if self._orientation >= 5:
            x0, y0, x1, y1 = y0, x0, y1, x1
        if self._orientation in (2, 3, 7, 8):
            x0, x1 = width - x1, width - x0
        if self._orientation in (3, 4, 6, 7):
            y0, y1 = height - y1, height - y0
        return x0, y0, x1, y1


def find_face(cropper: "FaceCropper", photograph: Photograph) -> "tuple[Detection, np.ndarray | None]":
    """Find the largest face on a reduced copy and cut it out of the full picture.

    Returns the detection, its box in pixels of the full picture, and the crop uint8 [224, 224, 3] (None without one).
    """
    from segmentation.face_crop import OUTSIDE, Detection, crop_corners, resized

    for pixels in DETECTOR_PIXELS:
        picture, factor = photograph.reduced(pixels)
        (hit,) = cropper.detect([picture])
        if hit.box is not None or factor == 1:
            break
    if hit.box is None:
        return hit, None
    hit = replace(hit, box=tuple(round(value * factor, 4) for value in hit.box))
    x0, y0, x1, y1 = crop_corners(hit.box, photograph.width, photograph.height)
    if x1 <= x0 or y1 <= y0:  # only in the last, incomplete pixels of the copy
        return Detection(None, OUTSIDE, hit.faces), None
    return hit, resized(photograph.region(x0, y0, x1, y1))


def list_photographs(folder: Path | str) -> tuple[list[Path], list[str]]:
    """Return the photographs of a folder in the order of their names, and the names of its other files.

    What lies in folders inside it, and hidden files, are left alone. PipelineError when there is no photograph.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file; give the folder that it lies in" if folder.exists() else "does not exist; mend the path"
        raise PipelineError(f"--images {folder} {what}")
    files = sorted(
        (path for path in folder.iterdir() if not path.is_dir() and not path.name.startswith(".")),
        key=lambda path: path.name,
    )
    photographs = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not photographs:
        inside = sum(path.is_dir() for path in folder.iterdir())
        hint = f"; its {inside} folders are not searched, name one of them" if inside else ""
        raise PipelineError(f"--images {folder} holds no photograph ({', '.join(SUFFIXES)}){hint}")
    return photographs, [shown_name(path) for path in files if path.suffix.lower() not in SUFFIXES]


def shown_name(path: Path) -> str:
    """Return a file's name as tables hold it; bytes that are no UTF-8 become question marks."""
    return path.name.encode("utf-8", "replace").decode("utf-8")


def listing_digest(paths: list[Path]) -> str:
    """Return a digest of names, sizes, modification times and the right to read: it changes when a photograph does."""
    total = hashlib.sha256()
    for path in paths:
        try:
            status = path.stat()
            facts = (status.st_size, status.st_mtime_ns, os.access(path, os.R_OK))
        except OSError:
            facts = None  # a broken link; opening it will tell
        total.update(repr((shown_name(path), facts)).encode())
    return total.hexdigest()


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION_TAG = 0x0112


@contextmanager
def _any_size() -> Iterator[None]:
    """Let Pillow open what MOST_PIXELS allows; its own limit is lower."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _orientation(raw: Image.Image) -> int:
    try:
        value = raw.getexif().get(_ORIENTATION_TAG, 1)
    except _DAMAGE:
        return 1  # a broken note about the camera does not spoil the picture
    return value if isinstance(value, int) else 1


def _is_transparent(raw: Image.Image) -> bool:
    if not raw.has_transparency_data:
        return False
    return raw.mode not in ("RGBA", "LA") or raw.getextrema()[-1][0] < 255


def _rgb(part: Image.Image) -> Image.Image:
    if part.mode in _WIDE:
        grey = np.asarray(part).astype(np.float32) / 257.0
        return Image.fromarray((grey + 0.5).clip(0, 255).astype(np.uint8)).convert("RGB")
    if part.has_transparency_data:
        colours = part.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", part.size, GROUND), colours).convert("RGB")
    return part.convert("RGB")
