"""One small weight file of every kind, and the loaders that the stages read them with."""

from __future__ import annotations

from pathlib import Path

import torch

from cnn.filter_cnn import FilterCNN, FilterEnsemble
from cnn.settings import FILTERS, Architecture
from property_score.property_cnn import HairstyleCNN, MergedPropertyCNN, load_hairstyle_cnn, load_property_cnn
from property_score.second_grader import SecondGrader, load_second_grader
from segmentation.facexformer import load_facexformer
from segmentation.parsenet import ParseNet, load_parsenet
from stylegan.checkpoint import load_discriminator, load_generator
from stylegan.discriminator import Discriminator
from stylegan.generator import Generator
from stylegan_modified.cvae import CVAEEncoder, load_cvae_encoder
from vectorfind.gradient_net import GradientNet, load_gradient_net
from virtual_face.oracle import AttributeNet, load_oracle

TINY = {"channel_base": 64, "channel_max": 8}
TINY_GENERATOR = {**TINY, "z_dim": 16, "w_dim": 16, "mapping_width": 16}


def generator(resolution: int = 16, **settings) -> Generator:
    torch.manual_seed(3)
    return Generator(resolution, **{**TINY_GENERATOR, **settings})


def discriminator(resolution: int = 16, **settings) -> Discriminator:
    torch.manual_seed(4)
    return Discriminator(resolution, **TINY, **settings)


def facexformer_state() -> dict[str, torch.Tensor]:
    """A few keys as in the published checkpoint: what such a file is known by, far too little to load."""
    names = ("backbone.0.0.0.weight", "backbone.1.bias", "pe_layer.weight", "face_decoder.x", "linear_fuse.weight")
    return {name: torch.zeros(2) for name in names}


def states() -> dict[str, dict]:
    """What each kind of file holds, by a name that says what it looks like."""
    return {
        "StyleGAN generator, 16x16": generator().state_dict(),
        "StyleGAN discriminator, 16x16": discriminator().state_dict(),
        "FaceXFormer checkpoint": {"state_dict_backbone": facexformer_state(), "epoch": 3},
        "filter CNN (gender), 128x128 or 64x64, narrowed": FilterCNN("gender", 64, 0.25, 16).state_dict(),
        "property CNN, 8 scores, 32x32, narrowed": MergedPropertyCNN(32, 0.125).state_dict(),
        "hairstyle CNN, 32x32, narrowed": HairstyleCNN(32, 0.125).state_dict(),
        "second grader": SecondGrader(32, 0.25).state_dict(),
        "gradient network, 24 inputs": GradientNet(24).state_dict(),
        "cVAE encoder, 64x64, 7 labels": CVAEEncoder(64).state_dict(),
        "ParseNet": ParseNet((8, 8, 8)).state_dict(),
        "attribute net of the virtual world": AttributeNet().state_dict(),
    }


def load_gender_cnn(path: Path) -> FilterEnsemble:
    return FilterEnsemble.load("gender", [path], Architecture(64, 0.25, 16, FILTERS["gender"].window))


LOADERS = {
    "StyleGAN generator, 16x16": load_generator,
    "StyleGAN discriminator, 16x16": load_discriminator,
    "FaceXFormer checkpoint": load_facexformer,
    "filter CNN (gender), 128x128 or 64x64, narrowed": load_gender_cnn,
    "property CNN, 8 scores, 32x32, narrowed": load_property_cnn,
    "hairstyle CNN, 32x32, narrowed": load_hairstyle_cnn,
    "second grader": load_second_grader,
    "gradient network, 24 inputs": load_gradient_net,
    "cVAE encoder, 64x64, 7 labels": load_cvae_encoder,
    "ParseNet": load_parsenet,
    "attribute net of the virtual world": load_oracle,
}
