"""Weight files of the cVAE encoder of fine-tune v3: what they look like."""

from collections.abc import Mapping
from typing import Any

from stylegan_modified.cvae import cvae_settings


def kind(content: Mapping[str, Any]) -> str:
    """Say that this is a cVAE encoder and for which pictures, "" for others."""
    settings = cvae_settings(content)
    if settings is None:
        return ""
    return f"cVAE encoder, {settings['resolution']}x{settings['resolution']}, {settings['label_size']} labels"
