"""FaceXFormer (Narayan et al., 2024): one network for parsing, landmarks, head pose, attributes and who a face may be.

Swin-B (Liu et al., 2021) sees the face crop; a two-way transformer lets one token per task and per class look at the
picture and the picture look back (the mask decoder of Kirillov et al., 2023). Key layout of the published checkpoint.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from pipeline.artefacts import load_into, read_weights
from pipeline.recognition import refusal
from segmentation.classes import CLASSES, SIZE

HEADS = {
    "landmarks": 136,  # 68 pairs (x, y)
    "headpose": 3,
    "attributes": 40,
    "visibility": 29,
    "age": 8,
    "gender": 2,
    "race": 5,
}
"""Numbers per face that each head gives, in the order of the tokens."""
PARSING = "segmentation"  # the name beside them of the class logits
KEYS = {"headpose": "pose", "attributes": "attribute"}  # heads whose keys in the checkpoint have other names

WIDTH = 256  # of tokens and fused features
TAPS = {1: 128, 3: 256, 5: 512, 7: 1024}  # channels of the backbone's stages, by their place in it
GRID = SIZE // 4  # side of the finest stage
CURE = "use FaceXFormer's ckpts/model.pt, whose entry state_dict_backbone is the network"


class FaceXFormer(nn.Module):
    """Face crops -> all heads; made for 224x224 only.

    `forward` is `encode`, then `predict` and `segment`, which may be left out one by one.
    """

    def __init__(self):
        super().__init__()
        from torchvision.models import swin_b

        swin = swin_b(weights=None)
        # The last norm changes nothing here; it is kept because the checkpoint holds it.
        self.backbone = nn.ModuleList([swin.features, swin.norm])
        self.pe_layer = PositionCode(WIDTH // 2)
        self.face_decoder = FaceDecoder()
        self.linear_c = nn.ModuleList(nn.Sequential(OrderedDict(proj=nn.Linear(c, WIDTH))) for c in TAPS.values())
        self.linear_fuse = nn.Conv2d(len(TAPS) * WIDTH, WIDTH, 1, bias=False)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the raw output of every head.

        images: [N, 3, 224, 224] RGB, ImageNet-normalised (see `segmentation.facexformer_parser.prepare`). Returns
        [N, k] under the names of HEADS, and class logits [N, 11, 224, 224] under PARSING. ValueError for other shapes.
        """
        tokens, features = self.encode(images)
        return {**self.predict(tokens), PARSING: self.segment(tokens, features)}

    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return tokens [N, 18, 256] (seven heads, eleven classes) and features [N, 3136, 256] of normalised images."""
        if images.ndim != 4 or images.shape[1:] != (3, SIZE, SIZE):
            raise ValueError(f"FaceXFormer takes images [N, 3, {SIZE}, {SIZE}], got {list(images.shape)}")
        return self.face_decoder(self._fused(images), self.pe_layer(GRID))

    def predict(self, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the numbers [N, k] of every head of HEADS."""
        return self.face_decoder.predict(tokens)

    def segment(self, tokens: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Return class logits [N, 11, 224, 224]."""
        return self.face_decoder.segment(tokens, features)

    def _fused(self, images: torch.Tensor) -> torch.Tensor:
        """Features of all stages in one map [N, 256, 56, 56], as in SegFormer (Xie et al., 2021)."""
        levels, x = [], images
        for place, stage in enumerate(self.backbone[0]):
            x = stage(x)
            if place in TAPS:
                level = self.linear_c[len(levels)](x).permute(0, 3, 1, 2)
                levels.append(F.interpolate(level, (GRID, GRID), mode="bilinear", align_corners=False))
        return self.linear_fuse(torch.cat(levels[::-1], dim=1))


class FaceDecoder(nn.Module):
    """Two-way transformer over the tokens of all tasks and classes, the heads, and the mask head."""

    def __init__(self):
        super().__init__()
        self.transformer = TwoWayTransformer(depth=2)
        for name in HEADS:
            self.add_module(f"{_key(name)}_token", nn.Embedding(1, WIDTH))
        self.mask_tokens = nn.Embedding(len(CLASSES), WIDTH)
        fine = WIDTH // 8
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(WIDTH, 2 * fine, 2, stride=2),
            ChannelNorm(2 * fine, eps=1e-6),
            nn.GELU(),
            nn.ConvTranspose2d(2 * fine, fine, 2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetwork_mlps = MLP(fine)
        for name, size in HEADS.items():
            self.add_module(f"{_key(name)}_prediction_head", MLP(size))

    def forward(self, features: torch.Tensor, position: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """features [N, 256, h, w], position [h*w, 256] -> tokens [N, 18, 256], features [N, h*w, 256]."""
        embeddings = [getattr(self, f"{_key(name)}_token") for name in HEADS] + [self.mask_tokens]
        tokens = torch.cat([embedding.weight for embedding in embeddings]).expand(len(features), -1, -1)
        return self.transformer(tokens, features.flatten(2).transpose(1, 2), position)

    def predict(self, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the numbers [N, k] of every head."""
        return {name: getattr(self, f"{_key(name)}_prediction_head")(tokens[:, k]) for k, name in enumerate(HEADS)}

    def segment(self, tokens: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Return class logits [N, 11, 4h, 4w]: each class token becomes a filter of the enlarged features."""
        coarse = features.transpose(1, 2).unflatten(2, (GRID, GRID))
        fine = self.output_upscaling(coarse)
        filters = self.output_hypernetwork_mlps(tokens[:, len(HEADS) :])
        return (filters @ fine.flatten(2)).unflatten(2, fine.shape[2:])


class TwoWayTransformer(nn.Module):
    """Tokens and picture attend to each other in turn."""

    def __init__(self, depth: int):
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(first=k == 0) for k in range(depth))
        self.final_attn_token_to_image = Attention(WIDTH // 2)
        self.norm_final_attn = nn.LayerNorm(WIDTH)

    def forward(
        self, tokens: torch.Tensor, image: torch.Tensor, position: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """tokens [N, T, 256], image [N, P, 256], position [P, 256] -> tokens and image after all layers."""
        identity = tokens  # what position is for the picture, the untouched tokens are for the tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, identity, position)
        seen = self.final_attn_token_to_image(tokens + identity, image + position, image)
        return self.norm_final_attn(tokens + seen), image


class TwoWayBlock(nn.Module):
    """Self-attention of the tokens, tokens look at the picture, MLP, the picture looks at the tokens."""

    def __init__(self, first: bool):
        super().__init__()
        self.first = first
        self.self_attn = Attention(WIDTH)
        self.norm1 = nn.LayerNorm(WIDTH)
        self.cross_attn_token_to_image = Attention(WIDTH // 2)
        self.norm2 = nn.LayerNorm(WIDTH)
        lin1, lin2 = nn.Linear(WIDTH, 8 * WIDTH), nn.Linear(8 * WIDTH, WIDTH)
        self.mlp = nn.Sequential(OrderedDict(lin1=lin1, relu=nn.ReLU(), lin2=lin2))
        self.norm3 = nn.LayerNorm(WIDTH)
        self.norm4 = nn.LayerNorm(WIDTH)
        self.cross_attn_image_to_token = Attention(WIDTH // 2)

    def forward(
        self, tokens: torch.Tensor, image: torch.Tensor, identity: torch.Tensor, position: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """tokens and identity [N, T, 256], image [N, P, 256], position [P, 256] -> new tokens and image."""
        if self.first:  # the tokens are their own identity still: nothing to add, and no residual
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            tokens = tokens + self.self_attn(tokens + identity, tokens + identity, tokens)
        tokens = self.norm1(tokens)
        placed = image + position
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + identity, placed, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(image + self.cross_attn_image_to_token(placed, tokens + identity, tokens))
        return tokens, image


class Attention(nn.Module):
    """Scaled dot-product attention of eight heads that share `inner` channels."""

    heads = 8

    def __init__(self, inner: int):
        super().__init__()
        self.q_proj = nn.Linear(WIDTH, inner)
        self.k_proj = nn.Linear(WIDTH, inner)
        self.v_proj = nn.Linear(WIDTH, inner)
        self.out_proj = nn.Linear(inner, WIDTH)

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """query [N, Q, 256], key and value [N, K, 256] -> [N, Q, 256]."""
        parts = self.q_proj(query), self.k_proj(key), self.v_proj(value)
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Three dense layers with ReLU between."""

    def __init__(self, outputs: int):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, size) for size in (WIDTH, WIDTH, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., 256] -> [..., outputs]."""
        first, second, last = self.layers
        return last(F.relu(second(F.relu(first(x)))))


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of every pixel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PositionCode(nn.Module):
    """Random Fourier features of a pixel's place (Tancik et al., 2020); the frequencies are part of the checkpoint."""

    def __init__(self, frequencies: int):
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, frequencies))

    def forward(self, side: int) -> torch.Tensor:
        """Return [side * side, 2 * frequencies], row by row, for the pixel centres of a square grid."""
        matrix = self.positional_encoding_gaussian_matrix
        # Phases are of many turns: reduced precision would leave little of them.
        with torch.autocast(matrix.device.type, enabled=False):
            centres = 2 * (torch.arange(side, dtype=matrix.dtype, device=matrix.device) + 0.5) / side - 1
            y, x = torch.meshgrid(centres, centres, indexing="ij")
            phase = 2 * math.pi * (torch.stack([x, y], dim=2).flatten(0, 1) @ matrix)
            return torch.cat([phase.sin(), phase.cos()], dim=1)


def load_facexformer(path: Path | str, device: str | torch.device = "cpu") -> FaceXFormer:
    """Load a published checkpoint strictly, float32, in eval mode without gradients.

    The network is the entry `state_dict_backbone` (what else the file holds is ignored) or a plain state dict.
    PipelineError when the file is missing, damaged, of another kind, or does not fit.
    """
    content = read_weights(path)
    state = content.get("state_dict_backbone", content)
    if not isinstance(state, Mapping) or not any(str(key).startswith("face_decoder.") for key in state):
        raise refusal(f"{path} is not a FaceXFormer", content, CURE)
    # Every number comes from the file, so the costly random start is left out.
    with torch.device("meta"):
        network = FaceXFormer()
    network.to_empty(device="cpu")
    load_into(network, state, path, CURE)
    return network.eval().requires_grad_(False).to(device)


def _key(head: str) -> str:
    return KEYS.get(head, head)
