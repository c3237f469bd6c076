"""The fine-tuning versions of the published project as rows of one table, and what each of them trains."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from torch import nn

LABELS = 7  # the seven properties of version 1; later versions keep the inputs and feed zeros
LABEL_DIM = 16
OBEYED = ("eyes", "mouth", "pose")
DENSE0, LABEL_MATRIX = "dense0", "label matrix"  # what a published rung may throw away


@dataclass(frozen=True)
class Version:
    """One rung of the ladder.

    Blocks up to a resolution train, the finer ones are frozen; 0 freezes all but the mapping. The repeat rules stop the
    updates of a step: D after `d_most` or as soon as d_loss < d_factor * last g_loss, G after `g_most` or once g_loss <
    g_factor * d_loss.
    """

    name: str
    split: bool
    generator_up_to: int
    discriminator_up_to: int
    inputs_up_to: int  # D's from-RGB layers; at lod 0 only the finest runs, so at full size this changes nothing
    d_most: int  # 0: there is no discriminator
    d_factor: float
    g_most: int
    g_factor: float
    start: str = "v1"
    """Rung whose weights this one takes over."""
    label_size: int = LABELS
    label_dim: int = LABEL_DIM
    """Numbers that a label becomes beside z; 0: the label itself is appended (v5)."""
    labels: str = "zeros"
    """What generated faces are given: "zeros", "faces" (those of the real batch) or "drawn" (ranges of the grids)."""
    critic: str = "concat"
    """Conditional form of D: "concat" (published), "projection", "property" (v5), "" for none."""
    mismatched: float = 0.0
    """Weight of real faces with another face's label as further fakes: D then has to look at the label."""
    critic_trains: bool = True
    """Whether the sub-nets of the property CNN in D train (as published), or its last layers only."""
    encoder: bool = False
    """z comes from an encoder of real faces (v3)."""
    style_mixing: float = 0.0
    random_noise: bool = True
    psi: float | None = None
    """Truncation toward the centre of the label (v5, third experiment)."""
    centre_gradient: bool = False
    curriculum: bool = False
    """Start from one fixed batch of latents and labels, and leave it by 10 % every 50 steps (v2)."""
    scorer_trains: bool = False
    """The property CNN that judges trains along, so that both can agree on anything (v2 as committed)."""
    dropped: tuple[str, ...] = ()
    """What of the previous rung is thrown away, as published: DENSE0, LABEL_MATRIX."""
    stored_init: float | None = None
    """Spread of the stored start values of the new branch (published: .15); None: effective scale, 2 % of w."""
    published: bool = False
    """One rate for the stored weights of G and D (AdamW), no running average, R1 in every update, no augmentation but
    the jitter of real faces in v5."""
    rate: float = 1e-4
    """That rate."""

    @property
    def tag(self) -> str:
        """Name of the files of this rung."""
        return f"{self.name}_published" if self.published else self.name

    @property
    def conditional(self) -> bool:
        """Whether labels are more than zeros."""
        return self.labels != "zeros"

    @property
    def obeyed(self) -> tuple[int, ...]:
        """Label columns of eyes, mouth and pose."""
        return obeyed_columns(self.label_size)


def obeyed_columns(label_size: int) -> tuple[int, ...]:
    """Columns of eyes, mouth and pose among the labels of a generator."""
    return (0, 1, 2) if label_size == len(OBEYED) else (0, 3, 4)


# In the published 256 px nets G's layer0-1 are 4 px, layer0-5 up to 16 px; D's layer12-14 4 px, layer8-14 up to 16 px.
_DRAWN = {"labels": "drawn", "critic": "projection", "mismatched": 0.5}
_THREE = {"label_size": 3}
VERSIONS = {
    version.name: version
    for version in (
        #       name    split  G<=  D<=  in<= D rule    G rule     published result
        Version("v1", False, 0, 4, 0, 1, 2.5, 4, 2.0, start="base", **_DRAWN),  # 93.7 % women, labels not learnt
        Version("v2", False, 0, 0, 0, 0, 0.0, 1, 0.0, labels="drawn", critic=""),  # nothing learnt, more men
        Version("v3", False, 0, 0, 0, 0, 0.0, 1, 0.0, labels="drawn", critic="", label_dim=24, encoder=True),  # adopted
        Version("v4", False, 0, 4, 0, 1, 2.5, 4, 2.0, **_THREE, **_DRAWN),  # r .34 .05 .08 after 79 epochs
        Version("v5_1", False, 0, 0, 0, 4, 1.5, 4, 2.0, **_THREE, label_dim=0, labels="drawn", critic="property",
                mismatched=0.5, critic_trains=False),  # rejected
        Version("v5_2", False, 0, 0, 0, 0, 0.0, 1, 0.0, **_THREE, label_dim=0, labels="drawn", critic=""),  # rejected
        Version("v5_3", False, 0, 0, 0, 4, 1.5, 4, 2.0, **_THREE, label_dim=0, labels="drawn", critic="property",
                mismatched=0.5, critic_trains=False, psi=0.5),  # r .07 .52 .31, rejected
        Version("v8", False, 4, 4, 0, 1, 2.5, 4, 2.0),  #   scores woman .982 good .992 old .016 glasses .012, 72 epochs
        Version("v9", True, 16, 16, 8, 4, 2.5, 4, 2.0),  #  scores woman .986 good .995 old .013 glasses .011, 72 epochs
    )
}  # fmt: skip
EXPERIMENTS = {1: "v5_1", 2: "v5_2", 3: "v5_3"}
_ALL = 1 << 20
_BOTH = (DENSE0, LABEL_MATRIX)
# Where the published rule differs from the row above.
_PUBLISHED = {
    "v1": {"labels": "faces", "critic": "concat", "mismatched": 0.0, "style_mixing": 0.9, "dropped": _BOTH},
    "v2": {"generator_up_to": _ALL, "random_noise": False, "curriculum": True, "scorer_trains": True,
           "dropped": (DENSE0,), "rate": 1e-5},
    "v3": {"labels": "faces", "dropped": _BOTH, "random_noise": False},
    "v4": {"labels": "faces", "critic": "concat", "mismatched": 0.0, "style_mixing": 0.9, "dropped": _BOTH},
    "v5_1": {"generator_up_to": _ALL, "labels": "faces", "mismatched": 0.0, "critic_trains": True, "dropped": _BOTH},
    "v5_2": {"generator_up_to": _ALL, "random_noise": False, "scorer_trains": True, "dropped": _BOTH,
             "rate": 1e-5},
    "v5_3": {"generator_up_to": _ALL, "labels": "faces", "mismatched": 0.0, "critic_trains": True, "dropped": _BOTH,
             "centre_gradient": True},
    "v8": {},
    "v9": {"stored_init": 0.15},
}  # fmt: skip
PUBLISHED = {name: dataclasses.replace(VERSIONS[name], published=True, **row) for name, row in _PUBLISHED.items()}


def version_of(name: str, published: bool = False) -> Version:
    """The row of a version (v5: of one experiment, v5_1 to v5_3); PipelineError for an unknown name."""
    table = PUBLISHED if published else VERSIONS
    if name not in table:
        raise PipelineError(f"there is no version {name}; known: {', '.join(table)}")
    return table[name]


def trained_of_generator(version: Version, resolution: int) -> str:
    """Which part of a generator a version trains, in words."""
    up_to = min(version.generator_up_to, resolution)
    return f"mapping and blocks up to {up_to} px" if up_to else "the mapping alone"


def train_generator(generator: nn.Module, up_to: int) -> list[str]:
    """Freeze all of a generator but its mapping and the synthesis blocks up to a resolution; returns what trains.

    A label matrix without freedom (v5: the label itself is appended) stays frozen.
    """
    resolutions = generator.synthesis.resolutions
    appended = generator.label_size and generator.mapping.label_dim == generator.label_size

    def trains(name: str) -> bool:
        if name.startswith("mapping."):
            return not (appended and name == "mapping.label_weight")
        layer, output = re.match(r"synthesis\.layer(\d+)\.", name), re.match(r"synthesis\.output(\d+)\.", name)
        block = int(layer[1]) // 2 if layer else int(output[1])
        return resolutions[block] <= up_to

    return _freeze_others(generator, trains)


def train_discriminator(discriminator: nn.Module, up_to: int, inputs_up_to: int = 0) -> list[str]:
    """Freeze the blocks of a discriminator that are finer than a resolution; returns what trains."""
    resolutions = discriminator.resolutions

    def trains(name: str) -> bool:
        layer, entry = re.match(r"layer(\d+)\.", name), re.match(r"input(\d+)\.", name)
        if entry:
            return resolutions[int(entry[1])] <= inputs_up_to
        # What is neither layer nor input is the projection of the label, at the very end.
        return layer is None or resolutions[min(int(layer[1]) // 2, len(resolutions) - 1)] <= up_to

    return _freeze_others(discriminator, trains)


def train_critic(version: Version, discriminator: nn.Module) -> list[str]:
    """Freeze what a version does not train of its discriminator; returns what trains."""
    if version.critic == "property":
        return _freeze_others(discriminator, lambda name: version.critic_trains or name.startswith("head."))
    return train_discriminator(discriminator, version.discriminator_up_to, version.inputs_up_to)


def _freeze_others(net: nn.Module, trains) -> list[str]:
    names = []
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(trains(name))
        if parameter.requires_grad:
            names.append(name)
    return names
