"""Golden data of the FaceXFormer tests: deterministic weights and inputs, results of the reference in tests/data."""

import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch

DATA = Path(__file__).parent / "data"
GOLDEN = np.load(DATA / "facexformer_golden.npz")
KEYS = json.loads((DATA / "facexformer_keys.json").read_text())
FACE_BOXES = {"inside": (80.4, 95.7, 171.9, 210.2), "border": (5.3, 8.8, 240.6, 290.1)}
NORMAL = ("positional_encoding_gaussian_matrix", "relative_position_bias_table", "_token.weight", "mask_tokens.weight")


def golden_value(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The tensor that the reference run used for this key: it depends on name and shape alone."""
    x = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
    if not key.endswith(NORMAL):
        if len(shape) == 1:
            x = 1.0 + 0.1 * x if key.endswith("weight") else 0.1 * x
        else:
            x = x / math.sqrt(math.prod(shape[1:]))
    return torch.from_numpy(np.asarray(x, dtype=np.float32))


def fill(module: torch.nn.Module) -> torch.nn.Module:
    """The module in eval mode with golden weights; whole numbers (the position indices) stay its own."""
    own = module.state_dict()
    state = {k: golden_value(k, tuple(v.shape)) if v.is_floating_point() else v for k, v in own.items()}
    module.load_state_dict(state, strict=True)
    return module.eval()


def noise() -> torch.Tensor:
    """A network input [1, 3, 224, 224], already normalised: white noise."""
    return torch.from_numpy(np.random.default_rng(224).standard_normal((1, 3, 224, 224)).astype(np.float32))


def blocks() -> torch.Tensor:
    """The same of random blocks."""
    coarse = np.random.default_rng(225).standard_normal((1, 3, 8, 8)).astype(np.float32)
    return torch.from_numpy(np.repeat(np.repeat(coarse, 28, axis=2), 28, axis=3))


def photo() -> np.ndarray:
    """A picture uint8 [300, 260, 3] for the boxes FACE_BOXES."""
    y, x = np.mgrid[0:300, 0:260].astype(np.float64)
    channels = [127.5 + 100.0 * np.sin(x / 17.0 + 0.3 * c) * np.cos(y / (11.0 + c)) for c in range(3)]
    image = np.stack(channels, axis=-1)
    image += np.random.default_rng(226).integers(-12, 13, size=image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def sample(values: torch.Tensor, golden: str) -> np.ndarray:
    """Those of `values` that a golden array holds: at sorted random places, if it does not hold all."""
    flat, kept = values.numpy().ravel(), GOLDEN[golden].size
    if kept == flat.size:
        return flat
    return flat[np.sort(np.random.default_rng(4242).choice(flat.size, size=kept, replace=False))]
