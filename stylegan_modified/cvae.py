"""The encoder of fine-tune v3, a conditional VAE (Sohn et al. 2015): picture and label -> mean, log variance of z."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.artefacts import load_into, read_weights
from pipeline.recognition import refusal, shape

CHANNELS = (32, 64, 128, 128, 256)
HIDDEN = 512
SLOPE = 0.01
CURE = "give an encoder of fine-tune v3 (stylegan_gen_fine_tuned_v3_ckpt_NNNN_enc.pth)"


class CVAEEncoder(nn.Module):
    """Five stride-2 convolutions, then two linear layers; keys and shapes are those of the published files.

    resolution: of the pictures, a multiple of 32 from 64 on. label_size: properties, appended to the features and again
    to the hidden layer.
    """

    def __init__(self, resolution: int = 256, label_size: int = 7, z_dim: int = 512):
        super().__init__()
        self.resolution, self.label_size = resolution, label_size
        inputs = 3
        for k, outputs in enumerate(CHANNELS, start=1):
            convolution = nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, padding_mode="reflect")
            self.add_module(f"conv{k}", nn.Sequential(convolution, nn.LeakyReLU(SLOPE)))
            inputs = outputs
        side = resolution >> len(CHANNELS)
        self.fc1 = nn.Sequential(nn.Linear(inputs * side * side + label_size, HIDDEN), nn.ELU())
        self.fc2_mu = nn.Linear(HIDDEN + label_size, z_dim)
        self.fc2_var = nn.Linear(HIDDEN + label_size, z_dim)

    def forward(self, images: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """images [N, 3, R, R] in [-1, 1], label [N, label_size] -> mean [N, z_dim], log variance [N, z_dim]."""
        x = images
        for k in range(1, len(CHANNELS) + 1):
            x = getattr(self, f"conv{k}")(x)
        x = self.fc1(torch.cat([x.flatten(1), label], dim=1))
        x = torch.cat([x, label], dim=1)
        return self.fc2_mu(x), self.fc2_var(x)


def cvae_settings(state: Mapping[str, Any]) -> dict[str, int] | None:
    """Arguments of the CVAEEncoder that has these keys and shapes; None when they describe none."""
    heads, features = shape(state, "fc2_mu.weight", 2), shape(state, "fc1.0.weight", 2)
    if not heads or not features or heads[1] < HIDDEN or features[1] + HIDDEN < heads[1]:
        return None
    label_size = heads[1] - HIDDEN
    side = math.isqrt((features[1] - label_size) // CHANNELS[-1])
    return {"resolution": side << len(CHANNELS), "label_size": label_size, "z_dim": heads[0]}


def load_cvae_encoder(path: Path | str, device: torch.device | str = "cpu") -> CVAEEncoder:
    """The encoder of a file in eval mode, its sizes read from the keys; PipelineError if it does not fit."""
    state = read_weights(path)
    settings = cvae_settings(state)
    if settings is None:
        raise refusal(f"{path} is not a cVAE encoder", state, CURE)
    network = CVAEEncoder(**settings)
    load_into(network, state, path, CURE)
    return network.to(device).eval().requires_grad_(False)
