"""What one call of stage 5 will do, decided from options and profile before any net is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnn.models import model_paths
from cnn.settings import FilterSettings
from pipeline.artefacts import check_whole, code_version, read_json, refuse_stranger, stamp_path
from pipeline.command import StageOptions
from pipeline.errors import PipelineError
from pipeline.images import NUMBERED
from pipeline.profile import ROOT, Profile, shown
from pipeline.run import Run
from pipeline.whole import is_leftover
from stylegan_modified.settings import finetune_settings

# What both ways of fine-tuning depend on.
SHARED_CODE = (
    *("stylegan", "stylegan_modified", "cnn.filter_cnn", "cnn.stack", "pipeline.seeds", "pipeline.report"),
    "virtual_face.oracle",
)
CODE = ("run_stylegan_finetune_v9", *SHARED_CODE)
GENERATOR = ("stylegan_modified", "stylegan_gen_fine_tuned_v9.pth")


@dataclass
class Call:
    """Settings and inputs of one call, of stage 5 or of any version."""

    profile: Profile
    run: Run
    seed: int
    device: str
    force: bool
    settings: dict[str, Any]
    weights: dict[str, Path]
    faces: list[Path]
    stamp: dict[str, Any]
    notes: list[str]


@dataclass
class Plan(Call):
    """Stage 5: what to start from, and its outputs."""

    resolution: int
    start: str
    """Where training starts: "bundle" (the v9 net that ships) or "base" (the base generator, over v1)."""

    def path(self, name: str) -> Path:
        """Return the path of something in stylegan_modified/ of the run."""
        return self.run.path("stylegan_modified", name)

    @property
    def generator(self) -> Path:
        return self.run.path(*GENERATOR)

    @property
    def discriminator(self) -> Path:
        return self.path("stylegan_dis_fine_tuned_v9.pth")

    @property
    def history(self) -> Path:
        """Log of the whole way from the base generator, as far as it is known; steps counted through."""
        return self.path("train_log_whole.csv")

    def artefacts(self) -> dict[Path, str]:
        """Return what this stage writes, with a few words each."""
        return {
            self.generator: "generator, running average",
            self.discriminator: "discriminator",
            self.path("train_log_v9.csv"): "",
            self.history: "log of the whole way from the base generator",
            self.path("concept_before_v9.csv"): "oracle on samples before",
            self.path("concept_after_v9.csv"): "oracle on the same latents after",
            self.run.path("reports", "finetune_v9.md"): "report",
        }


def make_plan(
    options: StageOptions, train: bool = False, steps: int | None = None, v1_steps: int | None = None
) -> Plan:
    """Resolve options against the profile; PipelineError names what is missing.

    A net that was trained in this run is not replaced by the bundled one, unless forced.
    """
    profile, run, notes = Profile.load(options.profile), Run(options.run), []
    if not options.force:
        refuse_stranger(run.path(*GENERATOR), key="generator_v9 under [weights] of a profile of your own")
    kept, seed = {} if train or options.force else _trained_here(run), options.seed
    if kept:
        seed = int(kept["seed"])
        ignored = "" if seed == options.seed else f", and --seed {options.seed} plays no part"
        notes.append(
            f"the v9 net that was trained in this run (seed {seed}) is kept{ignored}; --force goes back to the bundled "
            "one, --train --force trains anew"
        )
    train = train or bool(kept)
    settings = finetune_settings(profile, train)
    for name, value in (("steps", steps), ("v1_steps", v1_steps)):
        settings[name] = int(value if value is not None else kept.get("options", {}).get(name, settings[name]))
    section = "finetune.train" if train else "finetune.demo"
    if settings["steps"] < 1:
        raise PipelineError(f"steps {settings['steps']}: at least 1; give --steps or set it in [{section}]")
    if settings["v1_steps"] < 0:
        raise PipelineError(f"--v1-steps {settings['v1_steps']}: 0 or more")
    bundle = None if train or not profile.get("weights.generator_v9", None) else _bundle(profile)
    weights = {"generator": _base(profile, bundle, notes)}
    if profile.get("weights.attribute_net", None):
        weights["oracle"] = profile.weight("attribute_net")
    else:
        notes.append("this world has no oracle: the filter CNNs, which chose the faces, also measure the concept share")
    if bundle:
        weights["start"] = bundle
        if profile.get("weights.discriminator_v9", None):  # published as a file of its own
            weights["start_discriminator"] = profile.weight("discriminator_v9")
        if bundle.with_suffix(".csv").is_file():
            weights["history"] = bundle.with_suffix(".csv")
        settings |= {"warm_steps": 0, "v1_steps": 0}
    elif not train:
        notes.append(
            "there is no bundled v9 net (generator_v9 in [weights]): training started from the base generator, with so "
            "few steps that the concept share will rise little; --train takes the steps it needs"
        )
    filters = bool(settings["guidance"]) or "oracle" not in weights
    folder, faces, models = stage_2_results(run, int(settings["batch"]), filters)
    weights |= models
    if free := FilterSettings.of(profile).unfiltered:
        notes.append(
            f"stage 2 keeps faces whatever their {', '.join(free)}, so guidance leaves that alone; the concept share "
            "still counts young women of good quality without glasses"
        )
    start = "bundle" if bundle else "base"
    stamp = {
        "options": {**settings, "start": start, "train": train, "resolution": profile.resolution},
        "seed": seed,
        "inputs": {**weights, "faces": folder},
        "code": code_version(*CODE),
    }
    return Plan(
        profile=profile,
        run=run,
        resolution=profile.resolution,
        seed=seed,
        device=options.device,
        force=options.force,
        start=start,
        settings=settings,
        weights=weights,
        faces=faces,
        stamp=stamp,
        notes=notes,
    )


def stage_2_results(run: Run, batch: int, filters: bool) -> tuple[Path, list[Path], dict[str, Path]]:
    """Return the folder of the filtered faces, the faces in it, and the filter CNNs by name and fold.

    filters: whether the CNNs are needed; without, none is returned. PipelineError where faces do not fill a batch, or a
    CNN is missing.
    """
    folder = run.path("stylegan", "synthesize_results_filtered")
    check_whole(folder, f"run stage 2 again (run_cnn.py --run {run})")
    faces = [path for path in sorted(folder.glob("*.jpg")) if not is_leftover(path)]
    strangers = [path for path in faces if not NUMBERED.fullmatch(path.name)]
    if strangers:
        raise PipelineError(f"{strangers[0]}: a filtered face is named by its number, like 000004.jpg; remove the file")
    if len(faces) < batch:
        raise PipelineError(
            f"{shown(folder)} holds {len(faces)} faces, one batch needs {batch}; run stages 1 and 2 first "
            "(python run_pipeline.py --to 2), or loosen the cutoffs of stage 2"
        )
    if not filters:
        return folder, faces, {}
    models = {f"{name} {fold}": path for name, paths in model_paths(run).items() for fold, path in enumerate(paths)}
    for path in models.values():
        if not path.is_file():
            raise PipelineError(f"{path}, which guides or judges faces, is missing; run stage 2 (run_cnn.py)")
    return folder, faces, models


def _trained_here(run: Run) -> dict[str, Any]:
    """Stamp of the run's v9 net when it was trained with --train, else empty."""
    stamp = stamp_path(run.path(*GENERATOR))
    if not run.path(*GENERATOR).is_file() or not stamp.is_file():
        return {}
    content = read_json(stamp)
    return content if (content.get("options") or {}).get("train") else {}


def _base(profile: Profile, bundle: Path | None, notes: list[str]) -> Path:
    """The base generator, which the result is compared with; where there is none, the bundled net it goes on from."""
    try:
        return profile.weight("generator")
    except PipelineError as missing:
        if bundle is None:
            raise PipelineError(
                f"{missing}\n  (stage 5 can do without it where it goes on from a v9 net: generator_v9 in [weights])"
            ) from None
        notes.append(
            f"the base generator {shown(ROOT / str(profile.get('weights.generator')))} is missing, so `before` is "
            f"{shown(bundle)}, from which training goes on: the steps of this run are measured, not the way here"
        )
        return bundle


def _bundle(profile: Profile) -> Path:
    try:
        return profile.weight("generator_v9")
    except PipelineError as missing:
        raise PipelineError(
            f"{missing}\n  or train it from the base generator (run_stylegan_finetune_v9.py --train), or go some steps "
            'from there, with generator_v9 = "" under [weights] of a profile of your own'
        ) from None
