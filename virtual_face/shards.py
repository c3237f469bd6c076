"""Reads the shards that `virtual_face.dataset` writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.errors import PipelineError


def read_shards(folder: Path | str, names: tuple[str, ...], most: int | None = None) -> dict[str, np.ndarray]:
    """Joins the named arrays of all shards of a folder (the first `most` shards); PipelineError if there are none."""
    paths = sorted(Path(folder).glob("shard_*.npz"))[:most]
    if not paths:
        raise PipelineError(
            f"{folder}: no shard_*.npz; render some with: python -m virtual_face.dataset --out {folder}"
        )
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for path in paths:
        with np.load(path) as shard:
            for name in names:
                if name not in shard:
                    raise PipelineError(
                        f"{path}: holds no array '{name}' (has {', '.join(shard.files)}); render it again"
                    )
                parts[name].append(shard[name])
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}
