"""The fine-tuning versions of the published project as rows of one table, and what each of them trains."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import nn

LABELS = 7  # the seven properties of version 1; later versions keep the inputs and feed zeros
LABEL_DIM = 16


@dataclass(frozen=True)
class Version:
    """One rung of the ladder.

    Blocks up to a resolution train, the finer ones are frozen; 0 freezes all. The repeat rules stop the updates of a
    step: D after `d_most` or as soon as d_loss < d_factor * last g_loss, G after `g_most` or once g_loss < g_factor *
    d_loss.
    """

    name: str
    split: bool
    generator_up_to: int
    discriminator_up_to: int
    inputs_up_to: int  # D's from-RGB layers; at lod 0 only the finest runs, so at full size this changes nothing
    d_most: int
    d_factor: float
    g_most: int
    g_factor: float


# In the published 256 px nets G's layer0-1 are 4 px, layer0-5 up to 16 px; D's layer12-14 4 px, layer8-14 up to 16 px.
VERSIONS = {
    version.name: version
    for version in (
        #       name  split  G<=  D<=  in<= D rule    G rule     published result
        Version("v1", False, 0, 4, 0, 1, 2.5, 4, 2.0),  #   93.7 % women (281 of 300) after 39 epochs
        Version("v8", False, 4, 4, 0, 1, 2.5, 4, 2.0),  #   scores woman .982 good .992 old .016 glasses .012, 72 epochs
        Version("v9", True, 16, 16, 8, 4, 2.5, 4, 2.0),  #  scores woman .986 good .995 old .013 glasses .011, 72 epochs
    )
}


def train_generator(generator: nn.Module, up_to: int) -> list[str]:
    """Freeze all of a generator but its mapping and the synthesis blocks up to a resolution; returns what trains."""
    resolutions = generator.synthesis.resolutions

    def trains(name: str) -> bool:
        if name.startswith("mapping."):
            return True
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
        return resolutions[min(int(layer[1]) // 2, len(resolutions) - 1)] <= up_to

    return _freeze_others(discriminator, trains)


def _freeze_others(net: nn.Module, trains) -> list[str]:
    names = []
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(trains(name))
        if parameter.requires_grad:
            names.append(name)
    return names
