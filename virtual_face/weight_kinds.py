"""Weight files of the oracle of the virtual world: what they look like."""

from collections.abc import Mapping
from typing import Any


def kind(content: Mapping[str, Any]) -> str:
    """Say that this is an attribute net, "" for others."""
    return "attribute net of the virtual world" if {"blocks.0.down.weight", "squeeze.weight"} <= set(content) else ""
