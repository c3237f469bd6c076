"""Images per second at 256x256, next to a plain loop that takes one image at a time in float32, in the same run.

Networks have their published sizes and random weights: time does not depend on what they learned. The plain loop calls
the same networks one image at a time, and for FaceXFormer, as the published script does, a network that is built and
loaded anew for every picture. Times are wall clock after a warm-up. How far the results differ is measured too, and too
much ends the run.
"""

import platform
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from benchmarks.naive_property_scores import naive_v2
from benchmarks.score_speed import TOLERANCE, random_faces
from pipeline.artefacts import save_weights, write_json
from pipeline.command import limit_threads, main, resolve_device
from pipeline.errors import PipelineError
from pipeline.report import Report
from pipeline.seeds import latents_from_seeds
from property_score.algorithm_v2 import scores_v2
from segmentation.classes import SIZE
from segmentation.facexformer import PARSING, FaceXFormer, load_facexformer
from segmentation.facexformer_parser import FaceXFormerParser, prepare
from stylegan.generator import Generator
from stylegan.sampling import sample

EXAMPLES = """
python -m benchmarks.throughput_256
python -m benchmarks.throughput_256 --precision bfloat16 --batch 8 --images 16 --plain 4
python -m benchmarks.throughput_256 --device cuda --images 512 --plain 32 --batch 64 --out reports/throughput_256
python -m benchmarks.throughput_256 --tasks scoring
"""
EXPLAINED = """
Numbers under **plain** and **this project** are images per second of wall-clock time, after a warm-up. Networks
have their published sizes and random weights.

- **plain**: one image per call in float32. Sampling: one latent a call, as the published 15,000 faces were drawn (the
  first 10,000 came four a call). FaceXFormer: one picture a call, and in the first row, as published, a network
  that is built and loaded from its file for each picture; *parsing alone* leaves that out. Property scores: loops
  over pixels, on the CPU.
- **this project**: batches, networks in the precision named above (by themselves the stages compute in float16 on a
  GPU and in float32, more slowly, on a CPU). FaceXFormer is loaded once, which the first row counts; property
  scores are computed on whole arrays, on the CPU.
- **asked**: the ratio that was the aim, where there was one; **verdict**: whether it is met.
- **difference**, over the pictures of the plain loop: sampling, root mean square between the images, in standard
  deviations of their pixels; FaceXFormer, share of pixels that have another class; property scores, the largest
  absolute difference of a score. More than the limit in brackets ends the benchmark.
"""
Precision = Literal["float32", "bfloat16", "float16"]
Task = Literal["sampling", "facexformer", "scoring"]

# How far images may lie from those of the plain loop: root mean square, in standard deviations of their pixels.
IMAGE_LIMIT = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.06}
# How many pixels of a parsing map may have another class. Random weights leave many of them close to a tie.
CLASS_LIMIT = {"float32": 0.001, "float16": 0.02, "bfloat16": 0.1}


@dataclass
class Options:
    """Measure images per second of sampling, FaceXFormer and property scores at 256x256 against a plain loop.

    The FaceXFormer part writes a weight file of 370 MB to the temporary folder and needs 3 GB of memory.
    """

    device: str = "auto"
    """Where the networks compute: auto (a GPU if there is one), cpu, cuda or cuda:1."""
    images: int = 8
    """Images for this project's path."""
    plain: int = 4
    """How many of them the plain loop takes."""
    batch: int | None = None
    """Images per pass of sampling and of FaceXFormer; 8 and 1 unless given, 32 and 32 on a GPU."""
    precision: Precision | None = None
    """Precision of this project's path; unless given float32 on a CPU and float16 on a GPU, as in the stages."""
    tasks: tuple[Task, ...] = ("sampling", "facexformer", "scoring")
    """What to measure."""
    out: str | None = None
    """Write the table to OUT.md and all numbers to OUT.json."""


@dataclass(frozen=True)
class Row:
    """One comparison: images per second of both forms, the asked ratio, and how far the results differ."""

    task: str
    plain: float
    ours: float
    asked: float | None
    difference: float
    limit: float

    @property
    def ratio(self) -> float:
        """How many times faster this project's path is."""
        return self.ours / self.plain

    @property
    def verdict(self) -> str:
        """Whether the asked ratio is met; a dash where none was asked."""
        if self.asked is None:
            return "-"
        return "met" if self.ratio >= self.asked else "MISSED"


@dataclass(frozen=True)
class Work:
    """The options, resolved against the device."""

    device: torch.device
    images: int
    plain: int
    precision: Precision
    batch: int | None

    def reduced(self) -> AbstractContextManager:
        """Return the context in which this project's path samples."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, getattr(torch, self.precision))


def plan(options: Options) -> Work:
    """Check the options; PipelineError names the one that cannot be."""
    if not 0 < options.plain <= options.images:
        raise PipelineError(f"--plain {options.plain} must be at least 1 and at most --images {options.images}")
    if options.batch is not None and options.batch < 1:
        raise PipelineError(f"--batch {options.batch}: at least 1 image per pass")
    device = resolve_device(options.device)
    precision = options.precision or ("float32" if device.type == "cpu" else "float16")
    return Work(device, options.images, options.plain, precision, options.batch)


def measure_sampling(work: Work, generator: Generator) -> list[Row]:
    """Compare a loop over single latents in float32 with the batches of stage 1."""
    generator.eval().to(work.device)
    batch = work.batch or (8 if work.device.type == "cpu" else 32)

    @torch.no_grad()
    def one_by_one(seeds: list[int]) -> list[torch.Tensor]:
        latents = (torch.from_numpy(latents_from_seeds([seed], generator.z_dim)) for seed in seeds)
        return [generator(z.to(work.device))["image"].cpu() for z in latents]

    def batched(seeds: list[int]) -> list[torch.Tensor]:
        with work.reduced():
            return [images for _, _, images in sample(generator, seeds, batch, work.device)]

    seeds = list(range(work.images))
    one_by_one(seeds[:1])
    batched(seeds[:batch])
    plain_seconds, plain = _timed(one_by_one, seeds[: work.plain])
    seconds, ours = _timed(batched, seeds)
    expected = torch.cat(plain)
    apart = (torch.cat(ours)[: work.plain] - expected).square().mean().sqrt() / expected.std()
    limit = IMAGE_LIMIT[work.precision]
    return [Row("sampling", work.plain / plain_seconds, work.images / seconds, 4.0, float(apart), limit)]


def measure_facexformer(work: Work) -> list[Row]:
    """Compare one picture at a time, with and without a network that is built for it, with one network and batches."""
    crops = torch.rand(work.images, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt"
        torch.manual_seed(0)
        save_weights(path, {"state_dict_backbone": FaceXFormer().state_dict()})

        def build(_: torch.Tensor) -> FaceXFormer:
            network = FaceXFormer()
            network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["state_dict_backbone"])
            return network.eval().to(work.device)

        @torch.no_grad()
        def parse_one(network: FaceXFormer, crop: torch.Tensor) -> np.ndarray:
            logits = network(prepare(crop[None].to(work.device)))[PARSING]
            return logits.softmax(dim=1).argmax(dim=1).to(torch.uint8).cpu().numpy()

        def load() -> FaceXFormerParser:
            network = load_facexformer(path, work.device)
            return FaceXFormerParser(network, work.device, work.batch, getattr(torch, work.precision))

        parse_one(build(crops[0]), crops[0])
        parser = load()
        parser.parse(crops[: parser.batch])
        plain, build_seconds, parse_seconds = [], 0.0, 0.0
        for crop in crops[: work.plain]:
            seconds, network = _timed(build, crop)
            build_seconds += seconds
            seconds, ids = _timed(parse_one, network, crop)
            parse_seconds += seconds
            plain.append(ids)
        del network, parser
        load_seconds, parser = _timed(load)
        seconds, maps = _timed(parser.parse, crops)
    apart, limit = float((maps[: work.plain] != np.concatenate(plain)).mean()), CLASS_LIMIT[work.precision]
    alone = work.plain / parse_seconds, work.images / seconds
    whole = work.plain / (build_seconds + parse_seconds), work.images / (load_seconds + seconds)
    return [
        Row("FaceXFormer, with building the network", *whole, 5.0, apart, limit),
        Row("FaceXFormer, parsing alone", *alone, None, apart, limit),
    ]


def measure_scoring(work: Work) -> list[Row]:
    """Compare algorithm v2 pixel by pixel with its vectorised form; both on the CPU."""
    maps, images = random_faces(work.images)

    def one_by_one(count: int) -> list[list[float]]:
        return [naive_v2(parsing, image) for parsing, image in zip(maps[:count], images[:count], strict=True)]

    scores_v2(maps[:1], images[:1], published=True)
    plain_seconds, expected = _timed(one_by_one, work.plain)
    seconds, (values, _) = _timed(lambda: scores_v2(maps, images, published=True))
    apart = float(np.nanmax(np.abs(values[: work.plain] - np.array(expected)), initial=0.0))
    return [Row("property scores v2", work.plain / plain_seconds, work.images / seconds, None, apart, TOLERANCE)]


def measure(work: Work, tasks: Sequence[Task]) -> list[Row]:
    """Return the rows of the tasks; PipelineError when results differ by more than is allowed."""
    rows = []
    if "sampling" in tasks:
        torch.manual_seed(0)
        rows += measure_sampling(work, Generator(256))
    if "facexformer" in tasks:
        rows += measure_facexformer(work)
    if "scoring" in tasks:
        rows += measure_scoring(work)
    for row in rows:
        if not row.difference <= row.limit:
            raise PipelineError(
                f"{row.task} in {work.precision}: results differ by {row.difference:.3g} from the plain loop, "
                f"{row.limit:g} is allowed; a fast wrong result is none"
            )
    return rows


def report(options: Options) -> None:
    """Print the table, and write it and its numbers if asked to."""
    threads = limit_threads()
    work = plan(options)
    rows = measure(work, options.tasks)
    place = _place(work.device, threads)
    print(f"images per second at 256x256 on {place}, {work.precision}; plain: float32, one at a time")
    table = tabulate(rows)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.2f}", na_rep="-"))
    if options.out is None:
        return
    base = Path(options.out)
    numbers: dict[str, Any] = {"place": place, "torch": torch.__version__, "options": asdict(options)}
    numbers["rows"] = [{**asdict(row), "ratio": row.ratio} for row in rows]
    write_json(base.with_name(base.name + ".json"), numbers)
    write_report(base.with_name(base.name + ".md"), place, work.precision, work.images, work.plain, rows)


def tabulate(rows: Sequence[Row]) -> pd.DataFrame:
    """Return the rows as people read them: images per second, ratios, verdict, difference with its limit."""
    return pd.DataFrame(
        {
            "task": [row.task for row in rows],
            "plain": [row.plain for row in rows],
            "this project": [row.ours for row in rows],
            "ratio": [row.ratio for row in rows],
            "asked": [row.asked for row in rows],
            "verdict": [row.verdict for row in rows],
            "difference": [f"{row.difference:.2g} (at most {row.limit:g})" for row in rows],
        }
    )


def write_report(path: Path, place: str, precision: str, images: int, plain: int, rows: Sequence[Row]) -> None:
    """Write the table as Markdown, with what its columns mean.

    images, plain: how many images this project's path and the plain loop took.
    """
    text = f"{place}, {precision}, {images} images (plain loop: {plain}, float32, one at a time)."
    Report("Images per second at 256x256").text(text).table(tabulate(rows), digits=2).text(EXPLAINED).write(path)


def _timed(function: Callable, *arguments: Any) -> tuple[float, Any]:
    """Return seconds and result; work on a GPU is over once its result is here, or on the next copy from there."""
    clock = time.perf_counter()
    result = function(*arguments)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - clock, result


def _place(device: torch.device, threads: int) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"a CPU ({platform.machine()}, {threads} {'thread' if threads == 1 else 'threads'})"


if __name__ == "__main__":
    main(Options, report, EXAMPLES)
