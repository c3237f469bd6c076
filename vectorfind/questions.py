"""The two questions that the published project left open, answered from what a run has measured."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vectorfind.graders import FINDER
from vectorfind.names import EDITED
from vectorfind.sweep import read_sweep

SURE = 0.05
FEWEST = 4  # faces, and methods, from which on a rank correlation is told
GROWN = 0.1  # share by which a side effect has to grow before it counts as worse
DISTURBANCES = ("pixel", "drift")


def obedience(faces: dict[str, pd.DataFrame], edits: dict[str, pd.DataFrame], best: str) -> str:
    """Question one: is a face that obeys better disturbed less?

    faces: `judged_faces.csv`, edits: `matched_edits.csv`, by method. Within each method: rank correlation over faces of
    obedience (mean of the three correlations, finder) with the disturbance at one achieved deviation, with what the
    face could have obeyed at most (a closed mouth cannot close) partialled out. Between methods: of their means. A
    correlation is sure below SURE by Bonferroni's count of the tests.
    """
    found, lines, means = [], [], []
    for name, table in faces.items():
        own = table[table["grader"] == FINDER].set_index("seed")
        about = pd.DataFrame({"obedience": own[[f"{prop}_corr" for prop in EDITED]].mean(axis=1)})
        about["most"] = own[[f"{prop}_most" for prop in EDITED]].mean(axis=1)
        matched = edits[name][edits[name]["matched"]].groupby("seed")[list(DISTURBANCES)].mean()
        both = matched.join(about, how="inner")
        means.append({"method": name, **both.mean()})
        if len(both) < FEWEST:
            lines.append((name, f"too few matched faces ({len(both)})"))
            continue
        told = []
        for what in DISTURBANCES:
            if both[what].notna().all() and both[what].nunique() > 1:
                r, p = partial_rank_corr(both["obedience"], both[what], both["most"])
                told.append(f"{what} {r:+.2f} (p {p:.2g})")
                found.append((r, p))
        lines.append((name, f"{len(both)} faces: {', '.join(told) or 'nothing to rank'}"))
    bar = SURE / max(len(found), 1)
    less = sum(p < bar and r < 0 for r, p in found)
    more = sum(p < bar and r > 0 for r, p in found)
    if less and not more:
        answer = "Yes" if 2 * less >= len(found) else "For some methods"
    else:
        answer = "No: it disturbs it more" if more and not less else "That is not settled"
    text = f"**Does a better-obeyed intention disturb the face less?** Within a method: {answer}. "
    text += (
        f"Of {len(found)} rank correlations, over faces, of obedience (mean of the three correlations, finder) with "
        "the disturbance at one achieved deviation, what a face could obey at most held fixed, "
        f"{less} are surely negative and {more} surely positive (p < {SURE} / {len(found)})."
        if found
        else "Too few faces could be ranked."
    )
    listed = [f"- {name}{' (best)' if name == best else ''}, {line}" for name, line in lines]
    return "\n".join([text, "", *listed, *_between(pd.DataFrame(means), best)])


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
    if scale < 1e-9 or free < 1:
        return float("nan"), float("nan")
    r = float(np.clip((x @ y) / scale, -1, 1))
    return r, float(2 * t.sf(abs(r) * np.sqrt(free / max(1 - r * r, 1e-12)), free))


def _between(means: pd.DataFrame, best: str) -> list[str]:
    """Whether the methods that are obeyed better disturb less, and whether the best of them does."""
    from scipy.stats import spearmanr

    known = means.dropna(subset=["obedience"]).set_index("method")
    told = []
    for what in DISTURBANCES:
        if len(known) >= FEWEST and known[what].notna().all():
            r = spearmanr(known["obedience"], known[what]).statistic
            gentlest = known[what].idxmin()
            least = (
                "which is the gentlest" if gentlest == best else f"the gentlest, {gentlest}, {known[what].min():.3g}"
            )
            told.append(f"{what} {r:+.2f} (best method {known.loc[best, what]:.3g}, {least})")
    return [f"- between the {len(known)} methods' means: {'; '.join(told)}"] if told else []


def many_samples(run) -> str:
    """Question two, from the sweep's table where one was made: the largest number of samples against the smallest."""
    question = "**Does an SVM trained on too many samples make edits unnatural?** "
    path = run.path("vectorfind", "sweep", "sweep.csv")
    if not path.is_file():
        return question + "Not measured in this run: `run_vectorfind.py sweep --methods svm --sizes 1000 4000 …` does."
    table = read_sweep(path)
    table = table[table["method"] == "svm"]
    # Of the settings that were swept, the one with most sizes: sizes are compared with all else equal.
    same = [part.sort_values("samples") for _, part in table.groupby(["k_percent", "position", "groups"])]
    table = max(same, key=len, default=table)
    if table["samples"].nunique() < 2:
        return question + "Not measured in this run: the sweep holds one size of the SVM only."
    measures = {"drift": "identity drift", "pixel": "pixel change", "largest_leak": "the largest leak"}
    worse = [
        said
        for name, said in measures.items()
        if table[name].iloc[-1] > (1 + GROWN) * table[name].iloc[0]
        and table["samples"].rank().corr(table[name].rank()) > 0.5
    ]
    answer = "Yes" if len(worse) == 3 else "In part" if worse else "No"
    rows = []
    for _, row in table.iterrows():
        corr = " / ".join(f"{row[f'{name}_corr']:.2f}" for name in EDITED)
        rows.append(
            f"- {row['samples']} samples: corr {corr}, identity drift {row['drift']:.3f}, pixel change outside "
            f"{row['pixel']:.2f}, largest leak {row['largest_leak']:.2f}"
        )
    first, last = table.iloc[0], table.iloc[-1]
    grows = (
        f"{' and '.join(worse)} grow{'s' * (len(worse) == 1)} by more than" if worse else "nothing grows by more than"
    )
    return question + (
        f"{answer}. At the published settings ({last['position']}, {last['k_percent']:g} % at either end, groups "
        f"{last['groups']}), from {first['samples']} to {last['samples']} samples, {grows} {GROWN:.0%} per achieved "
        "deviation (corr by the finder, grid of deviations; means over faces, no intervals):\n\n" + "\n".join(rows)
    )
