"""Who measures a fine-tuning: the oracle of the virtual world, or the filter CNNs where a world has no oracle."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from cnn.filter_cnn import FilterEnsemble, to_unit
from cnn.models import model_paths
from cnn.settings import FILTER_NAMES, FilterSettings
from pipeline.artefacts import digest
from pipeline.profile import Profile
from pipeline.run import Run
from virtual_face.oracle import Oracle, load_oracle

if TYPE_CHECKING:
    from stylegan_modified.plan import Plan

BY_ORACLE = (
    "The oracle that judges here wrote the labels from which the filter CNNs learned which faces to keep. The share "
    "therefore says how well the generator took over that selection; it is no opinion of another judge."
)
BY_FILTERS = (
    "This world has no oracle. The filter CNNs of stage 2 judge, the very ones that chose the faces to train on, at "
    "even odds in each of the four properties; diversity is taken from a hidden layer of a gender CNN. The share "
    "therefore says how well the generator took over their selection, their errors included; it is no opinion of "
    "another judge."
)


class FilterJudge:
    """Judges faces by the five filter CNNs of each property in a run."""

    def __init__(self, ensembles: dict[str, FilterEnsemble]):
        self.ensembles = ensembles

    @classmethod
    def load(cls, profile: Profile, run: Run, device: torch.device | str = "cpu") -> FilterJudge:
        """The models that stage 2 left in the run; PipelineError where one is missing or does not fit."""
        architectures, paths = FilterSettings.of(profile).architectures, model_paths(run)
        return cls({name: FilterEnsemble.load(name, paths[name], architectures[name], device) for name in FILTER_NAMES})

    @torch.inference_mode()
    def read(self, images: torch.Tensor, batch: int = 64) -> tuple[pd.DataFrame, torch.Tensor]:
        """Columns gender, quality, age, glasses (0..1), and features float32 [N, F], of images [N, 3, R, R]."""
        gender = self.ensembles["gender"].models[0]
        device = next(gender.parameters()).device
        rows, features = [], []
        for part in images.split(batch):
            part = part.to(device, memory_format=torch.channels_last)
            rows.append(torch.stack([self.ensembles[name].score(part) for name in FILTER_NAMES], dim=1).cpu())
            features.append(gender.fc1(gender.features(to_unit(gender.window.crop(part)))).float().cpu())
        columns = ["glasses" if name == "glass" else name for name in FILTER_NAMES]
        return pd.DataFrame(torch.cat(rows).double().numpy(), columns=columns), torch.cat(features)

    def concept(self, frame: pd.DataFrame) -> np.ndarray:
        """Whether each face is a young woman of good quality without glasses: bool [N]."""
        return Oracle.concept(frame)


def load_judge(plan: Plan, device: torch.device | str) -> Oracle | FilterJudge:
    """The judge that a plan's weight files name."""
    if "oracle" in plan.weights:
        return load_oracle(plan.weights["oracle"], device)
    return FilterJudge.load(plan.profile, plan.run, device)


def judge_digest(plan: Plan) -> str:
    """What a measurement by the judge belongs to."""
    if "oracle" in plan.weights:
        return digest(plan.weights["oracle"])
    files = [path for paths in model_paths(plan.run).values() for path in paths]
    return hashlib.sha256("".join(map(digest, files)).encode()).hexdigest()
