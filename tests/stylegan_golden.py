"""Golden data of the StyleGAN tests: deterministic weights and inputs, reference results (tests/data/stylegan_*)."""

from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import Path

import numpy as np
import torch

DATA = Path(__file__).parent / "data"
GOLDEN = np.load(DATA / "stylegan_golden.npz")
AUTHOR = np.load(DATA / "stylegan_author_golden.npz")
KEYS = json.loads((DATA / "stylegan_keys.json").read_text())


def golden_value(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The tensor that the reference runs used for this key: it depends on name and shape alone."""
    if key == "lod" or key.endswith(".lod"):
        return np.zeros(shape, np.float32)
    if key.endswith("blur.kernel"):
        return np.broadcast_to(np.outer([1.0, 2.0, 1.0], [1.0, 2.0, 1.0]) / 16.0, shape).astype(np.float32)
    x = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
    if key.endswith("w_avg"):
        factor = 0.5
    elif key.startswith("mapping.dense"):
        factor = 100.0 if key.endswith("weight") else 10.0
    elif key.endswith("apply_noise.weight") or key.endswith("bias"):
        factor = 0.1
    elif key.startswith("synthesis.output"):
        factor = 0.25
    else:
        factor = 1.0
    return np.ascontiguousarray(factor * x, dtype=np.float32)


def fill(module: torch.nn.Module) -> torch.nn.Module:
    """The module in eval mode with golden weights."""
    state = {k: torch.from_numpy(golden_value(k, tuple(v.shape))) for k, v in module.state_dict().items()}
    module.load_state_dict(state, strict=True)
    return module.eval()


def digest(module: torch.nn.Module) -> str:
    h = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        h.update(key.encode())
        exact = value.float() if value.is_floating_point() else value.long()
        h.update(np.ascontiguousarray(exact.numpy()).tobytes())
    return h.hexdigest()


def latents() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(20250408).standard_normal((2, 512)).astype(np.float32))


def labels(n: int, size: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(3).standard_normal((n, size)).astype(np.float32))


def critic_images(resolution: int, n: int = 8) -> torch.Tensor:
    x = 0.5 * np.random.default_rng(777).standard_normal((8, 3, resolution, resolution))
    return torch.from_numpy(x[:n].astype(np.float32))


def author_images() -> torch.Tensor:
    """White noise and random blocks, [2, 3, 256, 256] in [-1, 1]."""
    rng = np.random.default_rng(256)
    noise = rng.random((3, 256, 256))
    blocks = np.repeat(np.repeat(rng.random((3, 16, 16)), 16, axis=1), 16, axis=2)
    blocks = np.clip(blocks + 0.1 * rng.standard_normal((3, 256, 256)), 0.0, 1.0)
    return torch.from_numpy((2.0 * np.stack([noise, blocks]) - 1.0).astype(np.float32))


def varied_images() -> torch.Tensor:
    """Eight images of very different amplitude and grain: a wrong minibatch-deviation group shows."""
    rng = np.random.default_rng(888)
    out = []
    for k in range(8):
        block = 2 ** (3 + k % 4)
        coarse = rng.standard_normal((3, 256 // block, 256 // block))
        out.append(0.3 * (k + 1) * np.repeat(np.repeat(coarse, block, axis=1), block, axis=2))
    return torch.from_numpy(np.stack(out).astype(np.float32))


def error(got, reference) -> float:
    """max |got - reference| / std(reference); inf when something is not finite."""
    got, reference = np.asarray(got, np.float64).ravel(), np.asarray(reference, np.float64).ravel()
    assert got.shape == reference.shape
    if not np.isfinite(got).all():
        return float("inf")
    scale = reference.std() if reference.size > 8 else np.abs(reference).max()
    return float(np.abs(got - reference).max() / max(scale, 1e-12))
