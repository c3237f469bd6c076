"""What the benchmark of VectorFind times is what it says: batches as asked, and one set of scores by both ways."""

import re

import numpy as np
import pytest
import torch

from benchmarks.vectorfind_speed import Options, exponent, published_pool, time_directions, time_pool
from tests.vectorfind_world import make_bench
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


def test_directions_are_timed_with_and_without_their_calibration(tmp_path, capsys):
    bench = make_bench()
    sample_pool(bench, tmp_path, plan_for(bench, ("z", "w"), 0, shard_rows=100), 400)
    time_directions(bench, bench, Options(sizes=(200, 400), pool=str(tmp_path), groups="none"))
    lines = capsys.readouterr().out.splitlines()
    told = re.compile(r"(\w+) ([\d.]+) s \(([\d.]+) x; calibrated ([\d.]+) x\)")
    for line, size in zip(lines[:2], (200, 400), strict=True):
        assert line.startswith(f"n {size}: ") and "calibration of each" in line
        assert [found[0] for found in told.findall(line)] == ["svm", "ridge", "ridge_mended_conditional"]
        assert told.findall(line)[0][2:] == ("1.0", "1.0")


def test_the_exponent_is_that_of_a_power():
    sizes = (10, 100, 1000)
    assert exponent(sizes, [size**1.5 for size in sizes]) == pytest.approx(1.5)
    assert np.isnan(exponent((10, 10), [1.0, 2.0]))
