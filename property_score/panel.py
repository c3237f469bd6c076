"""All scorers and algorithms side by side on the same pictures; a face is found and parsed once for all of them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
import torch

from pipeline.errors import PipelineError
from pipeline.profile import Profile
from pipeline.progress import progress
from property_score.graders import check_independent, load_scorer
from property_score.measure import measure
from property_score.normalisation import Normalisation
from property_score.scorer import GeometricScorer, ParsedFaces, Scorer
from segmentation.classes import SIZE
from segmentation.parser import to_tensor

BATCH = 32
MEASURED = {  # name: algorithm, published form
    "v1 published": ("v1", True),
    "v2 published": ("v2", True),
    "v1 mended": ("v1", False),
    "geometric": ("v2", False),  # what GeometricScorer gives
}
NETWORKS = {"property CNN": "property_cnn", "second grader": "second_grader"}


@dataclass
class Readings:
    """What every scorer says of the same N pictures: a table of eight scores and `reason` each, by name."""

    tables: dict[str, pd.DataFrame]

    def of(self, scorer: str, name: str) -> np.ndarray:
        """One score float64 [N] of one scorer; NaN where missing."""
        return self.tables[scorer][name].to_numpy(np.float64)

    def rows(self, which: np.ndarray) -> Readings:
        """The readings of those pictures where bool [N] is set."""
        return Readings({name: table[which].reset_index(drop=True) for name, table in self.tables.items()})


class Panel:
    """The measuring algorithms in raw units and the networks of a profile in z units; `absent` says which it lacks."""

    def __init__(self, profile: Profile, device: str | torch.device = "cpu"):
        self.geometric = GeometricScorer.load(profile, device=device)
        self.networks: dict[str, Scorer] = {}
        self.absent: dict[str, str] = {}
        for title, name in NETWORKS.items():
            try:
                self.networks[title] = load_scorer(name, profile, device=device)
            except PipelineError as error:
                self.absent[title] = str(error).splitlines()[0]

    @property
    def scorers(self) -> list[str]:
        """Names of all columns of the report, the measuring ones first."""
        return [*MEASURED, *self.networks]

    @property
    def judges(self) -> list[str]:
        """Names of the scorers that may stand for one another: the geometric one and the networks."""
        return ["geometric", *self.networks]

    @property
    def normalisation(self) -> Normalisation | None:
        """What turns raw scores into the units of the property CNN; None where its file does not tell."""
        network = self.networks.get("property CNN")
        record = network.provenance.get("normalisation") if network else None
        return Normalisation.from_record(record, "the property CNN's record") if record else None

    def judge_table(self) -> pd.DataFrame:
        """What each judge is: weight file, units, and the seeds of the faces that it was trained on."""
        rows = []
        for name, scorer in {"geometric": self.geometric, **self.networks}.items():
            told = scorer.provenance
            trained_on = told.get("trained_on")
            rows.append(
                {
                    "judge": name,
                    "weights": f"{told['sha256'][:12]} (sha256)" if "sha256" in told else f"parser {told['parser']}",
                    "units": told["units"],
                    "trained on seeds": "not told" if trained_on is None else trained_on or "no scored face",
                }
            )
        return pd.DataFrame(rows)

    def independence(self) -> str:
        """One sentence: whether the judges were trained on different faces."""
        try:
            check_independent(self.geometric, *self.networks.values())
        except PipelineError as error:
            return f"Not shown: {error}."
        return "No two of them were trained on a common face (seeds compared); the geometric scorer was on none."

    def read(self, images: np.ndarray, what: str) -> Readings:
        """Score pictures uint8 [N, R, R, 3] by everything; `what` is told to the progress bar."""
        parts: dict[str, list[pd.DataFrame]] = {name: [] for name in self.scorers}
        for start in progress(range(0, len(images), BATCH), what):
            part = images[start : start + BATCH]
            parsed = self.geometric.parse(part)
            for name, (algorithm, published) in MEASURED.items():
                parts[name].append(parsed.table(self._measured(part, parsed, algorithm, published)))
            for name, network in self.networks.items():
                parts[name].append(network.score(to_tensor(part)))
        tables = {name: pd.concat(frames, ignore_index=True) for name, frames in parts.items()}
        return Readings({name: table.replace([np.inf, -np.inf], np.nan) for name, table in tables.items()})

    def _measured(self, pictures: np.ndarray, parsed: ParsedFaces, algorithm: str, published: bool) -> pd.DataFrame:
        wholes = None
        if (algorithm, published) == ("v1", True) and len(parsed.rows):
            wholes = np.stack([cv2.resize(pictures[k], (SIZE, SIZE)) for k in parsed.rows])
        hairstyle = self.geometric.hairstyle
        return measure(parsed.maps, parsed.faces, algorithm, published, wholes, hairstyle)
