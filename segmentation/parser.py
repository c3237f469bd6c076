"""The one interface of face parsers, and the parser that a profile names."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from pipeline.errors import PipelineError
from pipeline.precision import wants_half
from pipeline.profile import Profile
from segmentation.facexformer_parser import FaceXFormerParser
from segmentation.parsenet import ParseNetParser


class FaceParser(Protocol):
    """Tells the class of every pixel of a face crop."""

    name: str

    def parse(self, images: torch.Tensor) -> np.ndarray:
        """Parse face crops.

        images: float32 [N, 3, H, W] RGB in [-1, 1], face crops. Returns class ids uint8 [N, 224, 224], see
        `segmentation.classes`; the same crop gives the same map in any batch.
        """
        ...


# A parser's weight file stands under its name in [weights]. ParseNet is too small to gain from half precision.
PARSERS: dict[str, Callable[[Path, str | torch.device, bool], FaceParser]] = {
    "parsenet": lambda path, device, half: ParseNetParser.load(path, device),
    "facexformer": FaceXFormerParser.load,
}


def load_parser(profile: Profile, device: str | torch.device = "cpu") -> FaceParser:
    """Load the parser that [segmentation] parser names (ParseNet if nothing does).

    On a GPU FaceXFormer computes in half precision where the profile says `half = true`. PipelineError for an unknown
    parser, or a weight file that is missing or does not fit.
    """
    name = profile.get("segmentation.parser", "parsenet")
    if name not in PARSERS:
        raise PipelineError(
            f"profile {profile.path}: unknown face parser '{name}' in [segmentation]; use {', '.join(PARSERS)}"
        )
    return PARSERS[name](profile.weight(name), device, wants_half(profile))


def to_tensor(faces: np.ndarray) -> torch.Tensor:
    """Return uint8 [N, H, W, 3] pictures as float32 [N, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(faces)).permute(0, 3, 1, 2).float() / 127.5 - 1
