"""Weight-scaled layers and resampling kernels of StyleGAN v1 (Karras et al. 2019; equalised rate: PGGAN 4.1)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

SLOPE = 0.2
NORM_EPS = 1e-8
LARGE = 256  # pixels; up to here group norm is faster on channels one after another


def channels_at(resolution: int, channel_base: int, channel_max: int) -> int:
    """Number of feature maps at a resolution: min(channel_base // resolution, channel_max)."""
    return max(1, min(channel_base // resolution, channel_max))


def block_resolutions(resolution: int) -> list[int]:
    """[4, 8, ..., resolution]; ValueError unless resolution is a power of two of at least 8."""
    if resolution < 8 or resolution & (resolution - 1):
        raise ValueError(f"resolution must be a power of two, 8 or more; got {resolution}")
    return [4 << k for k in range(int(math.log2(resolution)) - 1)]


class Dense(nn.Module):
    """Dense layer with run-time weight = stored * gain / sqrt(fan_in) * lr_mul and an optional leaky ReLU."""

    def __init__(
        self, inputs: int, outputs: int, gain: float = math.sqrt(2.0), lr_mul: float = 1.0, activate: bool = True
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_mul)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = gain / math.sqrt(inputs) * lr_mul
        self.lr_mul = lr_mul
        self.activate = activate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias = self.bias if self.lr_mul == 1.0 else self.bias * self.lr_mul
        x = F.linear(x, self.weight * self.scale, bias)
        return F.leaky_relu(x, SLOPE) if self.activate else x


class Blur(nn.Module):
    """Depthwise 3x3 binomial filter with zero padding: the edges darken, and published weights expect that."""

    def __init__(self, channels: int):
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0])
        kernel = torch.outer(line, line) / 16.0
        self.register_buffer("kernel", kernel.expand(channels, 1, 3, 3).clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.kernel, padding=1, groups=x.shape[1])


def four_shift_kernel(kernel: torch.Tensor) -> torch.Tensor:
    """Sum of the four one-pixel shifts of a 3x3 kernel: [O, I, 3, 3] -> [O, I, 4, 4] (fused resampling of PGGAN)."""
    spread = torch.zeros(3, 3, 4, 4, dtype=kernel.dtype, device=kernel.device)
    for row in range(3):
        for column in range(3):
            spread[row, column, row : row + 2, column : column + 2] = 1.0
    # One product is many times faster than four sums of padded kernels, and sums of weights stay exact.
    with torch.autocast(kernel.device.type, enabled=False):
        return (kernel.reshape(-1, 9) @ spread.reshape(9, 16)).reshape(*kernel.shape[:2], 4, 4)


def upsample_conv(x: torch.Tensor, kernel: torch.Tensor, flip: bool) -> torch.Tensor:
    """Nearest x2 then conv 3x3 (zero padding 1), as one stride-2 transposed convolution: 4 taps a pixel instead of 9.

    flip=True convolves with the kernel as stored, which is what the levels below 128 px do. flip=False convolves with
    the kernel turned by 180 degrees: the reference does so from 128 px on, and its weights rely on it.
    """
    if flip:
        kernel = kernel.flip((2, 3))
    return F.conv_transpose2d(x, four_shift_kernel(kernel).transpose(0, 1), stride=2, padding=1)


def conv_downsample(x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Conv 3x3 (zero padding 1) then 2x2 average pooling, as one stride-2 convolution."""
    return F.conv2d(x, four_shift_kernel(kernel) * 0.25, bias, stride=2, padding=1)


def instance_style(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """AdaIN (Karras et al. 2019, eq. 1): x [N, C, H, W] normalised per image and channel, * scale + shift [N, C].

    Written as one group norm over N*C groups, whose affine part carries the style: one pass over the pixels. Large maps
    that lie channels last stay so, in two passes.
    """
    n, c, h, w = x.shape
    if h * w > LARGE and x.is_contiguous(memory_format=torch.channels_last):
        # The style written out along a row, as broadcasting over few channels is slow.
        rows = [
            s.to(x.dtype)[:, None, None].expand(n, 1, w, c).contiguous().permute(0, 3, 1, 2) for s in (scale, shift)
        ]
        return torch.addcmul(rows[1], F.group_norm(x, c, eps=NORM_EPS), rows[0])
    exact = torch.float64 if x.dtype == torch.float64 else torch.float32  # what group norm wants beside reduced x
    scale, shift = scale.to(exact).reshape(-1), shift.to(exact).reshape(-1)
    y = F.group_norm(x.reshape(1, n * c, h, w), n * c, scale, shift, NORM_EPS)
    return y.reshape(n, c, h, w)


def minibatch_std(x: torch.Tensor, group: int) -> torch.Tensor:
    """Append one channel with the mean standard deviation over groups of images (PGGAN section 3).

    x: [N, C, H, W]; N must be divisible by min(group, N), image i lies in group i mod (N / group). Returns
    [N, C + 1, H, W].
    """
    n, c, h, w = x.shape
    size = min(group, n)
    if n % size:
        raise ValueError(f"batch of {n} images cannot be split into groups of {size} for the minibatch deviation")
    y = x.reshape(size, n // size, c, h, w)
    y = (y - y.mean(0, keepdim=True)).square().mean(0)
    y = (y + NORM_EPS).sqrt().mean((1, 2, 3))
    y = y.repeat(size).reshape(n, 1, 1, 1).expand(n, 1, h, w)
    return torch.cat([x, y.to(x.dtype)], dim=1)
