"""The benchmark at 256 pixels: it compares like with like, refuses a fast wrong result, and writes what it measured."""

import math
import shlex

import pytest
import torch
import tyro

from benchmarks import throughput_256 as benchmark
from benchmarks.throughput_256 import (
    EXAMPLES,
    Options,
    Row,
    Work,
    measure,
    measure_sampling,
    plan,
    report,
    write_report,
)
from pipeline.errors import PipelineError
from pipeline.whole import read_json
from stylegan.generator import Generator


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_sampling_in_batches_draws_the_images_of_the_plain_loop(precision):
    torch.manual_seed(0)
    generator = Generator(32, channel_base=512, channel_max=32)
    (row,) = measure_sampling(Work(torch.device("cpu"), 5, 3, precision, 2), generator)
    assert row.difference < row.limit and row.plain > 0 and row.ours > 0 and row.asked == 4
    # Reduced precision was really used, float32 really kept.
    assert (row.difference > 1e-4) == (precision == "bfloat16")


def test_scores_are_measured_and_written(tmp_path, capsys):
    out = tmp_path / "speed"
    report(Options(device="cpu", images=2, plain=1, tasks=("scoring",), out=str(out)))
    numbers = read_json(tmp_path / "speed.json")
    (row,) = numbers["rows"]
    assert row["task"] == "property scores v2" and row["difference"] <= row["limit"] == 1e-9
    assert math.isclose(row["ratio"], row["ours"] / row["plain"]) and row["ratio"] > 5
    assert numbers["options"]["images"] == 2
    for text in (capsys.readouterr().out, (tmp_path / "speed.md").read_text()):
        assert "property scores v2" in text and f"{row['ours']:.2f}" in text
    report_text = (tmp_path / "speed.md").read_text()
    assert "images per second" in report_text and "share of pixels that have another class" in report_text


def test_the_verdict_says_whether_the_asked_ratio_is_met(tmp_path):
    rows = [Row("a", 1.0, ours, asked, 0.01, 0.02) for ours, asked in ((4.0, 4.0), (3.9, 4.0), (9.0, None))]
    assert [row.verdict for row in rows] == ["met", "MISSED", "-"]
    write_report(tmp_path / "speed.md", "a CPU", "float32", 8, 4, rows)
    assert "| a | 1.00 | 3.90 | 3.90 | 4.00 | MISSED | 0.01 (at most 0.02) |" in (tmp_path / "speed.md").read_text()


def test_a_fast_wrong_result_ends_the_run(monkeypatch):
    monkeypatch.setattr(benchmark, "TOLERANCE", -1.0)
    with pytest.raises(PipelineError, match="property scores v2.*differ"):
        measure(plan(Options(device="cpu", images=1, plain=1)), ("scoring",))


def test_a_plain_loop_longer_than_the_run_is_refused():
    with pytest.raises(PipelineError, match="--plain 4 must be"):
        plan(Options(device="cpu", images=2))


def test_the_examples_are_ones_that_the_command_takes():
    for line in EXAMPLES.strip().splitlines():
        arguments = shlex.split(line.removeprefix("python -m benchmarks.throughput_256"))
        tyro.cli(Options, args=arguments, config=(tyro.conf.FlagCreatePairsOff,))
