"""What VectorFind costs, side by side with the published way on the same networks: pool, directions, 50-image test.

The published way draws sub-batches of four, scores every picture alone, and keeps the latents as lists of Python
floats; its networks compute in float32. Its test writes every picture as JPEG and reads it back; its pool does not, and
is timed with and without that. Times are wall time of one process; the exponent is the slope of log time on log n.
"""

from __future__ import annotations

import resource
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from pipeline.command import main
from pipeline.errors import PipelineError
from pipeline.images import read_image
from pipeline.profile import Profile
from pipeline.run import Run
from vectorfind.bench import Bench
from vectorfind.calibration import calibrate
from vectorfind.editor import load_editor
from vectorfind.finding import edited_deviations, find_directions, find_fits
from vectorfind.grid import GRIDS
from vectorfind.groups import Grouping
from vectorfind.methods import MethodOptions
from vectorfind.models import locate, open_bench, open_identity
from vectorfind.names import EDITED, PROPERTIES
from vectorfind.pool import Pool, plan_for, sample_pool
from vectorfind.setting import TEST_START, Files, Setting

EXAMPLES = """
python -m benchmarks.vectorfind_speed --what pool --sizes 250 1000
python -m benchmarks.vectorfind_speed --what directions --pool runs/demo/vectorfind/pool --sizes 1000 4000 8000
python -m benchmarks.vectorfind_speed --what test --pool runs/demo/vectorfind/pool --faces 10
python -m benchmarks.vectorfind_speed --what edit --run runs/demo --methods svm --faces 10
"""
SUB_BATCH, SHARD = 4, 50


@dataclass
class Options:
    """Time VectorFind against the published way."""

    what: Literal["pool", "directions", "test", "edit"] = "pool"
    """What is timed. edit: what it takes to work out an edit, by directions that a run has found."""
    sizes: tuple[int, ...] = (250, 1000)
    """Samples (pool, directions)."""
    naive: int = 100
    """Samples of the published pool; its time per sample does not depend on their number."""
    faces: int = 10
    """Faces of the 50-image test; the published way does a tenth of them, at least one. Faces that are edited."""
    methods: tuple[str, ...] = ("svm",)
    """edit: methods as reports name them, found in the run at --position."""
    pool: str = "runs/demo/vectorfind/pool"
    position: str = "w"
    groups: str = "16"
    profile: str = "demo"
    run: str = "runs/demo"
    generator: str = "v9"
    device: str = "auto"
    batch: int = 50
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of this project's way; auto as in run_vectorfind.py."""


def run(options: Options) -> None:
    """Print one table."""
    if min(options.sizes, default=0) < 1 or min(options.naive, options.faces) < 1:
        raise PipelineError("--sizes, --naive and --faces: give numbers of at least 1")
    models = locate(Profile.load(options.profile), Run(options.run), options.generator)
    for note in models.notes:
        print(note)
    bench = open_bench(models, options.device, options.batch, options.precision)
    published = open_bench(models, options.device, SUB_BATCH, precision="float32")
    published.generator.to(memory_format=torch.contiguous_format)
    for each in (published, bench):
        published_pool(each, range(SUB_BATCH))  # the first pictures pay for what is loaded only once
    print(f"published way in float32, here in {bench.precision}, {bench.batch} at a time")
    timed = {"pool": time_pool, "directions": time_directions, "test": time_test, "edit": time_edit}
    timed[options.what](bench, published, options)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


def time_pool(bench: Bench, published: Bench, options: Options) -> None:
    """Sampling and scoring per image, and how it grows."""
    slow = {}
    for way, jpeg in (("straight", False), ("through JPEG", True)):
        clock = time.perf_counter()
        published_pool(published, range(options.naive), jpeg)
        slow[way] = (time.perf_counter() - clock) / options.naive
    seconds, shard = [], max(SHARD, bench.batch)  # no batch is larger than a shard
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            clock = time.perf_counter()
            sample_pool(bench, folder, plan_for(bench, ("z", "w"), 0, shard_rows=shard), size)
            seconds.append(time.perf_counter() - clock)
    print("published way: " + ", ".join(f"{way} {1e3 * spent:.1f} ms per sample" for way, spent in slow.items()))
    whole = [-(-size // shard) * shard for size in options.sizes]  # a pool holds whole shards
    for size, spent in zip(whole, seconds, strict=True):
        ratios = " and ".join(f"{one * size / spent:.1f}" for one in slow.values())
        print(f"pool of {size}: {spent:.1f} s, {1e3 * spent / size:.1f} ms per sample, {ratios} x")
    print(f"exponent: {exponent(whole, seconds):.2f}")


def time_directions(bench: Bench, published: Bench, options: Options) -> None:
    """Three properties in all groups: LinearSVC at published settings against the closed-form ridge, and its best form.

    The best form (ranks, conditional) is what obeys better than the SVM. Sign and step of each direction are measured
    afterwards on decoded faces, which takes the same time whatever found them: timed apart.
    """
    pool = Pool.open(options.pool, max(options.sizes))
    times = {"svm": [], "ridge": [], "ridge_mended_conditional": []}
    sds = edited_deviations(pool)
    for size in options.sizes:
        head = pool.head(size)
        grouping = Grouping.at_medians(options.groups, head.scores)
        groups = grouping.assign(head.scores)
        known = (head.codes(options.position), head.scores, groups, grouping.names)
        for name in times:
            setting = Setting.named(name, options.position, options.groups)
            method = MethodOptions(ranks=setting.method == "ridge" and setting.mended)
            if size == options.sizes[0]:
                find_fits(*known, setting, method)  # the first call pays for imports
            clock = time.perf_counter()
            fits = find_fits(*known, setting, method)
            times[name].append(time.perf_counter() - clock)
        units = np.stack([np.stack([fits[name, group].normal for group in grouping.names]) for name in EDITED])
        clock = time.perf_counter()
        calibrate(bench, known[0], groups, grouping.names, units, EDITED, options.position, sds)
        probed, slow = time.perf_counter() - clock, times["svm"][-1]
        told = []
        for name, spent in times.items():
            ratio, whole = slow / spent[-1], (slow + probed) / (spent[-1] + probed)
            told.append(f"{name} {spent[-1]:.1f} s ({ratio:.1f} x; calibrated {whole:.1f} x)")
        print(f"n {size}: {', '.join(told)}; calibration of each {probed:.1f} s")
    for name, seconds in times.items():
        print(f"exponent of {name}: {exponent(options.sizes, seconds):.2f}")


def time_test(bench: Bench, published: Bench, options: Options) -> None:
    """The 50-image test, per face."""
    pool = Pool.open(options.pool)
    grouping = Grouping.at_medians("none", pool.scores)
    setting = Setting("ridge", options.position, "none")
    directions, _ = find_directions(bench, pool, grouping, setting, MethodOptions())
    amounts = GRIDS["deviations"].amounts()
    codes = bench.encode(bench.latents(range(TEST_START, TEST_START + options.faces)), options.position)
    few = max(1, options.faces // 10)
    edits = [
        directions.edit(np.repeat(code[None], len(amounts), axis=0), ["all"] * len(amounts), amounts) for code in codes
    ]
    clock = time.perf_counter()
    slow_scores = [published_scores(published, edited, options.position) for edited in edits[:few]]
    slow = (time.perf_counter() - clock) / few
    clock = time.perf_counter()
    fast_scores = [bench.measure(edited, options.position) for edited in edits]
    fast = (time.perf_counter() - clock) / options.faces
    gap = np.abs(np.concatenate(slow_scores) - np.concatenate(fast_scores[:few])).mean(0)
    print(f"published way {slow:.2f} s a face, here {fast:.2f} s, {slow / fast:.1f} x")
    print(
        "mean change of a score by JPEG and precision: "
        + ", ".join(f"{n} {g:.3f}" for n, g in zip(PROPERTIES, gap, strict=True))
    )


def published_pool(bench: Bench, seeds, jpeg: bool = False) -> tuple[list[list[float]], list[list[float]]]:
    """Latents and scores as lists of Python floats, one sample after another."""
    latents: list[list[float]] = []
    scores: list[list[float]] = []
    seeds = list(seeds)
    for start in range(0, len(seeds), SUB_BATCH):
        z = bench.latents(seeds[start : start + SUB_BATCH])
        scores = scores + published_scores(bench, bench.encode(z, "w"), "w", jpeg).tolist()
        latents = latents + [[float(number) for number in row] for row in z]
    return latents, scores


def time_edit(bench: Bench, published: Bench, options: Options) -> None:
    """One edit of a face, and the 50 of the test at once: the way to the code, without the picture that it makes."""
    profile = Profile.load(options.profile)
    amounts = GRIDS["deviations"].amounts()
    codes = bench.encode(bench.latents(range(TEST_START, TEST_START + options.faces)), options.position)
    for name in options.methods:
        setting = Setting.named(name, options.position, options.groups)
        path = Files(Run(options.run), setting).directions
        if not path.is_file():
            raise PipelineError(f"{path} is missing: run run_vectorfind.py directions for {setting.name} first")
        editor = load_editor(
            path, setting.method, bench, partial(open_identity, profile, setting.holds, options.device)
        )
        groups = Grouping(editor.grouping, editor.cuts).assign(bench.measure(codes, options.position))
        editor.edit(codes[:1], groups[:1], amounts[:1])  # the first edit pays for what is loaded only once
        seconds = []
        for size in (1, len(amounts)):
            clock = time.perf_counter()
            for code, group in zip(codes, groups, strict=True):
                editor.edit(np.repeat(code[None], size, axis=0), [group] * size, amounts[:size])
            seconds.append((time.perf_counter() - clock) / len(codes))
        clock = time.perf_counter()
        bench.measure(np.repeat(codes[:1], len(amounts), axis=0), options.position)
        drawn = time.perf_counter() - clock
        print(
            f"{setting.name}: one edit {1e3 * seconds[0]:.3g} ms, {len(amounts)} of a face {seconds[1]:.3g} s "
            f"({1e3 * seconds[1] / len(amounts):.3g} ms each); their pictures, drawn and scored, {drawn:.2f} s"
        )


def published_scores(bench: Bench, codes: np.ndarray, position: str, jpeg: bool = True) -> np.ndarray:
    """Scores [N, 8], one picture at a time; through a JPEG file each, or straight."""
    from PIL import Image

    from stylegan.sampling import from_uint8, to_uint8

    scores = []
    with tempfile.TemporaryDirectory() as folder:
        for start in range(0, len(codes), SUB_BATCH):
            images = bench.images(codes[start : start + SUB_BATCH], position)
            if not jpeg:
                scores += [bench.scores(image[None])[0] for image in images]
                continue
            for k, picture in enumerate(to_uint8(images)):
                path = Path(folder) / f"{start + k:06d}.jpg"
                Image.fromarray(picture).save(path, quality=95)
                scores.append(bench.scores(from_uint8(read_image(path).copy()[None]).to(bench.device))[0])
    return np.stack(scores)


def exponent(sizes, seconds) -> float:
    """Slope of log seconds on log size; NaN for a single size."""
    if len(set(sizes)) < 2:
        return float("nan")
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main(Options, run, EXAMPLES)
