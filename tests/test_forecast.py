"""A long work says once how long it will take, by the pace of its own first pieces."""

import pytest

from pipeline import forecast
from pipeline.errors import PipelineError
from pipeline.forecast import Forecast, duration
from pipeline.precision import half_precision, wants_half
from pipeline.profile import Profile
from pipeline.progress import progress


def lines(total: int, moments: list[tuple[float, int]]) -> list[str]:
    """Return what is said when so many pieces are done at these seconds."""
    clock = iter([seconds for seconds, done in moments if done])
    watch = Forecast("parse", total, clock=lambda: next(clock))
    return [line for _, done in moments if (line := watch.line(done))]


def test_the_pace_leaves_out_what_came_before_the_first_piece():
    # A minute of loading and the first batch, then 16 pieces in 24 seconds: 1.5 s each.
    said = lines(4800, [(0, 0), (60, 16), (84, 32), (200, 100)])
    assert said == ["parse: about 119 minutes expected for 4768 more, 1.5 s each so far"]


def test_a_resumed_work_is_judged_by_what_is_done_now():
    assert lines(10_000, [(1, 9000), (11, 9010)]) == ["parse: about 16 minutes expected for 990 more, 1 s each so far"]


def test_short_works_and_a_pace_too_short_to_tell_say_nothing():
    assert lines(100, [(1, 10), (10, 20)]) == []
    assert lines(10**6, [(0, 1), (0.1, 2), (4.9, 3)]) == []


@pytest.mark.parametrize(
    ("seconds", "text"), [(600, "10 minutes"), (12_600, "3.5 hours"), (360_000, "100.0 hours (4.2 days)")]
)
def test_times_are_told_in_words(seconds, text):
    assert duration(seconds) == text


def test_every_bar_has_one_on_standard_output(capsys, monkeypatch):
    monkeypatch.setattr(forecast, "MEASURED_SECONDS", 0.0)
    monkeypatch.setattr(forecast, "LONG_SECONDS", 0.0)
    with progress(3, "by hand") as bar:
        bar.update()
        bar.update()
    assert list(progress(["a", "b", "c"], "over a list")) == ["a", "b", "c"]
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said] == ["by hand", "over a list"]


def test_half_precision_is_for_a_gpu_and_for_profiles_that_want_it(tmp_path):
    import torch

    x = torch.randn(4, 4)
    with half_precision(torch.device("cpu"), True):
        assert (x @ x).dtype == torch.float32
    assert wants_half(Profile.load("celeba256")) and not wants_half(Profile.load("demo"))
    (tmp_path / "odd.toml").write_text('resolution = 32\nhalf = "yes"\n')
    with pytest.raises(PipelineError, match="half = 'yes'; write true or false"):
        wants_half(Profile.load(tmp_path / "odd.toml"))
