"""What the benchmark of VectorFind times is what it says: batches as asked, and one set of scores by both ways."""

import re

import numpy as np
import pytest
import torch

from benchmarks.vectorfind_speed import Options, exponent, published_pool, time_directions, time_pool
from tests.vectorfind_world import make_bench
from vectorfind.finding import find_fits
from vectorfind.pool import Pool, plan_for, sample_pool


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


def test_pictures_are_drawn_as_many_at_a_time_as_asked(monkeypatch, capsys):
    bench, published, drawn = make_bench(batch=80), make_bench(batch=4), []
    decode = type(bench.generator).decode

    def counted(self, mid, *rest, **more):
        drawn.append((self is bench.generator, len(mid)))
        return decode(self, mid, *rest, **more)

    monkeypatch.setattr(type(bench.generator), "decode", counted)
    time_pool(bench, published, Options(sizes=(80, 160), naive=8))
    assert {count for ours, count in drawn if ours} == {80} and {count for ours, count in drawn if not ours} == {4}
    lines = capsys.readouterr().out.splitlines()
    assert re.search(r"published way: straight [\d.]+ ms per sample, through JPEG [\d.]+ ms", lines[0])
    assert [line.split(":")[0] for line in lines[1:]] == ["pool of 80", "pool of 160", "exponent"]


def test_both_ways_sample_and_score_the_same_faces(tmp_path):
    bench = make_bench()
    latents, scores = published_pool(bench, range(10))
    sample_pool(bench, tmp_path, plan_for(bench, ("z", "w"), 0, shard_rows=10), 10)
    pool = Pool.open(tmp_path)
    np.testing.assert_allclose(pool.scores, scores, atol=1e-4)
    np.testing.assert_allclose(bench.encode(np.array(latents, np.float32), "w"), pool.codes("w")[:], atol=1e-2)
    _, through_jpeg = published_pool(bench, range(10), jpeg=True)
    assert np.abs(np.array(through_jpeg) - scores).max() > 0


def test_directions_are_timed_with_and_without_their_calibration(tmp_path, monkeypatch, capsys):
    """The ridge takes a tenth of the SVM's second; to calibrate either takes another second."""
    bench, clock = make_bench(), [0.0]
    sample_pool(bench, tmp_path, plan_for(bench, ("z", "w"), 0, shard_rows=100), 400)

    def fits(codes, scores, groups, names, setting, method):
        clock[0] += 1.0 if setting.method == "svm" else 0.1
        return find_fits(codes, scores, groups, names, setting, method)

    def calibrated(*known):
        clock[0] += 1.0

    for name, stand_in in (("find_fits", fits), ("calibrate", calibrated)):
        monkeypatch.setattr(f"benchmarks.vectorfind_speed.{name}", stand_in)
    monkeypatch.setattr("benchmarks.vectorfind_speed.time.perf_counter", lambda: clock[0])
    time_directions(bench, bench, Options(sizes=(200, 400), pool=str(tmp_path), groups="none"))
    lines = capsys.readouterr().out.splitlines()
    told = "svm 1.0 s (1.0 x; calibrated 1.0 x), ridge 0.1 s (10.0 x; calibrated 1.8 x)"
    for line, size in zip(lines[:2], (200, 400), strict=True):
        assert line.startswith(f"n {size}: {told}") and line.endswith("; calibration of each 1.0 s")


def test_the_exponent_is_that_of_a_power():
    sizes = (10, 100, 1000)
    assert exponent(sizes, [size**1.5 for size in sizes]) == pytest.approx(1.5)
    assert np.isnan(exponent((10, 10), [1.0, 2.0]))
