"""How many pictures each scorer of a profile scores per second: in batches, and one at a time.

Wall-clock time of the best of three passes, on the CPU and on a GPU where there is one. A picture must get the same row
both ways (1e-5).
"""

import time
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.command import limit_threads, main
from pipeline.errors import PipelineError
from pipeline.profile import Profile
from property_score.graders import SCORERS, load_scorer
from property_score.measure import PROPERTIES
from property_score.scorer import ALIGNED_WINDOW, GeometricScorer
from stylegan.checkpoint import load_generator
from stylegan.sampling import sample

EXAMPLES = """
python -m benchmarks.scorer_speed
python -m benchmarks.scorer_speed --pictures 32 --alone 4
"""
PASSES = 3
TOLERANCE = 1e-5
WINDOWED = "geometric, fixed window"

Row = tuple[str, str, float, float]


@dataclass
class Options:
    """Time the scorers of a profile on generated faces."""

    profile: str = "demo"
    pictures: int = 64
    """Pictures of a batch."""
    alone: int = 16
    """How many of them are also scored one at a time."""


def measure_throughput(options: Options, names: tuple[str, ...] = (*SCORERS, WINDOWED)) -> tuple[list[Row], list[str]]:
    """Return (scorer, device, pictures per second in a batch, and one at a time), and what could not be timed.

    PipelineError when a picture alone gets another row than in a batch.
    """
    if not 0 < options.alone <= options.pictures:
        raise PipelineError(f"--alone {options.alone} must be at least 1 and at most --pictures {options.pictures}")
    profile = Profile.load(options.profile)
    generator = load_generator(profile.weight("generator"))
    images = torch.cat([part for _, _, part in sample(generator, range(options.pictures), batch=16)]).clamp(-1, 1)
    rows, absent = [], []
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        for name in names:
            try:
                scorer = _load(name, profile, device)
            except PipelineError as error:
                absent.append(f"{name}: {str(error).splitlines()[0]}")
                continue
            together, fast = _timed(lambda scorer=scorer: scorer.score(images))
            few = images[: options.alone]
            single, slow = _timed(lambda scorer=scorer, few=few: [scorer.score(image[None]) for image in few])
            expected = np.concatenate([frame[list(PROPERTIES)].to_numpy(float) for frame in single])
            found = together[list(PROPERTIES)].to_numpy(float)[: options.alone]
            if not np.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
                raise PipelineError(f"{name} on {device}: a picture alone gets another row than in a batch")
            rows.append((name, device, options.pictures / fast, options.alone / slow))
    return rows, absent


def _load(name: str, profile: Profile, device: str):
    if name == WINDOWED:
        return GeometricScorer.load(profile, device=device, window=ALIGNED_WINDOW)
    # Timing needs no z-scores, and so no normalisation.
    return (
        GeometricScorer.load(profile, device=device)
        if name == "geometric"
        else load_scorer(name, profile, None, device)
    )


def _timed(call):
    result, best = call(), float("inf")
    for _ in range(PASSES):
        clock = time.perf_counter()
        result = call()
        best = min(best, time.perf_counter() - clock)
    return result, best


def report(options: Options) -> None:
    """Print a table of pictures per second."""
    threads = limit_threads()
    rows, absent = measure_throughput(options)
    print(f"pictures per second ({options.pictures} in a batch, {options.alone} one at a time, {threads} CPU threads)")
    print(f"{'':26}{'device':>8}{'batch':>10}{'alone':>10}")
    for name, device, together, alone in rows:
        print(f"{name:26}{device:>8}{together:10.1f}{alone:10.1f}")
    for text in absent:
        print(f"not timed: {text}")


if __name__ == "__main__":
    main(Options, report, EXAMPLES)
