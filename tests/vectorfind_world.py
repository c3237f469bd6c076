"""A world small enough to know the right answer: images are linear in w, scores are linear in images."""

import hashlib
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from vectorfind.bench import Bench
from vectorfind.names import EDITED, PROPERTIES
from vectorfind.pool import Pool, plan_for, sample_pool

Z, W, SIDE = 24, 20, 16
COLUMNS = [PROPERTIES.index(name) for name in EDITED]


class LinearGenerator(nn.Module):
    """z -> w by a curved mixing, w -> image by a matrix; `split` adds a position of two halves."""

    def __init__(self, seed: int = 0, split: bool = False):
        super().__init__()
        maker = torch.Generator().manual_seed(seed)
        self.z_dim, self.split, self.resolution, self.label_size = Z, split, SIDE, 0
        self.register_buffer("mix", torch.randn(Z, W, generator=maker) / Z**0.5)
        self.register_buffer("paint", torch.randn(W, 3 * SIDE * SIDE, generator=maker) * 0.2)

    def encode(self, z, label=None, position="w"):
        w = torch.nn.functional.leaky_relu(z @ self.mix, 0.2)
        return {"z": z, "w": w, "mapping_split2": torch.cat([w, 0 * w], 1)}[position]

    def decode(self, mid, position="w", trunc_psi=1.0, trunc_layers=0):
        w = {"z": lambda: self.encode(mid), "w": lambda: mid, "mapping_split2": lambda: mid[:, :W] + mid[:, W:]}[
            position
        ]()
        return (w @ self.paint).reshape(-1, 3, SIDE, SIDE)


class LinearScorer:
    """Eight fixed linear readings of the image, in units of about one deviation."""

    def __init__(self, seed: int = 0):
        maker = torch.Generator().manual_seed(100 + seed)
        self.read = torch.randn(3 * SIDE * SIDE, len(PROPERTIES), generator=maker) * 0.05

    def score_tensor(self, images):
        return images.flatten(1) @ self.read


def make_bench(seed: int = 0, batch: int = 20, split: bool = False) -> Bench:
    generator = LinearGenerator(seed, split)
    digest = hashlib.sha256(generator.mix.numpy().tobytes()).hexdigest()
    return Bench(generator, LinearScorer(), generator_hash=digest, scorer_hash="linear", batch=batch)


def make_pool(bench: Bench, folder, rows: int) -> Pool:
    """A pool of rows codes at z and w."""
    return sample_pool(bench, folder, replace(plan_for(bench, ("z", "w"), 1000), shard_rows=rows // 3), rows)


def gradients(bench: Bench) -> np.ndarray:
    """The true gradient of every score in w: [W, 8]."""
    return (bench.generator.paint @ bench.scorer.read).numpy()


def cosine(found, wanted: np.ndarray) -> float:
    """Mean cosine of directions [3, G, D] with columns of wanted [D, 8]."""
    wanted = wanted / np.linalg.norm(wanted, axis=0)
    return float(np.mean([found[i] @ wanted[:, column] for i, column in enumerate(COLUMNS)]))


def folder_bytes(folder) -> dict[str, bytes]:
    """Content of every file below a folder by relative name, stamps left out."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".json.json"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


class CurvedScorer(LinearScorer):
    """The same readings, bent: equal wishes need different steps on different faces."""

    def score_tensor(self, images):
        linear = super().score_tensor(images)
        return linear + 0.25 * torch.sin(2 * linear) + 0.05 * linear.roll(1, dims=1) * linear


class TwoLooks:
    """Reads two numbers of a picture, as `Looks` do; or as features, for the closed loop."""

    def __init__(self, as_features=False):
        self.read = torch.randn(3 * SIDE * SIDE, 2, generator=torch.Generator().manual_seed(5)) * 0.05
        self.as_features = as_features

    def __call__(self, images):
        found = images.flatten(1) @ self.read
        return found if self.as_features else found.numpy()
