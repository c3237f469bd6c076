"""Driving one rung of fine-tuning: steps, log, monitors, saved states; killed and called again it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pandera.pandas import Check, Column, DataFrameSchema

from pipeline.artefacts import code_version, digest, read_weights, remove_leftovers, save_weights, stamp_path
from pipeline.errors import PipelineError
from pipeline.progress import progress
from pipeline.tables import write_table
from stylegan_modified.carry import BRANCH_ALIVE
from stylegan_modified.event_log import EventLog, clear_events
from stylegan_modified.monitor import Monitor
from stylegan_modified.plan import Call
from stylegan_modified.trainer import Trainer
from stylegan_modified.versions import OBEYED

_MEASURED = ("r1_penalty", "d_train_count", "g_train_count", "real_scores_mean", "fake_scores_mean", "real_fake_auroc")
_TRAINING = ("epoch", "d_loss", "g_loss", *_MEASURED, "term_loss")  # in event files apart from what monitors measure
_WATCHED = (
    *("concept_share", "concept_low", "concept_high", "mean_gender", "mean_quality", "mean_age", "mean_glasses"),
    *("diversity", "branch_share", "monitor_auroc"),
)
_ADDED = (
    *("term_loss", "kid", "recall", "identity_change"),
    *(f"{name}_{kind}" for kind in ("corr", "pooled", "oracle", "mae") for name in OBEYED),
    "identity_under_labels",
)
LOG = DataFrameSchema(
    {
        "version": Column(str),
        "step": Column(int, Check.ge(0)),
        "epoch": Column(int, Check.ge(0)),
        **{name: Column(float, nullable=True) for name in ("d_loss", "g_loss", *_MEASURED, *_WATCHED)},
        # Logs that are older than these columns, among them a bundled one, stay readable.
        **{name: Column(float, nullable=True, required=False) for name in _ADDED},
    },
    strict=True,
    coerce=True,
)

# What the judge saw in the samples of one generator; further columns are its readings.
SAMPLES = DataFrameSchema({"img_no": Column(int), "seed": Column(int), "concept": Column(bool)})


# Settings that change what is measured and how long one trains, not the training: a saved state goes on with others.
FREE = {
    "steps",
    "samples",
    "cases",
    "minutes",
    "accumulate",
    "sample_batch",
    "log_every",
    "monitor_every",
    "save_every",
}
# The code that the training depends on.
TRAINING_CODE = (
    *(f"stylegan.{name}" for name in ("discriminator", "generator", "layers", "mapping")),
    *(
        f"stylegan_modified.{name}"
        for name in ("aim", "augment", "carry", "critics", "cvae", "draws", "faces", "guidance", "labels", "latents")
    ),
    *(f"stylegan_modified.{name}" for name in ("terms", "trainer", "truncation", "versions")),
    "cnn.filter_cnn",
    "property_score.property_cnn",
)
# What the judge's figures depend on.
MEASURING_CODE = (
    *(f"stylegan_modified.{name}" for name in ("judge", "monitor", "sampler", "spread")),
    "stylegan.generator",
    "virtual_face.oracle",
)


def fingerprint_of(plan: Call, trainer: Trainer, free: set[str] = FREE) -> dict[str, Any]:
    """What a saved state depends on besides the number of steps: settings, seed, rates, version, inputs and code."""
    return {key: value for key, value in plan.settings.items() if key not in free} | {
        "seed": plan.seed,
        "rates": trainer.rates,
        "version": trainer.version,
        "code": code_version(*TRAINING_CODE),
        **{key: digest(path) for key, path in plan.stamp["inputs"].items()},
    }


@dataclass(frozen=True)
class Files:
    """Where one rung keeps its state, its log, its sample strips and its TensorBoard events."""

    state: Path
    log: Path
    strips: Path
    events: Path

    @property
    def before(self) -> Path:
        """Where a state of another training waits, in case that one is wanted again."""
        return self.state.with_suffix(".before.pth")

    def forget(self) -> None:
        """Delete both states."""
        for path in (self.state, self.before):
            path.unlink(missing_ok=True)

    def strip(self, step: int) -> Path:
        """Return the path of the strip of one step."""
        return self.strips / f"step_{step:06d}.png"


@dataclass(frozen=True)
class Rhythm:
    """Steps between log rows, monitors and saved states; the last two are multiples of the first."""

    log: int = 10
    monitor: int = 50
    save: int = 50

    def check(self) -> None:
        """PipelineError unless every monitor and every state falls on a row of the log."""
        if min(self.log, self.monitor, self.save) < 1 or self.monitor % self.log or self.save % self.log:
            raise PipelineError(
                f"profile section [finetune]: monitor_every {self.monitor} and save_every {self.save} must be "
                f"multiples of log_every {self.log}"
            )


def train_rung(
    trainer: Trainer,
    steps: int,
    monitor: Monitor,
    files: Files,
    rhythm: Rhythm,
    fingerprint: dict[str, Any],
    say: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Train until `steps` steps are done, going on from a saved state of the same fingerprint; returns the log.

    steps: the warm-up counts. fingerprint: what the state depends on besides the number of steps; a state of another
    one is set aside, and taken again where its training is wanted again. One that differs in `code` alone is gone on
    with, and told: a training may take days. Of several processes the first one watches, logs and saves; all resume.
    """
    rhythm.check()
    group = trainer.processes
    if trainer.splits_groups:
        say(
            f"note: {group.parts} parts of a batch of {trainer.faces.batch} split the groups of the discriminator's "
            "minibatch deviation, so its scores differ a little from those of an undivided batch"
        )
    fingerprint = {name: str(value) for name, value in sorted(fingerprint.items())}
    rows, source = _resume(trainer, steps, files, fingerprint, say)
    fingerprint["code"] = trainer.code
    group.wait()  # until the last process has read the state, the first one must not write another
    name = trainer.version.name
    if group.first and source != files.state:
        _set_aside(files, source)
    if group.first and not rows:
        _clear(files)
    events = EventLog(files.events, rows, _TRAINING) if group.first else None
    if not rows:
        row = {**_position(trainer), **trainer.row()}
        if group.first:
            row |= _watch(trainer, monitor, files, say)
            events.add(row, files.strip(0))
        rows.append(row)
    if group.first:
        write_table(files.log, _frame(rows), LOG)
    with progress(steps, f"fine-tune {name}") as bar:
        bar.update(trainer.step_number)
        while trainer.step_number < steps:
            trainer.step()
            bar.update()
            step = trainer.step_number
            last = step == steps
            if step % rhythm.log and not last:
                continue
            row = {**_position(trainer), **trainer.row()}
            rows.append(row)
            if not group.first:
                continue
            watched = step % rhythm.monitor == 0 or last
            if watched:
                row |= _watch(trainer, monitor, files, say)
            events.add(row, files.strip(step) if watched else None)
            write_table(files.log, _frame(rows), LOG)
            if step % rhythm.save == 0 or last:
                content = {**trainer.state(), "rows": rows, "fingerprint": fingerprint}
                save_weights(files.state, content, step=step, version=name)
    if events:
        events.close()
    group.wait()
    return _frame(rows)


def _resume(
    trainer: Trainer, steps: int, files: Files, fingerprint: dict[str, str], say: Callable[[str], None]
) -> tuple[list[dict[str, Any]], Path | None]:
    """Load a usable state into the trainer; returns the rows of the log up to it and the file, or [] and None."""
    for folder in {files.state.parent, files.strips}:
        if folder.is_dir() and trainer.processes.first:
            remove_leftovers(folder)
    trainer.code = fingerprint.get("code", "")
    reasons = {}
    for path in (files.state, files.before):
        if not path.is_file():
            continue
        state = read_weights(path)
        reasons[path] = _useless(state, steps, fingerprint)
        if reasons[path]:
            continue
        trainer.restore(state, path)
        if state["fingerprint"].get("code", "") != trainer.code:
            trainer.code = state["fingerprint"].get("code", "")
            say(f"note: {path.name} is of earlier code of the training; --force trains anew")
        say(f"{trainer.version.name}: going on from step {trainer.step_number}")
        # The row of a last step off the log's grid stays when a longer training goes on from it.
        return list(state["rows"]), path
    if files.state in reasons:
        say(f"{reasons[files.state]}; training starts anew, and that state waits in {files.before.name}")
    return [], None


def _useless(state: dict[str, Any], steps: int, fingerprint: dict[str, str]) -> str:
    """Why a state cannot be gone on with, "" if it can."""
    known = state.get("fingerprint", {})
    if {**known, "code": ""} != {**fingerprint, "code": ""}:
        return "the saved state is of other inputs or settings"
    reached = state["counters"]["step"]
    return f"the saved state is at step {reached}, beyond {steps}" if reached > steps else ""


def _set_aside(files: Files, taken: Path | None) -> None:
    """Put the present state where it waits, and the one that is taken up again in its place.

    Of two states of the same training the further one stays.
    """
    if taken:
        waiting = files.state.with_suffix(".swap.pth")
        if files.state.is_file():
            files.state.replace(waiting)
        taken.replace(files.state)
        if waiting.is_file():
            waiting.replace(files.before)
    elif files.state.is_file():
        known = [read_weights(path) for path in (files.state, files.before) if path.is_file()]
        same = len(known) == 2 and known[0].get("fingerprint") == known[1].get("fingerprint")
        if not same or known[0]["counters"]["step"] >= known[1]["counters"]["step"]:
            files.state.replace(files.before)
        files.state.unlink(missing_ok=True)
    stamp_path(files.state).unlink(missing_ok=True)


def joined(logs: list[pd.DataFrame]) -> pd.DataFrame:
    """Logs of successive rungs as one, each row's step counted from the start of the first."""
    parts, done = [], 0
    for log in logs:
        parts.append(log.assign(step=log["step"] + done))
        done += int(log["step"].max())
    return pd.concat(parts, ignore_index=True)


def _clear(files: Files) -> None:
    """Remove what an earlier training of other inputs left: its strips and curves would stand among the new ones."""
    clear_events(files.events)
    for path in files.strips.glob("step_*.png"):
        path.unlink()


def _position(trainer: Trainer) -> dict[str, Any]:
    epoch = trainer.counters["draws"] // trainer.faces.per_epoch
    return {"version": trainer.version.name, "step": trainer.step_number, "epoch": epoch}


def _watch(trainer: Trainer, monitor: Monitor, files: Files, say: Callable[[str], None]) -> dict[str, Any]:
    values = monitor.look(trainer.average, trainer.discriminator)
    monitor.save_strip(trainer.average, files.strip(trainer.step_number))
    line = f"{trainer.version.name} step {trainer.step_number}: concept share {values['concept_share']:.3f}"
    say(f"{line} [{values['concept_low']:.3f}, {values['concept_high']:.3f}], diversity {values['diversity']:.2f}")
    if values["branch_share"] < BRANCH_ALIVE:
        say(
            f"WARNING: the new mapping branch carries {values['branch_share']:.2%} of the energy of w, below "
            f"{BRANCH_ALIVE:.0%}: it is as good as dead, and the split positions mean nothing"
        )
    return values


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    # Rounded, so that a row that was read back after a kill is written as it was.
    return pd.DataFrame(rows).reindex(columns=list(LOG.columns)).round(6)
