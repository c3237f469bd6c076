"""StyleGAN v1 discriminator; key layout and numerics of the GenForce models, with both ways to take a label."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from stylegan.layers import SLOPE, Blur, Dense, block_resolutions, channels_at, conv_downsample, minibatch_std


class ScoreConv(nn.Module):
    """Weight-scaled conv + bias + leaky ReLU; with down=True blurred first and halved in size before the activation."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, down: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = math.sqrt(2.0) / math.sqrt(inputs * kernel * kernel)
        self.padding = kernel // 2
        self.down = down
        if down:
            self.blur = Blur(inputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight * self.scale
        if self.down:
            x = conv_downsample(self.blur(x), weight, self.bias)
        else:
            x = F.conv2d(x, weight, self.bias, padding=self.padding)
        return F.leaky_relu(x, SLOPE)


class Discriminator(nn.Module):
    """Images [N, 3, R, R] in [-1, 1] -> score [N, 1].

    label_size > 0: with label_concat the label is appended to the last features (Oh-LoRA, last layer [1, C + L]);
    without, the last layer has one output per label entry and the score is their sum weighted by the label (GenForce,
    [L, C]).
    N must be divisible by min(N, minibatch_std_group); a group of at least N puts the whole batch into one.
    """

    def __init__(
        self,
        resolution: int = 128,
        channel_base: int = 16384,
        channel_max: int = 512,
        label_size: int = 0,
        label_concat: bool = False,
        minibatch_std_group: int = 4,
    ):
        super().__init__()
        self.settings = {
            "resolution": resolution,
            "channel_base": channel_base,
            "channel_max": channel_max,
            "label_size": label_size,
            "label_concat": label_concat,
            "minibatch_std_group": minibatch_std_group,
        }
        self.resolution, self.label_size, self.label_concat = resolution, label_size, label_concat
        self.minibatch_std_group = minibatch_std_group
        self.resolutions = block_resolutions(resolution)[::-1]
        self.register_buffer("lod", torch.zeros(()))
        for b, res in enumerate(self.resolutions):
            inside = channels_at(res, channel_base, channel_max)
            outside = channels_at(res // 2, channel_base, channel_max)
            self.add_module(f"input{b}", ScoreConv(3, inside, kernel=1))
            if res > 4:
                self.add_module(f"layer{2 * b}", ScoreConv(inside, inside))
                self.add_module(f"layer{2 * b + 1}", ScoreConv(inside, outside, down=True))
            else:
                self.add_module(f"layer{2 * b}", ScoreConv(inside + 1, inside))
                self.add_module(f"layer{2 * b + 1}", Dense(inside * 16, outside))
                self.features_size = outside
                outputs = label_size if label_size and not label_concat else 1
                inputs = outside + (label_size if label_concat else 0)
                self.last = f"layer{2 * b + 2}"
                self.add_module(self.last, Dense(inputs, outputs, gain=1.0, activate=False))

    def forward(self, image: torch.Tensor, label: torch.Tensor | None = None, lod: float | None = None) -> torch.Tensor:
        """image [N, 3, R, R], label [N, label_size] (None counts as zeros in the concatenating form) -> [N, 1]."""
        if image.dim() != 4 or list(image.shape[1:]) != [3, self.resolution, self.resolution]:
            raise ValueError(f"images must be [N, 3, {self.resolution}, {self.resolution}], got {list(image.shape)}")
        lod = float(self.lod) if lod is None else float(lod)
        x = self._blocks(image, lod)
        x = getattr(self, f"layer{2 * len(self.resolutions) - 2}")(minibatch_std(x, self.minibatch_std_group))
        x = getattr(self, f"layer{2 * len(self.resolutions) - 1}")(x.flatten(1))
        return self._score(x, label)

    def _blocks(self, image: torch.Tensor, lod: float) -> torch.Tensor:
        levels = len(self.resolutions)
        if lod > levels - 1:
            raise ValueError(f"lod {lod} is above the coarsest level {levels - 1}")
        x = None
        for b, res in enumerate(self.resolutions):
            if b <= lod < b + 1:
                x = getattr(self, f"input{b}")(image)
            elif b - 1 < lod < b:
                alpha = lod - math.floor(lod)
                x = getattr(self, f"input{b}")(image) * alpha + x * (1.0 - alpha)
            if res > 4 and lod < b + 1:
                x = getattr(self, f"layer{2 * b + 1}")(getattr(self, f"layer{2 * b}")(x))
            if lod > b:
                image = F.avg_pool2d(image, 2)
        return x

    def _score(self, x: torch.Tensor, label: torch.Tensor | None) -> torch.Tensor:
        last = getattr(self, self.last)
        if not self.label_size:
            if label is not None:
                raise ValueError("this discriminator takes no label")
            return last(x)
        if label is None:
            if not self.label_concat:
                raise ValueError("this discriminator weights its outputs by the label, so it needs one")
            label = x.new_zeros(x.shape[0], self.label_size)
        if list(label.shape) != [x.shape[0], self.label_size]:
            raise ValueError(f"label must be [{x.shape[0]}, {self.label_size}], got {list(label.shape)}")
        if self.label_concat:
            return last(torch.cat([x, label.to(x.dtype)], dim=1))
        return (last(x) * label.to(x.dtype)).sum(dim=1, keepdim=True)
