"""The words of this folder: properties, those that are edited, and the names that options choose from."""

from pathlib import Path
from typing import Literal, get_args

PROPERTIES = ("eyes", "hair_color", "hair_length", "mouth", "pose", "background_mean", "background_std", "hairstyle")
EDITED = ("eyes", "mouth", "pose")
GraderName = Literal["finder", "second", "geometric"]
# Where in the generator a code can be read.
Position = Literal["z", "w", "mapping_split1", "mapping_split2"]
GroupsName = Literal["16", "8", "none"]
Cuts = Literal["medians", "v7", "v8", "v9"]
Holds = Literal["", "looks", "features"]
GridName = Literal["deviations", "published", "reachable"]
# `imported`: vectors that were read from files.
Method = Literal["svm", "ridge", "imported", "gradient", "mixed", "closed_loop", "model_loop"]
GRADERS, POSITIONS, METHODS = get_args(GraderName), get_args(Position), get_args(Method)


def vector_file(name: str, position: str, group: str) -> str:
    """The file name that the published project gives to one vector."""
    return f"{name}_change_{position}_vector_{group}.csv"


def mixed_file(directions: Path) -> Path:
    """Where `mixed` keeps the vectors of the properties that have no network."""
    return directions.with_name(directions.stem + "_vectors.npz")


def net_file(name: str, position: str, groups: str) -> str:
    """The published file name of a property's network, and of which directions it is; theirs overwrote each other."""
    return f"stylegan_gen_vector_find_v9_nn_{name}_{position}_{groups}.pth"
