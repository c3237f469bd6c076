"""Plots as small PNG files: the same figure writes the same bytes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from pipeline.whole import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(path: Path, figure: Figure, dpi: int = 110) -> None:
    """Write a matplotlib figure as PNG."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi)
    with Image.open(drawn) as image:
        save_plot(path, image)


def save_plot(path: Path, image: Image.Image) -> None:
    """Write a picture of few colours as PNG: a palette of 256 takes a third of the room, and no date goes with it."""
    with atomic(path) as temporary:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(temporary, "PNG", optimize=True)
