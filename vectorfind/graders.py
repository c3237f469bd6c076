"""Who judges an edit: the scorer that found the direction, a second CNN and the geometric scorer, each in its units.

A grader's scores are divided by their deviation on faces of the pool, so that an effect is comparable between graders.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.errors import PipelineError
from pipeline.profile import ROOT, Profile, shown
from pipeline.run import Run
from vectorfind.bench import Bench, evenly_spaced, read_scores
from vectorfind.grid import ends_of
from vectorfind.names import EDITED, GRADERS, PROPERTIES

FINDER, SECOND, GEOMETRIC = GRADERS
SPREAD_FACES = 1000


@dataclass
class Grader:
    """A scorer with a name; sds float32 [8], ends float32 [8, 2]: deviation and ends of its scores over the pool.

    The finder's are those of the whole pool, the others' of SPREAD_FACES of it.
    """

    name: str
    scorer: object
    sds: np.ndarray
    ends: np.ndarray

    def scores(self, images: torch.Tensor) -> np.ndarray:
        """Scores float32 [N, 8] of images [N, 3, R, R]; NaN where it could not measure."""
        return read_scores(self.scorer, images)

    @property
    def edited_sds(self) -> np.ndarray:
        return self.sds[[PROPERTIES.index(name) for name in EDITED]]


def open_scorers(profile: Profile, run: Run, names, device: str = "auto") -> tuple[dict[str, object], list[str]]:
    """Scorers beside the one that finds, by name, and notes on those that this profile lacks."""
    from pipeline.command import resolve_device
    from property_score.graders import load_scorer, normalisation_of

    where, scorers, notes = resolve_device(device), {}, []
    for name in names:
        if name == SECOND:
            path = profile.get("weights.second_grader", None)
            if path is None or not (ROOT / str(path)).is_file():
                notes.append(
                    f"the second grader's weights ({path or 'none named in [weights]'}) are missing: it is left out"
                )
                continue
            scorers[name] = load_scorer("second_grader", profile, run, where)
        elif name == GEOMETRIC:
            from property_score.scorer import ALIGNED_WINDOW, GeometricScorer

            scorers[name] = GeometricScorer.load(profile, normalisation_of(profile, run), where, ALIGNED_WINDOW)
        elif name != FINDER:
            raise PipelineError(f"unknown grader '{name}': choose among {', '.join(GRADERS)}")
    return scorers, notes


def check_geometric(profile: Profile, run: Run) -> None:
    """PipelineError where the geometric grader lacks its parser or its normalisation; reads no weights."""
    from property_score.graders import normalisation_of

    try:
        profile.weight(profile.get("segmentation.parser", "parsenet"))
        normalisation_of(profile, run)
    except PipelineError as error:
        raise PipelineError(f"{error}\n  or leave this grader out: --graders finder second") from error


def check_second(finder, scorers: dict[str, object]) -> str:
    """PipelineError where the second CNN learnt from faces that the finder learnt from too.

    Returns a note where the files do not tell, else "".
    """
    from property_score.graders import check_independent

    if SECOND not in scorers:
        return ""
    known = [getattr(scorer, "provenance", {}) for scorer in (finder, scorers[SECOND])]
    if not all("trained_on" in about for about in known):
        return "whether the second grader learnt from other faces than the finder is not recorded beside their weights"
    try:
        check_independent(finder, scorers[SECOND])
    except PipelineError as error:
        raise PipelineError(f"{error}; or leave it out: --graders finder geometric") from error
    return ""


def check_size(profile: Profile, scorers: dict[str, object], generator: Path, resolution: int) -> None:
    """PipelineError where the second CNN reads pictures of another size than a generator draws (resolution)."""
    reads = getattr(scorers.get(SECOND), "resolution", resolution)  # parser and geometry read any
    if reads != resolution:
        raise PipelineError(
            f"{shown(generator)} draws {resolution} px, the second grader {shown(profile.weight('second_grader'))} "
            f"reads {reads} px: name one for {resolution} px as second_grader under [weights], or leave it out: "
            "--graders finder geometric"
        )


def grader_files(profile: Profile, run: Run, names) -> dict[str, Path]:
    """The files that graders beside the finder are read from, as inputs of a stamp; those that exist."""
    from property_score.graders import normalisation_file

    files: dict[str, Path] = {}
    if SECOND in names and (path := profile.get("weights.second_grader", None)) is not None:
        files["second_grader"] = ROOT / str(path)
    if GEOMETRIC in names:
        parser = profile.get("segmentation.parser", "parsenet")
        if (path := profile.get(f"weights.{parser}", None)) is not None:
            files["parser"] = ROOT / str(path)
        files["normalisation"] = normalisation_file(profile, run)
    return {name: path for name, path in files.items() if path.is_file()}


def finder_of(bench: Bench, scores: np.ndarray) -> Grader:
    """The scorer that finds directions, its deviations those of scores [n, 8] of the whole pool."""
    return _grader(FINDER, bench.scorer, scores)


def measure_spreads(bench: Bench, scorers: dict[str, object], codes, position: str, finder_scores) -> list[Grader]:
    """Graders with their deviations, measured on at most SPREAD_FACES evenly spaced codes of the pool; finder first.

    codes: [n, D] array or ShardedArray at `position`; finder_scores [n, 8]: of the whole pool.
    """
    graders = [finder_of(bench, finder_scores)]
    if not scorers:
        return graders
    rows = evenly_spaced(len(codes), SPREAD_FACES)
    found: dict[str, list[np.ndarray]] = {name: [] for name in scorers}
    for _, images in bench.draw(codes[rows], position):
        for name, scorer in scorers.items():
            found[name].append(read_scores(scorer, images))
    for name, scorer in scorers.items():
        scores = np.concatenate(found[name])
        measured = np.isfinite(scores).sum(0)
        if measured.min() < 2:
            lacking = PROPERTIES[int(measured.argmin())]
            raise PipelineError(f"grader '{name}' measures no {lacking} on generated faces: leave it out (--graders)")
        graders.append(_grader(name, scorer, scores))
    return graders


def _grader(name: str, scorer, scores: np.ndarray) -> Grader:
    spreads = np.maximum(np.nanstd(scores, axis=0, ddof=1), 1e-6).astype(np.float32)
    return Grader(name, scorer, spreads, ends_of(scores))
