"""Pictures of one rung: losses, obedience while training, faces before and after, faces by label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure

from pipeline.artefacts import save_image
from pipeline.sheets import contact_sheet
from stylegan.sampling import to_uint8
from stylegan_modified.figures import beside, write_figure
from stylegan_modified.monitor import latents_of
from stylegan_modified.obedience import label_rows
from stylegan_modified.sampler import Sampler
from stylegan_modified.versions import OBEYED, Version

COLOURS = {"eyes": "tab:blue", "mouth": "tab:red", "pose": "tab:green"}
MARKERS = {"eyes": "o", "mouth": "s", "pose": "^"}  # curves that lie on each other stay apart by these
TARGET = 0.7
SHOWN = {"zero": (0.0, 0.0, 0.0), "eyes -1.8": (-1.8, 0, 0), "eyes 1.8": (1.8, 0, 0), "mouth -1.2": (0, -1.2, 0),
         "mouth 1.6": (0, 1.6, 0), "pose -1.2": (0, 0, -1.2), "pose 2.4": (0, 0, 2.4)}  # fmt: skip


def draw_losses(log: pd.DataFrame, path: Path) -> None:
    """Losses above; AUROC of D, recall, concept share and identity change below."""
    figure = Figure(figsize=(9, 6))
    top, bottom = figure.subplots(2, 1, sharex=True)
    losses = {"d_loss": "D loss with R1", "g_loss": "G loss", "term_loss": "further terms of G"}
    if log["d_loss"].isna().all():
        del losses["g_loss"]  # without D there is nothing else in it than these terms
    for name, label in losses.items():
        rows = log[log[name].notna()]
        if len(rows):
            top.plot(rows["step"], rows[name], label=label)
    top.set_ylabel("loss")
    beside(top)
    for name, label in (("real_fake_auroc", "AUROC of D, training"), ("monitor_auroc", "AUROC of D, fixed faces"),
                        ("recall", "recall"), ("concept_share", "concept share"),
                        ("identity_change", "identity change")):  # fmt: skip
        rows = log[log[name].notna()]
        if len(rows):
            bottom.plot(rows["step"], rows[name], label=label, marker=".")
    bottom.set_ylim(0, 1.1)
    bottom.set_xlabel("step")
    beside(bottom)
    write_figure(figure, path)


def draw_obedience(log: pd.DataFrame, path: Path) -> None:
    """Correlation and error of label and face on the grid of v5, over the steps."""
    draw_experiments({"": log}, path)


def draw_experiments(logs: dict[str, pd.DataFrame], path: Path) -> None:
    """The same for several experiments side by side."""
    figure = Figure(figsize=(max(9.0, 5.0 * len(logs)), 6))
    for k, (title, log) in enumerate(logs.items()):
        top, bottom = (figure.add_subplot(2, len(logs), k + 1 + part * len(logs)) for part in (0, 1))
        rows = log[log["eyes_pooled"].notna()]
        for name in OBEYED:
            look = {"marker": MARKERS[name], "fillstyle": "none", "color": COLOURS[name], "label": name}
            top.plot(rows["step"], rows[f"{name}_pooled"], **look)
            bottom.plot(rows["step"], rows[f"{name}_mae"], **look)
        top.axhline(TARGET, color="black", linestyle="--", linewidth=0.8)
        top.set_ylim(-0.6, 1.05)
        top.set_ylabel("pooled correlation")
        top.set_title(title)
        bottom.set_ylabel("mean absolute error, deviations")
        bottom.set_ylim(bottom=0)
        bottom.set_xlabel("step")
    beside(top)
    write_figure(figure, path)


def draw_labels(sampler: Sampler, version: Version, seeds: Sequence[int], path: Path) -> None:
    """One latent per row, one label per column."""
    z = latents_of(seeds, sampler.generator.z_dim)
    labels = label_rows(list(SHOWN.values()), version)
    images = [sampler.images(latent.expand(len(labels), -1), labels) for latent in z]
    names = [name if k == 0 else "" for k in range(len(z)) for name in SHOWN]
    save_image(path, contact_sheet(to_uint8(torch.cat(images)), columns=len(SHOWN), labels=names))
