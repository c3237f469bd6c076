"""run_pipeline: the stages in order, one overview, errors that name the stage."""

import sys
import types
from dataclasses import dataclass

import pytest

import run_pipeline
from pipeline.command import StageOptions, Summary
from pipeline.errors import PipelineError


@pytest.fixture
def calls(monkeypatch):
    """Put small stand-ins in the place of the stages; return what they were called with."""
    seen = []

    def stand_in(stage: str, script: str) -> types.ModuleType:
        module = types.ModuleType(script)

        @dataclass
        class Options(StageOptions):
            train: bool = False

        def run(options):
            seen.append((stage, options))
            summary = Summary(stage)
            if options.force:
                summary.wrote(f"{options.run}/reports/{stage}.md")
            else:
                summary.kept(f"{options.run}/reports/{stage}.md")
            summary.print()

        Options.__module__ = script
        module.Options, module.run, module.__spec__ = Options, run, types.SimpleNamespace(origin=script)
        return module

    for stage, (script, _) in run_pipeline.STAGES.items():
        monkeypatch.setitem(sys.modules, script, stand_in(stage, script))
    return seen


def test_all_stages_run_in_order_with_the_same_options(calls, capsys):
    run_pipeline.run(run_pipeline.Options(run="runs/x", seed=3, device="cpu"))
    assert [stage for stage, _ in calls] == ["1", "2", "3", "4", "4b", "5", "6"]
    assert all((options.run, options.seed, options.device) == ("runs/x", 3, "cpu") for _, options in calls)
    text = capsys.readouterr().out
    assert "7 of 7 were fresh" in text and "peak GiB" in text and "report: runs/x/reports/6.md" in text


def test_a_part_can_be_run_and_forced(calls, capsys):
    run_pipeline.run(run_pipeline.Options(first="3", last="4b", force=True, train=True))
    assert [stage for stage, _ in calls] == ["3", "4", "4b"]
    assert all(options.train for _, options in calls)
    assert "0 of 3 were fresh" in capsys.readouterr().out


@pytest.mark.parametrize(("first", "last"), [("0", "6"), ("1", "7"), ("4b", "4")])
def test_a_wrong_range_of_stages_is_refused(first, last):
    with pytest.raises(PipelineError, match="--from|--to"):
        run_pipeline.plan(run_pipeline.Options(first=first, last=last))


def test_an_error_names_its_stage_and_the_overview_tells_what_is_left(calls, capsys, monkeypatch):
    def fail(options):
        raise PipelineError("segmentation.csv, row 3: bad")

    monkeypatch.setattr(sys.modules["run_segmentation"], "run", fail)
    with pytest.raises(PipelineError, match=r"stage 3 \(run_segmentation.py\): segmentation.csv, row 3"):
        run_pipeline.run(run_pipeline.Options())
    assert capsys.readouterr().out.count("not run") == 5
