"""Pictures of a fine-tuning: loss curves, concept curve, the same latents before and after."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipeline.artefacts import atomic, save_image
from pipeline.sheets import contact_sheet

TARGET = 0.95


def draw_losses(log: pd.DataFrame, path: Path) -> None:
    """Losses, updates per step and the AUROC of D on its training batches, against the step."""
    figure = Figure(figsize=(9, 6))
    top, bottom = figure.subplots(2, 1, sharex=True)
    rows = log[log["d_loss"].notna()]
    top.plot(rows["step"], rows["d_loss"], label="D loss with R1", color="tab:blue")
    top.plot(rows["step"], rows["g_loss"], label="G loss", color="tab:orange")
    top.plot(rows["step"], rows["r1_penalty"], label="R1 penalty", color="tab:grey", linewidth=0.8)
    top.set_ylabel("loss")
    beside(top)
    bottom.plot(rows["step"], rows["real_fake_auroc"], label="AUROC, real against generated", color="tab:green")
    bottom.plot(rows["step"], rows["d_train_count"] / 4, label="D updates per step / 4", color="tab:blue", lw=0.8)
    bottom.plot(rows["step"], rows["g_train_count"] / 4, label="G updates per step / 4", color="tab:orange", lw=0.8)
    bottom.set_ylim(0, 1.05)
    bottom.set_xlabel("step")
    beside(bottom)
    for axes in (top, bottom):
        _mark_rungs(axes, log)
    write_figure(figure, path)


def draw_concept(log: pd.DataFrame, path: Path, base: tuple[float, float, float]) -> None:
    """Concept share with its interval, and diversity relative to the start, against the step.

    base: share, low and high of the generator before any fine-tuning.
    """
    rows = log[log["concept_share"].notna()]
    spread = rows["diversity"] / rows["diversity"].iloc[0]
    figure = Figure(figsize=(9, 4.5))
    axes = figure.subplots()
    axes.axhspan(base[1], base[2], color="tab:grey", alpha=0.3)
    axes.axhline(base[0], color="tab:grey", label="before fine-tuning")
    axes.fill_between(rows["step"], rows["concept_low"], rows["concept_high"], color="tab:blue", alpha=0.2)
    axes.plot(rows["step"], rows["concept_share"], marker=".", color="tab:blue", label="concept share, 95 % interval")
    axes.plot(rows["step"], spread, color="tab:red", label="diversity, of that at the start")
    axes.axhline(TARGET, color="tab:green", linestyle="--", linewidth=0.8, label=f"target {TARGET}")
    _mark_rungs(axes, log)
    axes.set_ylim(0, max(1.05, float(spread.max()) + 0.05))
    axes.set_xlabel("step")
    axes.set_ylabel("share, or ratio to the start")
    beside(axes)
    write_figure(figure, path)


def beside(axes) -> None:
    """Put the legend to the right of the axes, where it covers no curve."""
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0, fontsize=8)


def _mark_rungs(axes, log: pd.DataFrame) -> None:
    """A dotted line and a name where each training began: a log starts with a row that has no losses."""
    for step, version in log.loc[log["d_loss"].isna(), ["step", "version"]].itertuples(index=False, name=None):
        axes.axvline(step, color="black", linestyle=":", linewidth=0.8)
        axes.annotate(version, (step, 0.02), xycoords=("data", "axes fraction"), xytext=(3, 0), fontsize=8,
                      textcoords="offset points")  # fmt: skip


def draw_before_after(before: np.ndarray, after: np.ndarray, path: Path) -> None:
    """Two rows of equal latents, before above after; uint8 [N, R, R, 3] each."""
    save_image(path, contact_sheet(np.concatenate([before, after]), columns=len(before)))


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole."""
    figure.tight_layout()
    with atomic(path) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary), metadata={"Software": None})
