"""The image generation test in tables: every face edited 50 ways along all three directions at once; do scores obey?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.errors import PipelineError
from pipeline.report import mean_interval, wilson_interval
from vectorfind.names import EDITED, PROPERTIES

DIGITS = 4
# Fewer measured edits tell no correlation.
FEWEST = 3
# Share of its edits that a face must have measured to pass: one that an edit breaks for a grader must not gain by it.
ENOUGH = 0.9
# Signed correlations that a face must reach to pass; the published versions set these, on absolute ones.
BARS = {
    "v7": {"eyes": 0.92, "mouth": 0.88, "pose": 0.92},
    "v8": {"eyes": 0.92, "mouth": 0.88, "pose": 0.88},
}


@dataclass
class Test:
    """What the test measured.

    seeds [F], groups [F], base float32 [F, 8] (scores of the unedited faces), scores float32 [F, A, 8] (every edit),
    amounts float32 [A, 3] (the grid's; a fitted one asks of each face what corresponds to them), score_sds [3] by which
    effects are divided. asked float32 [F, A, 3]: the deviations that each face was asked for, None for raw amounts.
    ends [3, 2]: where the edited scores end, where that is known.
    """

    __test__ = False  # not a pytest class

    seeds: np.ndarray
    groups: np.ndarray
    base: np.ndarray
    scores: np.ndarray
    amounts: np.ndarray
    score_sds: np.ndarray
    asked: np.ndarray | None = None
    ends: np.ndarray | None = None


def per_face(test: Test) -> pd.DataFrame:
    """One row per face: four columns for each edited property, and `measured`, the share of its edits that were.

    `corr`: signed Pearson of weight and score over the grid; 0 when the score never moves, as nothing obeyed; NaN where
    fewer than FEWEST edits could be measured. `slope`: score deviations per deviation asked for (per unit of weight on
    a raw grid), NaN where a fitted grid asks for none. `monotone`: share of rising steps between neighbouring levels
    that were both measured, NaN without any. `range`: deviations from the lowest to the highest level.
    """
    columns: dict[str, np.ndarray] = {"seed": test.seeds, "group_name": test.groups}
    for i, name in enumerate(EDITED):
        weight = test.amounts[:, i].astype(np.float64)
        score = test.scores[:, :, PROPERTIES.index(name)].astype(np.float64) / test.score_sds[i]
        columns[f"{name}_corr"], columns[f"{name}_slope"] = _corr_and_slope(weight, score)
        if test.asked is not None:
            _, columns[f"{name}_slope"] = _corr_and_slope(test.asked[:, :, i].astype(np.float64), score)
        means = pd.DataFrame(score.T).groupby(weight).mean().to_numpy().T  # NaN where no edit of a level was measured
        rises = np.diff(means, axis=1)
        columns[f"{name}_monotone"] = pd.DataFrame(np.where(np.isnan(rises), np.nan, rises > 0)).mean(axis=1).to_numpy()
        columns[f"{name}_range"] = means[:, -1] - means[:, 0]
    edited = test.scores[:, :, [PROPERTIES.index(name) for name in EDITED]]
    columns["measured"] = np.isfinite(edited).all(axis=2).mean(axis=1)
    return pd.DataFrame(columns)


def passed(faces: pd.DataFrame, bars: dict[str, float]) -> np.ndarray:
    """Which faces [F] of a `per_face` reach the bars with all three signed correlations, of ENOUGH measured edits."""
    reached = np.all([faces[f"{name}_corr"] >= bar for name, bar in bars.items()], axis=0)
    return reached & (faces["measured"] >= ENOUGH).to_numpy()


def most_corr(test: Test) -> np.ndarray:
    """The correlations [F, 3] of an editor that obeys to the letter until a score ends; `per_face` is hardly higher.

    A closed mouth that is told to close stays as it is, and so obeys three weights of five.
    """
    most = np.full((len(test.seeds), len(EDITED)), np.nan)
    if test.asked is None:
        return most
    for i, name in enumerate(EDITED):
        base = test.base[:, PROPERTIES.index(name)].astype(np.float64)[:, None]
        low, high = (np.minimum(test.ends[i, 0], base), np.maximum(test.ends[i, 1], base))
        there = np.clip(base + test.asked[:, :, i] * test.score_sds[i], low, high)
        most[:, i], _ = _corr_and_slope(test.amounts[:, i].astype(np.float64), there)
    return most


def _corr_and_slope(weight: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of score [F, A] on weight [A] or [F, A]: both [F]."""
    known = np.isfinite(score)
    count = np.maximum(known.sum(1), 1)
    w = np.where(known, weight, 0.0)
    s = np.where(known, score, 0.0)
    w = np.where(known, w - (w.sum(1) / count)[:, None], 0.0)
    s = np.where(known, s - (s.sum(1) / count)[:, None], 0.0)
    both, ww, ss = (w * s).sum(1), (w * w).sum(1), (s * s).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        corr = np.where(ss > 1e-12, both / np.sqrt(ww * ss), 0.0)
        corr = np.where(known.sum(1) >= FEWEST, corr, np.nan)
        slope = np.where(ww > 0, both / ww, np.nan)
    return corr, slope


def result_table(test: Test, passes: dict[str, float]) -> pd.DataFrame:
    """`test_result.csv`: the published columns (case, vector_no, passed O/X, group_name, *_corr, sum_abs_corr), ours.

    See `passed`; a correlation that cannot be computed reaches no bar.
    """
    faces = per_face(test)
    corr = faces[[f"{name}_corr" for name in EDITED]]
    table = pd.DataFrame(
        {
            "case": np.arange(len(faces)),
            "vector_no": 0,
            "passed": np.where(passed(faces, passes), "O", "X"),
            "group_name": faces["group_name"],
            **{name: corr[name].round(DIGITS) for name in corr},
            "sum_abs_corr": corr.abs().sum(axis=1, skipna=True).round(DIGITS),
        }
    )
    extra = faces.drop(columns=["group_name", *corr.columns]).round(DIGITS)
    return pd.concat([table, extra], axis=1)


def statistics_table(result: pd.DataFrame) -> pd.DataFrame:
    """`test_statistics.csv`, one row, the published columns; means are of the signed correlation."""
    passed = int((result["passed"] == "O").sum())
    row = {"": 0} | {f"{name}_corr_mean": result[f"{name}_corr"].mean() for name in EDITED}
    row |= {
        "sum_abs_corr_mean": result["sum_abs_corr"].mean(),
        "passed": passed,
        "passed_ratio": passed / max(len(result), 1),
    }
    return pd.DataFrame([row]).round(DIGITS)


def summary_table(result: pd.DataFrame, passes: dict[str, float]) -> pd.DataFrame:
    """One row per property and one for all three.

    Mean signed corr with its 95 % interval, share at the bar with its Wilson interval, mean slope and range in score
    deviations, monotone share, reversed share (corr below 0).
    """
    rows = []
    for name in EDITED:
        corr = result[f"{name}_corr"]
        mean, low, high = mean_interval(corr)
        reached = int((corr >= passes[name]).sum())
        share_low, share_high = wilson_interval(reached, len(result))
        rows.append(
            {
                "property": name,
                "corr": mean,
                "corr_low": low,
                "corr_high": high,
                "bar": passes[name],
                "pass_share": reached / max(len(result), 1),
                "pass_low": share_low,
                "pass_high": share_high,
                "slope": result[f"{name}_slope"].mean(),
                "range": result[f"{name}_range"].mean(),
                "monotone": result[f"{name}_monotone"].mean(),
                "reversed": float((corr < 0).mean()),
                "unmeasured": int(corr.isna().sum()),
            }
        )
    passed = int((result["passed"] == "O").sum())
    low, high = wilson_interval(passed, len(result))
    everything = {
        "property": "all three",
        "pass_share": passed / max(len(result), 1),
        "pass_low": low,
        "pass_high": high,
    }
    return pd.concat([pd.DataFrame(rows), pd.DataFrame([everything])], ignore_index=True).round(DIGITS)


def grid_table(test: Test) -> pd.DataFrame:
    """`grid_scores.csv`: a row per edited image; published columns (pm_idx, *_pm, *_score), case, seed, all scores."""
    faces, edits = test.scores.shape[:2]
    table = pd.DataFrame({"case": np.repeat(np.arange(faces), edits), "seed": np.repeat(test.seeds, edits)})
    table["pm_idx"] = np.tile(np.arange(edits), faces)
    for i, name in enumerate(EDITED):
        table[f"{name}_pm"] = np.tile(test.amounts[:, i].astype(np.float64), faces).round(DIGITS)
    flat = test.scores.reshape(-1, len(PROPERTIES)).astype(np.float64)
    for name in (*EDITED, *(other for other in PROPERTIES if other not in EDITED)):
        table[f"{name}_score"] = flat[:, PROPERTIES.index(name)].round(DIGITS)
    return table


def check_disjoint(pool_seeds: range, test_seeds: range) -> None:
    """PipelineError when a face of the test is one that the directions were found on."""
    if pool_seeds.start < test_seeds.stop and test_seeds.start < pool_seeds.stop:
        raise PipelineError(
            f"the test faces (seeds {test_seeds.start}-{test_seeds.stop - 1}) overlap the pool "
            f"(seeds {pool_seeds.start}-{pool_seeds.stop - 1}): a direction must be judged "
            "on faces that trained nothing; use a smaller pool"
        )
