"""The profile celeba256 with small nets of random weights in the place of the published files."""

from pathlib import Path

import torch
from segmentation_world import random_parsenet

from cnn.filter_cnn import FilterCNN
from cnn.models import bundled_path
from cnn.settings import FILTER_NAMES, FOLDS
from pipeline.artefacts import save_weights
from property_score.property_cnn import MergedPropertyCNN
from stylegan.discriminator import Discriminator
from stylegan.generator import Generator

SIZE = {"resolution": 256, "channel_base": 256, "channel_max": 8}
WIDTH, HEAD = 0.125, 8

PROFILE = """
extends = "celeba256"

[weights]
generator = "{folder}/generator.pth"
generator_v9 = ""
parsenet = "{folder}/parsenet.pth"
property_cnn = "{folder}/property_cnn.pth"

[stylegan]
seeds = "0-7"
batch = 4

[cnn]
bundled = "{folder}/cnn"
width = {width}
head = {head}
min_passed = {least}

[cnn.cutoffs]                     # random CNNs know no faces: all pass, or none
gender = {low}
quality = {low}
age = {high}
glass = {high}

[segmentation]                    # the smaller of the two parsers, so that its random weights are few
parser = "parsenet"

[property_score]
head_pose = "none"

[finetune]
batch = 4
samples = 8
watched = 4
sample_batch = 4
log_every = 1
monitor_every = 1
save_every = 1

[finetune.demo]
steps = 1

[vectorfind]
pool = 250
faces = 1
batch = 10
"""


def write_weights(folder: Path) -> None:
    """Write generator and discriminator, twenty filter CNNs, property CNN and parser, all random."""
    torch.manual_seed(0)
    nets = {
        "generator": Generator(**SIZE, z_dim=16, w_dim=16, mapping_width=16),
        "discriminator": Discriminator(**SIZE),
    }
    save_weights(folder / "generator.pth", {name: net.state_dict() for name, net in nets.items()})
    for name in FILTER_NAMES:
        for fold in range(FOLDS):
            model = FilterCNN(name, 256, WIDTH, HEAD)
            save_weights(bundled_path(folder / "cnn", name, fold), model.state_dict())
    save_weights(folder / "property_cnn.pth", MergedPropertyCNN(256, WIDTH).state_dict())
    random_parsenet(folder / "parsenet.pth")


def write_profile(folder: Path, name: str = "small256", passing: bool = True, change: str = "") -> Path:
    """Write a profile that names the weights in `folder`; without `passing` the filter lets no face through."""
    low, high = (0, 1) if passing else (1, 0)
    least = 4 if passing else 0
    text = PROFILE.format(folder=folder.as_posix(), width=WIDTH, head=HEAD, least=least, low=low, high=high)
    path = folder / f"{name}.toml"
    path.write_text(text + change, encoding="utf-8")
    return path
