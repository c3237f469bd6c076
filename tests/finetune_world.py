"""A tiny world for the fine-tuning tests: 16 px nets, bright faces wanted, a judge that sees brightness."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from stylegan.discriminator import Discriminator
from stylegan.generator import Generator
from stylegan.sampling import images_of, to_uint8
from stylegan_modified.augment import Augment
from stylegan_modified.carry import conditional_generator, labelled_discriminator, split_generator
from stylegan_modified.faces import Faces
from stylegan_modified.settings import Rates
from stylegan_modified.trainer import Trainer
from stylegan_modified.versions import VERSIONS

SIZE = {"channel_base": 64, "channel_max": 8}
LATENT = {"z_dim": 16, "w_dim": 16, "mapping_width": 16}


def base_generator(resolution: int = 16) -> Generator:
    torch.manual_seed(1)
    net = Generator(resolution, **SIZE, **LATENT)
    # A constant that is equal everywhere has no spread, and the norm after it would blow up rounding errors.
    net.synthesis.layer0.const.data.normal_()
    for name, value in net.named_parameters():
        if name.startswith("synthesis.output"):
            value.data *= 0.3
    return net.eval()


def base_discriminator(resolution: int = 16) -> Discriminator:
    torch.manual_seed(2)
    return Discriminator(resolution, **SIZE).eval()


def v9_generator() -> Generator:
    return split_generator(conditional_generator(base_generator()), split_width=24)


def bright_faces(count: int = 40, batch: int = 4, seed: int = 0) -> Faces:
    z = torch.randn(4 * count, 16, generator=torch.Generator().manual_seed(4))
    images = images_of(base_generator(), z)
    best = images.mean((1, 2, 3)).argsort(descending=True)[:count]
    return Faces(to_uint8(images[best]), batch, seed)


def trainer(version: str = "v9", seed: int = 0, rates: Rates | None = None) -> Trainer:
    generator = v9_generator() if VERSIONS[version].split else conditional_generator(base_generator())
    critic = labelled_discriminator(base_discriminator())
    return Trainer(generator, critic, VERSIONS[version], bright_faces(), rates or Rates(), seed, augment=Augment())


class BrightnessJudge:
    """Counts a picture as the concept when it is brighter than the middle of the base generator's pictures."""

    def read(self, images: torch.Tensor, batch: int = 64) -> tuple[pd.DataFrame, torch.Tensor]:
        bright = images.mean((1, 2, 3)).numpy().astype(np.float64)
        columns = dict.fromkeys(("gender", "quality", "eyes", "mouth", "yaw"), bright)
        return pd.DataFrame({**columns, "age": -bright, "glasses": -bright}), images.flatten(1)[:, ::13]

    def concept(self, frame: pd.DataFrame) -> np.ndarray:
        return frame["gender"].to_numpy() > 0.0
