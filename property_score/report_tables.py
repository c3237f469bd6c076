"""The tables of the report on property scores, each from readings of the same pictures."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pandas as pd

from property_score.correlation import interval, pearson, spearman, standardised_effects
from property_score.head_pose import ANGLES
from property_score.measure import PROPERTIES
from property_score.normalisation import Normalisation
from property_score.nuisances import UNTOUCHED
from property_score.panel import MEASURED, Readings
from property_score.reference_figures import ASKED_CNN_R, ASKED_TRUTH_R, PUBLISHED_CNN, PUBLISHED_V1_V2_R, TRUTH


def truth_table(readings: Readings, truth: pd.DataFrame, scorers: list[str]) -> pd.DataFrame:
    """Correlation of each score of each scorer with its true attribute, one row per property."""
    rows = []
    for name in PROPERTIES:
        values = truth[TRUTH[name]].to_numpy()
        row = {"score": name, "true attribute": TRUTH[name], "asked": ASKED_TRUTH_R[name]}
        row |= {scorer: pearson(readings.of(scorer, name), values)[0] for scorer in scorers}
        rows.append(row)
    return pd.DataFrame(rows)


def short_of_truth(table: pd.DataFrame) -> list[str]:
    """Scores of the geometric scorer that stay below what is asked, in words."""
    # Written so that a correlation that is not known counts as short.
    short = table[table["asked"].notna() & ~(table["geometric"] >= table["asked"])]
    return [f"{row['score']} {row['geometric']:.3f} of {row['asked']:.2f}" for _, row in short.iterrows()]


def agreement_table(readings: Readings, scorers: list[str]) -> pd.DataFrame:
    """Spearman's rank correlation of each score between every two scorers."""
    pairs = list(combinations(scorers, 2))
    rows = []
    for name in PROPERTIES:
        found = {f"{a} / {b}": spearman(readings.of(a, name), readings.of(b, name))[0] for a, b in pairs}
        rows.append({"score": name, **found})
    return pd.DataFrame(rows)


def pose_table(readings: Readings, truth: pd.DataFrame, scorers: list[str]) -> pd.DataFrame:
    """What `pose` of each scorer follows: r with each angle, and the effect of each angle with the others held."""
    angles = truth[list(ANGLES)].to_numpy()
    rows = []
    for scorer in scorers:
        values = readings.of(scorer, "pose")
        effects, explained = standardised_effects(values, angles)
        row = {"pose of": scorer}
        row |= {f"r {angle}": pearson(values, angles[:, k])[0] for k, angle in enumerate(ANGLES)}
        row |= {f"effect {angle}": effects[k] for k, angle in enumerate(ANGLES)}
        rows.append(row | {"R²": explained})
    return pd.DataFrame(rows)


def reliability_table(before: Readings, after: dict[str, Readings], scorer: str) -> pd.DataFrame:
    """Correlation of each score of one scorer between pictures and their changed versions, one column per change."""
    rows = []
    for name in PROPERTIES:
        row: dict[str, object] = {"score": name}
        for change, readings in after.items():
            counts = name not in UNTOUCHED.get(change, ())
            row[change] = pearson(before.of(scorer, name), readings.of(scorer, name))[0] if counts else math.nan
        rows.append(row)
    return pd.DataFrame(rows)


def distribution_table(readings: Readings, scorer: str) -> pd.DataFrame:
    """How each score of one scorer is distributed; `at the lowest`: share of faces that have the lowest value."""
    rows = []
    for name in PROPERTIES:
        values = readings.of(scorer, name)
        values = values[np.isfinite(values)]
        if not len(values):
            rows.append({"score": name, "faces": 0})
            continue
        deviation = values.std()
        skew = float(((values - values.mean()) ** 3).mean() / deviation**3) if deviation > 0 else math.nan
        low, middle, high = np.percentile(values, [1, 50, 99])
        rows.append(
            {
                "score": name,
                "faces": len(values),
                "mean": values.mean(),
                "deviation": deviation,
                "skew": skew,
                "1 %": low,
                "median": middle,
                "99 %": high,
                "at the lowest": float((values == values.min()).mean()),
            }
        )
    return pd.DataFrame(rows)


def missing_table(populations: dict[str, Readings]) -> pd.DataFrame:
    """Share in percent of faces whose score could not be measured, by algorithm and population."""
    rows = []
    for population, readings in populations.items():
        for scorer in MEASURED:
            shares = {name: 100 * float(np.isnan(readings.of(scorer, name)).mean()) for name in PROPERTIES}
            rows.append({"faces": population, "algorithm": scorer, **shares})
    return pd.DataFrame(rows)


def reason_table(populations: dict[str, Readings]) -> pd.DataFrame:
    """Every reason for a missing value of the geometric scorer, and how many faces had it."""
    rows = []
    for population, readings in populations.items():
        reasons = readings.tables["geometric"]["reason"].str.split("; ").explode()
        counts = reasons[reasons != ""].value_counts()
        rows += [{"faces": population, "reason": text, "count": int(count)} for text, count in counts.items()]
    return pd.DataFrame(rows, columns=["faces", "reason", "count"])


def algorithm_table(readings: Readings) -> pd.DataFrame:
    """Algorithm v1 against v2, published and mended, beside the published figure."""
    rows = []
    for name in PROPERTIES:
        pairs = (("v1 published", "v2 published"), ("v1 mended", "geometric"))
        # The hairstyle belongs to neither algorithm.
        found = [
            math.nan if name == "hairstyle" else pearson(readings.of(a, name), readings.of(b, name))[0]
            for a, b in pairs
        ]
        titles = ("v1 / v2, as published", "v1 / v2, mended")
        row = {"score": name, "v1 / v2, published figure": PUBLISHED_V1_V2_R[name]}
        rows.append(row | dict(zip(titles, found, strict=True)))
    return pd.DataFrame(rows)


def network_table(
    readings: Readings, network: str, units: Normalisation | None, repeated: pd.Series, kept: dict[str, float]
) -> pd.DataFrame:
    """A network against the geometric scores on faces that it never saw, beside published and asked figures.

    units: what turns geometric scores into the network's; without it there is no mean absolute error (MAE).
    repeated: reliability of each geometric score. ceiling: its root, the most that what two pictures share can
    correlate with a score of that reliability (Spearman, 1904). kept: r on the test split of its training.
    """
    rows = []
    for name in PROPERTIES:
        geometric, scores = readings.of("geometric", name), readings.of(network, name)
        r, count = pearson(scores, geometric)
        low, high = interval(r, count)
        error = float(np.nanmean(np.abs(scores - units.z(name, geometric)))) if units and count else math.nan
        published, published_error = PUBLISHED_CNN[name]
        rows.append(
            {
                "score": name,
                "published r": published,
                "asked r": ASKED_CNN_R[name],
                "r": r,
                "95 %": f"{low:.3f} to {high:.3f}",
                "r, test split": kept.get(name, math.nan),
                "published MAE": published_error,
                "MAE": error,
                "reliability": repeated[name],
                "ceiling": math.sqrt(max(repeated[name], 0.0)),
            }
        )
    return pd.DataFrame(rows)


def verdicts(table: pd.DataFrame) -> list[str]:
    """For each score of `network_table` that misses what is asked: by how much, and whether its noise is why."""
    texts = []
    for _, row in table[table["asked r"].notna() & ~(table["r"] >= table["asked r"])].iterrows():
        if math.isnan(row["r"]):
            why = "no two scored faces differ, so nothing can be told"
        elif row["ceiling"] < row["asked r"]:
            why = "the score itself is too noisy: its ceiling lies below what is asked"
        else:
            why = f"its ceiling {row['ceiling']:.3f} would allow it, so the network falls short, not the score"
        texts.append(f"{row['score']}: {row['r']:.3f} of {row['asked r']:.2f}; {why}.")
    return texts
