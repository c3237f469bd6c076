"""The report of a fine-tuning: what changed, with intervals, and an honest verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.report import Report, wilson_interval
from stylegan_modified.carry import BRANCH_ALIVE
from stylegan_modified.figures import TARGET
from stylegan_modified.monitor import Measured

# What an image needs for the concept, as the oracle counts it.
PARTS = {
    "woman": ("gender", lambda x: x >= 0.5),
    "good quality": ("quality", lambda x: x >= 0.5),
    "young": ("age", lambda x: x < 0.5),
    "no glasses": ("glasses", lambda x: x < 0.5),
}
SPREADS = ("eyes", "mouth", "yaw", "pitch", "roll", "hair_color", "hair_length", "hair_curl", "background_mean")


@dataclass
class Side:
    """One generator as measured; AUROC of the final D, kernel distance and recall against the filtered faces."""

    measured: Measured
    auroc: float
    kid: float
    recall: float

    @property
    def frame(self) -> pd.DataFrame:
        return self.measured.frame

    def share(self) -> tuple[float, float, float]:
        """Concept share with its 95 % interval."""
        return share_of(self.frame["concept"].to_numpy(dtype=bool))

    def kept_of(self, before: Side) -> float:
        """Diversity as a share of what the concept's own faces had before; nan when there were none."""
        return self.measured.diversity / before.measured.concept_diversity


def share_of(hits: np.ndarray) -> tuple[float, float, float]:
    """Share of true values with its 95 % Wilson interval."""
    k, n = int(hits.sum()), len(hits)
    return (k / n if n else float("nan"), *wilson_interval(k, n))


def write_report(
    path: Path,
    before: Side,
    after: Side,
    log: pd.DataFrame,
    facts: dict[str, Any],
    figures: dict[str, Path],
    notes: Sequence[str] = (),
    judged: str = "",
) -> None:
    """Write `reports/finetune_v9.md`.

    facts: rows on how it was trained. figures: caption -> picture. notes: what a reader must know first.
    judged: who judged, and what that means.
    """
    share, low, high = after.share()
    report = Report("Fine-tune v9: the generator moves toward the filtered faces")
    for note in notes:
        report.text(f"**Note:** {note}.")
    report.text(_verdict(before, after, log))
    report.heading("Before and after")
    report.table(_comparison(before, after), caption=f"{len(after.frame)} samples each, equal latents, no truncation")
    report.text(
        "Intervals are 95 % (Wilson). The concept needs all four parts at once. Diversity is the mean distance between "
        "the judge's features of two faces: it falls when men, old faces and glasses disappear, down to that of the "
        "faces that met the concept before; below that it is lost variety, and a collapse would bring it toward 0. "
        "Recall is the share of filtered faces that lie as near to a generated one as its third neighbour among the "
        "generated (Kynkaanniemi et al. 2019), on the judge's features; KID is zero for equal sets. "
        "AUROC is that of the final discriminator, real faces against generated ones."
    )
    report.text(judged)
    report.heading("What the concept leaves free")
    spreads = _spreads(before, after)
    report.table(spreads, caption="spread (standard deviation) of attributes that should keep varying")
    report.text(
        "`within concept` is the spread among those samples before fine-tuning that already met the concept: the "
        "measure of what should be left."
        if len(spreads)
        else "The judge reads none of these attributes, so nothing is known about them."
    )
    report.heading("Training")
    report.table(pd.DataFrame({"setting": list(facts), "value": [str(value) for value in facts.values()]}))
    for caption, picture in figures.items():
        report.figure(picture, caption)
    report.heading("Monitors")
    watched = log[log["concept_share"].notna()]
    columns = ["step", "concept_share", "concept_low", "concept_high", "diversity", "kid", "recall", "identity_change"]
    columns = [name for name in (*columns, "branch_share", "monitor_auroc") if name in watched]
    columns = [name for name in columns if watched[name].notna().any()]
    caption = "on fixed latents of their own; running average of the generator; steps from where v9 begins"
    if "identity_change" in columns:
        caption += ". identity_change: distance of persons from the base at equal latents, 1 is another person"
    report.table(watched[columns], caption=caption)
    report.write(path)


def _verdict(before: Side, after: Side, log: pd.DataFrame) -> str:
    old, new = before.share(), after.share()
    if new[1] >= TARGET:
        word = f"The target of {TARGET:.0%} is reached, its whole interval lies above."
    elif new[0] >= TARGET:
        word = f"The target of {TARGET:.0%} is reached, but its interval reaches below."
    elif new[1] > old[2]:
        word = f"That is a clear rise, but the target of {TARGET:.0%} is NOT reached; train more steps."
    else:
        word = f"There is NO clear rise, and the target of {TARGET:.0%} is not reached."
    kept = after.measured.diversity / before.measured.diversity
    inside = after.kept_of(before)  # nan when no face met it
    free = _spreads(before, after)
    narrow = free[free["kept"] < 0.7]["attribute"].tolist()
    lines = [
        f"Concept share (woman, good quality, young, no glasses): **{old[0]:.1%}** [{old[1]:.1%}, {old[2]:.1%}] "
        f"before, **{new[0]:.1%}** [{new[1]:.1%}, {new[2]:.1%}] after, {len(after.frame)} samples each. {word}",
        f"The generator's faces cover {after.recall:.0%} of the filtered ones ({before.recall:.0%} before; recall). "
        f"Diversity of the faces: {kept:.0%} of what it was"
        + (f", **{inside:.0%}** of that among the faces that met the concept before." if inside == inside else ".")
        + (f" Less than 70 % of the spread within the concept is left of: {', '.join(narrow)}." if narrow else ""),
    ]
    branch = log["branch_share"].dropna()
    if len(branch):
        alive = "alive" if branch.iloc[-1] >= BRANCH_ALIVE else f"AS GOOD AS DEAD (below {BRANCH_ALIVE:.0%})"
        lines.append(f"The new mapping branch carries {branch.iloc[-1]:.1%} of the energy of w: {alive}.")
    return "\n\n".join(lines)


def _comparison(before: Side, after: Side) -> pd.DataFrame:
    rows = [("concept", *before.share(), *after.share())]
    for name, (column, meets) in PARTS.items():
        rows.append((name, *share_of(meets(before.frame[column])), *share_of(meets(after.frame[column]))))
    table = [
        {"share of": name, "before": f"{a:.3f} [{b:.3f}, {c:.3f}]", "after": f"{d:.3f} [{e:.3f}, {f:.3f}]"}
        for name, a, b, c, d, e, f in rows
    ]
    for name, value in (
        ("diversity", lambda side: side.measured.diversity),
        ("diversity within the concept", lambda side: side.measured.concept_diversity),
        ("recall of the filtered faces", lambda side: side.recall),
        ("KID to the filtered faces", lambda side: side.kid),
        ("AUROC of D", lambda side: side.auroc),
    ):
        table.append({"share of": name, "before": f"{value(before):.3f}", "after": f"{value(after):.3f}"})
    return pd.DataFrame(table).rename(columns={"share of": "measure"})


def _spreads(before: Side, after: Side) -> pd.DataFrame:
    names = [name for name in SPREADS if name in before.frame and name in after.frame]
    inside = before.frame[before.frame["concept"]]
    rows = []
    for name in names:
        within, now = float(inside[name].std()), float(after.frame[name].std())
        whole = float(before.frame[name].std())
        rows.append(
            {"attribute": name, "before": whole, "within concept": within, "after": now, "kept": now / (within or 1.0)}
        )
    return pd.DataFrame(rows, columns=["attribute", "before", "within concept", "after", "kept"])
