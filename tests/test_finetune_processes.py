"""Training in parts: two processes, or one that accumulates, do what one does with the whole batch."""

import subprocess
import sys

import finetune_process
import finetune_world as world
import numpy as np
import pytest
import torch
import torch.distributed as dist

from pipeline.artefacts import read_json
from pipeline.errors import PipelineError
from stylegan_modified.processes import Processes

STEPS = 3
TOLERANCE = 1e-3  # relative: sums are taken in another order, and Adam makes much of small gradients


def assert_same(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("version", ["v1", "v9"])
def test_two_processes_and_accumulation_equal_one_with_twice_the_batch(tmp_path, version):
    whole = finetune_process.curve(version, STEPS, Processes())
    assert_same(finetune_process.curve(version, STEPS, Processes(accumulate=2)), whole)
    out = tmp_path / "curve.json"
    call = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*call, finetune_process.__file__, str(out), version, str(STEPS)],
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert_same(read_json(out), whole)


def test_half_the_batch_is_another_curve():
    whole, half = (finetune_process.curve("v9", 1, Processes(), batch) for batch in (8, 4))
    assert abs(whole[0][0] - half[0][0]) > TOLERANCE  # so the equality above says something


def test_parts_that_split_groups_of_the_minibatch_deviation_are_told():
    # 8 faces in groups of 4 are 2 groups.
    splits = {parts: world.trainer("v9", batch=8, processes=Processes(accumulate=parts)).splits_groups
              for parts in (1, 2, 4)}  # fmt: skip
    assert splits == {1: False, 2: False, 4: True}


def test_a_batch_that_cannot_be_cut_is_refused():
    assert list(Processes(2).own(4)) == [slice(0, None, 2), slice(1, None, 2)]
    with pytest.raises(PipelineError, match="cannot be cut into 3 equal parts"):
        list(Processes(3).own(8))


@pytest.mark.parametrize(("device", "calls"), [
    ("cuda:1", [("set", 1), ("join", "nccl")]),
    ("cuda", [("set", 3), ("join", "nccl")]),
    ("cpu", [("join", "gloo")]),
])  # fmt: skip
def test_a_process_takes_its_gpu_before_it_joins_the_others(monkeypatch, device, calls):
    seen = []
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: seen.append(("set", index)))
    monkeypatch.setattr(dist, "init_process_group", lambda backend, timeout: seen.append(("join", backend)))
    Processes.start(device)
    assert seen == calls
