"""A tiny world for the fine-tuning tests: 16 px nets, bright faces wanted, a judge that sees brightness."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from stylegan.discriminator import Discriminator
from stylegan.generator import Generator
from stylegan.sampling import images_of, to_uint8
from stylegan_modified.augment import Augment
from stylegan_modified.carry import conditional_generator, labelled_discriminator, relabelled_generator, split_generator
from stylegan_modified.critics import PropertyDiscriminator, projection_discriminator
from stylegan_modified.faces import Faces
from stylegan_modified.latents import Curriculum, Encoded
from stylegan_modified.settings import Rates
from stylegan_modified.terms import LabelTerm
from stylegan_modified.trainer import Trainer
from stylegan_modified.versions import Version, version_of

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


def bright_faces(count: int = 40, batch: int = 4, seed: int = 0, labels: int = 7) -> Faces:
    """Bright faces; each is labelled by what the tiny property CNN reads."""
    z = torch.randn(4 * count, 16, generator=torch.Generator().manual_seed(4))
    images = images_of(base_generator(), z)
    best = images.mean((1, 2, 3)).argsort(descending=True)[:count]
    with torch.no_grad():
        scores = scorer()(images[best])[:, [0, 3, 4] if labels == 3 else list(range(labels))]
    scores = (scores - scores.mean(0)) / scores.std(0)
    return Faces(to_uint8(images[best]), batch, seed, scores.numpy())


class Scorer(torch.nn.Module):
    """Stands for the property CNN, whose windows want larger pictures: eight smooth readings of a picture."""

    resolution, width, has_hairstyle = 16, 0.125, True

    def __init__(self):
        super().__init__()
        names = ("eyes", "hair_color", "hair_length", "mouth", "pose", "back", "spread", "hairstyle")
        self.names = [f"{name}_score_cnn" for name in names]
        for name in self.names:
            layers = (torch.nn.Conv2d(3, 6, 4, stride=4), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(96, 1))
            self.add_module(name, torch.nn.Sequential(*layers))

    def forward(self, images):
        return torch.cat([getattr(self, name)(images) for name in self.names], dim=1)


def scorer() -> Scorer:
    with torch.random.fork_rng():
        torch.manual_seed(6)
        return Scorer().eval().requires_grad_(False)


def critic(version: Version):
    """The discriminator of a version; None where it has none."""
    if not version.critic:
        return None
    if version.critic == "property":
        return PropertyDiscriminator(scorer())
    if version.critic == "projection":
        return projection_discriminator(base_discriminator(), version.label_size)
    return labelled_discriminator(base_discriminator(), version.label_size, minibatch_std_group=4)


def conditional(version: Version):
    """A conditional generator for a version, grown from the tiny base."""
    if version.split:
        return v9_generator()
    return relabelled_generator(base_generator(), version)


def trainer(version: str = "v9", seed: int = 0, rates: Rates | None = None, published: bool = False, **more) -> Trainer:
    row = version_of(version, published)
    rates = rates or Rates()
    batch = more.pop("batch", 4)
    faces = bright_faces(batch=batch, labels=row.label_size)
    terms, latents = [], None
    if row.conditional:
        outputs = [0, 3, 4]
        paired = not (row.published or row.encoder or row.curriculum)
        terms = [LabelTerm(scorer(), outputs, row.obeyed, 1.0, trains=row.scorer_trains, paired=paired)]
    if row.curriculum:
        latents = Curriculum(batch, 16, row.label_size)
    if row.encoder:
        torch.manual_seed(8)
        latents = Encoded(TinyEncoder(row.label_size), published)
    return Trainer(
        conditional(row), critic(row), row, faces, rates, seed, augment=Augment(), terms=terms, latents=latents, **more
    )


class TinyEncoder(torch.nn.Module):
    """Stands for the encoder of v3, which wants pictures of 64 px."""

    def __init__(self, label_size: int):
        super().__init__()
        self.mu, self.var = (torch.nn.Linear(3 + label_size, 16) for _ in range(2))

    def forward(self, images, label):
        x = torch.cat([images.mean((2, 3)), label], dim=1)
        return self.mu(x), self.var(x)


class BrightnessJudge:
    """Counts a picture as the concept when it is brighter than the middle of the base generator's pictures."""

    def read(self, images: torch.Tensor, batch: int = 64) -> tuple[pd.DataFrame, torch.Tensor]:
        bright = images.mean((1, 2, 3)).numpy().astype(np.float64)
        columns = dict.fromkeys(("gender", "quality", "eyes", "mouth", "yaw", "roll"), bright)
        return pd.DataFrame({**columns, "age": -bright, "glasses": -bright}), images.flatten(1)[:, ::13]

    def concept(self, frame: pd.DataFrame) -> np.ndarray:
        return frame["gender"].to_numpy() > 0.0
