"""The table of all versions, published and mended, beside the published figures; and that of v5's experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.artefacts import read_json
from pipeline.report import Report
from pipeline.run import Run
from pipeline.tables import read_table
from stylegan_modified.climb_figures import draw_experiments
from stylegan_modified.climb_report import PUBLISHED_RESULTS
from stylegan_modified.rung import LOG
from stylegan_modified.versions import EXPERIMENTS, OBEYED, VERSIONS


def write_family_report(run: Run) -> Path:
    """Write `reports/finetune.md` from the figures that the rungs of this run left."""
    report = Report("The fine-tuning family")
    report.text(
        "One trainer, one table of versions; each rung starts from the one named. Published and mended forms were "
        "trained for the steps stated: minutes on a CPU, against hours and days of the published runs. All figures are "
        "measured here, on virtual faces, but those of the last column, which were published for photographic ones."
    )
    rows, missing = [], []
    for name in VERSIONS:
        for tag in (name, f"{name}_published"):
            path = run.path("stylegan_modified", f"finetune_{tag}.json")
            if path.is_file():
                rows.append(_row(name, tag, read_json(path)))
            else:
                missing.append(tag)
    if rows:
        report.table(pd.DataFrame(rows), caption="r: mean over latents on the 50 labels of v3 and v4")
    if missing:
        report.text(f"Not trained in this run: {', '.join(missing)}.")
    report.text(
        "`r CNN` and `r oracle` are eyes / mouth / pose. Identity: distance of persons from the previous rung at equal "
        "latents and zero labels, and between labels of one latent; 0 the same person, about 1 another. Versions that "
        "are fed zero labels (v8, v9) are not made to obey any. The mended v9, over its own first steps, has its "
        "report "
        "in finetune_v9.md."
    )
    _experiments(run, report)
    return report.write(run.path("reports", "finetune.md"))


def _row(name: str, tag: str, result: dict[str, Any]) -> dict[str, Any]:
    obeyed, after = result["labels_50"], result["after"]
    corr = {kind: " / ".join(f"{obeyed[f'{p}_{kind}']:.2f}" for p in OBEYED) for kind in ("corr", "oracle", "mae")}
    return {
        "version": tag.replace("_published", ", published"),
        "start": VERSIONS[name].start,
        "steps": result["steps"],
        "r CNN": corr["corr"],
        "r oracle": corr["oracle"],
        "MAE": corr["mae"],
        "concept": f"{result['before']['concept'][0]:.2f} to {after['concept'][0]:.2f}",
        "KID": after["kid"],
        "recall": after["recall"],
        "identity": f"{after['identity_change']:.2f}, {obeyed['identity_under_labels']:.2f}",
        "published result": PUBLISHED_RESULTS[name],
    }


def _experiments(run: Run, report: Report) -> None:
    for ending, title in (("", "mended"), ("_published", "published")):
        logs = {}
        for number, name in EXPERIMENTS.items():
            path = run.path("stylegan_modified", f"train_log_{name}{ending}.csv")
            if path.is_file():
                logs[f"experiment {number}, {title}"] = read_table(path, LOG)
        if logs:
            picture = run.path("stylegan_modified", f"experiments_v5{ending}.png")
            draw_experiments(logs, picture)
            report.figure(picture, f"v5, {title}: labels of its own grid while training")
