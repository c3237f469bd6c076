"""Reads the shards that `virtual_face.dataset` writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.errors import PipelineError
from segmentation.shards import read_shard


def read_shards(folder: Path | str, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Joins the named arrays of all shards of a folder.

    PipelineError if there are none, or one is damaged or lacks an array.
    """
    paths = sorted(Path(folder).glob("shard_*.npz"))
    if not paths:
        raise PipelineError(
            f"{folder}: no shard_*.npz; render some first (python -m virtual_face.dataset --help shows the calls for "
            "training and for held-out faces)"
        )
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for path in paths:
        shard = read_shard(path, names)
        for name in names:
            parts[name].append(shard[name])
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}
