"""The small network whose gradient is an edit direction (VectorFind v9): mid vector -> one property score."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from pipeline.artefacts import load_into, read_weights
from pipeline.recognition import refusal, shape

DROPOUT = 0.25
CURE = "give a network of VectorFind v9 (stylegan_gen_vector_find_v9_nn_PROPERTY.pth), or train one"


class GradientNet(nn.Module):
    """Two tanh layers of 768 + d // 4 and 128 + d // 8 units; keys and shapes are those of the published files.

    dimension: d, the length of the mid vector; of the published generator 512 at w, 2560 at mapping_split1, 1024 at
    mapping_split2. One network per property.
    """

    def __init__(self, dimension: int):
        super().__init__()
        first, second = 768 + dimension // 4, 128 + dimension // 8
        self.dimension = dimension
        self.fc1 = nn.Sequential(nn.Linear(dimension, first), nn.Tanh(), nn.Dropout(DROPOUT))
        self.fc2 = nn.Sequential(nn.Linear(first, second), nn.Tanh(), nn.Dropout(DROPOUT))
        self.fc_final = nn.Linear(second, 1)

    def forward(self, mid: torch.Tensor) -> torch.Tensor:
        """Score [N, 1] of mid vectors [N, dimension], both as the pool stores them (no scaling)."""
        return self.fc_final(self.fc2(self.fc1(mid)))

    def slope(self, mid: torch.Tensor, around: torch.Tensor | None = None) -> torch.Tensor:
        """Gradient [N, dimension] of the score, without dropout, by mid vectors [N, dimension].

        around [K, dimension]: ways to further mid vectors; the gradient is then the mean over all K of them. The first
        layer, which takes most of the time, is passed N + K times, not N * K times.
        """
        first, second = self.fc1[0], self.fc2[0]
        inside = first(mid)[:, None]
        if around is not None:
            inside = inside + around @ first.weight.T
        bent = torch.tanh(inside)
        back = self.fc_final.weight[0] * (1 - torch.tanh(second(bent)).square())
        return ((back @ second.weight) * (1 - bent.square())).mean(1) @ first.weight


def load_gradient_net(path: str | Path, device: str | torch.device = "cpu") -> GradientNet:
    """The network of a file in eval mode, its dimension (and so its position) read from the keys.

    PipelineError if the file is missing, broken or of another layout.
    """
    state = read_weights(path)
    first, second = shape(state, "fc1.0.weight", 2), shape(state, "fc2.0.weight", 2)
    if not first or not second:
        raise refusal(f"{path} is not a gradient network", state, CURE)
    network = GradientNet(first[1])
    load_into(network, state, path, CURE)
    return network.to(device).eval().requires_grad_(False)
