"""What the project asks of its best method, beside what was measured."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vectorfind.effects import WAYS, largest_leak
from vectorfind.graders import FINDER, GRADERS
from vectorfind.leaks import beyond, in_units_of_all, person_of, scores_of
from vectorfind.names import EDITED
from vectorfind.reach import met_shares
from vectorfind.truth import person_moves

# Mean signed correlations, share of passes, deviations per deviation.
ASKED = {"second": (0.97, 0.95, 0.97), "geometric": (0.93, 0.90, 0.93)}
PASS_ASKED, LEAK_ASKED, WISHES_ASKED = 0.75, 0.15, 0.95


def strictest(judged: pd.DataFrame) -> str:
    """The grader whose word counts most: one that did not find the directions, where there is one."""
    there = set(judged["grader"])
    return next((name for name in GRADERS if name != FINDER and name in there), FINDER)


def targets(
    judged: pd.DataFrame,
    faces: dict[str, pd.DataFrame],
    leaks: dict,
    best: str,
    reference: str,
    fitted: tuple[pd.DataFrame, pd.DataFrame] | None = None,
    alike: dict | None = None,
    met: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """What is asked of the best method, what it reaches, and what the reference reaches.

    judged: `judgement.csv` of both. faces: `judged_faces.csv`, leaks: leakage tables, by method. fitted: judgement and
    judged faces of the best method on the reachable grid, or None. alike: leakage tables of both over the edits that
    both could (`leaks.over_shared_edits`).
    met: `intended.csv` of the best method, or None.
    """
    rows = []
    tables = [judged[judged["method"] == name].set_index(["grader", "property"]) for name in (best, reference)]
    other = None if fitted is None else fitted[0].set_index(["grader", "property"])

    def within(grader: str, name: str, column: str) -> float:
        there = other is not None and (grader, name) in other.index
        return float(other.loc[(grader, name), column]) if there else np.nan

    def add(
        what: str, bar: float | None, values: list[float], floor: bool = True, most: str = "-", inside: float = np.nan
    ):
        """A row: values of best and reference, at least (floor) or at most the bar; None: nothing is asked."""
        if bar is None:
            row, digits, verdict = {"what": what, "asked": "-"}, 3, "-"
        else:
            row, digits, verdict = _held(what, bar, values[0], floor)
        told = [f"{value:.{digits}f}" if np.isfinite(value) else "-" for value in values]
        row |= {best: told[0], reference: told[1], "best possible": most}
        row |= {} if fitted is None else {"reachable grid": f"{inside:.3f}" if np.isfinite(inside) else "-"}
        rows.append(row | {"verdict": verdict})

    for grader, bars in ASKED.items():
        if grader not in set(judged["grader"]):
            continue
        for name, bar in zip(EDITED, bars, strict=True):
            values = [table.loc[(grader, name), "corr"] for table in tables]
            most = f"{tables[0].loc[(grader, name), 'most']:.3f}"
            add(f"correlation, {name}, {grader}", bar, values, most=most, inside=within(grader, name, "corr"))
    strict = strictest(judged)
    for grader in (strict, *(name for name in ASKED if name != strict and name in set(judged["grader"]))):
        for version in ("v8", "v7"):
            column = f"pass_{version}"
            values = [float(table.loc[(grader, EDITED[0]), column]) for table in tables]
            share = within(grader, EDITED[0], column)
            bar = PASS_ASKED if grader == strict else None
            add(f"share of faces that pass {version}, {grader}", bar, values, inside=share)
    for what, which in {"score, any grader": scores_of, "head or person, oracle": person_of}.items():
        for ways, told in ((("signed",), ""), (WAYS, ", one way")):
            found = [largest_leak(which(leaks[name]), ways) for name in (best, reference)]
            if np.isfinite(found[0][1]):
                sizes = [abs(size) for _, size in found]
                add(f"leak to a {what}{told} ({found[0][0]})", LEAK_ASKED, sizes, floor=False)
        if alike:
            sizes = [abs(largest_leak(which(alike[name]))[1]) for name in (best, reference)]
            if np.isfinite(sizes).all():
                add(f"leak to a {what}, of the edits that both could", None, sizes)
    graders = set(judged["grader"])
    for who, which in {"any grader": graders, "independent graders": graders - {FINDER}}.items():
        if which:
            values = [_turned(faces[name], which) for name in (best, reference)]
            inside = np.nan if fitted is None else _turned(fitted[1], which)
            add(f"reversed faces, {who}, any property", 0, values, floor=False, inside=inside)
    for walk, part in met.groupby("walk", sort=False) if met is not None else ():
        told = ("wishes inside a face's reach that are met", "faces all of whose wishes inside their reach are met")
        for what, share in zip(told, met_shares(part), strict=True):
            add(f"{what}, {walk}", WISHES_ASKED, [share, share if best == reference else np.nan])
    return pd.DataFrame(rows)


def _held(what: str, bar: float, value: float, floor: bool) -> tuple[dict[str, str], int, str]:
    """The beginning of a row, the decimals that its values need, and whether the bar is held."""
    is_met = value >= bar if floor else value <= bar
    # A miss that three decimals would round to the bar is told with four.
    digits = 4 if not is_met and round(value, 3) == bar else 3
    return (
        {"what": what, "asked": f"{'at least' if floor else 'at most'} {bar:g}"},
        digits,
        "met" if is_met else "MISSED",
    )


def person_leak_otherwise(
    leaks: dict, best: str, reference: str, units: pd.DataFrame, own_error: pd.DataFrame, moves: dict
) -> pd.DataFrame:
    """The largest leak to head or person of both methods, by ways of reading it other than the oracle's deviations.

    units: see `leaks.person_units`. own_error: what the oracle reads into renders, in deviations. moves: see
    `truth.moves_of`, by method.
    """
    ways = {}
    if len(units):
        ways["the oracle, in deviations among people of every kind"] = lambda name: in_units_of_all(
            person_of(leaks[name]), units
        )
    if len(own_error):
        ways["the oracle, less its own error on renders"] = lambda name: beyond(person_of(leaks[name]), own_error)
    if all(len(moves[name]) for name in (best, reference)):
        ways["the codes themselves, in deviations among people of every kind"] = lambda name: person_moves(moves[name])
    rows = []
    for way, read in ways.items():
        row = {"read by": way}
        for name in dict.fromkeys((best, reference)):
            where, size = largest_leak(read(name))
            row[name] = f"{abs(size):.3f} ({where})" if np.isfinite(size) else "-"
        rows.append(row)
    return pd.DataFrame(rows)


def against_reference(paired: pd.DataFrame, judged: pd.DataFrame) -> pd.DataFrame:
    """What each method gains on the reference, by the strictest grader: a row per method, from `paired.csv`.

    surely better, surely worse: properties of which the gain's whole interval lies above, or below, 0.
    """
    rows = []
    part = paired[paired["grader"] == strictest(judged)]
    for method, table in part.groupby("method", sort=False):
        row, better, worse = {"method": method}, [], []
        for one in table.itertuples():
            row[one.property] = f"{one.difference:+.3f} ({one.low:+.3f} to {one.high:+.3f})"
            better += [one.property] * (one.low > 0)
            worse += [one.property] * (one.high < 0)
        row["surely better"] = ", ".join(better) or "-"
        rows.append(row | {"surely worse": ", ".join(worse) or "-", "faces": int(table["pairs"].min())})
    return pd.DataFrame(rows)


def _turned(faces: pd.DataFrame, graders: set) -> float:
    """Share of faces with a correlation below 0, of any property, by any of some graders; of `judged_faces.csv`."""
    part = faces[faces["grader"].isin(graders)]
    turned = (part[[f"{name}_corr" for name in EDITED]] < 0).any(axis=1)
    return float(turned.groupby(part["seed"]).any().mean())
