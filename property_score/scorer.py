"""The one interface of everything that scores faces, and the scorer that measures parsing maps."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from property_score.measure import PROPERTIES, measure
from property_score.normalisation import Normalisation
from segmentation.classes import SIZE

if TYPE_CHECKING:
    import torch

    from pipeline.profile import Profile
    from segmentation.face_crop import FaceCropper
    from segmentation.parser import FaceParser

__all__ = ["ALIGNED_WINDOW", "PROPERTIES", "GeometricScorer", "Scorer"]

Window = tuple[float, float, float, float]
PARSED = 64  # crops that are handed to the parser at a time, for the sake of memory

ALIGNED_WINDOW: Window = (0.08, 0.0, 0.92, 1.0)
"""About where the detector's crop lies in an aligned portrait: x0, y0, x1, y1 as shares of the picture."""


class Scorer(Protocol):
    """Gives the eight property scores of pictures; the same picture gets the same row in any batch."""

    @property
    def provenance(self) -> dict[str, Any]:
        """What distinguishes this scorer from another: its kind, units, weights and the faces it was trained on."""
        ...

    def score(self, images: "torch.Tensor") -> pd.DataFrame:
        """Score pictures float32 [N, 3, R, R] RGB in [-1, 1].

        Returns a table with the number columns PROPERTIES (z-scores; NaN where one could not be measured) and the text
        column `reason` (empty where all could).
        """
        ...


@dataclass
class ParsedFaces:
    """The faces of N pictures: rows int [M] of those that show one, crops and maps, and a reason per picture."""

    rows: np.ndarray
    faces: np.ndarray
    """uint8 [M, 224, 224, 3]."""
    maps: np.ndarray
    """Class ids uint8 [M, 224, 224]."""
    reasons: list[str]
    """Why a picture shows no face, for all N; empty where it does."""

    def table(self, measured: pd.DataFrame) -> pd.DataFrame:
        """Spread the M rows that `measure` gave over the N pictures; without a face all scores are missing."""
        frame = pd.DataFrame(np.nan, index=range(len(self.reasons)), columns=list(PROPERTIES))
        frame["reason"] = self.reasons
        frame.loc[self.rows, list(PROPERTIES)] = measured[list(PROPERTIES)].to_numpy()
        frame.loc[self.rows, "reason"] = measured["reason"].to_numpy()
        return frame


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
        hairstyle: str = "texture",
    ):
        if (cropper is None) == (window is None):
            raise ValueError("a geometric scorer takes either a cropper or a window")
        self.parser, self.cropper, self.normalisation = parser, cropper, normalisation
        self.window, self.published, self.hairstyle = window, published, hairstyle

    @classmethod
    def load(
        cls,
        profile: "Profile",
        normalisation: "Normalisation | Path | str | None" = None,
        device: "str | torch.device" = "cpu",
        window: Window | None = None,
    ) -> "GeometricScorer":
        """Build one with the profile's parser and a saved normalisation; PipelineError when a file is missing."""
        from segmentation.face_crop import FaceCropper
        from segmentation.parser import load_parser

        cropper = FaceCropper(device) if window is None else None
        fitted = Normalisation.load(normalisation) if isinstance(normalisation, (str, Path)) else normalisation
        hairstyle = profile.get("property_score.hairstyle", "texture")
        return cls(load_parser(profile, device), cropper, fitted, window, hairstyle=hairstyle)

    @property
    def provenance(self) -> dict[str, Any]:
        """What distinguishes this scorer from another, for tables and reports."""
        return {
            "scorer": "geometric",
            "parser": self.parser.name,
            "crop": "MTCNN" if self.window is None else list(self.window),
            "algorithm": "v2, published" if self.published else "v2",
            "hairstyle": "blocks, published" if self.published else self.hairstyle,
            "units": "raw" if self.normalisation is None else "z",
            "trained_on": "",  # no scored face
            **({} if self.normalisation is None else {"normalisation": self.normalisation.record()}),
        }

    def score(self, images: "torch.Tensor") -> pd.DataFrame:
        """Score pictures; see Scorer. A picture without a face has no score and says so."""
        from stylegan.sampling import to_uint8

        parsed = self.parse(to_uint8(images))
        frame = parsed.table(measure(parsed.maps, parsed.faces, "v2", self.published, hairstyle=self.hairstyle))
        return frame if self.normalisation is None else self.normalisation.apply(frame)

    def parse(self, pictures: np.ndarray) -> "ParsedFaces":
        """Find, crop and parse the faces of pictures uint8 [N, H, W, 3]."""
        from segmentation.parser import to_tensor

        faces, reasons = self._faces(pictures)
        rows = np.array([k for k, face in enumerate(faces) if face is not None], int)
        crops = np.stack([faces[k] for k in rows]) if len(rows) else np.empty((0, SIZE, SIZE, 3), np.uint8)
        maps = [self.parser.parse(to_tensor(crops[k : k + PARSED])) for k in range(0, len(rows), PARSED)]
        return ParsedFaces(rows, crops, np.concatenate(maps) if maps else np.empty(crops.shape[:3], np.uint8), reasons)

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
