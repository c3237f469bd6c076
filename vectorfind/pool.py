"""The pool: one pass over the generator whose codes and scores every method, position and sample count reuses."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.artefacts import atomic, read_json, stamp_path, write_json
from pipeline.errors import PipelineError
from vectorfind.bench import Bench
from vectorfind.names import PROPERTIES

DESCRIPTION = "pool.json"
IDENTITY = ("generator_hash", "scorer_hash", "seed_start", "dtype", "code")
# Beside the arrays themselves: room for the tables and figures that follow.
DISK_MARGIN = 64 * 2**20


@dataclass(frozen=True)
class PoolPlan:
    """What makes two pools the same pool: equal plans give equal bytes, row by row.

    seed_start: row i is the face of seed `seed_start + i`. code: version of the code that samples. batch: rows decoded
    together (the last bits of a float depend on it). precision: that they are drawn in. shard_rows: rows per folder,
    the work that a kill can cost.
    """

    generator_hash: str
    scorer_hash: str
    positions: dict[str, int]
    seed_start: int
    code: str = ""
    dtype: str = "float32"
    batch: int = 50
    precision: str = "float32"
    shard_rows: int = 250

    def row_bytes(self) -> int:
        return sum(self.positions.values()) * np.dtype(self.dtype).itemsize + len(PROPERTIES) * 4


class ShardedArray:
    """Rows of one stored array across its memory-mapped shards; `[a:b]` and `[index array]` copy rows.

    Results are float32, whatever the storage type.
    """

    def __init__(self, files: list[Path], shard_rows: int, rows: int, dim: int):
        self.files, self.shard_rows = files, shard_rows
        self.shape = (rows, dim)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows) -> np.ndarray:
        if isinstance(rows, slice):
            rows = np.arange(len(self))[rows]
        rows = np.asarray(rows)
        if rows.dtype == bool:
            rows = np.flatnonzero(rows)
        if rows.size and (rows.min() < -len(self) or rows.max() >= len(self)):
            raise IndexError(f"row {rows.max()} of a pool of {len(self)}")
        rows = np.where(rows < 0, rows + len(self), rows)
        out = np.empty((len(rows), self.shape[1]), np.float32)
        shards = rows // self.shard_rows
        for shard in np.unique(shards):
            here = np.flatnonzero(shards == shard)
            out[here] = self._map(shard)[rows[here] - shard * self.shard_rows]
        return out

    def _map(self, shard: int) -> np.ndarray:
        file = self.files[shard]
        try:
            return np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise PipelineError(
                f"{file} is missing or damaged ({error}): delete {file.parent} and run `run_vectorfind.py pool` again"
            ) from error


class Pool:
    """The first `rows` samples of a pool on disk.

    `codes(position)` is a ShardedArray [rows, D], `scores` float32 [rows, 8] in the order of PROPERTIES. Shards
    hold whole multiples of `shard_rows`, so a smaller pool is the prefix of a larger one, byte by byte.
    """

    def __init__(self, folder: Path, plan: PoolPlan, rows: int):
        self.folder, self.plan, self.rows = Path(folder), plan, rows
        self._scores: np.ndarray | None = None

    def __len__(self) -> int:
        return self.rows

    def codes(self, position: str) -> ShardedArray:
        """The stored codes of one position; PipelineError naming the pool if it was sampled without it."""
        if position not in self.plan.positions:
            raise PipelineError(
                f"{self.folder} holds the positions {', '.join(self.plan.positions)}, not '{position}': "
                f"add it by `run_vectorfind.py pool --positions {position}`, with the other options as they were"
            )
        return self._array(position, self.plan.positions[position])

    @property
    def scores(self) -> np.ndarray:
        if self._scores is None:
            self._scores = self._array("scores", len(PROPERTIES))[:]
        return self._scores

    def score(self, name: str) -> np.ndarray:
        """The float32 [rows] scores of one property."""
        return self.scores[:, PROPERTIES.index(name)]

    def head(self, rows: int) -> Pool:
        """The pool of the first `rows` samples, without copying."""
        if rows > self.rows:
            raise PipelineError(
                f"{self.folder} holds {self.rows} samples, {rows} were asked for: run "
                f"`run_vectorfind.py pool -n {rows}` first"
            )
        return Pool(self.folder, self.plan, rows)

    @classmethod
    def open(cls, folder, rows: int | None = None) -> Pool:
        """Open what is complete in `folder`; PipelineError if there is no pool or it has fewer than `rows` samples."""
        folder = Path(folder)
        plan = read_plan(folder)
        if plan is None:
            raise PipelineError(f"{folder} holds no pool: run `python run_vectorfind.py pool` first")
        complete = complete_shards(folder) * plan.shard_rows
        pool = cls(folder, plan, complete)
        return pool if rows is None else pool.head(rows)

    def _array(self, name: str, dim: int) -> ShardedArray:
        count = -(-self.rows // self.plan.shard_rows)
        files = [shard_folder(self.folder, index) / f"{name}.npy" for index in range(count)]
        return ShardedArray(files, self.plan.shard_rows, self.rows, dim)


def plan_for(bench: Bench, positions, seed_start: int, **options) -> PoolPlan:
    """The plan of a pool of this bench; each position's width is measured on one sample."""
    z = bench.latents([seed_start])
    dims = {position: int(bench.encode(z, position).shape[1]) for position in dict.fromkeys(("z", *positions))}
    return PoolPlan(
        bench.generator_hash,
        bench.scorer_hash,
        dims,
        seed_start,
        batch=bench.batch,
        precision=bench.precision,
        **options,
    )


def read_plan(folder) -> PoolPlan | None:
    """The plan of the pool in `folder`, None if there is none."""
    path = Path(folder) / DESCRIPTION
    if not path.is_file():
        return None
    fields = read_json(path)
    try:
        return PoolPlan(**{name: fields[name] for name in PoolPlan.__dataclass_fields__})
    except KeyError as error:
        raise PipelineError(f"{path} has no field {error}: delete the folder and sample the pool again") from error


def shard_folder(folder, index: int) -> Path:
    return Path(folder) / f"shard_{index:05d}"


def complete_shards(folder) -> int:
    """How many shards are complete without a gap; a shard is renamed into place, so it is there whole."""
    index = 0
    while shard_folder(folder, index).is_dir():
        index += 1
    return index


def stored_shards(folder) -> list[int]:
    """Numbers of the shards that are there, behind a gap too."""
    names = (path.name.removeprefix("shard_") for path in Path(folder).glob("shard_*") if path.is_dir())
    return sorted(int(name) for name in names if name.isdigit())


def difference(old: PoolPlan, new: PoolPlan) -> str:
    """Why the rows of the `old` plan are not those of the `new` one; empty when they are (positions can be added)."""
    return next((f"{name} changed" for name in IDENTITY if getattr(old, name) != getattr(new, name)), "")


def pool_digest(folder) -> str | None:
    """A digest of what the pool's rows depend on; None if there is no pool. More rows or positions do not change it."""
    plan = read_plan(folder)
    if plan is None:
        return None
    return hashlib.sha256(repr([getattr(plan, name) for name in IDENTITY]).encode()).hexdigest()[:16]


def sample_pool(bench: Bench, folder, plan: PoolPlan, rows: int, progress=None) -> Pool:
    """Sample until `folder` holds at least `rows` samples of `plan`, and return the pool of the first `rows`.

    A pool that was killed goes on after its last complete shard with the same bytes; one that serves another generator,
    scorer, seed or storage type is replaced. progress: called with the number of rows done.
    Raises PipelineError when the disk has no room (before or while writing; complete shards are kept).
    """
    folder = Path(folder)
    present = read_plan(folder)
    added = {}
    if present is None or difference(present, plan):
        remove_pool(folder)
        write_json(folder / DESCRIPTION, asdict(plan))
    else:
        added = {name: dim for name, dim in plan.positions.items() if name not in present.positions}
        plan = replace(present, positions=present.positions | added)
    drawn = bench.batch, bench.precision
    bench.batch, bench.precision = plan.batch, plan.precision
    try:
        if added:
            _add_positions(bench, folder, plan, added)
        # A damaged shard may have been deleted; those behind it stay good.
        there = set(stored_shards(folder))
        needed = -(-rows // plan.shard_rows)
        missing = [index for index in range(needed) if index not in there]
        check_disk(folder, plan, len(missing) * plan.shard_rows)
        if progress is not None and len(missing) < needed:
            progress(min((needed - len(missing)) * plan.shard_rows, rows))
        for index in missing:
            _sample_shard(bench, folder, plan, index, progress)
    finally:
        bench.batch, bench.precision = drawn
    return Pool.open(folder, rows)


def check_disk(folder, plan: PoolPlan, rows: int) -> None:
    """PipelineError when `rows` more samples do not fit beside a margin on the disk of `folder`."""
    need = max(rows, 0) * plan.row_bytes()
    free = shutil.disk_usage(folder).free
    if need and need + DISK_MARGIN > free:
        raise PipelineError(
            f"{folder}: {rows} more samples need {(need + DISK_MARGIN) / 2**20:.0f} MiB, "
            f"the disk has {free / 2**20:.0f} MiB free: "
            "free some space, sample fewer (-n)"
            + ("" if plan.dtype == "float16" else ", or begin anew in half the space (--pool-dtype float16)")
        )


def remove_pool(folder) -> None:
    """Delete the shards and the description of a pool, nothing else that may lie in the folder."""
    folder = Path(folder)
    stamp_path(folder / DESCRIPTION).unlink(missing_ok=True)
    (folder / DESCRIPTION).unlink(missing_ok=True)
    for path in folder.glob("shard_*"):
        shutil.rmtree(path)


def _add_positions(bench: Bench, folder: Path, plan: PoolPlan, added: dict[str, int]) -> None:
    """Store the codes of more positions beside complete shards: no image has to be drawn or scored again."""
    stored = stored_shards(folder)
    check_disk(folder, replace(plan, positions=added), len(stored) * plan.shard_rows)
    for index in stored:
        start = plan.seed_start + index * plan.shard_rows
        z = bench.latents(range(start, start + plan.shard_rows))
        for name in added:
            codes = bench.encode(z, name).astype(plan.dtype)
            try:
                with atomic(shard_folder(folder, index) / f"{name}.npy") as temporary:
                    np.save(temporary, codes, allow_pickle=False)
            except OSError as error:
                raise PipelineError(
                    f"{shard_folder(folder, index)} could not be written ({_why(error)}); the pool stays as it was, "
                    f"without {name}: free some space and run the same command again"
                ) from error
    write_json(folder / DESCRIPTION, asdict(plan))


def _why(error: OSError) -> str:
    """What the system said; numpy's own error of a short write (a full disk, a quota) has text alone."""
    return error.strerror or f"{error}: no space left?"


def _sample_shard(bench: Bench, folder: Path, plan: PoolPlan, index: int, progress) -> None:
    start = plan.seed_start + index * plan.shard_rows
    arrays = {name: np.empty((plan.shard_rows, dim), plan.dtype) for name, dim in plan.positions.items()}
    scores = np.empty((plan.shard_rows, len(PROPERTIES)), np.float32)
    for low in range(0, plan.shard_rows, plan.batch):
        high = min(low + plan.batch, plan.shard_rows)
        z = bench.latents(range(start + low, start + high))
        codes = {name: bench.encode(z, name) for name in arrays}
        for name, array in arrays.items():
            array[low:high] = codes[name]
        w = codes["w"] if "w" in codes else bench.encode(z, "w")
        scores[low:high] = bench.scores(bench.images(w, "w"))
        if progress is not None:
            progress(high - low)
    final = shard_folder(folder, index)
    partial = final.with_name(final.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        for name, array in {**arrays, "scores": scores}.items():
            np.save(partial / f"{name}.npy", array, allow_pickle=False)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise PipelineError(
            f"{final} could not be written ({_why(error)}); the {index * plan.shard_rows} samples before it "
            "are kept: free some space and run the same command again"
        ) from error
    partial.rename(final)
