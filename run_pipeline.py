"""All stages one after another; run again it does only what is missing or stale."""

import dataclasses
import gc
import importlib
import importlib.util
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated

import tyro

from pipeline.command import StageOptions, Summary, main
from pipeline.errors import PipelineError
from pipeline.profile import Profile

EXAMPLES = """
python run_pipeline.py
python run_pipeline.py --run runs/second --seed 1
python run_pipeline.py --from 4 --to 6
"""
STAGES = {
    "1": ("run_original_generator", "sample faces"),
    "2": ("run_cnn", "score and filter them"),
    "3": ("run_segmentation", "parse the filtered faces"),
    "4": ("compute_property_scores", "measure their properties"),
    "4b": ("run_property_cnn", "predict properties from pixels"),
    "5": ("run_stylegan_finetune_v9", "fine-tune the generator"),
    "6": ("run_vectorfind", "find directions"),
}


@dataclass
class Options(StageOptions):
    """Run the stages 1, 2, 3, 4, 4b, 5, 6 one after another; again, it does only what is missing or stale."""

    first: Annotated[str, tyro.conf.arg(name="from")] = "1"
    """First stage to run: 1, 2, 3, 4, 4b, 5 or 6."""
    last: Annotated[str, tyro.conf.arg(name="to")] = "6"
    """Last stage to run."""
    train: bool = False
    """Train anew what the stages otherwise take from the bundled weights (hours)."""


@dataclass
class Result:
    """How one stage went."""

    stage: str
    what: str
    seconds: float
    outcome: str
    peak: float


def plan(options: Options) -> list[str]:
    """Return the stages to run, in order; PipelineError for an unknown stage, profile or script."""
    Profile.load(options.profile)
    names = list(STAGES)
    for flag, name in (("--from", options.first), ("--to", options.last)):
        if name not in STAGES:
            raise PipelineError(f"{flag} {name}: there is no such stage; the stages are {', '.join(names)}")
    if names.index(options.first) > names.index(options.last):
        raise PipelineError(f"--from {options.first} comes after --to {options.last}; swap them")
    chosen = names[names.index(options.first) : names.index(options.last) + 1]
    for name in chosen:
        if importlib.util.find_spec(STAGES[name][0]) is None:
            raise PipelineError(f"stage {name}: {STAGES[name][0]}.py is missing; restore it with git checkout")
    return chosen


def run(options: Options) -> None:
    """Run the stages in this process and print one overview."""
    chosen, results, start = plan(options), [], time.perf_counter()
    reports: dict[Path, None] = {}
    for name in chosen:
        script, what = STAGES[name]
        print(f"--- stage {name}: {what} ({script}.py)", flush=True)
        seen, before = len(Summary.printed), time.perf_counter()
        module = importlib.import_module(script)
        try:
            module.run(_options_for(module, options))
        except PipelineError as error:
            _print_overview(results, chosen, start)
            raise PipelineError(f"stage {name} ({script}.py): {error}") from error
        except OSError:
            _print_overview(results, chosen, start)
            raise
        summaries = Summary.printed[seen:]
        fresh = bool(summaries) and not any(summary.written for summary in summaries)
        seconds = time.perf_counter() - before
        results.append(Result(name, what, seconds, "fresh" if fresh else "built", peak_memory()))
        for summary in summaries:
            reports |= dict.fromkeys(path for path, _ in summary.written + summary.unchanged if path.suffix == ".md")
        _free_memory()
    _print_overview(results, chosen, start)
    for path in reports:
        print(f"report: {path.as_posix()}")


def peak_memory() -> float:
    """Return the largest memory this process, or one of its ended children, has held so far, in GiB; nan if unknown."""
    try:
        import resource
    except ImportError:
        return float("nan")
    # Linux counts KiB, macOS bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return (
        max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        * unit
        / 2**30
    )


def _options_for(module: ModuleType, options: Options) -> StageOptions:
    """Build the stage's own options from those that it shares with this command."""
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, StageOptions) and value.__module__ == module.__name__
    ]
    if len(own) != 1:
        raise PipelineError(f"{module.__name__}.py must define exactly one StageOptions class, found {len(own)}")
    fields = {field.name for field in dataclasses.fields(own[0])}
    shared = {name: value for name, value in vars(options).items() if name in fields and name not in ("first", "last")}
    return own[0](**shared)


def _free_memory() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _print_overview(results: list[Result], chosen: list[str], start: float) -> None:
    print("\nstage  what                              result   seconds  peak GiB")
    for result in results:
        print(f"{result.stage:5}  {result.what:32}  {result.outcome:7}  {result.seconds:7.1f}  {result.peak:8.2f}")
    for name in chosen[len(results) :]:
        print(f"{name:5}  {STAGES[name][1]:32}  not run")
    fresh = sum(result.outcome == "fresh" for result in results)
    print(f"{'all':5}  {f'{fresh} of {len(chosen)} were fresh':32}  {'':7}  {time.perf_counter() - start:7.1f}", end="")
    print(f"  {peak_memory():8.2f}  (peak so far; of the largest single process)", flush=True)


if __name__ == "__main__":
    main(Options, run, EXAMPLES)
