"""The pool: one seed one row, any size a prefix, killed and resumed to the same bytes."""

import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from vectorfind_world import folder_bytes, make_bench

from pipeline.errors import PipelineError
from vectorfind.pool import Pool, complete_shards, plan_for, read_plan, sample_pool

POSITIONS = ("z", "w")


def sampled(folder, rows, bench=None, positions=POSITIONS, **options):
    bench = bench or make_bench()
    plan = replace(plan_for(bench, positions, 1000, **options), shard_rows=40)
    return sample_pool(bench, folder, plan, rows)


def test_row_k_is_the_face_of_seed_start_plus_k(tmp_path):
    bench = make_bench()
    pool = sampled(tmp_path, 70, bench)
    z = bench.latents(range(1000, 1070))
    w = bench.encode(z, "w")
    np.testing.assert_allclose(pool.codes("z")[:], z, rtol=0, atol=0)
    np.testing.assert_allclose(pool.codes("w")[:], w, atol=1e-5)
    np.testing.assert_allclose(pool.scores, bench.measure(w, "w"), atol=1e-4)


def test_a_smaller_pool_is_the_prefix_of_a_larger_one(tmp_path):
    small = folder_bytes(sampled(tmp_path / "small", 50).folder)
    sampled(tmp_path / "grown", 50)
    grown = folder_bytes(sampled(tmp_path / "grown", 130).folder)
    large = folder_bytes(sampled(tmp_path / "large", 130).folder)
    assert grown == large
    assert set(small) < set(large) and all(large[name] == content for name, content in small.items())


def test_batch_size_changes_nothing_beyond_float_noise(tmp_path):
    one = sampled(tmp_path / "one", 40, make_bench(batch=1))
    many = sampled(tmp_path / "many", 40, make_bench(batch=64))
    np.testing.assert_allclose(one.scores, many.scores, atol=1e-4)
    np.testing.assert_allclose(one.codes("w")[:], many.codes("w")[:], atol=1e-5)


def test_a_deleted_shard_is_sampled_again_and_those_behind_it_stay(tmp_path):
    whole = folder_bytes(sampled(tmp_path, 160).folder)
    kept = tmp_path / "shard_00003/scores.npy"
    before = kept.stat().st_mtime_ns
    shutil.rmtree(tmp_path / "shard_00001")
    (tmp_path / "shard_00001.partial").mkdir()
    (tmp_path / "shard_00001.partial/z.npy").write_bytes(b"half of it")
    assert len(Pool.open(tmp_path)) == 40
    done = []
    plan = read_plan(tmp_path)
    sample_pool(make_bench(), tmp_path, plan, 160, done.append)
    assert folder_bytes(tmp_path) == whole and kept.stat().st_mtime_ns == before and sum(done) == 160
    # A position that is added reaches the shards behind a gap as well.
    shutil.rmtree(tmp_path / "shard_00001")
    bench = make_bench(split=True)
    split = sampled(tmp_path / "split", 160, bench)
    shutil.rmtree(split.folder / "shard_00001")
    more = sampled(split.folder, 160, bench, (*POSITIONS, "mapping_split2"))
    assert more.codes("mapping_split2").shape == (160, 40) and len(more.codes("mapping_split2")[:]) == 160


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [sys.argv[2], sys.argv[2] + "/tests"]
from test_vectorfind_pool import *
done = 0
def progress(rows):
    global done
    done += rows
    if done >= 100:
        os.kill(os.getpid(), signal.SIGKILL)
bench = make_bench()
plan = replace(plan_for(bench, POSITIONS, 1000), shard_rows=40)
sample_pool(bench, Path(sys.argv[1]), plan, 160, progress)
"""


def test_a_killed_pool_resumes_to_the_same_bytes(tmp_path):
    root = Path(__file__).resolve().parents[1]
    child = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "killed"), str(root)], env=os.environ, check=False
    )
    assert child.returncode == -signal.SIGKILL
    assert complete_shards(tmp_path / "killed") == 2
    rows_done = []
    bench = make_bench()
    sample_pool(
        bench, tmp_path / "killed", replace(plan_for(bench, POSITIONS, 1000), shard_rows=40), 160, rows_done.append
    )
    assert rows_done[0] == 80, "the complete shards were sampled again"
    sampled(tmp_path / "undisturbed", 160)
    assert folder_bytes(tmp_path / "killed") == folder_bytes(tmp_path / "undisturbed")


def test_a_pool_goes_on_in_the_precision_it_was_begun_in(tmp_path):
    begun = make_bench()
    begun.precision = "bfloat16"
    sampled(tmp_path / "both", 40, begun)
    going_on = make_bench()
    sampled(tmp_path / "both", 80, going_on)
    sampled(tmp_path / "one", 80, begun)
    assert going_on.precision == "float32"
    assert folder_bytes(tmp_path / "both") == folder_bytes(tmp_path / "one")
    exact = sampled(tmp_path / "exact", 80).scores
    gap = np.abs(sampled(tmp_path / "one", 80, begun).scores - exact)
    assert 0 < gap.max() < 0.05 * exact.std()


def test_a_pool_of_another_generator_is_replaced_not_mixed(tmp_path):
    sampled(tmp_path / "pool", 80, make_bench(seed=0))
    replaced = sampled(tmp_path / "pool", 40, make_bench(seed=1))
    assert len(replaced) == 40
    assert folder_bytes(replaced.folder) == folder_bytes(sampled(tmp_path / "new", 40, make_bench(seed=1)).folder)


def test_a_position_is_added_without_sampling_again(tmp_path):
    bench = make_bench(split=True)
    sampled(tmp_path / "later", 80, bench)
    scored = []
    bench.scores = lambda images: scored.append(len(images))
    sampled(tmp_path / "later", 80, bench, ("z", "w", "mapping_split2"))
    assert not scored
    first = sampled(tmp_path / "first", 80, make_bench(split=True), ("z", "w", "mapping_split2"))
    assert folder_bytes(tmp_path / "later") == folder_bytes(first.folder)


def test_half_precision_codes_keep_full_scores(tmp_path):
    full, half = sampled(tmp_path / "full", 40), sampled(tmp_path / "half", 40, dtype="float16")
    assert (half.scores == full.scores).all()
    np.testing.assert_allclose(half.codes("w")[:], full.codes("w")[:], atol=5e-3)


def test_rows_are_read_by_slice_index_and_mask_across_shards(tmp_path):
    codes = sampled(tmp_path, 100).codes("w")
    everything = codes[:]
    assert everything.shape == codes.shape == (100, 20) and everything.dtype == np.float32
    rows = np.array([99, 3, 41, 3, -1])
    assert (codes[rows] == everything[rows]).all()
    assert (codes[30:90] == everything[30:90]).all()
    mask = np.arange(100) % 7 == 0
    assert (codes[mask] == everything[mask]).all()
    with pytest.raises(IndexError):
        codes[np.array([100])]


def test_a_full_disk_is_said_before_and_keeps_what_is_there(tmp_path, monkeypatch):
    sampled(tmp_path, 40)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**30, 2**30, 1000))
    with pytest.raises(PipelineError, match=r"free some space.*float16"):
        sampled(tmp_path, 400)
    assert len(Pool.open(tmp_path)) == 40


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        # As numpy tells a write that was cut short.
        (OSError("128000 requested and 76768 written"), "128000 requested and 76768 written: no space left"),
    ],
)
def test_a_disk_that_fills_up_while_writing_keeps_the_complete_shards(tmp_path, monkeypatch, error, told):
    save, calls = np.save, []

    def fill_up(file, array, **options):
        calls.append(file)
        if len(calls) > 4:
            raise error
        save(file, array, **options)

    monkeypatch.setattr(np, "save", fill_up)
    with pytest.raises(PipelineError, match=f"{told}.*40 samples before it are kept"):
        sampled(tmp_path, 120)
    monkeypatch.undo()
    assert len(Pool.open(tmp_path)) == 40
    assert len(sampled(tmp_path, 120)) == 120


def test_asking_for_more_than_there_is_says_how_to_get_it(tmp_path):
    with pytest.raises(PipelineError, match="holds no pool"):
        Pool.open(tmp_path)
    pool = sampled(tmp_path, 40)
    with pytest.raises(PipelineError, match="holds 40 samples, 41"):
        pool.head(41)
    with pytest.raises(PipelineError, match="not 'mapping_split1'"):
        pool.codes("mapping_split1")
