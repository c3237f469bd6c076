"""TensorBoard event files of one rung: the rows of its CSV log as curves, its sample strips as pictures.

Look at them with `tensorboard --logdir runs/demo/stylegan_modified`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.artefacts import read_image

EVENTS = "events.out.tfevents.*"


class EventLog:
    """Writes `training/...` and `monitor/...` scalars and the picture `samples`, each at its step of training.

    rows: of the log up to the step that training goes on from. What a killed run wrote beyond them is marked as void
    (purge_step), so a reader sees one value a step. When the folder holds no events yet, the rows are written anew.
    training: names of the values that the trainer measures; all others of a row belong to the monitor.
    """

    def __init__(self, folder: Path, rows: list[dict[str, Any]], training: Iterable[str]):
        # A fifth of a second that only a process that writes events should pay.
        from torch.utils.tensorboard import SummaryWriter

        self.training = frozenset(training)
        known = any(folder.glob(EVENTS))
        last = rows[-1]["step"] if rows else -1
        self.writer = SummaryWriter(str(folder), purge_step=last + 1 if known else None)
        for row in [] if known else rows:
            self.add(row)

    def add(self, row: dict[str, Any], strip: Path | None = None) -> None:
        """Write one row of the log (numbers that are not finite are left out) and a strip's file, if there is one.

        On return the events are on disk: a state that is saved after it never knows more than they do.
        """
        step = row["step"]
        for name, value in row.items():
            if name in ("version", "step") or not math.isfinite(value):
                continue
            self.writer.add_scalar(f"{'training' if name in self.training else 'monitor'}/{name}", value, step)
        if strip is not None:
            self.writer.add_image("samples", read_image(strip), step, dataformats="HWC")
        self.writer.flush()

    def close(self) -> None:
        """End the file."""
        self.writer.close()


def clear_events(folder: Path) -> None:
    """Remove the events of an earlier training of other inputs."""
    for path in folder.glob(EVENTS):
        path.unlink()
