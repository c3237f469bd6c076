"""Checkpoints of trainings that may be stopped: one goes on from its own only."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError

SAMPLE = 2**16


def training_of(data: Path | str, seed: int) -> str:
    """What a training is known by: its seed, and of the shards in its folder of data names, sizes and some bytes."""
    total = hashlib.sha256()
    for path in sorted(Path(data).glob("shard_*.npz")):
        size = path.stat().st_size
        total.update(repr((path.name, size)).encode())
        with path.open("rb") as stream:
            stream.seek(size // 2)  # all shards of one shape begin alike
            total.update(stream.read(SAMPLE))
    return f"data {total.hexdigest()[:16]}, seed {seed}"


def check_training(path: Path | str, found: str | None, training: str) -> None:
    """PipelineError where a checkpoint is `found` to be of another training than this one."""
    if found != training:
        raise PipelineError(
            f"{path} belongs to a training on other data or by another seed ({found or 'not recorded'}): give this one "
            "another --work, or delete the file to train anew"
        )


def read_checkpoint(path: Path | str, training: str) -> dict[str, Any]:
    """The state that `torch.save` wrote, its entry "training" checked; PipelineError when damaged or of another one."""
    import pickle

    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        # torch's own text advises to switch the protection off, so it is not passed on.
        raise PipelineError(f"{path} cannot be read ({type(error).__name__}): delete it to train anew") from None
    check_training(path, state.get("training") if isinstance(state, dict) else None, training)
    return state
