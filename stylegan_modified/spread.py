"""How near generated faces are to real ones as sets, and how near two pictures are as persons."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

NEIGHBOURS = 3
IDENTITY = (
    *("gender", "age", "hair_color", "hair_length", "hair_curl", "shape_face_width", "shape_jaw", "shape_chin"),
    *("shape_eye_size", "shape_eye_spacing", "shape_nose_length", "shape_nose_width", "shape_lip_full"),
)


def kernel_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Squared kernel distance of two feature sets [n, F] (KID, Binkowski et al. 2018); unbiased: 0 for equal sets."""
    a, b = a.double(), b.double()

    def kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x @ y.T / x.shape[1] + 1.0) ** 3

    aa, bb = kernel(a, a), kernel(b, b)
    n, m = len(a), len(b)
    same = (aa.sum() - aa.trace()) / (n * (n - 1)) + (bb.sum() - bb.trace()) / (m * (m - 1))
    return float(same - 2.0 * kernel(a, b).mean())


def recall(real: torch.Tensor, fake: torch.Tensor, neighbours: int = NEIGHBOURS) -> float:
    """Share of real features [n, F] that lie within reach of a generated one (Kynkaanniemi et al. 2019).

    The reach of a generated face is the distance to its third nearest neighbour among the generated.
    """
    own = torch.cdist(fake.double(), fake.double())
    reach = own.kthvalue(min(neighbours + 1, len(fake)), dim=1).values
    return float((torch.cdist(real.double(), fake.double()) <= reach[None]).any(1).double().mean())


def identity_distance(a: pd.DataFrame, b: pd.DataFrame, spread: pd.Series) -> np.ndarray:
    """How far the persons of equal rows are apart: 0 the same, about 1 two persons at random.

    Root mean square over the attributes that make a person (IDENTITY), each in units of its `spread`; float [n].
    """
    names = [name for name in IDENTITY if name in a and name in spread]
    steps = (a[names].to_numpy() - b[names].to_numpy()) / np.maximum(spread[names].to_numpy(), 1e-9)
    return np.sqrt(np.square(steps).mean(1) / 2.0)
