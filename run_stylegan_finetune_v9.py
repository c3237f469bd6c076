"""Stage 5: fine-tune the generator toward the filtered faces, to version 9 with its split mapping."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.artefacts import is_fresh, write_stamp
from pipeline.command import StageOptions, Summary, limit_threads, main
from pipeline.errors import PipelineError
from stylegan_modified.plan import Plan, make_plan

EXAMPLES = """
python run_stylegan_finetune_v9.py
python run_stylegan_finetune_v9.py --steps 40 --run runs/short
python run_stylegan_finetune_v9.py --train --steps 2000 --export weights/demo/generator_v9.pth
"""
COMMAND = "run_stylegan_finetune_v9.py"


@dataclass
class Options(StageOptions):
    """Stage 5: fine-tune the generator toward stylegan/synthesize_results_filtered, to version 9 (split mapping).

    Unless told otherwise, training goes on for some steps from the bundled v9 net; --train starts anew from the base
    generator, over a conditional v1. Writes stylegan_modified/stylegan_{gen,dis}_fine_tuned_v9.pth, its logs and
    reports/finetune_v9.md in the run. Killed and started again, or with more --steps, it goes on where it was.
    """

    train: bool = False
    """Start anew from the base generator instead of from the bundled v9 net."""
    steps: int | None = None
    """Steps of version 9; those of the profile unless given."""
    v1_steps: int | None = None
    """Steps of version 1 before it, when training starts from the base; those of the profile unless given."""
    export: str = ""
    """Also write generator and discriminator as half floats into this .pth file: the one that ships as generator_v9."""


def plan(options: Options) -> Plan:
    """Resolve the options against the profile and check what can be checked without loading a net."""
    if options.export and Path(options.export).suffix != ".pth":
        raise PipelineError(f"--export {options.export}: give a file name that ends in .pth")
    work = make_plan(options, options.train, options.steps, options.v1_steps)
    # With --train the bundle is no start, and may be written anew.
    if options.export and Path(options.export).resolve() in {path.resolve() for path in work.weights.values()}:
        raise PipelineError(f"--export {options.export} is a file that this call reads; give another name")
    return work


def run(options: Options) -> None:
    """Train, measure and report what is missing or stale."""
    work = plan(options)
    summary = Summary("5 fine-tune v9")
    artefacts = work.artefacts()
    if all(is_fresh(path, **work.stamp)[0] for path in artefacts) and not options.force:
        for path in artefacts:
            summary.kept(path)
    elif not _climb(work, summary):
        return
    if options.export:
        from stylegan_modified.ladder import write_bundle

        write_bundle(work, Path(options.export))
        summary.wrote(options.export, "the file to ship")
    for note in work.notes:
        summary.note(note)
    summary.print()


def _climb(work: Plan, summary: Summary) -> bool:
    """Train; then one process alone measures and writes: returns whether this is it."""
    from stylegan_modified.ladder import Ladder

    limit_threads()
    ladder = Ladder(work, say=lambda text: print(f"  {text}", flush=True))
    ladder.train()
    ladder.processes.leave()
    if not ladder.processes.first:
        return False
    ladder.finish()
    for path, what in work.artefacts().items():
        write_stamp(path, command=COMMAND, **work.stamp)
        summary.wrote(path, what)
    summary.note(ladder.headline())
    return True


if __name__ == "__main__":
    main(Options, run, EXAMPLES)
