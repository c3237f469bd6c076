"""Trains the bundled property CNN on faces that fit the persona, scored by the geometric scorer.

    python -m property_score.train_bundled --count 8000 --epochs 20

The faces come from the profile's base generator (and its fine-tuned v9, where that file is there), from seeds that no
stage uses. Only those count in which the oracle sees the persona, as in a run's filtered folder.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import torch

from pipeline.artefacts import save_weights
from pipeline.command import Summary, limit_threads, main, resolve_device
from pipeline.errors import PipelineError
from pipeline.profile import Profile
from pipeline.progress import progress
from property_score.measure import PROPERTIES
from property_score.normalisation import Normalisation
from property_score.property_settings import PropertyTraining
from property_score.property_training import train_property_cnn
from property_score.scorer import GeometricScorer, to_uint8
from stylegan.checkpoint import load_generator
from stylegan.sampling import sample
from virtual_face.oracle import load_oracle

FIRST_SEED = 30_000_000


@dataclass
class BundledOptions:
    """Sample, score and train; writes the property CNN that ships with a profile."""

    profile: str = "demo"
    count: int = 8000
    """Faces to sample from each generator, before the persona is picked out."""
    epochs: int = 20
    width: float = 0.25
    out: str = "weights/demo/property_cnn.pth"
    device: str = "auto"
    seed: int = 0


def persona_faces(options: BundledOptions, profile: Profile, device: torch.device) -> np.ndarray:
    """Faces uint8 [n, R, R, 3] of the profile's generators in which the oracle sees the persona."""
    oracle, kept = load_oracle(profile.weight("attribute_net"), device), []
    names = ["generator"]
    try:
        profile.weight("generator_v9")
        names.append("generator_v9")
    except PipelineError:
        pass  # not trained yet
    for number, name in enumerate(names):
        generator = load_generator(profile.weight(name), device)
        first = FIRST_SEED + number * options.count
        seeds = list(range(first, first + options.count))
        for _, _, images in progress(sample(generator, seeds, batch=16, device=device), f"sample {name}"):
            fits = oracle.concept(oracle.attributes(images))
            kept.append(to_uint8(images[torch.from_numpy(fits)]))
    return np.concatenate(kept)


def train(options: BundledOptions) -> None:
    limit_threads()
    profile, device = Profile.load(options.profile), resolve_device(options.device)
    faces = persona_faces(options, profile, device)
    scorer = GeometricScorer.load(profile, device=device)
    parts = []
    for start in progress(range(0, len(faces), 64), "measure"):
        parts.append(scorer.score(torch.from_numpy(faces[start : start + 64]).permute(0, 3, 1, 2).float() / 127.5 - 1))
    raw = pd.concat(parts, ignore_index=True)
    labels = Normalisation.fit(raw, PROPERTIES).apply(raw)[list(PROPERTIES)].to_numpy(np.float32)
    settings = PropertyTraining(epochs=options.epochs)
    trained = train_property_cnn(
        faces, labels, width=options.width, settings=settings, seed=options.seed, device=device
    )
    figures = trained.test_figures
    save_weights(
        options.out,
        trained.network.state_dict(),
        half=True,
        faces=len(faces),
        seed=options.seed,
        width=options.width,
        resolution=profile.resolution,
        training=asdict(settings),
        test_r={row.property: round(row.r, 4) for row in figures.itertuples()},
    )
    summary = Summary("property CNN")
    summary.wrote(options.out, f"{len(faces)} faces")
    for row in figures.itertuples():
        summary.note(f"{row.property}: r {row.r:.3f}, mean error {row.mae:.3f} on {row.faces} test faces")
    summary.print()


if __name__ == "__main__":
    main(BundledOptions, train, examples=__doc__)
