"""The scorers of a profile by name, and the proof that one may judge what another found.

Whoever finds a direction is not the one that grades it: a scorer that shares training faces with another shares its
mistakes.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artefacts import stamp_path
from pipeline.errors import PipelineError
from pipeline.profile import Profile
from pipeline.run import Run
from pipeline.seeds import parse_seeds
from property_score.normalisation import Normalisation
from property_score.tables import table_names

if TYPE_CHECKING:
    import torch

    from property_score.scorer import Scorer

SCORERS = ("property_cnn", "geometric", "second_grader")
RUN_MODEL = ("property_score", "models", "merged_property_cnn.pth")


def load_scorer(name: str, profile: Profile, run: Run | None = None, device: str | torch.device = "cpu") -> Scorer:
    """The scorer of a profile by name, one of SCORERS; all of them give z-scores.

    run: takes its property CNN and its normalisation, where they are there, before the bundled ones.
    PipelineError for an unknown name, a missing file, or a geometric scorer without a normalisation.
    """
    from property_score.property_cnn import CNNScorer
    from property_score.scorer import GeometricScorer

    if name == "geometric":
        return GeometricScorer.load(profile, normalisation_of(profile, run), device)
    if name == "property_cnn":
        return CNNScorer.load(property_cnn_file(profile, run), device)
    if name == "second_grader":
        return CNNScorer.load(profile.weight("second_grader"), device)
    raise PipelineError(f"unknown scorer '{name}'; use {', '.join(SCORERS)}")


def property_cnn_file(profile: Profile, run: Run | None = None) -> Path:
    """The property CNN that stage 4b trained in the run, or else the profile's."""
    path = run.path(*RUN_MODEL) if run else None
    return path if path and path.is_file() else profile.weight("property_cnn")


def normalisation_of(profile: Profile, run: Run | None = None) -> Normalisation:
    """The normalisation that stage 4 fitted in the run, or else the one that the property CNN was trained with."""
    from property_score.property_cnn import weight_record

    fitted = _fitted(run)
    if fitted:
        return Normalisation.load(fitted)
    path = property_cnn_file(profile, run)
    record = weight_record(path)
    if "normalisation" not in record:
        raise PipelineError(
            f"the JSON beside {path} holds no normalisation, so raw scores cannot become z-scores; "
            "run compute_property_scores.py, or train the property CNN again"
        )
    return Normalisation.from_record(record["normalisation"], path)


def normalisation_file(profile: Profile, run: Run | None = None) -> Path:
    """The file that `normalisation_of` reads."""
    return _fitted(run) or stamp_path(property_cnn_file(profile, run))


def _fitted(run: Run | None) -> Path | None:
    path = run.path(*table_names("v2")[2].split("/")) if run else None
    return path if path and path.exists() else None


def shared_faces(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[int]:
    """Seeds of the faces that two scorers (their provenance) were both trained on.

    PipelineError when one of them does not tell what it was trained on.
    """
    seeds = []
    for provenance in (first, second):
        if "trained_on" not in provenance:
            raise PipelineError(
                f"the {provenance.get('scorer', 'scorer')} does not tell which faces it was trained on, so it can "
                "neither judge nor be judged; train it again on faces of known seeds (property_score.train_bundled)"
            )
        seeds.append(set(parse_seeds(provenance["trained_on"])) if provenance["trained_on"] else set())
    return sorted(seeds[0] & seeds[1])


def check_independent(*scorers: Scorer) -> None:
    """Make sure that no two scorers were trained on a common face; PipelineError names the two and the face."""
    for first, second in combinations([scorer.provenance for scorer in scorers], 2):
        both = shared_faces(first, second)
        if both:
            raise PipelineError(
                f"the {first['scorer']} and the {second['scorer']} were both trained on {len(both)} faces (seed "
                f"{both[0]} is the first), so one cannot judge the other; train one of them on other faces"
            )
