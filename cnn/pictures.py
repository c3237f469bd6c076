"""The sampled faces of a run as the filter CNNs read them: which there are, and their pixels in batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.artefacts import check_whole, read_arrays, read_image, record_beside
from pipeline.errors import PipelineError
from pipeline.images import AGAIN, NUMBERED
from pipeline.run import Run
from pipeline.seeds import parse_seeds
from pipeline.whole import is_leftover

FOLDER = ("stylegan", "synthesize_results")
LATENTS = ("stylegan", "latents.npz")
FILTERED = ("stylegan", "synthesize_results_filtered")
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def list_pictures(run: Run) -> pd.DataFrame:
    """Table of the run's sampled faces: img_no, img_path (relative to the run), seed (-1 where it is not known).

    PipelineError if there are none, if one that latents.npz lists has no file, if sampling was interrupted, or for a
    picture of another name.
    """
    folder, latents = run.path(*FOLDER), run.path(*LATENTS)
    again = f"run the same run_original_generator.py command for {run} again"
    check_whole(folder, again)
    files = (path for path in folder.glob("[!.]*") if not is_leftover(path))  # copies leave files that begin with a dot
    pictures = [path.name for path in files if path.suffix.lower() in PICTURES]
    names = sorted((name for name in pictures if NUMBERED.fullmatch(name)), key=lambda name: int(name[:-4]))
    strangers = sorted(set(pictures) - set(names))
    if strangers:
        raise PipelineError(
            f"{folder / strangers[0]} is not named as a sampled face ({len(strangers)} such pictures): name pictures "
            "of your own 000000.jpg, 000001.jpg, ... (JPEG, six digits), or move these away"
        )
    if not names:
        raise PipelineError(
            f"no sampled faces in {folder}; run run_original_generator.py --run {run} first, or put pictures of your "
            "own there: 000000.jpg, 000001.jpg, ..., each of exactly the profile's resolution"
        )
    numbers = np.array([int(name[:-4]) for name in names])
    seeds = np.full(len(numbers), -1)
    if latents.exists():
        arrays = read_arrays(latents, ("img_no", "seed"))
        seed_of = dict(zip(arrays["img_no"].tolist(), arrays["seed"].tolist(), strict=True))
        absent = sorted(set(seed_of) - set(numbers.tolist()))
        if absent:
            raise PipelineError(
                f"{len(absent)} faces listed in {latents} have no picture, the first is "
                f"{folder / f'{absent[0]:06d}.jpg'}; {again}"
            )
        strangers = sorted(set(numbers.tolist()) - set(seed_of))
        if strangers:
            raise PipelineError(
                f"{folder / f'{strangers[0]:06d}.jpg'} is not listed in {latents} ({len(strangers)} such pictures); "
                f"{again}, or give pictures of your own a run of their own"
            )
        seeds = np.array([seed_of[number] for number in numbers.tolist()])
    elif told := (record_beside(folder).get("origin") or {}).get("seeds"):
        known = np.array(parse_seeds(told))
        if numbers.max() >= len(known):
            raise PipelineError(
                f"{folder / names[-1]} is not among the {len(known)} faces that the record beside the folder tells of; "
                f"{again}, or give pictures of your own a run of their own"
            )
        seeds = known[numbers]
    paths = ["/".join((*FOLDER, name)) for name in names]
    return pd.DataFrame({"img_no": numbers, "img_path": paths, "seed": seeds})


def read_pictures(paths: list[Path], resolution: int) -> np.ndarray:
    """Pixels uint8 [N, R, R, 3] of picture files; PipelineError for a broken file or one of another size."""
    batch = np.empty((len(paths), resolution, resolution, 3), np.uint8)
    for row, path in enumerate(paths):
        pixels = read_image(path, f"{AGAIN}; one of your own: replace it, or take it out")
        if pixels.shape != (resolution, resolution, 3):
            raise PipelineError(
                f"{path} is {pixels.shape[1]}x{pixels.shape[0]} pixels, the profile's resolution is "
                f"{resolution}; sample the faces again with this profile, or use the other profile; pictures of your "
                f"own must be {resolution}x{resolution}"
            )
        batch[row] = pixels
    return batch


def picture_batches(
    run: Run, pictures: pd.DataFrame, resolution: int, batch: int
) -> Iterator[tuple[slice, np.ndarray]]:
    """Each picture once: (rows of the table, pixels uint8 [n, R, R, 3])."""
    for start in range(0, len(pictures), batch):
        rows = slice(start, min(start + batch, len(pictures)))
        yield rows, read_pictures([run.path(path) for path in pictures["img_path"].iloc[rows]], resolution)
