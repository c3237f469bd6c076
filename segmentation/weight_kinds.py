"""Weight files of face parsers: what they look like."""

from collections.abc import Mapping
from typing import Any


def kind(content: Mapping[str, Any]) -> str:
    """Say which face parser this is, "" for others."""
    inner = content.get("state_dict_backbone")
    if isinstance(inner, Mapping):
        return "FaceXFormer checkpoint" if _is_facexformer(inner) else "checkpoint with a foreign state_dict_backbone"
    if _is_facexformer(content):
        return "FaceXFormer weights"
    return "ParseNet" if {"down.0.0.0.weight", "down.1.0.0.weight"} <= set(content) else ""


def _is_facexformer(state: Mapping[str, Any]) -> bool:
    parts = {str(key).split(".")[0] for key in state}
    return {"backbone", "face_decoder", "linear_fuse"} <= parts
