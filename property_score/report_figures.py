"""The figures of the report on property scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.plots import save_figure
from property_score.correlation import pearson, spearman
from property_score.head_pose import ANGLES
from property_score.measure import PROPERTIES
from property_score.normalisation import Normalisation
from property_score.panel import Readings
from property_score.reference_figures import TRUTH

BLUE, RED, GREEN, GREY = "#2a6f97", "#c8553d", "#588157", "#6b6b6b"
DOTS = {"s": 5, "alpha": 0.35, "linewidths": 0}
UNITS = {
    "eyes": "pixels of the crop",
    "hair_color": "brightness, 0-255",
    "hair_length": "rows, + half the hair in the last",
    "mouth": "open share of the mouth",
    "pose": "slope of the eye line",
    "background_mean": "brightness, 0-255",
    "background_std": "brightness, 0-255",
    "hairstyle": "disorder of strands, 0-1",
}
V1_UNITS = {"mouth": "pixels of the crop", "pose": "minus the nose's correlation"}
TRUE_UNITS = {
    "eyes": "opening; about 1 is a wide eye",
    "hair_color": "own brightness, 0-1",
    "hair_length": "0 short, 1 long",
    "mouth": "head units",
    "roll": "radians, right eye lower +",
    "background_mean": "brightness, 0-255",
    "background_std": "brightness, 0-255",
    "hair_curl": "0 straight, 1 curly",
}


def draw_truth(path: Path, name: str, readings: Readings, truth: pd.DataFrame, scorers: Sequence[str]) -> None:
    """Scatter of one score of each scorer (a panel each) over its true attribute."""
    values = truth[TRUTH[name]].to_numpy()

    def draw(axis, scorer):
        scores = readings.of(scorer, name)
        axis.scatter(values, scores, color=BLUE, **DOTS)
        axis.set_title(f"{scorer}: r = {pearson(scores, values)[0]:.3f}")
        axis.set_xlabel(f"true {TRUTH[name]} ({TRUE_UNITS[TRUTH[name]]})")
        axis.set_ylabel(f"{name} ({_unit(name, scorer)})")

    _panels(path, scorers, draw, columns=3)


def draw_agreement(path: Path, readings: Readings, networks: Sequence[str], units: Normalisation | None) -> None:
    """Scatter of each network's scores (z) over the geometric ones, a panel per property.

    units: what turns geometric scores into the networks'; without it they are drawn raw.
    """

    def draw(axis, name):
        geometric = readings.of("geometric", name)
        if units is not None:
            geometric = units.z(name, geometric)
        for network, colour in zip(networks, (BLUE, RED)):
            scores = readings.of(network, name)
            label = f"{network}, rank r {spearman(scores, geometric)[0]:.2f}"
            axis.scatter(geometric, scores, color=colour, label=label, **DOTS)
        if units is not None:
            axis.axline((0, 0), slope=1, color="black", linewidth=0.8, linestyle=":")
        axis.set_title(name)
        axis.set_xlabel(f"geometric scorer ({UNITS[name] if units is None else 'z'})")
        axis.set_ylabel("network (z)")
        axis.legend(fontsize=7, markerscale=2, loc="upper left")

    _panels(path, PROPERTIES, draw)


def draw_pose(path: Path, readings: Readings, truth: pd.DataFrame, scorers: Sequence[str]) -> None:
    """Scatter of `pose` over yaw, pitch and roll, a row per scorer."""

    def draw(axis, panel):
        scorer, angle = panel
        scores, values = readings.of(scorer, "pose"), truth[angle].to_numpy()
        axis.scatter(values, scores, color=GREEN, **DOTS)
        axis.set_title(f"{scorer}: r = {pearson(scores, values)[0]:.2f}")
        axis.set_xlabel(f"true {angle} (radians)")
        axis.set_ylabel(f"pose ({_unit('pose', scorer)})")

    _panels(path, [(scorer, angle) for scorer in scorers for angle in ANGLES], draw, columns=len(ANGLES))


def draw_distributions(path: Path, populations: dict[str, Readings], scorer: str) -> None:
    """Histogram of each score of one scorer, populations over each other."""

    def draw(axis, name):
        samples = {title: readings.of(scorer, name) for title, readings in populations.items()}
        samples = {title: values[np.isfinite(values)] for title, values in samples.items()}
        everything = np.concatenate(list(samples.values()))
        if not len(everything):
            return
        low, high = np.percentile(everything, [0.2, 99.8])
        bins = np.linspace(low, max(high, low + 1e-6), 41)
        for (title, values), colour in zip(samples.items(), (GREY, BLUE)):
            axis.hist(values, bins=bins, density=True, color=colour, alpha=0.5, label=title)
        axis.set_title(name)
        axis.set_xlabel(_unit(name, scorer))
        axis.set_ylabel("density")
        axis.legend(fontsize=7)

    _panels(path, PROPERTIES, draw)


def draw_attributes(path: Path, readings: Readings, truth: pd.DataFrame, scorers: Sequence[str]) -> None:
    """Correlation of each score with each attribute as a map of numbers, a panel per scorer."""
    attributes = [name for name in truth.columns if not name.startswith("shape_")]

    def draw(axis, scorer):
        cells = [
            [pearson(readings.of(scorer, name), truth[attribute].to_numpy())[0] for attribute in attributes]
            for name in PROPERTIES
        ]
        axis.imshow(cells, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
        for row, values in enumerate(cells):
            for column, value in enumerate(values):
                if math.isfinite(value):
                    dark = abs(value) > 0.6
                    style = {"ha": "center", "va": "center", "fontsize": 7, "color": "white" if dark else "black"}
                    axis.text(column, row, f"{value:.2f}", **style)
        axis.set_xticks(range(len(attributes)), attributes, rotation=45, ha="right", fontsize=8)
        axis.set_yticks(range(len(PROPERTIES)), PROPERTIES, fontsize=8)
        axis.set_title(f"{scorer}: r with each true attribute")

    _panels(path, scorers, draw, columns=1, width=8.4, height=3.9)


def _unit(name: str, scorer: str) -> str:
    if scorer in ("property CNN", "second grader"):
        return "z"
    if scorer.startswith("v1") and name in V1_UNITS:
        return V1_UNITS[name]
    return "ratio of brightness changes" if scorer.endswith("published") and name == "hairstyle" else UNITS[name]


def _panels(
    path: Path, items: Sequence, draw: Callable, columns: int = 4, width: float = 3.2, height: float = 2.8
) -> None:
    from matplotlib.figure import Figure

    rows = -(-len(items) // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[len(items) :]:
        axis.set_axis_off()
    for axis, item in zip(axes, items):
        draw(axis, item)
        axis.title.set_fontsize(9)
        axis.xaxis.label.set_fontsize(8)
        axis.yaxis.label.set_fontsize(8)
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    save_figure(path, figure, dpi=100)
