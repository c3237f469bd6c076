"""Any version of the fine-tuning family, mended or as published; stage 5 is its v9."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.artefacts import is_fresh, provenance_of, read_json, write_stamp
from pipeline.command import StageOptions, Summary, limit_threads, main
from pipeline.errors import PipelineError
from pipeline.profile import shown
from pipeline.run import Run
from stylegan_modified.climb_plan import ClimbPlan, make_climb
from stylegan_modified.versions import EXPERIMENTS, OBEYED, version_of

EXAMPLES = """
python run_stylegan_finetune.py --version v1
python run_stylegan_finetune.py --version v4 --published
python run_stylegan_finetune.py --version v5 --experiment 3
python run_stylegan_finetune.py --version v9
"""
COMMAND = "run_stylegan_finetune.py"


@dataclass
class Options(StageOptions):
    """Fine-tune one version of the family from the previous one, measure it and report.

    v1 (conditional) starts from the profile's generator, all others from v1. Each writes stylegan_modified/
    stylegan_{gen,dis}_fine_tuned_{version}.pth, its log, reports/finetune_{version}.md and the table of all versions,
    reports/finetune.md. Killed and started again, or with more --steps, it goes on where it was. The profile must have
    an oracle. In the demo world each takes 3 to 6 minutes on one core (v5: three experiments). Several processes:
    torchrun --nproc-per-node 2 -- run_stylegan_finetune.py ...
    """

    version: Literal["v1", "v2", "v3", "v4", "v5", "v8", "v9"] = "v1"
    """Which version; v9 is stage 5 (run_stylegan_finetune_v9.py), trained from the base, unless --published."""
    published: bool = False
    """Train by the published rule where it differs: dense0 dropped, one rate, no running average, published losses."""
    experiment: Literal[1, 2, 3] | None = None
    """Of v5: 1 property CNN as discriminator, 2 the structure of v2, 3 the first with truncation by label; all if not
    given."""
    steps: int | None = None
    """Training steps; those of the profile unless given."""
    export: str = ""
    """Write the generator also to this file, as it ships: in half precision, only what differs from the base generator,
    which must lie in the same folder."""


def plan(options: Options) -> list[ClimbPlan]:
    """Resolve the options against the profile; more than one plan for the experiments of v5."""
    if options.experiment and options.version != "v5":
        raise PipelineError(f"--experiment {options.experiment} belongs to v5, not to {options.version}")
    if options.export and options.version in ("v5", "v9"):
        raise PipelineError("--export: v5 is three nets, and v9 ships by run_stylegan_finetune_v9.py --export")
    if options.version == "v9" and not options.published:
        return []  # stage 5 makes its own
    names = [options.version]
    if options.version == "v5":
        names = [EXPERIMENTS[options.experiment]] if options.experiment else list(EXPERIMENTS.values())
    works = [make_climb(options, version_of(name, options.published), options.steps) for name in names]
    base = works[0].weights["base"]
    if options.export and Path(options.export).resolve().parent != base.resolve().parent:
        raise PipelineError(
            f"--export {options.export}: the file leans on {shown(base)} and must lie beside it; give "
            f"{shown(base.parent)}/..."
        )
    if options.export and (Path(options.export).suffix != ".pth" or Path(options.export).resolve() == base.resolve()):
        raise PipelineError(f"--export {options.export}: give a name of its own that ends in .pth")
    return works


def run(options: Options) -> None:
    """Train, measure and report what is missing or stale."""
    works = plan(options)
    if not works:
        _stage_5(options)
    for work in works:
        if _run_one(work) and options.export:
            _export(work, Path(options.export))
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from stylegan_modified.processes import Processes

        Processes().leave()  # the others wait here while the first one measures


def _stage_5(options: Options) -> None:
    # Stages do not import each other; like run_pipeline.py this calls one by its name.
    stage = importlib.import_module("run_stylegan_finetune_v9")
    shared = {name: getattr(options, name) for name in ("profile", "run", "device", "seed", "force", "steps")}
    stage.run(stage.Options(**shared, train=True))
    if int(os.environ.get("RANK", "0")) == 0:
        from stylegan_modified.family_report import write_family_report

        print(f"  all versions of this run: {write_family_report(Run(options.run)).as_posix()}", flush=True)


def _run_one(work: ClimbPlan) -> bool:
    """Train; then one process alone measures and writes: returns whether this is it."""
    summary = Summary(f"fine-tune {work.version.tag}")
    artefacts = work.artefacts()
    if all(is_fresh(path, **work.stamp)[0] for path in artefacts) and not work.force:
        for path in artefacts:
            summary.kept(path)
        summary.print()
        return True
    from stylegan_modified.climb import Climb
    from stylegan_modified.family_report import write_family_report

    limit_threads()
    if work.settings["minutes"]:
        summary_line = f"about {work.settings['minutes']:g} minutes on one core"
        print(f"fine-tune {work.version.tag}: {work.settings['steps']} steps, {summary_line}", flush=True)
    climb = Climb(work, say=lambda text: print(f"  {text}", flush=True))
    climb.train()
    if not climb.processes.first:
        return False
    result = climb.finish()
    family = write_family_report(work.run)  # before the stamps, so that a kill in between does not leave it behind
    for path, what in artefacts.items():
        write_stamp(path, command=COMMAND, **work.stamp)
        summary.wrote(path, what)
    summary.wrote(family, "all versions of this run")
    summary.note(climb.headline(result))
    for note in work.notes:
        summary.note(note)
    summary.print()
    return True


def _export(work: ClimbPlan, path: Path) -> None:
    from stylegan.checkpoint import load_generator, save_beside

    base = work.weights["base"]
    known = provenance_of(work.generator)
    result = read_json(work.result)
    told = {name: result["labels_50"][f"{name}_corr"] for name in OBEYED}
    save_beside(path, load_generator(work.generator), base, **known, labels_obeyed=told, faces=len(work.faces))
    print(f"  {path}: what differs from {base.name}", flush=True)


if __name__ == "__main__":
    main(Options, run, EXAMPLES)
