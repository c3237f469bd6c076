"""The table of the four filter CNNs, and what a profile makes of it; free of torch, so that checks start fast."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cnn.fit import Window, fit_stack
from pipeline.errors import PipelineError
from pipeline.profile import ROOT, Profile

FOLDS = 5


@dataclass(frozen=True)
class FilterSetting:
    """One filter CNN as published, for 256x256 pictures.

    `keep_high`: faces that score at or above the cutoff pass, else those at or below it.
    """

    window: Window
    layers: str
    learning_rate: float
    cutoff: float
    keep_high: bool


#                         window (top, bottom, left, right) layers                    rate   cutoff keep
FILTERS: dict[str, FilterSetting] = {
    "gender": FilterSetting(Window(0, 1, 0, 1), "32 64 P 128 P 128 P 256 P 256 P", 5e-5, 0.92, True),
    "quality": FilterSetting(Window(0, 1 / 4, 1 / 4, 3 / 4), "32 64 P 128 P 128 P 256", 5e-5, 0.90, True),
    "age": FilterSetting(Window(0, 1 / 2, 0, 1), "32 64 P 128 P 128 P 256 P 256", 2.5e-5, 0.008, False),
    "glass": FilterSetting(Window(5 / 16, 1 / 2, 1 / 4, 3 / 4), "32 64 P 128 P 128 P 256", 5e-5, 0.01, False),
}
FILTER_NAMES = tuple(FILTERS)


# What a value of a training section may be, as arguments of `Profile.read`.
TRAINING_LIMITS: dict[str, dict[str, float]] = {
    "epochs": {"low": 1},
    "patience": {"low": 1},
    "batch": {"low": 1},
    "learning_rate": {"above": 0},
    "weight_decay": {"low": 0},
    "largest_label": {"above": 0},
    "rare_weight": {"low": 1},
    "validation_share": {"low": 0, "high": 0.9},
    "retry_above": {"low": 0},
    "max_retries": {"low": 0},
}


@dataclass(frozen=True)
class TrainSettings:
    """How one fold is trained.

    Faces of the rarer class weigh more in the loss, by up to `rare_weight` times. A fold whose best validation loss
    (class-weighted, so that guessing gives .69) stays above `retry_above` is trained again from another start, at most
    `max_retries` times; the best attempt counts. `validation_share` of the training faces is set apart for the early
    stop, so that the held-out fold has no say in it.
    """

    epochs: int = 60
    patience: int = 15
    batch: int = 16
    weight_decay: float = 0.01
    rare_weight: float = 8.0
    validation_share: float = 0.125
    flip: bool = True
    retry_above: float = 0.55
    max_retries: int = 2


@dataclass(frozen=True)
class Architecture:
    """Arguments of FilterCNN."""

    resolution: int
    width: float
    head: int
    window: Window

    def options(self) -> dict[str, Any]:
        """As plain values for stamps."""
        return asdict(self)


@dataclass(frozen=True)
class FilterSettings:
    """Everything stage 2 takes from a profile, resolved; PipelineError for unknown keys and impossible values."""

    labels: Path | None
    bundled: Path | None
    fold_seed: int
    batch: int
    min_passed: int
    architectures: dict[str, Architecture]
    cutoffs: dict[str, float]
    learning_rates: dict[str, float]
    trainings: dict[str, TrainSettings]

    @property
    def unfiltered(self) -> list[str]:
        """Properties whose cutoff keeps everybody."""
        return [name for name, cutoff in self.cutoffs.items() if cutoff == (0.0 if FILTERS[name].keep_high else 1.0)]

    @classmethod
    def of(cls, profile: Profile, labels: str = "") -> FilterSettings:
        """The settings of a profile's section [cnn]; `labels` replaces its label table."""
        section = profile.section("cnn")
        profile.refuse_unknown(
            "cnn",
            section,
            {
                "bundled",
                "width",
                "head",
                "fold_seed",
                "batch",
                "min_passed",
                "windows",
                "cutoffs",
                "learning_rates",
                "epochs",
                "retry_above",
                "training",
            },
        )
        tables = {}
        for key in ("windows", "cutoffs", "learning_rates", "epochs", "retry_above"):
            tables[key] = profile.section(f"cnn.{key}")
            profile.refuse_unknown(f"cnn.{key}", tables[key], FILTER_NAMES)
        training = read_training(profile, "cnn.training", TrainSettings)
        width = profile.read("cnn.width", float, 1.0, above=0)
        head = profile.read("cnn.head", int, 512, low=1)
        architectures, cutoffs, rates, trainings = {}, {}, {}, {}
        for name, setting in FILTERS.items():
            try:
                window = Window(*tables["windows"][name]) if name in tables["windows"] else setting.window
                fit_stack(setting.layers, *window.size(profile.resolution), width)
            except (TypeError, ValueError) as error:
                raise PipelineError(
                    f"profile {profile.path}, [cnn.windows] {name}: {error}; "
                    "give [top, bottom, left, right] as fractions of the picture"
                ) from None
            architectures[name] = Architecture(profile.resolution, width, head, window)
            cutoffs[name] = profile.read(f"cnn.cutoffs.{name}", float, setting.cutoff, low=0, high=1)
            rates[name] = profile.read(f"cnn.learning_rates.{name}", float, setting.learning_rate, above=0)
            own = {
                key: profile.read(f"cnn.{key}.{name}", kind, None, **TRAINING_LIMITS[key])
                for key, kind in (("epochs", int), ("retry_above", float))
            }
            own = {key: value for key, value in own.items() if value is not None}
            trainings[name] = TrainSettings(**training | own)
        bundled = profile.read("cnn.bundled", str, None)
        if labels:
            label_table = Path(labels)
        else:
            label_table = profile.weight("labels") if profile.get("weights.labels", None) else None
        return cls(
            labels=label_table,
            bundled=ROOT / bundled if bundled else None,
            fold_seed=profile.read("cnn.fold_seed", int, 0, low=0),
            batch=profile.read("cnn.batch", int, 64, low=1),
            min_passed=profile.read("cnn.min_passed", int, 100, low=0),
            architectures=architectures,
            cutoffs=cutoffs,
            learning_rates=rates,
            trainings=trainings,
        )


def read_training(profile: Profile, section: str, settings: type) -> dict[str, Any]:
    """What a section gives for the fields of a dataclass of training settings, each of its field's type.

    PipelineError for unknown keys and impossible values.
    """
    given, known = profile.section(section), {field.name: field for field in fields(settings)}
    profile.refuse_unknown(section, given, known)
    return {
        name: profile.read(f"{section}.{name}", type(known[name].default), **TRAINING_LIMITS.get(name, {}))
        for name in given
    }
