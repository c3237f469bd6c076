"""How far a head is turned, lifted and tilted, read by a network: columns beside the eight scores.

The score `pose` is the slope of the eye line, that is the tilt, whatever its name says; these angles tell the three
apart.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import pandas as pd

from pipeline.errors import PipelineError
from pipeline.precision import wants_half
from pipeline.profile import Profile

if TYPE_CHECKING:
    import torch

ANGLES = ("yaw", "pitch", "roll")
SOURCES = {"oracle": "attribute_net", "facexformer": "facexformer"}
"""Who may tell the angles, and the weight file of each in [weights]."""


class HeadPose(Protocol):
    """Tells the angles of heads; the same picture gets the same angles in any batch."""

    reads: Literal["picture", "crop"]
    """What it wants to see: whole aligned pictures, or the face crops of stage 3."""

    def angles(self, pictures: np.ndarray) -> np.ndarray:
        """Angles float64 [N, 3] in radians, in the order of ANGLES, of pictures uint8 [N, H, W, 3]."""
        ...


class OracleHeadPose:
    """The oracle of the virtual world: yaw to the image's right, pitch up, roll with the image's right eye lower."""

    reads = "picture"

    def __init__(self, path: Path, device: "str | torch.device" = "cpu"):
        from virtual_face.oracle import load_oracle

        self._oracle = load_oracle(path, device)

    def angles(self, pictures: np.ndarray) -> np.ndarray:
        from segmentation.parser import to_tensor

        return self._oracle.attributes(to_tensor(pictures))[list(ANGLES)].to_numpy(np.float64)


class FaceXFormerHeadPose:
    """The head-pose task of FaceXFormer (Narayan et al., 2024), signs as that network gives them.

    half: half precision on a GPU.
    """

    reads = "crop"

    def __init__(self, path: Path, device: "str | torch.device" = "cpu", half: bool = True):
        from segmentation.facexformer_parser import FaceXFormerParser

        self._parser = FaceXFormerParser.load(path, device, half)

    def angles(self, pictures: np.ndarray) -> np.ndarray:
        from segmentation.parser import to_tensor

        pitch, yaw, roll = self._parser.describe(to_tensor(pictures)).headpose.astype(np.float64).T
        return np.column_stack([yaw, pitch, roll])


def head_pose_source(profile: Profile) -> str:
    """Who tells the angles by the profile's [property_score] head_pose, "" for nobody; PipelineError for others."""
    name = profile.get("property_score.head_pose", "none")
    if name == "none":
        return ""
    if not isinstance(name, str) or name not in SOURCES:
        raise PipelineError(
            f"profile {profile.path}: [property_score] head_pose = '{name}'; use {', '.join(SOURCES)} or none"
        )
    return name


def load_head_pose(name: str, profile: Profile, device: "str | torch.device" = "cpu") -> HeadPose:
    """Load one of SOURCES with the profile's weights and its `half`; PipelineError when the file does not fit."""
    path = profile.weight(SOURCES[name])
    if name == "facexformer":
        return FaceXFormerHeadPose(path, device, wants_half(profile))
    return OracleHeadPose(path, device)


def angle_table(reader: HeadPose, batches: Iterable[np.ndarray]) -> pd.DataFrame:
    """Return float64 columns ANGLES, a row per picture of all batches uint8 [N, H, W, 3]."""
    parts = [np.empty((0, len(ANGLES))), *(reader.angles(batch) for batch in batches)]
    return pd.DataFrame(np.concatenate(parts), columns=list(ANGLES))
