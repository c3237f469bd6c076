"""Discriminators that see the label: the mended projection, and the property CNN of fine-tune v5."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import nn

from pipeline.artefacts import load_into, read_weights, save_weights
from property_score.property_cnn import MergedPropertyCNN
from stylegan.checkpoint import load_discriminator
from stylegan.discriminator import Discriminator
from stylegan_modified.carry import labelled_discriminator
from stylegan_modified.versions import Version

HEAD = 64
PARTS = ("eyes", "mouth", "pose")


class ProjectionDiscriminator(Discriminator):
    """Score f(x) + (V y) . phi(x) (Miyato and Koyama 2018): the label changes how the picture is judged.

    The published form appends the label to phi(x) before one linear layer, f(x) + v . y; its slope along x does not
    know the label, and real and generated faces share it, so no agreement is ever checked.
    """

    def __init__(self, labels: int, **settings):
        super().__init__(**{**settings, "label_size": 0, "label_concat": False, "minibatch_std_group": 4})
        self.labels = labels
        self.projection = nn.Linear(labels, self.features_size, bias=False)
        nn.init.zeros_(self.projection.weight)  # it starts out equal to the discriminator that it comes from

    def _score(self, x: torch.Tensor, label: torch.Tensor | None) -> torch.Tensor:
        score = getattr(self, self.last)(x)
        if label is None:
            return score
        agreement = (self.projection(label.to(x.dtype)) * x).sum(1, keepdim=True)
        return score + agreement / self.features_size**0.5


class PropertyDiscriminator(nn.Module):
    """Fine-tune v5: eyes, mouth and pose as the property CNN reads them, with the label, to one score.

    [eyes, mouth, pose, label] -> Linear 64 -> Tanh -> Linear 1. It never sees pixels outside the three crops.
    """

    label_size = len(PARTS)

    def __init__(self, scorer: MergedPropertyCNN):
        super().__init__()
        self.settings = {"resolution": scorer.resolution, "width": scorer.width}
        for name in PARTS:
            self.add_module(f"{name}_score_cnn", getattr(scorer, f"{name}_score_cnn"))
        self.head = nn.Sequential(nn.Linear(2 * len(PARTS), HEAD), nn.Tanh(), nn.Linear(HEAD, 1))

    def train(self, mode: bool = True) -> PropertyDiscriminator:
        """Dropout stays off in the sub-nets: a score that flickers by itself teaches the generator nothing."""
        super().train(mode)
        for name in PARTS:
            getattr(self, f"{name}_score_cnn").eval()
        return self

    def forward(self, image: torch.Tensor, label: torch.Tensor | None = None, lod: float | None = None) -> torch.Tensor:
        """image [N, 3, R, R] in [-1, 1], label [N, 3] (None: zeros) -> [N, 1]; there is no `lod` but 0."""
        scores = torch.cat([getattr(self, f"{name}_score_cnn")(image) for name in PARTS], dim=1)
        label = torch.zeros_like(scores) if label is None else label.to(scores.dtype)
        return self.head(torch.cat([scores, label], dim=1))


def critic_for(version: Version, source: Discriminator, scorer: MergedPropertyCNN | None, seed: int = 0) -> nn.Module:
    """The discriminator of a version, with the weights of the previous rung's.

    Labels that were appended or projected there are left out. Published conditional forms start with a new last layer.
    scorer: property CNN whose sub-nets v5 takes a copy of.
    """
    if version.critic == "property":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return PropertyDiscriminator(copy.deepcopy(scorer).requires_grad_(True))
    plain = plain_discriminator(source)
    if version.critic == "projection":
        return projection_discriminator(plain, version.label_size)
    critic = labelled_discriminator(plain, version.label_size)
    if version.dropped:
        last = getattr(critic, critic.last)
        with torch.no_grad():
            random = torch.Generator().manual_seed(seed)
            last.weight.copy_(torch.randn(last.weight.shape, generator=random))
            last.bias.zero_()
    return critic


def plain_discriminator(source: Discriminator) -> Discriminator:
    """The same discriminator without labels."""
    settings = {**source.settings, "label_size": 0, "label_concat": False}
    with torch.random.fork_rng(devices=[]):
        result = Discriminator(**settings)
    state = {key: value for key, value in source.state_dict().items() if key != "projection.weight"}
    last = f"{source.last}.weight"
    features = result.features_size
    if state[last].shape[1] != features:
        # The run-time weight divides by the root of the fan-in.
        state[last] = state[last][:, :features] * (features / state[last].shape[1]) ** 0.5
    load_into(result, state, "the weights of another discriminator")
    return result


def projection_discriminator(base: Discriminator, label_size: int) -> ProjectionDiscriminator:
    """A projection discriminator that starts out equal to one without labels."""
    with torch.random.fork_rng(devices=[]):
        result = ProjectionDiscriminator(label_size, **base.settings)
    own = result.projection.weight.detach()
    load_into(result, {**base.state_dict(), "projection.weight": own}, "the weights of another discriminator")
    return result


def save_critic(path: Path | str, critic: nn.Module, **provenance) -> None:
    """Write a discriminator; a projection lies beside the plain one, so that the file can be read without it."""
    state = critic.state_dict()
    projection = state.pop("projection.weight", None)
    save_weights(
        path, state if projection is None else {"discriminator": state, "projection": projection}, **provenance
    )


def load_critic(path: Path | str) -> Discriminator:
    """The discriminator of a rung's file, plain, labelled or with a projection."""
    projection = read_weights(path).get("projection")
    critic = load_discriminator(path)
    if projection is not None:
        critic = projection_discriminator(critic, projection.shape[1])
        critic.projection.weight.data.copy_(projection)
    return critic
