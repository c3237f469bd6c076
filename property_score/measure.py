"""The eight property scores of parsing maps as one table."""

import numpy as np
import pandas as pd

from pipeline.errors import PipelineError
from property_score.algorithm_v1 import scores_v1
from property_score.algorithm_v2 import scores_v2
from property_score.facemaps import NAMES, brightness_sums
from property_score.hairstyle import scores_hairstyle

PROPERTIES = (*NAMES, "hairstyle")
ALGORITHMS = {"v1": scores_v1, "v2": scores_v2}


def measure(
    maps: np.ndarray,
    faces: np.ndarray,
    algorithm: str = "v2",
    published: bool = False,
    color_images: np.ndarray | None = None,
) -> pd.DataFrame:
    """Measure the eight properties of parsing maps, in raw units.

    maps: uint8 [N, 224, 224]. faces: uint8 [N, 224, 224, 3] crops of the same frame. color_images: pictures of the
    same shape from which the algorithm takes colours instead (published v1: the whole picture resized); hairstyle
    always reads the crop. Returns float64 columns PROPERTIES, NaN where missing, and text `reason`.
    PipelineError for an unknown algorithm, ValueError for other shapes.
    """
    if algorithm not in ALGORITHMS:
        raise PipelineError(f"unknown score algorithm '{algorithm}'; use {' or '.join(ALGORITHMS)}")
    sums = brightness_sums(faces)
    if color_images is None:
        values, reasons = ALGORITHMS[algorithm](maps, faces, published, sums=sums)
    else:
        values, reasons = ALGORITHMS[algorithm](maps, color_images, published)
    hairstyle, hairstyle_reasons = scores_hairstyle(maps, faces, published, sums=sums)
    frame = pd.DataFrame(np.column_stack([values, hairstyle]), columns=list(PROPERTIES))
    frame["reason"] = ["; ".join(filter(None, pair)) for pair in zip(reasons, hairstyle_reasons, strict=True)]
    return frame
