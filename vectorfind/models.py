"""Which generator and which scorer a run works with, and how they are loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import PipelineError
from pipeline.profile import ROOT, Profile, shown
from pipeline.run import Run
from property_score.graders import RUN_MODEL, property_cnn_file

if TYPE_CHECKING:
    import numpy as np
    import torch

    from cnn.filter_cnn import FilterCNN
    from property_score.scorer import GeometricScorer
    from vectorfind.bench import Bench
    from vectorfind.names import Holds

FINE_TUNED = ("stylegan_modified", "stylegan_gen_fine_tuned_v9.pth")
# Filters whose first fold's hidden layer tells the closed loop who a face is.
SEEN_BY = ("gender", "age")


@dataclass
class ModelFiles:
    """Paths of the generator and the scorer; notes say where they are not the run's own."""

    generator: Path
    scorer: Path
    notes: list[str] = field(default_factory=list)

    def inputs(self) -> dict[str, Path]:
        """As the inputs of a stamp."""
        return {"generator": self.generator, "scorer": self.scorer}


def locate(profile: Profile, run: Run, generator: str = "v9", scorer: str = "") -> ModelFiles:
    """Find the weight files without loading them.

    generator: "v9" (the run's stage 5, or with a note the profile's v9 net, or its base), "base" (the profile's), or a
    path. scorer: a path, or "" for the run's stage 4b (with a note the profile's). PipelineError when there is none.
    """
    notes: list[str] = []
    if generator == "v9":
        path = run.path(*FINE_TUNED)
        if not path.is_file():
            path, whose = _not_of_the_run(profile)
            notes.append(
                f"{shown(run.path(*FINE_TUNED))} is missing, so the directions are those of {whose}; "
                "run run_stylegan_finetune_v9.py and then this stage again"
            )
    elif generator == "base":
        path = _base(profile)
    else:
        path = _existing(generator, "--generator")
    if scorer:
        return ModelFiles(path, _existing(scorer, "--scorer"), notes)
    score_path, own = property_cnn_file(profile, run), run.path(*RUN_MODEL)
    if score_path != own:
        notes.append(
            f"{shown(own)} is missing, so the profile's property CNN scores; "
            "run run_property_cnn.py and then this stage again to use the run's own"
        )
    return ModelFiles(path, score_path, notes)


def open_bench(files: ModelFiles, device: str = "auto", batch: int = 50, precision: str = "auto") -> Bench:
    """Load both; PipelineError when they are made for pictures of different size.

    precision: "float32", "bfloat16", or "auto", which is bfloat16 on a CPU that is fast in it.
    """
    from pipeline.artefacts import digest
    from pipeline.command import limit_threads, resolve_device
    from property_score.property_cnn import CNNScorer
    from stylegan.checkpoint import generator_hash, load_generator
    from vectorfind.bench import Bench

    where = resolve_device(device)
    limit_threads()
    generator = load_generator(files.generator, where)
    scorer = CNNScorer.load(files.scorer, where, batch=batch)
    if generator.resolution != scorer.resolution:
        raise PipelineError(
            f"{shown(files.generator)} draws {generator.resolution} px, "
            f"{shown(files.scorer)} reads {scorer.resolution} px: "
            "train a property CNN on this generator's pictures (run_property_cnn.py --train)"
        )
    precision = resolve_precision(precision, device)
    hashes = {"generator_hash": generator_hash(generator), "scorer_hash": digest(files.scorer)}
    return Bench(generator, scorer, device=where, batch=batch, precision=precision, **hashes)


def resolve_precision(precision: str, device: str) -> str:
    """What pictures are drawn in: "float32", "bfloat16"; "auto" is bfloat16 on a CPU that is fast in it."""
    if precision != "auto":
        return precision
    from pipeline.command import resolve_device
    from pipeline.precision import has_fast_bfloat16

    where = resolve_device(device)
    return "bfloat16" if where.type == "cpu" and has_fast_bfloat16(where) else "float32"


def open_identity(profile: Profile, holds: Holds, device: str = "auto") -> Features | Looks | None:
    """What an edit holds a person by (`Setting.holds`); None for nothing, and where the profile lacks the weights.

    The filter CNNs neither find directions nor judge them. The parser is also the geometric grader's, which judges by
    eyes, mouth and roll; of these the looks tell nothing.
    """
    paths = identity_files(profile, holds)
    if not paths:
        return None
    from pipeline.command import resolve_device

    where = resolve_device(device)
    if holds == "looks":
        from property_score.scorer import ALIGNED_WINDOW, GeometricScorer

        return Looks(GeometricScorer.load(profile, None, where, ALIGNED_WINDOW))
    from cnn.filter_cnn import FilterEnsemble
    from cnn.settings import FilterSettings

    kinds = FilterSettings.of(profile).architectures
    return Features([FilterEnsemble.load(name, [path], kinds[name], where).models[0] for name, path in paths.items()])


def identity_files(profile: Profile, holds: Holds) -> dict[str, Path]:
    """The weights of `open_identity`, by name; empty for nothing, and where one is missing."""
    if holds == "looks":
        path = profile.get(f"weights.{profile.get('segmentation.parser', 'parsenet')}", None)
        paths = {} if path is None else {"parser": ROOT / str(path)}
    elif holds == "features":
        from cnn.models import bundled_path
        from cnn.settings import FilterSettings

        bundled = FilterSettings.of(profile).bundled
        paths = {} if bundled is None else {name: bundled_path(bundled, name, 0) for name in SEEN_BY}
    else:
        return {}
    return paths if all(path.is_file() for path in paths.values()) else {}


class Features:
    """Who a face is: the hidden layers of some filter CNNs."""

    def __init__(self, networks: list[FilterCNN]):
        self.networks = networks

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Features [N, F] of images [N, 3, R, R] in [-1, 1]."""
        import torch

        return torch.cat([_hidden(network, images) for network in self.networks], 1)


class Looks:
    """How a face looks: readings of what the parser finds."""

    def __init__(self, geometry: GeometricScorer):
        self.geometry = geometry

    def __call__(self, images: torch.Tensor) -> np.ndarray:
        """Readings float32 [N, K] of `vectorfind.appearance` of images [N, 3, R, R] in [-1, 1]; NaN without a face."""
        import numpy as np

        from stylegan.sampling import to_uint8
        from vectorfind.appearance import READINGS, appearance

        parsed = self.geometry.parse(to_uint8(images))
        found = np.full((len(images), len(READINGS)), np.nan, np.float32)
        found[parsed.rows] = appearance(parsed.maps, parsed.faces)
        return found


def _hidden(model: FilterCNN, images: torch.Tensor) -> torch.Tensor:
    # to_unit of cnn.filter_cnn, after the clip that a saved picture would have had.
    return model.fc1(model.features(model.window.crop(images.clamp(-1, 1) * 0.5 + 0.5)))


def _not_of_the_run(profile: Profile) -> tuple[Path, str]:
    """The generator of a run without stage 5, and a note's words for it: the profile's v9 net, else its base."""
    named = profile.get("weights.generator_v9", None)
    if named and (ROOT / str(named)).is_file():
        path = profile.weight("generator_v9")
        return path, f"{shown(path)} (generator_v9 of the profile; the base one: --generator base)"
    return _base(profile), "the base generator (--generator base)"


def _base(profile: Profile) -> Path:
    try:
        return profile.weight("generator")
    except PipelineError as error:
        raise PipelineError(f"{error}\n  or take any other generator: --generator FILE") from error


def _existing(path: str, option: str) -> Path:
    if not Path(path).is_file():
        raise PipelineError(f"{option} {path}: no such file; give the path of a .pth file")
    return Path(path)
