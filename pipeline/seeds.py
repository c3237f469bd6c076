"""One seed grammar for every command (`0,1,4-6`) and the latent vector that belongs to a seed."""

from collections import Counter
from collections.abc import Iterable

import numpy as np

from pipeline.errors import PipelineError

HELP = "write comma-separated numbers and ranges, for example 0,1,4-6"
MOST = 10_000_000
LARGEST = 2**63 - 1  # tables and arrays hold 64 bits


def parse_seeds(text: str) -> list[int]:
    """Turn `"0,1,4-6"` into `[0, 1, 4, 5, 6]`, order kept; PipelineError on bad grammar or a repeated seed."""
    seeds: list[int] = []
    for part in str(text).split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        if not _is_number(first) or (dash and not _is_number(last)):
            raise PipelineError(f"seeds '{text}': '{part.strip()}' is neither a number nor a range; {HELP}")
        low, high = int(first), int(last) if dash else int(first)
        if high < low:
            raise PipelineError(f"seeds '{text}': the range '{part.strip()}' runs backwards; {HELP}")
        if high > LARGEST:
            raise PipelineError(f"seeds '{text}': {high} is too large; seeds go up to {LARGEST}")
        if len(seeds) + high - low >= MOST:
            raise PipelineError(f"seeds '{text}': more than {MOST} seeds; ask for fewer")
        seeds.extend(range(low, high + 1))
    if len(set(seeds)) != len(seeds):
        repeated = [seed for seed, times in Counter(seeds).most_common(5) if times > 1]
        raise PipelineError(f"seeds '{text}': {repeated} occur more than once; name each seed once")
    return seeds


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def format_seeds(seeds: Iterable[int]) -> str:
    """Write seeds in the grammar that `parse_seeds` reads, runs of neighbours as ranges, order kept."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][1] + 1:
            runs[-1][1] = seed
        else:
            runs.append([seed, seed])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def latent_from_seed(seed: int, dim: int = 512) -> np.ndarray:
    """Return the standard normal latent of one seed: float32 [dim]."""
    return np.random.default_rng(seed).standard_normal(dim).astype(np.float32)


def latents_from_seeds(seeds: Iterable[int], dim: int = 512) -> np.ndarray:
    """Return the latents of many seeds: float32 [n, dim]; row k depends on seed k alone."""
    seeds = list(seeds)
    if not seeds:
        return np.zeros((0, dim), dtype=np.float32)
    return np.stack([latent_from_seed(seed, dim) for seed in seeds])
