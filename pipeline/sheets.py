"""Contact sheets: many pictures in one."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.errors import PipelineError
from pipeline.images import save_image

BACKGROUND = 255
LABEL_HEIGHT = 17
BESIDE_GAP = 20


def contact_sheet(images: np.ndarray, columns: int, gap: int = 2, labels: Sequence[str] | None = None) -> np.ndarray:
    """Lay out uint8 [N, H, W, 3] row by row on white with `gap` pixels between; returns uint8 [H', W', 3].

    labels: one short text per image, written under it; a row without any takes no room for them.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or not len(images):
        raise PipelineError(f"a contact sheet takes uint8 [N, H, W, 3], found {images.dtype} {list(images.shape)}")
    if labels is not None and len(labels) != len(images):
        raise PipelineError(f"a contact sheet of {len(images)} images got {len(labels)} labels")
    count, height, width, _ = images.shape
    columns = max(1, min(columns, count))
    rows = -(-count // columns)
    told = [labels is not None and any(labels[row * columns : (row + 1) * columns]) for row in range(rows)]
    tops = gap + np.cumsum([0, *(height + gap + LABEL_HEIGHT * below for below in told)])
    sheet = np.full((tops[-1], columns * (width + gap) + gap, 3), BACKGROUND, dtype=np.uint8)
    corners = [(tops[k // columns], gap + k % columns * (width + gap)) for k in range(count)]
    for image, (top, left) in zip(images, corners, strict=True):
        sheet[top : top + height, left : left + width] = image
    if labels is not None:
        sheet = _labelled(sheet, labels, [(left, top + height) for top, left in corners])
    return sheet


def side_by_side(sheets: Sequence[np.ndarray], titles: Sequence[str]) -> np.ndarray:
    """Join sheets uint8 [H, W, 3] of one height from left to right, each below its title, well apart."""
    height, top = len(sheets[0]), LABEL_HEIGHT + 3
    widths = [sheet.shape[1] for sheet in sheets]
    lefts = [sum(widths[:k]) + BESIDE_GAP * k for k in range(len(sheets))]
    joined = np.full((top + height, lefts[-1] + widths[-1], 3), BACKGROUND, dtype=np.uint8)
    for sheet, left, width in zip(sheets, lefts, widths, strict=True):
        joined[top:, left : left + width] = sheet
    return _labelled(joined, titles, [(left + 1, 1) for left in lefts])


def save_sheet(path: Path | str, images: np.ndarray, columns: int, labels: Sequence[str] | None = None) -> None:
    """Write a contact sheet as JPEG or PNG, by the suffix."""
    save_image(path, contact_sheet(images, columns, labels=labels))


def _labelled(sheet: np.ndarray, labels: Sequence[str], corners: list[tuple[int, int]]) -> np.ndarray:
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.fromarray(sheet)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=LABEL_HEIGHT - 4)
    for text, corner in zip(labels, corners, strict=True):
        draw.text((corner[0] + 1, corner[1]), str(text), fill=(0, 0, 0), font=font)
    return np.asarray(picture)
