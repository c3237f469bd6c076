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
from stylegan_modified.rung import LOG, SAMPLES
from stylegan_modified.versions import EXPERIMENTS, OBEYED, VERSIONS


def write_family_report(run: Run) -> Path:
    """Write `reports/finetune.md` from the figures that the rungs of this run left."""
    report = Report("The fine-tuning family")
    report.text(
        "One trainer, one table of versions; each rung starts from the one named. Published and mended forms were "
        "trained for the steps stated: minutes on a CPU, against hours and days of the published runs. All figures are "
        "measured here, on virtual faces, but those of the last column, which were published for photographic ones. "
        "The published trainings took 16 faces an update for v1, v2 and v5 and 8 for the others; the reports of the "
        "rungs tell how many are taken here."
    )
    report.text(
        "Rows marked *published* show how the published rule behaves in its first minutes, not what it reaches in "
        "days. What the mended rungs obey comes mostly from their label columns, which v1 aims before it trains: `r "
        "while training` begins high. A start is measured with the labels that the rung feeds it, or with zeros where "
        "it takes others, so that one start can have two concept shares."
    )
    rows, missing = [], []
    for name in VERSIONS:
        stage_5 = run.path("stylegan_modified", "concept_after_v9.measured.json") if name == "v9" else None
        if stage_5 is not None and stage_5.is_file():
            rows.append(_row_of_stage_5(run))
        for tag in (name, f"{name}_published"):
            path = run.path("stylegan_modified", f"finetune_{tag}.json")
            if path.is_file():
                log = read_table(run.path("stylegan_modified", f"train_log_{tag}.csv"), LOG)
                rows.append(_row(name, tag, read_json(path), log))
            elif tag != "v9" or not stage_5.is_file():
                missing.append(tag)
    if rows:
        caption = "r: mean over latents on the 50 labels of v3 and v4; MAE: in deviations of the scores"
        report.table(pd.DataFrame(rows), caption=caption)
    if missing:
        report.text(f"Not trained in this run: {', '.join(missing)}.")
    report.text(
        "`r CNN` and `r oracle` are eyes / mouth / pose; `r while training` is the monitor's, on 8 labels, from the "
        "first step to the last: it shows what a rung had from its start. Steps: with those of D alone. KID, recall: "
        "against the filtered faces, as many as there are samples at most. The mended v1 begins with label columns "
        "aimed along the mean slope of each score in z. Identity: distance of persons from the previous rung at equal "
        "latents and zero labels, and between labels of one latent; 0 the same person, about 1 another. Versions that "
        "are fed zero labels (v8, v9) are not made to obey any. The mended v9 climbs from the base over a short v1 of "
        "its own; its before is the base. In the demo it goes on from the bundled v9 net, and its steps are those of "
        "both."
    )
    _experiments(run, report)
    return report.write(run.path("reports", "finetune.md"))


def _row(name: str, tag: str, result: dict[str, Any], log: pd.DataFrame) -> dict[str, Any]:
    obeyed, after = result["labels_50"], result["after"]
    corr = {kind: " / ".join(f"{obeyed[f'{p}_{kind}']:.2f}" for p in OBEYED) for kind in ("corr", "oracle", "mae")}
    first, last = (_watched(log, end) for end in (0, -1))
    return {
        "version": f"[{tag.replace('_published', ', published')}](finetune_{tag}.md)",
        "start": result.get("start", VERSIONS[name].start).replace("_published", ", published"),
        "steps": int(log["step"].max()),
        "r while training": f"{first} to {last}",
        "r CNN": corr["corr"],
        "r oracle": corr["oracle"],
        "MAE": corr["mae"],
        "concept": f"{result['before']['concept'][0]:.2f} to {after['concept'][0]:.2f}",
        "KID": after["kid"],
        "recall": after["recall"],
        "identity": f"{after['identity_change']:.2f}, {obeyed['identity_under_labels']:.2f}",
        "published result": PUBLISHED_RESULTS[name],
    }


def _watched(log: pd.DataFrame, end: int) -> str:
    """What the monitor read at the first or the last step."""
    seen = log.dropna(subset=[f"{name}_corr" for name in OBEYED])
    return " / ".join(f"{seen[f'{name}_corr'].iloc[end]:.2f}" for name in OBEYED) if len(seen) else "-"


def _row_of_stage_5(run: Run) -> dict[str, Any]:
    """The mended v9, from what stage 5 measured."""
    shares = [
        float(read_table(run.path("stylegan_modified", f"concept_{side}_v9.csv"), SAMPLES)["concept"].mean())
        for side in ("before", "after")
    ]
    after = read_json(run.path("stylegan_modified", "concept_after_v9.measured.json"))
    log = read_table(run.path("stylegan_modified", "train_log_whole.csv"), LOG)
    changes = log["identity_change"].dropna()
    return {
        "version": "[v9](finetune_v9.md), by stage 5",
        "start": "base, v1",
        "steps": int(log["step"].max()),
        **dict.fromkeys(("r while training", "r CNN", "r oracle", "MAE"), "-"),
        "concept": f"{shares[0]:.2f} to {shares[1]:.2f}",
        "KID": float(after["kid"]),
        "recall": float(after["recall"]),
        "identity": f"{changes.iloc[-1]:.2f}, -" if len(changes) else "-",
        "published result": PUBLISHED_RESULTS["v9"],
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
            report.figure(picture, f"v5, {title}: labels of its own grid while training; dashed: the target, .7")
