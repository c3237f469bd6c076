"""Renders training data: pictures, exact masks, true attributes, and the latents that they belong to.

    python -m virtual_face.dataset --generator weights/demo/generator.pth --out work/renders --count 20000
    python -m virtual_face.dataset --out work/heldout --count 2000 --first-seed 1000000

Without a generator the factors come from the seeds (as in `virtual_face.render`), otherwise from the generator's own
mapping network through the latent map. Shards are written whole; the same command goes on where it stopped.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pipeline.artefacts import atomic, write_json
from pipeline.command import main
from pipeline.errors import PipelineError
from pipeline.progress import progress
from pipeline.seeds import latents_from_seeds
from stylegan.checkpoint import generator_hash, load_generator
from virtual_face.compiled import compile_renderer, has_compiler
from virtual_face.latent_map import LatentMap, latent_map_of
from virtual_face.population import ATTRIBUTES, INDEX, factors_from_seeds
from virtual_face.render import LEAST_SIZE, render_factors

MOVED = ("eyes", "mouth", "yaw", "pitch", "roll", "smile", "age", "gender", "glasses", "hair_length", "brow_raise")


@dataclass
class DatasetOptions:
    """Render a training or test set of virtual faces."""

    out: str
    count: int = 20000
    """Number of pictures, rounded up to whole shards."""
    first_seed: int = 10_000_000
    """Seeds first_seed, first_seed + 1, ... (the run's own faces use small seeds)."""
    generator: str = ""
    """Checkpoint whose mapping network gives the latents; without it the factors come straight from the seeds."""
    size: int = 128
    shard: int = 512
    part: int = 0
    """With --parts: which share of the shards this process renders (one process per core is fastest)."""
    parts: int = 1
    eager: bool = False
    """Do not compile the renderer (compiling takes minutes once and makes it several times faster)."""


def training_w(w: Tensor, latent_map: LatentMap, seed: int) -> Tensor:
    """Latents to train on: most as they are, some pulled to the middle, some moved along single factors.

    Truncated and edited latents lie where untouched ones never do; a generator that has seen neither blurs there.
    """
    rng = np.random.default_rng([seed, 11])
    kind = rng.random(len(w))
    psi = torch.from_numpy(np.where(kind < 0.18, rng.uniform(0.25, 1.0, len(w)), 1.0).astype(np.float32))[:, None]
    w = latent_map.mean + psi * (w - latent_map.mean)
    step = np.zeros((len(w), latent_map.read.shape[0]), np.float32)
    columns = [INDEX[name] for name in MOVED]
    step[:, columns] = rng.standard_normal((len(w), len(columns))) * (rng.random((len(w), len(columns))) < 0.4)
    step[kind < 0.78] = 0
    return w + torch.from_numpy(step) @ latent_map.lift.T


def _check(options: DatasetOptions) -> None:
    least = {"--count": 1, "--size": LEAST_SIZE, "--shard": 1, "--parts": 1, "--part": 0, "--first-seed": 0}
    for flag, low in least.items():
        if (value := getattr(options, flag[2:].replace("-", "_"))) < low:
            raise PipelineError(f"{flag} {value}: at least {low}")
    if options.part >= options.parts:
        raise PipelineError(f"--part {options.part}: of {options.parts} parts the last is {options.parts - 1}")


def render_dataset(options: DatasetOptions) -> None:
    """Render what is missing; PipelineError for impossible numbers, or a folder made with other options."""
    _check(options)
    generator, latent_map = (None, None)
    if options.generator:
        generator = load_generator(options.generator)
        latent_map = latent_map_of(generator)
    out = Path(options.out)
    done_file = out / "dataset.json"
    described = {
        "first_seed": options.first_seed,
        "size": options.size,
        "shard": options.shard,
        "generator": None if generator is None else generator_hash(generator),
    }
    if done_file.exists():
        found = json.loads(done_file.read_text())
        if options.generator and found.get("generator") == options.generator:  # of code that noted the path alone
            found["generator"] = described["generator"]
        if {k: found.get(k) for k in described} != described:
            raise PipelineError(
                f"{done_file}: made with other options or another generator ({found}); choose another --out or delete "
                "the folder"
            )
    write_json(done_file, described)
    own = range(options.part * options.shard, options.count, options.parts * options.shard)
    paths = {start: out / f"shard_{start // options.shard:04d}.npz" for start in own}
    missing = {start: path for start, path in paths.items() if not path.exists()}
    if missing and not options.eager:
        if not has_compiler():
            raise PipelineError(
                "compiling the renderer needs a C++ compiler (g++, or CXX): install one, or give --eager"
            )
        compile_renderer()
    for start, path in progress(missing.items(), "render"):
        seeds = list(range(options.first_seed + start, options.first_seed + start + options.shard))
        if generator is None:
            w, factors = None, factors_from_seeds(seeds)
        else:
            with torch.no_grad():
                w = generator.encode(torch.from_numpy(latents_from_seeds(seeds)), position="w")
            w = training_w(w, latent_map, seeds[0])
            factors = latent_map.factors(latent_map.p(w))
        images, masks, tables = [], [], []
        for i in range(0, len(seeds), 8):
            batch = render_factors(factors[i : i + 8], options.size)
            images.append(((batch.images + 1) * 127.5 + 0.5).clamp(0, 255).byte().permute(0, 2, 3, 1).numpy())
            masks.append(batch.masks.numpy())
            tables.append(batch.attributes)
        arrays = {
            "images": np.concatenate(images),
            "masks": np.concatenate(masks),
            "factors": factors.numpy(),
            "attributes": pd.concat(tables)[list(ATTRIBUTES)].to_numpy(np.float32),
        }
        if w is not None:
            arrays["w"] = w.numpy()
        with atomic(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)


if __name__ == "__main__":
    main(DatasetOptions, render_dataset, examples=__doc__)
