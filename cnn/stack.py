"""The convolution stack that the filter CNNs and the property CNN share."""

from __future__ import annotations

import torch
from torch import nn

from cnn.fit import POOL, FittedStack

LEAKY_SLOPE = 0.01
MAP_DROPOUT = 0.05


class ConvStack(nn.Module):
    """Base of a network that starts with a fitted stack; its convolutions are named conv1, conv2, ... as published."""

    def __init__(self, stack: FittedStack):
        super().__init__()
        self.stack = stack
        self._plan: list[tuple[str, bool]] = []  # name of a convolution, whether a pool follows it
        channels = 3
        for step, following in zip(stack.steps, (*stack.steps[1:], None), strict=True):
            if step == POOL:
                continue
            name = f"conv{len(self._plan) + 1}"
            convolution = nn.Conv2d(channels, step, 3)
            # Without normalisation layers torch's default start lets the signal fade through six layers, and a
            # training may never leave the plateau.
            nn.init.kaiming_normal_(convolution.weight, a=LEAKY_SLOPE)
            nn.init.zeros_(convolution.bias)
            activation = nn.LeakyReLU(LEAKY_SLOPE, inplace=True)
            self.add_module(name, nn.Sequential(convolution, activation, nn.Dropout2d(MAP_DROPOUT)))
            self._plan.append((name, following == POOL))
            channels = step

    def features(self, crop: torch.Tensor) -> torch.Tensor:
        """Flattened final map [N, stack.flat] of a cropped window [N, 3, h, w]."""
        x = crop
        for name, pooled in self._plan:
            convolution, activation, dropout = getattr(self, name)
            x = convolution(x)
            if pooled:
                # Pooling before the activation gives the same numbers (both it and a channel's dropout factor are
                # monotonic) and spares three quarters of the work of the two.
                x = nn.functional.max_pool2d(x, 2)
            x = dropout(activation(x))
        return x.flatten(1)
