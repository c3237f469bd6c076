"""The two questions that the published project left open, answered from what a run has measured."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vectorfind.graders import FINDER
from vectorfind.names import EDITED

SURE = 0.05
FEWEST = 4  # faces, and methods, from which on a rank correlation is told
PUBLISHED = (20.0, "w", "16")  # k %, position and groups of the published SVM
GROWN = 0.1  # share by which a side effect has to grow before it counts as worse
DISTURBANCES = ("pixel", "drift")


def obedience(faces: dict[str, pd.DataFrame], edits: dict[str, pd.DataFrame], best: str) -> str:
    """Question one: is a face that obeys better disturbed less?

    faces: `judged_faces.csv`, edits: `matched_edits.csv`, by method. Within each method: rank correlation over faces of
    obedience (mean of the three correlations, finder) with the disturbance at one achieved deviation, with what the
    face could have obeyed at most (a closed mouth cannot close) partialled out where that is known. A disturbance is
    taken against the mean of its kind of edit (property and sign), as not every face has a matched edit of each.
    Between methods: of their means. A correlation is sure below SURE by Bonferroni's count of the tests.
    """
    found, lines, means, is_held = [], [], [], True
    for name, table in faces.items():
        own = table[table["grader"] == FINDER].set_index("seed")
        about = pd.DataFrame({"obedience": own[[f"{prop}_corr" for prop in EDITED]].mean(axis=1)})
        about["most"] = own[[f"{prop}_most" for prop in EDITED]].mean(axis=1)
        if about["most"].isna().all():  # raw weights do not tell what can be reached
            about["most"], is_held = 1.0, False
        matched = edits[name][edits[name]["matched"]]
        disturbed = matched[list(DISTURBANCES)]
        kinds = disturbed.groupby([matched["property"], matched["asked"]]).transform("mean")
        matched = (disturbed - kinds + disturbed.mean()).groupby(matched["seed"]).mean()
        both = matched.join(about, how="inner").dropna(subset=["obedience", "most"])
        if len(both) < FEWEST:
            lines.append((name, f"too few matched faces ({len(both)})"))
            continue
        means.append({"method": name, **both.mean()})
        told = []
        for what in DISTURBANCES:
            r, p = partial_rank_corr(both["obedience"], both[what], both["most"])
            if np.isfinite(r):
                told.append(f"{what} {r:+.2f} (p {p:.2g})")
                found.append((r, p))
        lines.append((name, f"{len(both)} faces: {', '.join(told) or 'nothing to rank'}"))
    text = f"**Does a better-obeyed intention disturb the face less?** Within a method: {_answer(found)}. "
    text += _counted(found, is_held)
    listed = [f"- {name}{' (best)' if name == best else ''}, {line}" for name, line in lines]
    return "\n".join([text, "", *listed, *_between(pd.DataFrame(means), best)])


def _sure(found: list[tuple[float, float]]) -> tuple[int, int]:
    """How many of the correlations (r, p) are surely negative, and surely positive."""
    bar = SURE / max(len(found), 1)
    return sum(p < bar and r < 0 for r, p in found), sum(p < bar and r > 0 for r, p in found)


def _answer(found: list[tuple[float, float]]) -> str:
    less, more = _sure(found)
    if less and not more:
        return "Yes" if 2 * less >= len(found) else "For some methods"
    if more and not less:
        return "No: it disturbs it more" if 2 * more >= len(found) else "For some methods it disturbs it more"
    return "That is not settled"


def _counted(found: list[tuple[float, float]], is_held: bool) -> str:
    if not found:
        return "Too few faces could be ranked."
    less, more = _sure(found)
    return (
        f"Of {len(found)} rank correlations, over faces, of obedience (mean of the three correlations, finder) with "
        f"the disturbance at one achieved deviation{', what a face could obey at most held fixed' * is_held}, "
        f"{less} are surely negative and {more} surely positive (p < {SURE} / {len(found)})."
    )


def partial_rank_corr(a: pd.Series, b: pd.Series, fixed: pd.Series) -> tuple[float, float]:
    """(r, p) of Spearman's rank correlation of a and b with `fixed` partialled out, where that varies and is known."""
    from scipy.stats import rankdata, t

    ranks = [rankdata(values) for values in (a, b)]
    held = fixed.notna().all() and fixed.nunique() > 1
    if held:
        third = np.stack([rankdata(fixed), np.ones(len(fixed))], 1)
        ranks = [values - third @ np.linalg.lstsq(third, values, rcond=None)[0] for values in ranks]
    x, y = (values - values.mean() for values in ranks)
    scale = np.sqrt((x @ x) * (y @ y))
    free = len(a) - 2 - held
    if not scale > 1e-9 or free < 1:
        return float("nan"), float("nan")
    r = float(np.clip((x @ y) / scale, -1, 1))
    return r, float(2 * t.sf(abs(r) * np.sqrt(free / max(1 - r * r, 1e-12)), free))


def _between(means: pd.DataFrame, best: str) -> list[str]:
    """Whether the methods that are obeyed better disturb less, and whether the best of them does."""
    from scipy.stats import spearmanr

    if len(means) < FEWEST or best not in set(means["method"]):
        return []
    known, told = means.set_index("method"), []
    for what in DISTURBANCES:
        if known[what].notna().all():
            r, gentlest = spearmanr(known["obedience"], known[what]).statistic, known[what].idxmin()
            least = "the least" if gentlest == best else f"the least is {known[what].min():.3g}, of {gentlest}"
            told.append(f"mean {what} {r:+.2f} (of the best method {known.loc[best, what]:.3g}, {least})")
    return [f"- Between {len(known)} methods, rank correlation of mean obedience with {', with '.join(told)}"]


def many_samples(table: pd.DataFrame | None) -> str:
    """Question two, from the table of a sweep, None without one: the largest number of samples against the smallest."""
    question = "**Does an SVM trained on too many samples make edits unnatural?** "
    if table is None:
        return question + "Not measured in this run: `run_vectorfind.py sweep --methods svm --sizes 1000 4000 …` does."
    table = table[table["method"] == "svm"]
    # Sizes are compared with all else equal: where most of them were measured, among several at the published setting.
    same = {key: part.sort_values("samples") for key, part in table.groupby(["k_percent", "position", "groups"])}
    table = max(same.items(), key=lambda item: (len(item[1]), item[0] == PUBLISHED), default=(None, table))[1]
    if table["samples"].nunique() < 2:
        return question + "Not measured in this run: the sweep holds one size of the SVM only."
    every = {"drift": "identity drift", "pixel": "pixel change", "largest_leak": "largest leak"}
    measures = {name: said for name, said in every.items() if table[name].notna().all()}
    first, last = table.iloc[0], table.iloc[-1]
    worse = [
        said
        for name, said in measures.items()
        if last[name] > (1 + GROWN) * first[name] and table["samples"].rank().corr(table[name].rank()) > 0.5
    ]
    answer = "Yes" if measures and len(worse) == len(measures) else "In part" if worse else "No"
    rows = []
    for _, row in table.iterrows():
        corr = " / ".join(f"{row[f'{name}_corr']:.2f}" for name in EDITED)
        figures = ", ".join(f"{said} {row[name]:.3g}" for name, said in measures.items())
        rows.append(f"- {row['samples']} samples: corr {corr}, {figures}")
    return question + (
        f"{answer}. With {last['position']}, {last['k_percent']:g} % at either end and {last['groups']} groups, from "
        f"{first['samples']} to {last['samples']} samples, by more than {GROWN:.0%} per achieved deviation grows: "
        f"{', '.join(worse) or 'nothing'} (corr by the finder, grid of deviations; means over faces, no intervals):"
        "\n\n" + "\n".join(rows)
    )
