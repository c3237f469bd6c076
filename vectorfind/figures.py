"""Pictures of the report: histograms, curves, and sheets of faces that are moved along one direction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.images import save_image
from pipeline.plots import save_figure
from pipeline.sheets import contact_sheet, save_sheet, side_by_side
from vectorfind.bench import Bench
from vectorfind.editor import Editor
from vectorfind.groups import Grouping
from vectorfind.names import EDITED, PROPERTIES

COLOURS = {"eyes": "#2a6f97", "mouth": "#c8553d", "pose": "#588157"}
DRAWN_FACES = 40  # one by one in the curves
STRIP_LEVELS = (-2.0, -1.0, 0.0, 1.0, 2.0)


def _panels(path: Path, draw: Callable, width: float = 3.6, height: float = 2.9, shared: bool = False) -> None:
    """A panel per edited property, filled by draw(axis, name); shared: on one y axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * len(EDITED), height), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(EDITED), sharey=shared), EDITED, strict=True):
        draw(axis, name)
        axis.set_title(name)
        axis.spines[["top", "right"]].set_visible(False)
    save_figure(path, figure, dpi=110)


def draw_scores(path: Path, scores: np.ndarray, k_percent: float | None) -> None:
    """Histogram of each edited score over the pool; dotted lines cut off the k % extremes."""

    def draw(axis, name):
        column = scores[:, PROPERTIES.index(name)]
        column = column[np.isfinite(column)]
        axis.hist(column, bins=60, color=COLOURS[name])
        if k_percent is not None:
            for cut in np.percentile(column, [k_percent, 100 - k_percent]):
                axis.axvline(cut, color="black", linestyle=":", linewidth=1)
        axis.set_xlabel("score in the pool")
        axis.set_ylabel("faces")

    _panels(path, draw)


def draw_corr(path: Path, result: pd.DataFrame, passes: dict[str, float]) -> None:
    """Histogram of the signed correlation over the tested faces, with the bar of the pass."""

    def draw(axis, name):
        corr = result[f"{name}_corr"].dropna()
        axis.hist(corr, bins=np.linspace(min(0.0, corr.min() if len(corr) else 0.0), 1, 41), color=COLOURS[name])
        axis.axvline(passes[name], color="black", linewidth=1)
        axis.set_xlabel(f"corr (line: {passes[name]})")
        axis.set_ylabel("faces")

    _panels(path, draw)


def draw_curves(path: Path, grid: pd.DataFrame, score_sds: np.ndarray, diagonal: bool) -> None:
    """Score against weight: a face's mean at each level less its own mean, in deviations; median and 10-90 % bars.

    diagonal: draw what perfect calibration would give (weights are deviations).
    """

    def draw(axis, name):
        table = grid.pivot_table(index="case", columns=f"{name}_pm", values=f"{name}_score")
        values = table.to_numpy() / score_sds[EDITED.index(name)]
        values = values - values.mean(axis=1, keepdims=True)
        levels = table.columns.to_numpy(float)
        axis.plot(levels, values[:DRAWN_FACES].T, color=COLOURS[name], alpha=0.12, linewidth=0.8)
        low, middle, high = np.nanpercentile(values, [10, 50, 90], axis=0)
        # Bars at the levels: between them nothing was measured.
        reach = [middle - low, high - middle]
        axis.errorbar(levels, middle, yerr=reach, color=COLOURS[name], marker="o", markersize=4, capsize=3)
        if diagonal:
            axis.plot(levels, levels - levels.mean(), color="black", linestyle=":", linewidth=1)
        axis.set_xlabel("weight")
        axis.set_ylabel("score less the face's mean, deviations")

    _panels(path, draw)


def draw_strips(
    paths: list[Path],
    bench: Bench,
    directions: Editor,
    grouping: Grouping,
    seeds,
) -> None:
    """One sheet per edited property: a row per face, a column per STRIP_LEVELS, the other properties left alone.

    Under each picture: the weight, and by how many deviations the score moved from the unedited face.
    """
    for i, path in enumerate(paths):
        pictures, texts = _moved(bench, directions, grouping, seeds, i)
        save_sheet(path, pictures, columns=len(STRIP_LEVELS), labels=texts)


def draw_duel(
    path: Path,
    bench: Bench,
    rivals: dict[str, tuple[Editor, Grouping]],
    seeds,
) -> None:
    """A sheet of each editor beside that of the other, under its name: a row per property and face."""
    sheets = []
    for editor, grouping in rivals.values():
        pictures, texts = [], []
        for i, name in enumerate(EDITED):
            moved, labels = _moved(bench, editor, grouping, seeds, i)
            pictures.append(moved)
            texts += [f"{name} {label}" for label in labels]
        sheets.append(contact_sheet(np.concatenate(pictures), len(STRIP_LEVELS), labels=texts))
    save_image(path, side_by_side(sheets, list(rivals)))


def _moved(bench: Bench, editor: Editor, grouping: Grouping, seeds, i: int) -> tuple[np.ndarray, list[str]]:
    """uint8 [F * L, H, W, 3] of faces moved along edited property i, and what was asked for and reached, as text."""
    from stylegan.sampling import to_uint8

    codes = bench.encode(bench.latents(seeds), editor.position)
    base = bench.measure(codes, editor.position)
    column = PROPERTIES.index(EDITED[i])
    count = len(STRIP_LEVELS)
    amounts = np.zeros((len(codes) * count, len(EDITED)), np.float32)
    amounts[:, i] = np.tile(STRIP_LEVELS, len(codes))
    repeated, groups = (np.repeat(values, count, axis=0) for values in (codes, grouping.assign(base)))
    edited = editor.edit(repeated, groups, amounts)
    pictures, scores = [], []
    for _, images in bench.draw(edited, editor.position):
        scores.append(bench.scores(images)[:, column])
        pictures.append(np.asarray(to_uint8(images)))
    moved = (np.concatenate(scores) - np.repeat(base[:, column], count)) / editor.score_sds[i]
    moved = moved.round(1) + 0.0  # which makes 0 of -0
    texts = [f"{weight:+g}: {change:+.1f}" for weight, change in zip(amounts[:, i], moved, strict=True)]
    return np.concatenate(pictures), texts


def draw_lines(path: Path, lines: dict[str, pd.DataFrame], axis_name: str) -> None:
    """Mean signed correlation with its interval against a column of a sweep, a line per setting."""

    def draw(axis, name):
        for k, (label, part) in enumerate(lines.items()):
            # A little apart, or the bars of lines that agree hide each other.
            apart = 1 + 0.03 * (k - (len(lines) - 1) / 2)
            x, y = part[axis_name].to_numpy(float) * apart, part[f"{name}_corr"].to_numpy(float)
            low, high = part[f"{name}_low"].to_numpy(float), part[f"{name}_high"].to_numpy(float)
            axis.errorbar(x, y, yerr=np.abs([y - low, high - y]), marker="o", markersize=3, capsize=2, label=label)
        if axis_name == "samples":
            axis.set_xscale("log")
        axis.set_xlabel(axis_name)
        axis.set_ylabel("mean signed corr")
        if name == EDITED[0]:
            axis.figure.legend(loc="outside upper center", ncols=min(3, len(lines)), fontsize=8, frameon=False)

    _panels(path, draw, shared=True)


def draw_reach(path: Path, reach: pd.DataFrame, met: pd.DataFrame) -> None:
    """How far each face goes, a line per face; on it the wishes inside, those that were not met in red.

    reach, met: see `vectorfind.reach`, of one walk.
    """

    def draw(axis, name):
        part = reach[reach["property"] == name].sort_values("high").reset_index(drop=True)
        place = pd.Series(part.index, part["seed"])
        axis.vlines(part.index, part["low"], part["high"], color=COLOURS[name], linewidth=1, alpha=0.6)
        own = met[met["property"] == name]
        for kept, colour, size in ((own[own["met"]], "black", 1), (own[~own["met"]], "red", 9)):
            axis.scatter(place.reindex(kept["seed"]), kept["intended"], color=colour, s=size, zorder=2)
        axis.axhline(0, color="black", linewidth=0.6)
        axis.set_xlabel("faces, sorted by how far up they go")
        axis.set_ylabel("reachable change, deviations")

    _panels(path, draw)


def draw_leakage(path: Path, tables: dict[str, pd.DataFrame]) -> None:
    """A heat map per method: deviations of each other column (finder's scores, head, person) per intended deviation."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 2.6 * len(tables)), layout="constrained")
    for axis, (method, table) in zip(figure.subplots(len(tables), 1, squeeze=False)[:, 0], tables.items(), strict=True):
        seen = table[table["column"].str.startswith("finder ") | ~table["column"].str.contains(" ")]
        wide = seen.pivot_table(index="property", columns="column", values="signed", sort=False, dropna=False)
        axis.imshow(wide.to_numpy(), cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
        for (row, column), value in np.ndenumerate(wide.to_numpy()):
            ink = "white" if abs(value) > 0.6 else "black"
            axis.text(column, row, f"{value:+.2f}", ha="center", va="center", fontsize=7, color=ink)
        columns = [name.removeprefix("finder ") for name in wide.columns]
        axis.set_xticks(range(len(columns)), columns, rotation=40, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(wide.shape[0]), list(wide.index))
        axis.tick_params(labelsize=7)
        axis.set_title(method, fontsize=9)
    save_figure(path, figure, dpi=110)


def draw_passes(path: Path, judged: pd.DataFrame) -> None:
    """Share of faces that pass the bars of v8, a group of bars per method, a bar per grader, with intervals.

    The method that the least favourable grader passes most often is on top.
    """
    from matplotlib.figure import Figure

    shares = judged.drop_duplicates(["method", "grader"])
    methods = list(shares.groupby("method")["pass_v8"].min().sort_values(kind="stable").index)
    graders = list(shares["grader"].unique())
    figure = Figure(figsize=(8, 1.2 + 0.45 * len(methods)), layout="constrained")
    axis = figure.subplots()
    thickness = 0.8 / len(graders)
    for k, grader in enumerate(graders):
        part = shares[shares["grader"] == grader].set_index("method").reindex(methods)
        middle = part["pass_v8"].to_numpy()
        reach = np.abs([middle - part["pass_v8_low"], part["pass_v8_high"] - middle])
        place = np.arange(len(methods)) - (k - (len(graders) - 1) / 2) * thickness
        axis.barh(place, middle, thickness, xerr=reach, capsize=2, label=grader)
    axis.set_yticks(range(len(methods)), methods, fontsize=8)
    axis.set_xlim(0, 1)
    axis.set_xlabel("share of faces that pass")
    figure.legend(loc="outside upper center", ncols=len(graders), frameon=False, fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    save_figure(path, figure, dpi=110)
