"""Generated faces for the networks that score: each use draws from seeds of its own, so that no two share a face."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from pipeline.errors import PipelineError
from pipeline.profile import ROOT, Profile
from pipeline.progress import progress
from pipeline.seeds import format_seeds
from property_score.scorer import GeometricScorer
from segmentation.parser import to_tensor
from stylegan.checkpoint import load_generator
from stylegan.sampling import sample, to_uint8
from virtual_face.oracle import load_oracle

BLOCKS = {"property_cnn": 30_000_000, "second_grader": 40_000_000, "report": 50_000_000}
"""First seed of each use; a block is one million seeds for each of GENERATORS."""
GENERATORS = ("generator", "generator_v9")
PER_GENERATOR = 1_000_000
BATCH = 16


@dataclass
class GeneratedFaces:
    """Pictures uint8 [N, R, R, 3] and the seeds that were drawn for them, in the grammar of `pipeline.seeds`."""

    images: np.ndarray
    drawn: str


def face_seeds(use: str, generator: str, count: int) -> list[int]:
    """Seeds of one use (of BLOCKS) for one of GENERATORS; no two uses and no two generators share one."""
    if use not in BLOCKS or generator not in GENERATORS or not 0 < count <= PER_GENERATOR:
        raise PipelineError(
            f"no seeds for {count} faces of {generator} for {use}; use 1 to {PER_GENERATOR} faces, one of "
            f"{', '.join(GENERATORS)}, one of {', '.join(BLOCKS)}"
        )
    first = BLOCKS[use] + GENERATORS.index(generator) * PER_GENERATOR
    return list(range(first, first + count))


def named_generators(profile: Profile) -> list[str]:
    """Those of GENERATORS that the profile has weights of; the fine-tuned one may not be trained yet."""
    paths = {name: profile.get(f"weights.{name}", None) for name in GENERATORS}
    found = [name for name, path in paths.items() if path and (ROOT / str(path)).is_file()]
    return found or [GENERATORS[0]]  # loading it then says what is missing


def persona_faces(profile: Profile, use: str, count: int, device: str | torch.device) -> GeneratedFaces:
    """Draw `count` faces from each generator that the profile names and keep those of the persona, as stage 2 does.

    The oracle tells the persona; where the profile names none (`attribute_net`), all faces are kept.
    """
    oracle = None
    if profile.get("weights.attribute_net", None):
        oracle = load_oracle(profile.weight("attribute_net"), device)
    kept, drawn = [np.empty((0, profile.resolution, profile.resolution, 3), np.uint8)], []
    for name in named_generators(profile):
        generator = load_generator(profile.weight(name), device)
        seeds = face_seeds(use, name, count)
        drawn += seeds
        for _, _, images in progress(sample(generator, seeds, batch=BATCH, device=device), f"sample {name}"):
            if oracle is not None:
                images = images[torch.tensor(oracle.concept(oracle.attributes(images)))]
            kept.append(to_uint8(images))
    return GeneratedFaces(np.concatenate(kept), format_seeds(drawn))


def measured(scorer: GeometricScorer, images: np.ndarray) -> pd.DataFrame:
    """Scores of pictures uint8 [N, R, R, 3] by a geometric scorer: one row each, see `Scorer.score`."""
    starts = progress(range(0, len(images), BATCH), "measure")
    parts = [scorer.score(to_tensor(images[start : start + BATCH])) for start in starts]
    if not parts:
        raise PipelineError("no face fits the persona; draw more faces with --count")
    return pd.concat(parts, ignore_index=True)
