"""ParseNet: a small U-Net that parses a face crop into the eleven classes, fast on a CPU."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pipeline.artefacts import load_into, read_weights
from pipeline.recognition import refusal
from segmentation.classes import CLASSES, SIZE

INPUT = 128  # side that the network works at
WIDTHS = (48, 64, 96, 128, 160)  # channels at 1/2, 1/4, ... of it


class ConvBlock(nn.Sequential):
    """3x3 convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
        )


class ParseNet(nn.Module):
    """U-Net (Ronneberger et al., 2015) that keeps the finest detail in channels instead of in a full-size grid.

    2x2 pixels enter as 12 channels and leave as 4 x 11 logits (sub-pixel convolution, Shi et al., 2016), so that all
    convolutions run at half the side or below, and yet eyes of a few pixels keep their outline.
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS):
        super().__init__()
        inputs = (12, *widths[:-1])
        self.down = nn.ModuleList(
            nn.Sequential(ConvBlock(inputs[k], widths[k], 1 if k == 0 else 2), ConvBlock(widths[k], widths[k]))
            for k in range(len(widths))
        )
        self.up = nn.ModuleList(
            nn.Sequential(ConvBlock(widths[k] + widths[k + 1], widths[k]), ConvBlock(widths[k], widths[k]))
            for k in range(len(widths) - 1)
        )
        self.head = nn.Conv2d(widths[0], 4 * len(CLASSES), 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits [N, 11, H, W] of images [N, 3, H, W] in [-1, 1]; H and W are multiples of 32."""
        features = F.pixel_unshuffle(images, 2)
        levels = []
        for stage in self.down:
            features = stage(features)
            levels.append(features)
        for k in reversed(range(len(self.up))):
            coarse = F.interpolate(features, scale_factor=2, mode="nearest")
            features = self.up[k](torch.cat([coarse, levels[k]], dim=1))
        return F.pixel_shuffle(self.head(features), 2)


class ParseNetParser:
    """A FaceParser: resizes crops to the network's input, and its logits to the map's 224x224.

    batch: crops per pass; every pass has exactly this many (filled up with copies), because convolutions round
    differently for other batch sizes and a map must not depend on its batch.
    """

    name = "parsenet"

    def __init__(self, network: ParseNet, device: str | torch.device = "cpu", batch: int | None = None):
        self.device = torch.device(device)
        self.batch = batch or (8 if self.device.type == "cpu" else 64)
        network = _fused(network.eval().requires_grad_(False))
        self._network = network.to(self.device, memory_format=torch.channels_last)

    @classmethod
    def load(cls, path: Path | str, device: str | torch.device = "cpu") -> "ParseNetParser":
        """Load a weight file; its channel widths are read off its shapes. PipelineError when it does not fit."""
        return cls(load_parsenet(path), device)

    @torch.inference_mode()
    def parse(self, images: torch.Tensor) -> np.ndarray:
        """Return class ids uint8 [N, 224, 224] of face crops float32 [N, 3, H, W] RGB in [-1, 1]."""
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(f"face crops are float [N, 3, H, W] in [-1, 1], got {images.dtype} {list(images.shape)}")
        maps = np.empty((len(images), SIZE, SIZE), np.uint8)
        for start in range(0, len(images), self.batch):
            part = images[start : start + self.batch]
            filled = part if len(part) == self.batch else part[torch.arange(self.batch) % len(part)]
            maps[start : start + len(part)] = self._parse(filled.to(self.device))[: len(part)].cpu().numpy()
        return maps

    def _parse(self, images: torch.Tensor) -> torch.Tensor:
        images = F.interpolate(images, (INPUT, INPUT), mode="bilinear", antialias=True)
        logits = self._network(images.contiguous(memory_format=torch.channels_last))
        logits = F.interpolate(logits, (SIZE, SIZE), mode="bilinear")
        return logits.argmax(dim=1).to(torch.uint8)


def load_parsenet(path: Path | str) -> ParseNet:
    """Build the ParseNet of a weight file; PipelineError names missing, unexpected and wrongly shaped keys."""
    state = read_weights(path)
    network = ParseNet(_widths(state, path))
    load_into(network, state, path)
    return network


def _widths(state: Mapping[str, torch.Tensor], path: Path | str) -> tuple[int, ...]:
    widths: list[int] = []
    while (weight := state.get(f"down.{len(widths)}.0.0.weight")) is not None:
        widths.append(weight.shape[0])
    if len(widths) < 2:
        cure = "use weights/demo/parsenet.pth or train one: python -m segmentation.train_parsenet --help"
        raise refusal(f"{path} is not a ParseNet", state, cure)
    return tuple(widths)


def _fused(network: nn.Module) -> nn.Module:
    """Replace each ConvBlock by one convolution that includes its batch norm, and its ReLU."""
    for name, child in network.named_children():
        if isinstance(child, ConvBlock):
            setattr(network, name, nn.Sequential(fuse_conv_bn_eval(child[0], child[1]), child[2]))
        else:
            _fused(child)
    return network
