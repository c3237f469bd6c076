"""Trains the bundled networks that score: the property CNN, and the second grader on other faces.

    python -m property_score.train_bundled --count 8000 --epochs 20
    python -m property_score.train_bundled --network hairstyle --count 8000 --epochs 80
    python -m property_score.train_bundled --network second_grader --count 8000 --epochs 24

The faces come from the profile's base generator (and its fine-tuned v9, where the profile names one), from seeds that
no stage and no other network uses. Only those count in which the oracle sees the persona, as in a run's filtered
folder. Labels are the z-scores of the geometric scorer. The second grader is rewritten at the end to the normalisation
of the profile's property CNN, so that both score in the same units; the property CNN has to be there by then. The
hairstyle towers, which look for strands of a pixel or two, want more epochs than the rest: `--network hairstyle` trains
them apart, as was published, on the same faces, and puts them into the property CNN.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from pipeline.artefacts import digest, provenance_of, save_weights
from pipeline.command import Summary, limit_threads, main, resolve_device
from pipeline.errors import PipelineError
from pipeline.profile import ROOT, Profile, shown
from property_score.graders import normalisation_of
from property_score.measure import PROPERTIES
from property_score.normalisation import Normalisation
from property_score.property_cnn import HairstyleCNN, MergedPropertyCNN, load_property_cnn
from property_score.property_settings import PropertyTraining
from property_score.property_training import TrainedPropertyCNN, remove_checkpoint, train_property_cnn
from property_score.scorer import GeometricScorer
from property_score.second_grader import SecondGrader
from property_score.training_faces import measured, named_generators, persona_faces

HAIRSTYLE = PROPERTIES.index("hairstyle")


class HairstyleAlone(HairstyleCNN):
    """The hairstyle towers with the other seven scores at 0, so that they train like a whole property CNN."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores [N, 8] of images [N, 3, R, R] in [-1, 1]."""
        return F.pad(super().forward(images), (HAIRSTYLE, len(PROPERTIES) - 1 - HAIRSTYLE))


# network: architecture, width, learning rate
NETWORKS = {
    "property_cnn": (MergedPropertyCNN, 0.25, 5e-4),  # r .93-.99 of eyes, mouth, pose, hair colour on its test faces
    "hairstyle": (HairstyleAlone, 0.25, 1e-3),
    "second_grader": (SecondGrader, 1.0, 2e-3),
}


@dataclass
class BundledOptions:
    """Sample, measure and train; writes a network that ships with a profile."""

    network: Literal["property_cnn", "hairstyle", "second_grader"] = "property_cnn"
    profile: str = "demo"
    count: int = 8000
    """Faces to sample from each generator, before the persona is picked out."""
    epochs: int = 20
    out: str = ""
    """Weight file to write (default: where the profile looks for it)."""
    work: str = "work"
    """Folder of the checkpoint, from which a training that was stopped goes on."""
    device: str = "auto"
    seed: int = 0


def train(options: BundledOptions) -> None:
    """Train one of NETWORKS and write it with its provenance."""
    limit_threads()
    summary = Summary(options.network.replace("_", " "))
    profile, device = Profile.load(options.profile), resolve_device(options.device)
    file = "property_cnn" if options.network == "hairstyle" else options.network
    out = Path(options.out or ROOT / str(profile.get(f"weights.{file}")))
    scorer = GeometricScorer.load(profile, device=device)
    # Asked for now, so that a missing property CNN is told before the training and not after it.
    given = normalisation_of(profile) if options.network == "second_grader" else None
    faces = persona_faces(profile, file, options.count, device)
    generators = {name: digest(profile.weight(name)) for name in named_generators(profile)}
    if options.network == "hairstyle":
        check_same_faces(out, faces.drawn, generators)
    raw = measured(scorer, faces.images)
    normalisation = Normalisation.fit(raw, PROPERTIES)
    labels = normalisation.apply(raw)[list(PROPERTIES)].to_numpy(np.float32)
    if options.network == "hairstyle":
        labels[:, np.arange(len(PROPERTIES)) != HAIRSTYLE] = 0.0
    architecture, width, learning_rate = NETWORKS[options.network]
    settings = PropertyTraining(epochs=options.epochs, learning_rate=learning_rate)
    checkpoint = Path(options.work) / f"train_{options.network}.pt"
    trained = train_property_cnn(
        faces.images,
        labels,
        architecture=architecture,
        width=width,
        settings=settings,
        seed=options.seed,
        level_pose=normalisation.z("pose", 0.0),
        checkpoint=checkpoint,
        device=device,
    )
    if options.network == "hairstyle":
        put_in(out, trained, asdict(settings))
        remove_checkpoint(checkpoint)
        summary.wrote(shown(out), f"hairstyle towers, {len(trained.log)} epochs")
        summary.note(f"hairstyle: r {trained.test_figures.set_index('property').loc['hairstyle', 'r']:.3f}")
        summary.print()
        return
    figures = trained.test_figures
    if given:
        factors = in_units_of(trained.network, normalisation, given)
        figures["mae"] *= figures["property"].map(factors)
        normalisation = given
    save_weights(
        out,
        trained.network.state_dict(),
        half=True,
        faces=len(faces.images),
        trained_on=faces.drawn,
        generators=generators,
        seed=options.seed,
        width=width,
        resolution=profile.resolution,
        training=asdict(settings),
        epochs=len(trained.log),
        normalisation=normalisation.record(),
        test_r={row.property: round(row.r, 4) for row in figures.itertuples()},
        test_mae={row.property: round(row.mae, 4) for row in figures.itertuples()},
        test_faces={row.property: row.faces for row in figures.itertuples()},
    )
    remove_checkpoint(checkpoint)
    summary.wrote(shown(out), f"{len(faces.images)} faces, {len(trained.log)} epochs")
    for row in figures.itertuples():
        summary.note(f"{row.property}: r {row.r:.3f}, mean error {row.mae:.3f} on {row.faces} test faces")
    summary.print()


def check_same_faces(path: Path, drawn: str, generators: dict[str, str]) -> None:
    """PipelineError unless the property CNN of a file was trained on these seeds of generators with these digests."""
    known = provenance_of(path) if path.is_file() else {}
    if "trained_on" not in known:
        raise PipelineError(
            f"{path}, or the record beside it, is missing; train the property CNN first (--network property_cnn)"
        )
    if known["trained_on"] != drawn:
        raise PipelineError(
            f"{path} was trained on the seeds {known['trained_on']}, its hairstyle towers would be on {drawn}; give "
            "--count as it was given for the property CNN"
        )
    if known.get("generators") != generators:
        raise PipelineError(
            f"{path} was trained on faces of other generator files than the profile names now; train the property CNN "
            "again (--network property_cnn)"
        )


def put_in(path: Path, trained: TrainedPropertyCNN, training: dict) -> None:
    """Put hairstyle towers into the property CNN of a file."""
    known = provenance_of(path)
    whole = load_property_cnn(path)
    whole.hairstyle_score_cnn.load_state_dict(trained.network.state_dict())
    row = trained.test_figures.set_index("property").loc["hairstyle"]
    known["test_r"]["hairstyle"], known["test_mae"]["hairstyle"] = round(row["r"], 4), round(row["mae"], 4)
    known["hairstyle_training"] = training | {"epochs": len(trained.log)}
    save_weights(path, whole.state_dict(), half=True, **known)


def in_units_of(network: SecondGrader, own: Normalisation, other: Normalisation) -> dict[str, float]:
    """Rewrite the last layer so that z-scores of `own` become z-scores of `other`; returns the factor of each score."""
    factors = {name: own.scale[name] / other.scale[name] for name in PROPERTIES}
    shifts = [other.z(name, own.centre[name]) for name in PROPERTIES]
    factor = torch.tensor([factors[name] for name in PROPERTIES], dtype=network.head.weight.dtype)
    with torch.no_grad():
        network.head.weight.mul_(factor[:, None])
        network.head.bias.mul_(factor).add_(torch.tensor(shifts, dtype=factor.dtype))
    return factors


if __name__ == "__main__":
    main(BundledOptions, train, examples=(__doc__ or "").split("\n\n")[1])
