"""The honest latent space: population factors as a smooth non-linear function of w.

The generator's mapping network keeps its random initial weights. Of the centred w a fixed random set of directions is
read off and whitened: p = (w - mean) A^T, one number per factor. Attributes are correlated, soft mixtures of several
factors (see `population.head_parameters`), which alone leaves eyes and mouth at a ridge R² of about .83. The factors
that this leaves straight, and those of eyes and mouth, are bent besides: p plus a sine of a pair of other p's, or p
times a gain that depends on another. z is less linear still.

Not every factor is bent: a synthesis network whose styles are linear in w learns each sine slowly, and a sine on the
colour of the clothes makes no method's life harder.

Mirroring stays possible: the factors that change sign when a picture is mirrored depend on their own p's oddly, all
others do not depend on those, so negating the odd p's gives the mirrored face.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.seeds import latents_from_seeds
from virtual_face.population import FACTORS, INDEX, ODD_FACTORS

# Standard deviation of the sine beside the straight part; factors that are not named stay straight.
BENDS = {"eyes": 0.35, "mouth": 0.35, "pitch": 0.45, "background_light": 0.35}
ODD_BENDS = {"yaw": 0.45, "roll": 0.45}  # how far another factor moves their gain from 1


@dataclass
class LatentMap:
    """w float32 [n, W] -> p [n, K] -> factors [n, K]; `lift` is the smallest step in w that moves p by one unit."""

    mean: Tensor  # [W]
    read: Tensor  # [K, W]: p = (w - mean) @ read.T
    lift: Tensor  # [W, K]: read @ lift = identity
    pairs: Tensor  # int64 [K, 2]
    signs: Tensor  # [K, 2]
    phases: Tensor  # [K]
    frequency: Tensor  # [K]

    @classmethod
    def fit(cls, w: Tensor, seed: int = 20260101) -> LatentMap:
        """Chooses the directions and whitens them on a sample w [n, W] of the mapping network."""
        rng = np.random.default_rng(seed)
        k, width = len(FACTORS), w.shape[1]
        mean = w.double().mean(0)
        centred = w.double() - mean
        covariance = centred.T @ centred / len(w)
        rough = torch.from_numpy(rng.standard_normal((k, width)))
        values, vectors = torch.linalg.eigh(covariance)
        keep = values > values.max() * 1e-3  # directions in which w hardly varies would amplify noise
        rough = rough @ vectors[:, keep] @ vectors[:, keep].T
        gram = torch.linalg.cholesky(rough @ covariance @ rough.T)
        read = torch.linalg.solve_triangular(gram, rough, upper=False)
        lift = covariance @ read.T  # regression of w on p: the typical w of a given p
        straight = [i for name, i in INDEX.items() if name not in ODD_FACTORS and name not in BENDS]
        pairs = np.stack([rng.choice([e for e in straight if e != i], 2, replace=False) for i in range(k)])
        return cls(
            mean.float(),
            read.float(),
            lift.float(),
            torch.from_numpy(pairs),
            torch.from_numpy(rng.choice([-1.0, 1.0], (k, 2)).astype(np.float32)),
            torch.from_numpy(rng.uniform(-0.9, 0.9, k).astype(np.float32)),
            torch.from_numpy(rng.uniform(0.8, 1.2, k).astype(np.float32)),
        )

    def p(self, w: Tensor) -> Tensor:
        return (w - self.mean) @ self.read.T

    def _bends(self, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What straight p's [n, K] do to the others: sines [n, K] to add, gains [n, K], and the norms [K] to divide by.

        Bent factors depend on straight ones only, so the same p's come out of factors as of p.
        """
        first, second = p[:, self.pairs[:, 0]] * self.signs[:, 0], p[:, self.pairs[:, 1]] * self.signs[:, 1]
        sine = torch.sin(self.frequency * (first + second) / 2**0.5 + self.phases)
        # Moments of sin(f g + c) for g ~ N(0, 1).
        damp = torch.exp(-(self.frequency**2) / 2)
        mean = damp * self.phases.sin()
        variance = 0.5 - 0.5 * damp**4 * (2 * self.phases).cos() - mean**2
        bend = torch.tensor([BENDS.get(name, 0.0) for name in FACTORS])
        odd = torch.tensor([ODD_BENDS.get(name, 0.0) for name in FACTORS])
        gain = 1 + odd * torch.tanh(first)
        return bend * (sine - mean) / variance.sqrt(), gain, (1 + bend**2 + 0.4 * odd**2).sqrt()

    def factors(self, p: Tensor) -> Tensor:
        """p [n, K] -> factors [n, K], each about standard normal for p standard normal."""
        sine, gain, norm = self._bends(p)
        return (p * gain + sine) / norm

    def p_of(self, factors: Tensor) -> Tensor:
        """The p [n, K] that gives these factors [n, K]: the inverse of `factors`."""
        sine, gain, norm = self._bends(factors)
        return (factors * norm - sine) / gain


def latent_map_of(generator) -> LatentMap:
    """The latent map that belongs to a generator's mapping network."""
    z = torch.from_numpy(latents_from_seeds(list(range(20_000_000, 20_020_000))))
    with torch.no_grad():
        return LatentMap.fit(generator.encode(z, position="w"))
