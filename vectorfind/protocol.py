"""The test protocol, one for all methods: same faces, same edits, several graders, intervals, paired comparison."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pipeline.report import wilson_interval
from vectorfind.bench import Bench
from vectorfind.editor import Editor
from vectorfind.evaluate import BARS, DIGITS, Test, most_corr, passed, per_face
from vectorfind.graders import Grader
from vectorfind.grid import Grid, face_amounts
from vectorfind.groups import Grouping
from vectorfind.names import EDITED, PROPERTIES

FEWEST_OBSERVATIONS = 5
RESAMPLES = 2000


def run_graded(
    bench: Bench, editor: Editor, grouping: Grouping, seeds, grid: Grid, graders: list[Grader], progress=None
) -> dict[str, Test]:
    """Edit every face by every row of the grid and let all graders score the same images.

    The scorer that finds assigns the groups, and tells on a fitted grid what a face can reach. Returns a Test per
    grader. progress: called with the images done.
    """
    seeds, amounts = np.asarray(list(seeds), np.int64), grid.amounts()
    codes = bench.encode(bench.latents(seeds), editor.position)
    base = score_codes(bench, codes, editor.position, graders)
    # Not by a grader, who may see the pictures through a camera.
    known = bench.measure(codes, editor.position)
    groups = grouping.assign(known)
    asked = face_amounts(grid, known, editor.score_sds, graders[0].ends)
    scores = {name: np.empty((len(seeds), len(amounts), len(PROPERTIES)), np.float32) for name in base}
    block = max(1, bench.batch // len(amounts))
    for start in range(0, len(seeds), block):
        faces = slice(start, start + block)
        here = len(codes[faces])
        repeated = np.repeat(codes[faces], len(amounts), axis=0)
        owners = np.repeat(groups[faces], len(amounts))
        edited = editor.edit(repeated, owners, asked[faces].reshape(-1, len(EDITED)), raw=grid.raw)
        for name, found in score_codes(bench, edited, editor.position, graders, progress).items():
            scores[name][faces] = found.reshape(here, len(amounts), -1)
    return {
        grader.name: Test(
            seeds,
            groups,
            base[grader.name],
            scores[grader.name],
            amounts,
            grader.edited_sds,
            None if grid.raw else asked,
            grader.ends[[PROPERTIES.index(name) for name in EDITED]],
        )
        for grader in graders
    }


def score_codes(bench: Bench, codes: np.ndarray, position: str, graders: list[Grader], progress=None) -> dict:
    """Scores float32 [N, 8] of codes [N, D] by each grader, every image decoded once."""
    parts: dict[str, list[np.ndarray]] = {grader.name: [] for grader in graders}
    for _, images in bench.draw(codes, position):
        for grader in graders:
            parts[grader.name].append(grader.scores(images))
        if progress is not None:
            progress(len(images))
    return {name: np.concatenate(found) for name, found in parts.items()}


def bootstrap(values: np.ndarray, faces: np.ndarray | None = None) -> tuple[float, float, float]:
    """(mean, low, high): mean over faces and its 95 % percentile bootstrap interval (Efron 1979); NaN left out.

    values [n]. faces [n]: whose each value is, where a face has several: their mean is one observation. Fewer than
    FEWEST_OBSERVATIONS have no interval: it would be far too narrow, and of one value nothing.
    """
    mean, values = face_mean(values, faces), _observations(values, faces)
    if len(values) < FEWEST_OBSERVATIONS:
        return mean, float("nan"), float("nan")
    rng = np.random.default_rng([0, len(values)])
    means = values[rng.integers(0, len(values), (RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return mean, float(low), float(high)


def face_mean(values: np.ndarray, faces: np.ndarray | None = None) -> float:
    """The mean that `bootstrap` tells, without its interval; NaN of nothing."""
    values = _observations(values, faces)
    return float(values.mean()) if len(values) else float("nan")


def _observations(values: np.ndarray, faces: np.ndarray | None) -> np.ndarray:
    """The finite values; where faces are given, the finite means of each face."""
    values = np.asarray(values, np.float64)
    if faces is not None:
        values = pd.Series(values).groupby(np.asarray(faces)).mean().to_numpy()
    return values[np.isfinite(values)]


def face_table(tests: dict[str, Test]) -> pd.DataFrame:
    """`judged_faces.csv`: a row per grader and face: correlations, slopes, monotone shares, ranges, passes.

    `most`: the correlation of an editor that obeys to the letter, until the score ends.
    """
    tables = []
    for grader, test in tests.items():
        faces = per_face(test)
        for version, bars in BARS.items():
            faces[f"pass_{version}"] = passed(faces, bars)
        faces[[f"{name}_most" for name in EDITED]] = most_corr(test)
        faces.insert(0, "grader", grader)
        tables.append(faces)
    return pd.concat(tables, ignore_index=True)


def judge(faces: pd.DataFrame, method: str) -> pd.DataFrame:
    """`judgement.csv`: a row per grader and property of one method, from its `face_table`.

    Mean signed and absolute corr with bootstrap intervals, slope and range in deviations of that grader, monotone
    share, reversed share, unmeasured faces, and, the same in the three rows of a grader, the share of edits that it
    could measure, and that of faces which pass all three bars of v7 and of v8 with its Wilson interval.
    """
    rows = []
    for grader, part in faces.groupby("grader", sort=False):
        shares = {}
        for version in BARS:
            count = int(part[f"pass_{version}"].sum())
            low, high = wilson_interval(count, len(part))
            shares |= {f"pass_{version}": count / len(part), f"pass_{version}_low": low, f"pass_{version}_high": high}
        for name in EDITED:
            corr = part[f"{name}_corr"].to_numpy(np.float64)
            mean, low, high = bootstrap(corr)
            size, size_low, size_high = bootstrap(np.abs(corr))
            rows.append(
                {
                    "method": method,
                    "grader": grader,
                    "property": name,
                    "faces": len(part),
                    "corr": mean,
                    "corr_low": low,
                    "corr_high": high,
                    "abs_corr": size,
                    "abs_low": size_low,
                    "abs_high": size_high,
                    "slope": part[f"{name}_slope"].mean(),
                    "range": part[f"{name}_range"].mean(),
                    "most": part[f"{name}_most"].mean(),
                    "monotone": part[f"{name}_monotone"].mean(),
                    "reversed": float((corr < 0).mean()),
                    "unmeasured": int(np.isnan(corr).sum()),
                    "measured_edits": part["measured"].mean(),
                    **shares,
                }
            )
    return pd.DataFrame(rows).round(DIGITS)


def compare(faces: dict[str, pd.DataFrame], reference: str) -> pd.DataFrame:
    """`paired.csv`: each method against the reference on the same faces, by grader and property.

    difference: mean of the faces' differences of signed corr with its bootstrap interval. better: share of faces where
    the method's is higher. Faces that one of the two lacks are left out and counted in `unpaired`.
    """
    rows, base = [], faces[reference].set_index(["grader", "seed"])
    for method, table in faces.items():
        if method == reference:
            continue
        other = table.set_index(["grader", "seed"])
        shared = base.index.intersection(other.index)
        for grader in shared.get_level_values(0).unique():
            here = shared[shared.get_level_values(0) == grader]
            for name in EDITED:
                gap = (other.loc[here, f"{name}_corr"] - base.loc[here, f"{name}_corr"]).to_numpy(np.float64)
                mean, low, high = bootstrap(gap)
                rows.append(
                    {
                        "method": method,
                        "reference": reference,
                        "grader": grader,
                        "property": name,
                        "difference": mean,
                        "low": low,
                        "high": high,
                        "better": float((gap[np.isfinite(gap)] > 0).mean()) if np.isfinite(gap).any() else float("nan"),
                        "pairs": int(np.isfinite(gap).sum()),
                        "unpaired": len(base.loc[[grader]]) - int(np.isfinite(gap).sum()),
                    }
                )
    columns = ["method", "reference", "grader", "property", "difference", "low", "high", "better", "pairs", "unpaired"]
    return pd.DataFrame(rows, columns=columns).round(DIGITS)
