"""Trains the bundled generator."""

from __future__ import annotations

import torch

from stylegan.generator import Generator

CHANNEL_BASE, CHANNEL_MAX = 2048, 256


def new_generator(seed: int = 0) -> Generator:
    """An untrained generator: the mapping network as it will stay, its mean w known, mild styles for a calm start."""
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    generator = Generator(128, channel_base=CHANNEL_BASE, channel_max=CHANNEL_MAX).eval()
    with torch.no_grad():
        z = torch.randn(20_000, 512)
        generator.truncation.w_avg.copy_(generator.mapping(z).mean(0))
        for name, parameter in generator.synthesis.named_parameters():
            if name.endswith("style.weight"):
                parameter.mul_(0.1)
    torch.random.set_rng_state(state)
    return generator
