"""The published files of the author: names, layouts, and what a file of each layout looks like."""

import json
from pathlib import Path

import numpy as np
import torch

DATA = Path(__file__).parent / "data"
FILES = json.loads((DATA / "author_files.json").read_text())["files"]  # name -> layouts it may have

LOOKS_LIKE = {
    "g7": "StyleGAN generator, 256x256, 7 labels embedded to 16",
    "g7c24": "StyleGAN generator, 256x256, 7 labels embedded to 24",
    "g3": "StyleGAN generator, 256x256, 3 labels embedded to 16",
    "g9": "StyleGAN generator, 256x256, 7 labels embedded to 16, split mapping",
    "d7": "StyleGAN discriminator, 256x256, 7 labels appended",
    "d3": "StyleGAN discriminator, 256x256, 3 labels appended",
    "gender1": "filter CNN (gender), 256x256",
    "quality1": "filter CNN (quality), 256x256",
    "age1": "filter CNN (age), 256x256",
    "glass1": "filter CNN (glass), 256x256",
    "property7": "property CNN, 7 scores, 256x256",
    "merged8": "property CNN, 8 scores, 256x256",
    "hairstyle1": "hairstyle CNN, 256x256",
    "nn_w": "gradient network, 512 inputs (w)",
    "nn_split1": "gradient network, 2560 inputs (mapping_split1)",
    "nn_split2": "gradient network, 1024 inputs (mapping_split2)",
    "cvae_enc": "cVAE encoder, 256x256, 7 labels",
}


def layouts() -> dict[str, dict[str, list[int]]]:
    """Key -> shape of the 17 layouts, in order."""
    tables = {}
    for name in ("stylegan_keys", "author_cnn_keys"):
        found = json.loads((DATA / f"{name}.json").read_text())
        tables |= {layout: entry["keys"] for layout, entry in found.items() if "keys" in entry}
    more = json.loads((DATA / "author_files.json").read_text())["layouts"]
    tables |= {layout: entry["keys"] for layout, entry in more.items()}
    tower = "hairstyle_score_cnn."
    merged = tables["merged8"]
    tables["property7"] = {key: shape for key, shape in merged.items() if not key.startswith(tower)}
    tables["hairstyle1"] = {key.removeprefix(tower): shape for key, shape in merged.items() if key.startswith(tower)}
    return {layout: tables[layout] for layout in LOOKS_LIKE}


def empty(layout: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """A state dict of these shapes without content."""
    return {key: torch.empty(shape, device="meta") for key, shape in layout.items()}


def golden() -> dict[str, np.ndarray]:
    """Reference results of the gradient networks and the cVAE encoder."""
    with np.load(DATA / "author_more_golden.npz") as archive:
        return dict(archive)


def digests() -> dict[str, str]:
    """sha256 of the filled gradient networks and the cVAE encoder."""
    more = json.loads((DATA / "author_files.json").read_text())["layouts"]
    return {layout: entry["sha256"] for layout, entry in more.items()}
