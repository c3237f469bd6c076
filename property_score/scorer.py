"""The one interface of everything that scores faces, and the scorer that measures parsing maps."""

from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd

from property_score.measure import PROPERTIES, measure
from property_score.normalisation import Normalisation

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from pipeline.profile import Profile
    from segmentation.face_crop import FaceCropper
    from segmentation.parser import FaceParser

__all__ = ["ALIGNED_WINDOW", "PROPERTIES", "GeometricScorer", "Scorer"]

Window = tuple[float, float, float, float]

ALIGNED_WINDOW: Window = (0.08, 0.0, 0.92, 1.0)
"""About where the detector's crop lies in an aligned portrait: x0, y0, x1, y1 as shares of the picture."""


class Scorer(Protocol):
    """Gives the eight property scores of pictures; the same picture gets the same row in any batch."""

    def score(self, images: "torch.Tensor") -> pd.DataFrame:
        """Score pictures float32 [N, 3, R, R] RGB in [-1, 1].

        Returns a table with the number columns PROPERTIES (z-scores; NaN where one could not be measured) and the text
        column `reason` (empty where all could).
        """
        ...


class GeometricScorer:
    """Measures pictures: face crop, face parser, algorithm v2 and hairstyle. It learns nothing from scored faces.

    normalisation: turns raw values into z-scores; without one the table holds raw values. window: crop all pictures
    at these shares (x0, y0, x1, y1) instead of searching the face; for aligned portraits, several times faster.
    """

    def __init__(
        self,
        parser: "FaceParser",
        cropper: "FaceCropper | None" = None,
        normalisation: Normalisation | None = None,
        window: Window | None = None,
        published: bool = False,
    ):
        if (cropper is None) == (window is None):
            raise ValueError("a geometric scorer takes either a cropper or a window")
        self.parser, self.cropper, self.normalisation = parser, cropper, normalisation
        self.window, self.published = window, published

    @classmethod
    def load(
        cls,
        profile: "Profile",
        normalisation: "Path | str | None" = None,
        device: "str | torch.device" = "cpu",
        window: Window | None = None,
    ) -> "GeometricScorer":
        """Build one with the profile's parser and a saved normalisation; PipelineError when a file is missing."""
        from segmentation.face_crop import FaceCropper
        from segmentation.parser import load_parser

        cropper = FaceCropper(device) if window is None else None
        fitted = Normalisation.load(normalisation) if normalisation is not None else None
        return cls(load_parser(profile, device), cropper, fitted, window)

    @property
    def provenance(self) -> dict[str, object]:
        """What distinguishes this scorer from another, for tables and reports."""
        return {
            "scorer": "geometric",
            "parser": self.parser.name,
            "crop": "MTCNN" if self.window is None else list(self.window),
            "algorithm": "v2, published" if self.published else "v2",
            "units": "raw" if self.normalisation is None else "z",
        }

    def score(self, images: "torch.Tensor") -> pd.DataFrame:
        """Score pictures; see Scorer. A picture without a face has no score and says so."""
        from segmentation.parser import to_tensor

        faces, reasons = self._faces(to_uint8(images))
        rows = [k for k, face in enumerate(faces) if face is not None]
        frame = pd.DataFrame(np.nan, index=range(len(images)), columns=list(PROPERTIES))
        frame["reason"] = reasons
        if rows:
            crops = np.stack([faces[k] for k in rows])
            measured = measure(self.parser.parse(to_tensor(crops)), crops, published=self.published)
            measured.index = rows
            frame.loc[rows, list(PROPERTIES)] = measured[list(PROPERTIES)]
            frame.loc[rows, "reason"] = measured["reason"]
        return frame if self.normalisation is None else self.normalisation.apply(frame)

    def _faces(self, pictures: np.ndarray) -> tuple[list[np.ndarray | None], list[str]]:
        from segmentation.face_crop import crop

        if self.window is not None:
            height, width = pictures.shape[1:3]
            x0, y0, x1, y1 = self.window
            box = (x0 * width, y0 * height, x1 * width, y1 * height)
            return [crop(picture, box, margin=0.0) for picture in pictures], [""] * len(pictures)
        found = self.cropper.detect(pictures)
        pairs = zip(pictures, found, strict=True)
        faces = [None if hit.box is None else crop(picture, hit.box) for picture, hit in pairs]
        return faces, [hit.reason for hit in found]


def to_uint8(images: "torch.Tensor") -> np.ndarray:
    """Return pictures float [N, 3, H, W] in [-1, 1] as uint8 [N, H, W, 3], as they would be saved."""
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(f"pictures are float [N, 3, H, W] in [-1, 1], got {images.dtype} {list(images.shape)}")
    values = (images.detach().float() * 127.5 + 128.0).clamp(0, 255)
    return values.permute(0, 2, 3, 1).cpu().numpy().astype(np.uint8)
