"""Mapping networks z (+ label) -> w: plain, label-conditional, and the split form of fine-tune v9."""

from __future__ import annotations

import torch
from torch import nn

from stylegan.layers import NORM_EPS, Dense

LAYERS = 8
LR_MUL = 0.01
SPLIT_WIDTH = 2048


def pixel_norm(z: torch.Tensor) -> torch.Tensor:
    """Scale each row to unit mean square: z [N, D] -> [N, D]."""
    return z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + NORM_EPS)


class MappingNetwork(nn.Module):
    """Eight dense layers with leaky ReLU (the last one too), rate multiplier 0.01.

    label_size > 0 adds `label_weight` [label_size, label_dim]; its product with the label is appended to z before the
    pixel norm, which covers both. split=True adds a second, wider branch after dense5; w is the sum of both branches.
    """

    def __init__(
        self,
        z_dim: int = 512,
        w_dim: int = 512,
        hidden: int = 512,
        label_size: int = 0,
        label_dim: int | None = None,
        split: bool = False,
        split_width: int = SPLIT_WIDTH,
    ):
        super().__init__()
        self.z_dim, self.w_dim, self.label_size, self.split = z_dim, w_dim, label_size, split
        self.label_dim = 0
        if label_size:
            self.label_dim = z_dim if label_dim is None else label_dim
            self.label_weight = nn.Parameter(torch.randn(label_size, self.label_dim))
        sizes = [z_dim + self.label_dim] + [hidden] * (LAYERS - 1) + [w_dim]
        for k in range(LAYERS):
            self.add_module(f"dense{k}", Dense(sizes[k], sizes[k + 1], lr_mul=LR_MUL))
        self.first_split = hidden
        self.split_width = split_width if split else 0
        if split:
            self.dense_new0 = Dense(hidden, split_width, lr_mul=LR_MUL)
            self.dense_new1 = Dense(split_width, w_dim, lr_mul=LR_MUL)

    def join_label(self, z: torch.Tensor, label: torch.Tensor | None) -> torch.Tensor:
        """Normalised mapping input [N, z_dim + label_dim]; no label counts as zeros. ValueError for a wrong shape."""
        if z.dim() != 2 or z.shape[1] != self.z_dim:
            raise ValueError(f"z must be [N, {self.z_dim}], got {list(z.shape)}")
        if not self.label_size:
            if label is not None:
                raise ValueError("this generator takes no label")
            return pixel_norm(z)
        if label is None:
            label = z.new_zeros(z.shape[0], self.label_size)
        if list(label.shape) != [z.shape[0], self.label_size]:
            raise ValueError(f"label must be [{z.shape[0]}, {self.label_size}], got {list(label.shape)}")
        return pixel_norm(torch.cat([z, label.to(z.dtype) @ self.label_weight], dim=1))

    def trunk(self, z: torch.Tensor) -> torch.Tensor:
        """Normalised input -> output of dense5 [N, hidden]."""
        for k in range(LAYERS - 2):
            z = getattr(self, f"dense{k}")(z)
        return z

    def to_split1(self, trunk: torch.Tensor) -> torch.Tensor:
        """Output of dense5 -> mid vector concat(w1, w2) [N, hidden + split_width]."""
        return torch.cat([self.dense6(trunk), self.dense_new0(trunk)], dim=1)

    def split1_to_split2(self, mid: torch.Tensor) -> torch.Tensor:
        """Mid vector concat(w1, w2) -> concat(w1', w2') [N, 2 * w_dim]."""
        return torch.cat([self.dense7(mid[:, : self.first_split]), self.dense_new1(mid[:, self.first_split :])], dim=1)

    def split2_to_w(self, mid: torch.Tensor) -> torch.Tensor:
        """Mid vector concat(w1', w2') -> their sum w [N, w_dim]."""
        return mid[:, : self.w_dim] + mid[:, self.w_dim :]

    def from_normalised(self, z: torch.Tensor) -> torch.Tensor:
        """Normalised input -> w [N, w_dim]."""
        trunk = self.trunk(z)
        if self.split:
            return self.split2_to_w(self.split1_to_split2(self.to_split1(trunk)))
        return self.dense7(self.dense6(trunk))

    def forward(self, z: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        return self.from_normalised(self.join_label(z, label))
