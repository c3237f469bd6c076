"""Images and arrays on disk, written whole and checked when read."""

import io
import re
import zipfile
from pathlib import Path

import numpy as np

from pipeline.errors import PipelineError
from pipeline.whole import atomic

JPEG_QUALITY = 95
SUFFIXES = (".jpg", ".jpeg", ".png")

AGAIN = "delete it and run its stage again"

# Pictures of a run are named by their number: 000004.jpg, and 1000000.jpg where six digits do not suffice.
NUMBERED = re.compile(r"\d{6}\.jpg|[1-9]\d{6,}\.jpg")


def save_image(path: Path | str, image: np.ndarray) -> None:
    """Write uint8 RGB [H, W, 3] (or grey [H, W]) as JPEG quality 95 or PNG, by the suffix."""
    from PIL import Image

    path = Path(path)
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
        raise PipelineError(f"{path}: an image is uint8 [H, W, 3] or [H, W], found {image.dtype} {list(image.shape)}")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise PipelineError(f"{path}: an image file ends in .jpg or .png")
    with atomic(path) as temporary:
        picture = Image.fromarray(np.ascontiguousarray(image))
        if suffix == ".png":
            picture.save(temporary)
        else:
            picture.save(temporary, quality=JPEG_QUALITY)


def through_jpeg(images: np.ndarray, quality: int) -> np.ndarray:
    """Pictures uint8 [N, H, W, 3] as they come back from JPEG files of a quality."""
    from PIL import Image

    decoded = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality)
        decoded.append(np.asarray(Image.open(buffer)))
    return np.stack(decoded)


def read_image(path: Path | str, cure: str = AGAIN) -> np.ndarray:
    """Read an image as uint8 RGB [H, W, 3], turned as its EXIF says.

    PipelineError, which ends with `cure`, when it is missing, truncated or no image.
    """
    return _read(path, "RGB", cure)


def read_mask(path: Path | str) -> np.ndarray:
    """Read a single-channel image as uint8 [H, W]; PipelineError when it is missing, truncated or no image."""
    return _read(path, "L", AGAIN)


def _read(path: Path | str, mode: str, cure: str) -> np.ndarray:
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as picture:
            return np.asarray(ImageOps.exif_transpose(picture).convert(mode))
    except FileNotFoundError:
        raise PipelineError(f"image {path} is missing; run the stage that writes it again") from None
    # PIL reports damage as OSError (truncated, unknown), SyntaxError or ValueError (broken PNG chunks).
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise PipelineError(f"image {path} cannot be read ({error}); {cure}") from None


def save_arrays(path: Path | str, **arrays: np.ndarray) -> None:
    """Write named arrays as .npz; equal arrays give equal bytes."""
    with atomic(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)


def read_arrays(path: Path | str, names: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Read an .npz into a dict; PipelineError when it is missing, damaged or lacks one of `names`."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise PipelineError(f"{path} is missing; run the stage that writes it") from None
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise PipelineError(f"{path} cannot be read ({error}); delete it and run its stage again") from None
    missing = [name for name in names if name not in arrays]
    if missing:
        raise PipelineError(f"{path} lacks {', '.join(missing)} (it holds {', '.join(arrays)}); run its stage again")
    return arrays
