"""How long the vectorised property scores take, against the same algorithms pixel by pixel.

Both are the published forms, and their values must agree to 1e-9. Times are processor time, so that other work on the
machine hardly changes them. The pixel by pixel form takes long, and is timed on the first maps only.
"""

import time
from dataclasses import dataclass

import numpy as np

from benchmarks.naive_property_scores import naive_hairstyle, naive_v1, naive_v2
from pipeline.command import main
from pipeline.errors import PipelineError
from property_score.algorithm_v1 import scores_v1
from property_score.algorithm_v2 import scores_v2
from property_score.hairstyle import scores_hairstyle

EXAMPLES = """
python -m benchmarks.score_speed
python -m benchmarks.score_speed --maps 50 --naive 5
"""
ALGORITHMS = {
    "algorithm v1": (scores_v1, naive_v1),
    "algorithm v2": (scores_v2, naive_v2),
    "hairstyle": (scores_hairstyle, naive_hairstyle),
}
BATCH = 64  # maps that stage 4 hands over at a time
TOLERANCE = 1e-9

Ellipse = tuple[int, tuple[int, int], int]
FACE: tuple[Ellipse, ...] = (  # class id, middle (y, x), radius, about as in real maps; later ones cover earlier ones
    (10, (100, 112), 105),
    (1, (125, 112), 75),
    (4, (95, 80), 11),
    (5, (95, 145), 11),
    (6, (125, 112), 20),
    (7, (160, 112), 18),
    (9, (172, 112), 18),
    (8, (166, 112), 9),
)


@dataclass
class Options:
    """Time the property scores on synthetic faces, one thread, and check them against the pixel by pixel form."""

    maps: int = 1000
    """Synthetic maps for the vectorised form."""
    naive: int = 50
    """How many of them the pixel by pixel form also scores."""
    seed: int = 0


def random_faces(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return maps uint8 [N, 224, 224] of ellipses at random places, and noise uint8 [N, 224, 224, 3] as pictures.

    Each class is missing from one map in eight.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:224, :224]
    maps = np.zeros((count, 224, 224), np.uint8)
    for parsing in maps:
        for number, middle, radius in FACE:
            if rng.random() < 0.12:
                continue
            cy, cx = middle + rng.normal(0, 6, 2)
            height, width = radius * rng.uniform(0.3, 1.3, 2)
            inside = ((y - cy) / height) ** 2 + ((x - cx) / width) ** 2 < 1
            if number == 10 and rng.random() < 0.4:
                inside |= (np.abs(x - cx) < width) & (y > cy)  # long hair
            parsing[inside] = number
    return maps, rng.integers(0, 256, (count, 224, 224, 3), dtype=np.uint8)


def measure_speed(options: Options) -> list[tuple[str, float, float]]:
    """Return name, milliseconds per map vectorised and pixel by pixel, of each algorithm.

    PipelineError when the two forms disagree.
    """
    if not 0 < options.naive <= options.maps:
        raise PipelineError(f"--naive {options.naive} must be at least 1 and at most --maps {options.maps}")
    fast, slow = (dict.fromkeys(ALGORITHMS, 0.0) for _ in range(2))
    for start in range(0, options.maps, BATCH):
        maps, images = random_faces(min(BATCH, options.maps - start), options.seed + start)
        few = max(0, min(len(maps), options.naive - start))
        for name, (vectorised, naive) in ALGORITHMS.items():
            if start == 0:
                vectorised(maps, images, published=True)  # the first call pays for imports and memory
            clock = time.process_time()
            values, _ = vectorised(maps, images, published=True)
            fast[name] += time.process_time() - clock
            if few:
                clock = time.process_time()
                expected = [naive(parsing, image) for parsing, image in zip(maps[:few], images[:few], strict=True)]
                slow[name] += time.process_time() - clock
                if not np.allclose(values[:few], expected, rtol=0, atol=TOLERANCE, equal_nan=True):
                    raise PipelineError(f"{name}: the two forms differ by more than {TOLERANCE} (seed {options.seed})")
    return [(name, 1e3 * fast[name] / options.maps, 1e3 * slow[name] / options.naive) for name in ALGORITHMS]


def report(options: Options) -> None:
    """Print a table of milliseconds per map and how many times faster the vectorised form is."""
    rows = measure_speed(options)
    rows.append(("v2 and hairstyle", *(sum(row[k] for row in rows[1:]) for k in (1, 2))))
    print(f"processor time in ms per map ({options.maps} maps vectorised, {options.naive} pixel by pixel)")
    print(f"{'':18}{'vectorised':>12}{'pixel by pixel':>16}{'ratio':>8}")
    for name, fast, slow in rows:
        print(f"{name:18}{fast:12.3f}{slow:16.1f}{slow / fast:7.0f}x")


if __name__ == "__main__":
    main(Options, report, EXAMPLES)
