"""TensorBoard events of a fine-tuning: they tell what the CSV log tells, also after a kill."""

import subprocess
import sys

import cv2
import numpy as np
import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_finetune_training import Killed, rung

from pipeline.artefacts import read_image
from stylegan_modified.rung import LOG


def read(folder) -> EventAccumulator:
    """All events of a folder, as TensorBoard shows them."""
    events = EventAccumulator(str(folder / "events"), size_guidance={"scalars": 0, "images": 0})
    return events.Reload()


def points(events: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events.Scalars(tag)]


def assert_tells_the_log(events: EventAccumulator, log: pd.DataFrame) -> None:
    """One point for each number of the log, and no other."""
    seen = set()
    for name in LOG.columns:
        rows = log[["step", name]].dropna() if name not in ("version", "step") else log.iloc[:0]
        tags = [tag for tag in events.Tags()["scalars"] if tag.split("/")[1] == name]
        assert len(tags) == (1 if len(rows) else 0), name
        for tag in tags:
            steps, values = zip(*points(events, tag), strict=True)
            assert list(steps) == rows["step"].tolist(), tag
            np.testing.assert_allclose(values, rows[name], rtol=1e-5, atol=1e-5)
        seen |= set(tags)
    assert seen == set(events.Tags()["scalars"])


def test_events_tell_what_the_log_tells(tmp_path):
    _, log = rung(tmp_path, 6)
    events = read(tmp_path)
    assert_tells_the_log(events, log)
    assert {"training/d_loss", "training/real_fake_auroc", "monitor/concept_share"} <= set(events.Tags()["scalars"])
    pictures = events.Images("samples")
    assert [picture.step for picture in pictures] == [0, 4, 6]
    for picture in pictures:
        seen = cv2.imdecode(np.frombuffer(picture.encoded_image_string, np.uint8), cv2.IMREAD_COLOR_RGB)
        assert np.array_equal(seen, read_image(tmp_path / "strips" / f"step_{picture.step:06d}.png"))


@pytest.mark.parametrize("kill_at", [1, 3, 7])
def test_a_killed_run_leaves_one_point_a_step(tmp_path, kill_at):
    with pytest.raises(Killed):
        # States fall on every second row: what is logged after the last one is told again, with other values perhaps.
        rung(tmp_path, 8, kill_at=kill_at, save=4)
    cut = max((tmp_path / "events").iterdir())
    cut.write_bytes(cut.read_bytes()[:-7])  # killed while writing what no state knows
    _, log = rung(tmp_path, 8, save=4)
    events = read(tmp_path)
    assert [picture.step for picture in events.Images("samples")] == [0, 4, 8]
    for tag in events.Tags()["scalars"]:
        steps = [step for step, _ in points(events, tag)]
        assert steps == sorted(set(steps)), tag
    assert [step for step, _ in points(events, "training/d_loss")] == [2, 4, 6, 8]
    assert len(list((tmp_path / "events").iterdir())) == (1 if kill_at < 4 else 2)  # anew before the first state


def test_a_longer_training_goes_on_in_the_same_curves(tmp_path):
    rung(tmp_path, 4)
    _, log = rung(tmp_path, 8)
    assert_tells_the_log(read(tmp_path), log)


def test_events_of_other_inputs_go_and_lost_ones_come_back(tmp_path):
    rung(tmp_path, 8)
    _, log = rung(tmp_path, 4, seed=1)
    assert_tells_the_log(read(tmp_path), log)
    for path in (tmp_path / "events").iterdir():
        path.unlink()
    _, log = rung(tmp_path, 6, seed=1)
    assert_tells_the_log(read(tmp_path), log)


def test_tensorboard_is_loaded_by_training_alone():
    code = "import sys, stylegan_modified.rung; sys.exit('tensorboard' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
