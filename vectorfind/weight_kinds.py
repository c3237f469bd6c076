"""Weight files of gradient networks: what they look like."""

from collections.abc import Mapping
from typing import Any

from pipeline.recognition import shape

PUBLISHED = {512: " (w)", 2560: " (mapping_split1)", 1024: " (mapping_split2)"}


def kind(content: Mapping[str, Any]) -> str:
    """Say that this is a gradient network and for which mid vectors, "" for others."""
    first, second, last = (shape(content, key, 2) for key in ("fc1.0.weight", "fc2.0.weight", "fc_final.weight"))
    if not (first and second and last):
        return ""
    return f"gradient network, {first[1]} inputs{PUBLISHED.get(first[1], '')}"
