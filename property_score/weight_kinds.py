"""Weight files of property CNNs: what they look like."""

from collections.abc import Mapping
from typing import Any

from property_score.property_cnn import hairstyle_settings, property_settings
from property_score.second_grader import is_second_grader


def kind(content: Mapping[str, Any]) -> str:
    """Say which property CNN this is, "" for others."""
    if "eyes_score_cnn.conv1.0.weight" in content:
        scores = 8 if any(key.startswith("hairstyle_score_cnn.") for key in content) else 7
        return f"property CNN, {scores} scores, {_size(property_settings(content))}"
    if "bottom_left_cnn.conv1.0.weight" in content:
        return f"hairstyle CNN, {_size(hairstyle_settings(content))}"
    return "second grader" if is_second_grader(content) else ""


def _size(settings: dict[str, Any] | None) -> str:
    if settings is None:
        return "of unknown resolution"
    return f"{settings['resolution']}x{settings['resolution']}{'' if settings['width'] == 1 else ', narrowed'}"
