"""Reads rendered shards: `shard_*.npz` with `images` uint8 [N, H, W, 3] and `masks` uint8 [N, H, W]."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from pipeline.artefacts import read_arrays
from pipeline.errors import PipelineError

Pair = tuple[torch.Tensor, torch.Tensor]


class Shards:
    """The shards of a folder: the first `held_out` of them are for evaluation alone, the others for training."""

    def __init__(self, folder: Path | str, held_out: int = 2):
        self.folder, self.count = Path(folder), held_out
        if not self._files():
            raise PipelineError(f"{folder} holds no shard_*.npz; render some: python -m virtual_face.dataset --help")

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("shard_*.npz"))

    def held_out(self, most: int) -> Pair:
        """Return up to `most` images uint8 [N, H, W, 3] and masks uint8 [N, H, W] that no training batch holds."""
        parts, count = [], 0
        for file in self._files()[: self.count]:
            if count < most:
                parts.append(_read(file))
                count += len(parts[-1][0])
        if not parts:
            raise PipelineError(f"{self.folder}: no shard is held out; use --held-out 1 or more")
        images, masks = (torch.cat([part[k] for part in parts])[:most] for k in (0, 1))
        return images, masks

    def batches(self, size: int, generator: torch.Generator, memory_mb: int = 2500) -> Iterator[Pair]:
        """Yield shuffled training batches without end, with at most `memory_mb` of shards in memory at a time.

        Shards that are added to the folder meanwhile are used from the next pass on.
        """
        held: dict[Path, Pair] = {}
        while True:
            files = self._files()[self.count :]
            if not files:
                raise PipelineError(
                    f"{self.folder}: all {len(self._files())} shards are held out, none is left to train on; "
                    "render more (python -m virtual_face.dataset --help) or lower --held-out"
                )
            order = [files[k] for k in torch.randperm(len(files), generator=generator).tolist()]
            for group in _groups(order, memory_mb):
                held = {file: pair for file, pair in held.items() if file in group}
                held |= {file: _read(file) for file in group if file not in held}
                yield from _shuffled([held[file] for file in group], size, generator)


def _shuffled(shards: list[Pair], size: int, generator: torch.Generator) -> Iterator[Pair]:
    places = [(images, masks, row) for images, masks in shards for row in range(len(images))]
    order = torch.randperm(len(places), generator=generator).tolist()
    # The few that do not fill a batch wait for the next pass; a set smaller than a batch is one batch.
    for start in range(0, max(len(order) - size, 0) + 1, size):
        rows = [places[k] for k in order[start : start + size]]
        yield torch.stack([images[row] for images, _, row in rows]), torch.stack([masks[row] for _, masks, row in rows])


def _groups(files: list[Path], memory_mb: int) -> Iterator[list[Path]]:
    group: list[Path] = []
    total = 0.0
    for file in files:
        need = file.stat().st_size / 2**20  # np.savez does not compress: a file is as large as its arrays
        if group and total + need > memory_mb:
            yield group
            group, total = [], 0.0
        group.append(file)
        total += need
    yield group


def read_shard(file: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Read a shard's arrays; PipelineError names the file and the cure when it is damaged or lacks one of `names`."""
    try:
        return read_arrays(file, names)
    except PipelineError as error:
        raise PipelineError(
            f"{error}\n  cure: delete {file.name} and render what is missing: python -m virtual_face.dataset --out "
            f"{file.parent}, with the options in dataset.json there"
        ) from None


def _read(file: Path) -> Pair:
    arrays = read_shard(file, ("images", "masks"))
    images, masks = arrays["images"], arrays["masks"]
    fits = images.dtype == masks.dtype == np.uint8 and images.shape == (*masks.shape, 3) and masks.ndim == 3
    if not fits or masks.max(initial=0) > 10:
        raise PipelineError(
            f"{file}: expected images uint8 [N, H, W, 3] and masks uint8 [N, H, W] with ids 0..10, found "
            f"{images.dtype} {list(images.shape)} and {masks.dtype} {list(masks.shape)}; render it again"
        )
    return torch.from_numpy(images), torch.from_numpy(masks)
