"""StyleGAN v1 generator: mapping, truncation, AdaIN synthesis; key layout and numerics of the GenForce models."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from stylegan.layers import SLOPE, Blur, Dense, block_resolutions, channels_at, instance_style, upsample_conv
from stylegan.mapping import MappingNetwork

POSITIONS = ("z", "w", "mapping_split1", "mapping_split2")
FUSED_FROM = 128  # from this resolution on the reference turns the upsampling kernel by 180 degrees


class Truncation(nn.Module):
    """Running mean of w, and the pull of the first layers toward it."""

    def __init__(self, w_dim: int):
        super().__init__()
        self.register_buffer("w_avg", torch.zeros(w_dim))

    @torch.no_grad()
    def update(self, w: torch.Tensor, decay: float) -> None:
        self.w_avg.mul_(decay).add_(w.detach().mean(0).to(self.w_avg.dtype), alpha=1.0 - decay)

    def forward(self, w: torch.Tensor, layers: int, psi: float | None, trunc_layers: int | None) -> torch.Tensor:
        """w [N, W] -> wp [N, layers, W]; the first trunc_layers become w_avg + psi * (w - w_avg)."""
        wp = w.unsqueeze(1).expand(-1, layers, -1)
        if psi is None or psi >= 1.0 or not trunc_layers:
            return wp
        # The reference holds psi in float32, in double runs too.
        psi32 = torch.tensor(psi, dtype=torch.float32, device=w.device).to(w.dtype)
        pulled = self.w_avg + psi32 * (wp - self.w_avg)
        inside = (torch.arange(layers, device=w.device) < trunc_layers).reshape(1, -1, 1)
        return torch.where(inside, pulled, wp)


class Noise(nn.Module):
    """Per-channel strength and the stored noise map, which belongs to the weights."""

    def __init__(self, channels: int, resolution: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))
        self.register_buffer("noise", torch.randn(1, 1, resolution, resolution))

    def forward(self, x: torch.Tensor, bias: torch.Tensor, randomize: bool) -> torch.Tensor:
        """x [N, C, H, W] with noise and bias [C] added."""
        noise, weight, bias = self.noise, self.weight.reshape(1, -1, 1, 1), bias.reshape(1, -1, 1, 1)
        if randomize:
            noise = torch.randn_like(x[:, :1])
        if len(noise) == 1:
            # One map for all images: noise and bias cost one addition, a slow one where the layouts differ.
            last = x.is_contiguous(memory_format=torch.channels_last)
            layout = torch.channels_last if last else torch.contiguous_format
            return x + (noise * weight + bias).to(x.dtype, memory_format=layout)
        return torch.addcmul(x + bias.to(x.dtype), noise.to(x.dtype), weight.to(x.dtype))


class SynthesisLayer(nn.Module):
    """(constant | conv | upsampling conv + blur), noise, bias, leaky ReLU, AdaIN."""

    def __init__(self, inputs: int, outputs: int, resolution: int, w_dim: int, kind: str):
        super().__init__()
        self.kind = kind
        self.bias = nn.Parameter(torch.zeros(outputs))
        if kind == "const":
            self.const = nn.Parameter(torch.ones(1, outputs, resolution, resolution))
        else:
            self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
            self.scale = math.sqrt(2.0) / math.sqrt(inputs * 9)
        self.apply_noise = Noise(outputs, resolution)
        self.style = Dense(w_dim, 2 * outputs, gain=1.0, activate=False)
        self.flip = resolution < FUSED_FROM
        if kind == "up":
            self.blur = Blur(outputs)

    def forward(
        self, x: torch.Tensor | None, w: torch.Tensor, randomize_noise: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """x [N, I, r, r] (r / 2 for "up", None for "const"), w [N, W] -> features [N, O, ., .], style [N, 2 O]."""
        if self.kind == "const":
            x = self.const.expand(w.shape[0], -1, -1, -1)
        elif self.kind == "up":
            x = self.blur(upsample_conv(x, self.weight * self.scale, self.flip))
        else:
            x = F.conv2d(x, self.weight * self.scale, padding=1)
        x = F.leaky_relu(self.apply_noise(x, self.bias, randomize_noise), SLOPE)
        style = self.style(w)
        scale, shift = style.chunk(2, dim=1)
        return instance_style(x, scale + 1.0, shift), style


class ToRGB(nn.Module):
    """1x1 conv with gain 1, no style, no noise, no tanh."""

    def __init__(self, inputs: int, image_channels: int = 3):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(image_channels))
        self.weight = nn.Parameter(torch.randn(image_channels, inputs, 1, 1))
        self.scale = 1.0 / math.sqrt(inputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.weight * self.scale, self.bias)


class Synthesis(nn.Module):
    """wp -> image, growing from 4x4; `lod` > 0 shows a coarser level, as in progressive training (PGGAN section 2)."""

    def __init__(self, resolution: int, channel_base: int, channel_max: int, w_dim: int):
        super().__init__()
        self.resolutions = block_resolutions(resolution)
        self.num_layers = 2 * len(self.resolutions)
        self.register_buffer("lod", torch.zeros(()))
        for b, res in enumerate(self.resolutions):
            inside = channels_at(res // 2, channel_base, channel_max)
            outside = channels_at(res, channel_base, channel_max)
            first = SynthesisLayer(inside, outside, res, w_dim, "const" if b == 0 else "up")
            self.add_module(f"layer{2 * b}", first)
            self.add_module(f"layer{2 * b + 1}", SynthesisLayer(outside, outside, res, w_dim, "conv"))
            self.add_module(f"output{b}", ToRGB(outside))

    def forward(
        self, wp: torch.Tensor, lod: float | None = None, randomize_noise: bool = False
    ) -> dict[str, torch.Tensor]:
        """wp [N, layers, W] -> image [N, 3, R, R] and the styles; ValueError for a lod above the coarsest level."""
        lod = float(self.lod) if lod is None else float(lod)
        levels = len(self.resolutions)
        if lod > levels - 1:
            raise ValueError(f"lod {lod} is above the coarsest level {levels - 1}")
        results: dict[str, torch.Tensor] = {}
        x = image = None
        for b in range(levels):
            current = levels - 1 - b
            if lod < current + 1:
                for k in (2 * b, 2 * b + 1):
                    x, results[f"style{k:02d}"] = getattr(self, f"layer{k}")(x, wp[:, k], randomize_noise)
            output = getattr(self, f"output{b}")
            if current - 1 < lod <= current:
                image = output(x)
            elif current < lod < current + 1:
                alpha = math.ceil(lod) - lod
                image = output(x) * alpha + F.interpolate(image, scale_factor=2, mode="nearest") * (1.0 - alpha)
            elif lod >= current + 1:
                image = F.interpolate(image, scale_factor=2, mode="nearest")
        results["image"] = image
        return results


class Generator(nn.Module):
    """StyleGAN v1 generator.

    label_size > 0 with label_dim = d is the Oh-LoRA conditional form (label embedded to d numbers beside z); label_dim
    None is GenForce's own (d = z_dim). split=True is the two-branch mapping of fine-tune v9. Images are float
    [N, 3, R, R], RGB, about [-1, 1] (no tanh). In eval mode with stored noise the result depends on the arguments
    alone; in train mode each forward moves `truncation.w_avg` and may mix styles.
    """

    def __init__(
        self,
        resolution: int = 128,
        channel_base: int = 16384,
        channel_max: int = 512,
        label_size: int = 0,
        label_dim: int | None = None,
        split: bool = False,
        z_dim: int = 512,
        w_dim: int = 512,
        mapping_width: int = 512,
        split_width: int = 2048,
    ):
        super().__init__()
        self.settings = {
            "resolution": resolution,
            "channel_base": channel_base,
            "channel_max": channel_max,
            "label_size": label_size,
            "label_dim": label_dim,
            "split": split,
            "z_dim": z_dim,
            "w_dim": w_dim,
            "mapping_width": mapping_width,
            "split_width": split_width,
        }
        self.resolution, self.z_dim, self.w_dim = resolution, z_dim, w_dim
        self.label_size, self.split = label_size, split
        self.mapping = MappingNetwork(z_dim, w_dim, mapping_width, label_size, label_dim, split, split_width)
        self.truncation = Truncation(w_dim)
        self.synthesis = Synthesis(resolution, channel_base, channel_max, w_dim)
        self.num_layers = self.synthesis.num_layers

    def forward(
        self,
        z: torch.Tensor,
        label: torch.Tensor | None = None,
        trunc_psi: float | None = 1.0,
        trunc_layers: int | None = 0,
        lod: float | None = None,
        randomize_noise: bool = False,
        style_mixing_prob: float = 0.0,
        w_moving_decay: float = 0.995,
    ) -> dict[str, torch.Tensor]:
        """z [N, z_dim], label [N, label_size] or None (zeros) -> dict: z (normalised), w, wp, label, styleNN, image.

        lod None reads the stored buffer; pass 0.0 in compiled code, where reading it breaks the graph.
        """
        # The mapping net is cheap and its weights are large: reduced precision would cost accuracy and save nothing.
        with torch.autocast(z.device.type, enabled=False):
            normalised = self.mapping.join_label(z, label)
            w = self.mapping.from_normalised(normalised)
            if self.training:
                self.truncation.update(w, w_moving_decay)
            wp = self.truncation(w, self.num_layers, trunc_psi, trunc_layers)
            if self.training and style_mixing_prob > 0.0:
                wp = self._mix(wp, z, label, style_mixing_prob, trunc_psi, trunc_layers, lod)
        results = {"z": normalised, "w": w, "wp": wp}
        if label is not None:
            results["label"] = label
        results.update(self.synthesis(wp, lod, randomize_noise))
        return results

    def _mix(self, wp, z, label, probability, trunc_psi, trunc_layers, lod) -> torch.Tensor:
        """At random, give the layers from a random cut-off on to a second latent (StyleGAN section 3.1)."""
        if float(torch.rand(())) >= probability:
            return wp
        depth = int(float(self.synthesis.lod) if lod is None else lod)
        cut = int(torch.randint(1, self.num_layers - 2 * depth, ()))
        other = self.truncation(self.mapping(torch.randn_like(z), label), self.num_layers, trunc_psi, trunc_layers)
        return torch.cat([wp[:, :cut], other[:, cut:]], dim=1)

    def mid_size(self, position: str) -> int:
        """Length of the mid vector at a position; ValueError if this generator does not have it."""
        if position not in POSITIONS:
            raise ValueError(f"position must be one of {', '.join(POSITIONS)}; got {position!r}")
        if position.startswith("mapping_split") and not self.split:
            raise ValueError(f"{position} exists in the split generator (v9) only")
        return {
            "z": self.z_dim + self.label_size,
            "w": self.w_dim,
            "mapping_split1": self.mapping.first_split + self.mapping.split_width,
            "mapping_split2": 2 * self.w_dim,
        }[position]

    def encode(self, z: torch.Tensor, label: torch.Tensor | None = None, position: str = "w") -> torch.Tensor:
        """z [N, z_dim] (and label) -> mid vector [N, mid_size(position)]; at "z" that is concat(z, label) as given."""
        self.mid_size(position)
        if position == "z":
            if self.label_size and label is None:
                label = z.new_zeros(z.shape[0], self.label_size)
            return torch.cat([z, label], dim=1) if self.label_size else z
        if position == "w":
            return self.mapping(z, label)
        mid = self.mapping.to_split1(self.mapping.trunk(self.mapping.join_label(z, label)))
        return mid if position == "mapping_split1" else self.mapping.split1_to_split2(mid)

    def decode(
        self, mid: torch.Tensor, position: str = "w", trunc_psi: float | None = 1.0, trunc_layers: int | None = 0
    ) -> torch.Tensor:
        """Mid vector [N, mid_size(position)] -> images [N, 3, R, R] with the stored noise: the rest of the net."""
        if mid.dim() != 2 or mid.shape[1] != self.mid_size(position):
            raise ValueError(f"mid vector at {position} must be [N, {self.mid_size(position)}], got {list(mid.shape)}")
        # As in `forward`: the mapping is small, and its rounding would move the whole face.
        with torch.autocast(mid.device.type, enabled=False):
            if position == "z":
                mid = self.mapping(mid[:, : self.z_dim], mid[:, self.z_dim :] if self.label_size else None)
            elif position == "mapping_split1":
                mid = self.mapping.split2_to_w(self.mapping.split1_to_split2(mid))
            elif position == "mapping_split2":
                mid = self.mapping.split2_to_w(mid)
        return self.synthesis(self.truncation(mid, self.num_layers, trunc_psi, trunc_layers))["image"]
