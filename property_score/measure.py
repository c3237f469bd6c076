"""The eight property scores of parsing maps as one table."""

import numpy as np
import pandas as pd

from pipeline.errors import PipelineError
from property_score.algorithm_v1 import scores_v1
from property_score.algorithm_v2 import scores_v2
from property_score.facemaps import NAMES, brightness_sums
from property_score.hair_texture import scores_hair_texture
from property_score.hairstyle import scores_hairstyle

PROPERTIES = (*NAMES, "hairstyle")
ALGORITHMS = {"v1": scores_v1, "v2": scores_v2}
HAIRSTYLES = {"texture": scores_hair_texture, "blocks": scores_hairstyle}
"""How the hairstyle is measured: from the direction of strands, or by the published blocks with a mended mask."""


def measure(
    maps: np.ndarray,
    faces: np.ndarray,
    algorithm: str = "v2",
    published: bool = False,
    color_images: np.ndarray | None = None,
    hairstyle: str = "texture",
) -> pd.DataFrame:
    """Measure the eight properties of parsing maps, in raw units.

    maps: uint8 [N, 224, 224]. faces: uint8 [N, 224, 224, 3] crops of the same frame. color_images: pictures of the
    same shape from which the algorithm takes colours instead (published v1: the whole picture resized); hairstyle
    always reads the crop. hairstyle: one of HAIRSTYLES; published takes the published blocks whatever it says.
    Returns float64 columns PROPERTIES, NaN where missing, and text `reason`.
    PipelineError for an unknown algorithm or hairstyle, ValueError for other shapes.
    """
    for what, name, known in (("score algorithm", algorithm, ALGORITHMS), ("hairstyle", hairstyle, HAIRSTYLES)):
        if name not in known:
            raise PipelineError(f"unknown {what} '{name}'; use {' or '.join(known)}")
    sums = brightness_sums(faces)
    if color_images is None:
        values, reasons = ALGORITHMS[algorithm](maps, faces, published, sums=sums)
    else:
        values, reasons = ALGORITHMS[algorithm](maps, color_images, published)
    if published:
        curls, curl_reasons = scores_hairstyle(maps, faces, published=True, sums=sums)
    else:
        curls, curl_reasons = HAIRSTYLES[hairstyle](maps, faces, sums=sums)
    frame = pd.DataFrame(np.column_stack([values, curls]), columns=list(PROPERTIES))
    frame["reason"] = ["; ".join(filter(None, pair)) for pair in zip(reasons, curl_reasons, strict=True)]
    return frame
