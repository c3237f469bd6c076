"""What is told of a method beside another: held or missed, more or less, worse with more samples or not."""

import pandas as pd
import pytest

from pipeline.run import Run
from pipeline.tables import write_table
from vectorfind.leaks import in_deviations, in_units_of_all
from vectorfind.names import EDITED
from vectorfind.questions import many_samples
from vectorfind.setting import Files, Setting
from vectorfind.tables import FITS
from vectorfind.targets import targets
from vectorfind.verdict import Judged, _costs, _reach, _unconverged


def leaks_of(size: float) -> pd.DataFrame:
    """A leakage table in which the eyes drag a score and the glasses along."""
    rows = pd.DataFrame({"property": "eyes", "column": ["second mouth", "glasses"], "signed": size, "size": abs(size)})
    return rows.assign(up=size, down=size, low=size, high=size, edits_up=30, edits_down=30, intended=False)


def judged(method: str, corr: tuple[float, ...], share: float, turned: float) -> list[dict]:
    told = {"method": method, "grader": "second", "pass_v7": share, "pass_v8": share, "reversed": turned, "most": 1.0}
    return [told | {"property": name, "corr": value} for name, value in zip(EDITED, corr, strict=True)]


def faces_of(**turned: int) -> dict[str, pd.DataFrame]:
    """Ten faces each, of which some are reversed, one property after the other."""
    tables = {}
    for method, count in turned.items():
        table = pd.DataFrame({"seed": range(10), "grader": "second", **{f"{name}_corr": 0.9 for name in EDITED}})
        for seed in range(count):
            table.loc[seed, f"{EDITED[seed % len(EDITED)]}_corr"] = -0.1
        tables[method] = table
    return tables


def test_the_best_is_held_to_what_is_asked_and_the_reference_is_told_beside_it():
    table = pd.DataFrame([*judged("a", (0.98, 0.80, 0.98), 0.8, 0.0), *judged("b", (0.60, 0.96, 0.9696), 0.3, 0.1)])
    leaks = {"a": leaks_of(-0.1), "b": leaks_of(0.4)}
    told = [
        ("correlation, eyes, second", "at least 0.97", "0.980", "0.600", "met", "MISSED"),
        ("correlation, mouth, second", "at least 0.95", "0.800", "0.960", "MISSED", "met"),
        ("correlation, pose, second", "at least 0.97", "0.980", "0.970", "met", "MISSED"),
        ("share of faces that pass v8, second", "at least 0.75", "0.800", "0.300", "met", "MISSED"),
        ("share of faces that pass v7, second", "at least 0.75", "0.800", "0.300", "met", "MISSED"),
        ("leak to a score, any grader (eyes > second mouth)", "at most 0.15", "0.100", "0.400", "met", "MISSED"),
        ("leak to a score, any grader, one way (eyes up > second mouth)",)
        + ("at most 0.15", "0.100", "0.400", "met", "MISSED"),
        ("leak to a head or person, oracle (eyes > glasses)", "at most 0.15", "0.100", "0.400", "met", "MISSED"),
        ("leak to a head or person, oracle, one way (eyes up > glasses)",)
        + ("at most 0.15", "0.100", "0.400", "met", "MISSED"),
        ("reversed faces, any grader, any property", "at most 0", "0.000", "0.200", "met", "MISSED"),
        ("reversed faces, independent graders, any property", "at most 0", "0.000", "0.200", "met", "MISSED"),
    ]
    columns = ["what", "asked", "a", "b", "verdict"]
    found = targets(table, faces_of(a=0, b=2), leaks, "a", "b")[columns].itertuples(index=False, name=None)
    assert list(found) == [row[:5] for row in told]
    swapped = targets(table, faces_of(a=0, b=2), leaks, "b", "a").set_index("what")
    assert swapped["verdict"].tolist() == [row[5] for row in told]
    # A miss that would round to the bar is told with one more decimal.
    assert swapped.loc["correlation, pose, second", ["b", "a"]].tolist() == ["0.9696", "0.9800"]


def test_what_a_method_costs_more_than_the_reference_is_told_with_its_sign():
    rows = [(seed, name, sign) for seed in range(6) for name in EDITED for sign in (1.0, -1.0)]
    base = pd.DataFrame(rows, columns=["seed", "property", "asked"]).assign(matched=True)
    base["pixel"], base["drift"] = 2.0 + base["seed"], 0.5 + 0.1 * base["seed"]
    other = base.assign(pixel=base["pixel"] + 1, drift=base["drift"] - 0.2)
    other.loc[0, ["matched", "pixel"]] = False, 99.0  # another edit than was asked for costs nothing
    costs = pd.DataFrame({"matched": [1.0], "pixel": [1.0], "drift": [1.0]})
    same, tables = dict.fromkeys("ab", leaks_of(0.1)), {"a": base, "b": other}
    table = _costs(Judged({}, pd.DataFrame(), {}, same, dict.fromkeys("ab", costs), tables, "a", "b"))
    told = table.set_index("method")[["pixel more than a", "drift more than a"]]
    assert told.loc["a"].tolist() == ["-", "-"]
    assert told.loc["b"].tolist() == ["+1.000 (+1.000 to +1.000)", "-0.200 (-0.200 to -0.200)"]


def test_fits_that_stopped_at_their_limit_are_counted(tmp_path):
    settings = [Setting("svm", "w", "none"), Setting("ridge", "w", "none"), Setting("model_loop", "w", "none")]
    files = {setting.name: Files(Run(tmp_path), setting) for setting in settings}
    known = Judged(files, pd.DataFrame(), {}, {}, {}, {}, "svm_w_ungrouped", "svm_w_ungrouped")
    texts = {"property": EDITED, "group_name": "all", "source": "group"}
    counts = dict.fromkeys(("faces", "samples", "held_out", "iterations"), 9)
    fits = pd.DataFrame({column: [0.5] * 3 for column in FITS.columns}).assign(**texts, **counts)
    fits = fits.assign(converged=[False, True, False], flipped=False, capped=False)
    for setting, table in zip(settings, (fits, fits.assign(converged=True)), strict=False):
        write_table(files[setting.name].fits, table, FITS)
    assert _unconverged(known) == "Fits that stopped at their limit of iterations: svm_w_ungrouped 2 of 3."
    del files["svm_w_ungrouped"]
    assert _unconverged(known) == ""


def test_what_a_loop_reaches_is_told_with_its_ends_and_verdicts():
    reach = pd.DataFrame({"seed": [1, 1, 1, 2, 2, 2], "property": EDITED * 2, "low": -1.0, "high": 2.0})
    reach = reach.assign(low_end=["end of the score"] * 3 + ["too far"] * 3, high_end="end of the score")
    met = pd.DataFrame({"seed": [1] * 30 + [2] * 10, "walk": "to the letter", "property": "eyes"})
    text = _reach(reach, met.assign(met=[False] + [True] * 39))
    assert "the finder alone: 97.5% of 40 wishes (met); 50.0% of 2 faces had all of theirs met (MISSED)" in text
    assert "a walk ended so: end of the score 75%, too far 25%." in text


GROWING, FLAT, SHRINKING, AT_LAST = (1.0, 1.2, 1.5, 2.0), (1.0,) * 4, (2.0, 1.5, 1.2, 1.0), (1.0, 0.9, 0.8, 1.2)


@pytest.mark.parametrize(
    "drift, pixel, leak, answer, worse",
    [
        (GROWING, GROWING, GROWING, "Yes", "identity drift, pixel change, largest leak"),
        (FLAT, GROWING, SHRINKING, "In part", "pixel change"),
        (FLAT, FLAT, FLAT, "No", "nothing"),
        (SHRINKING, AT_LAST, (1.0, 1.02, 1.05, 1.09), "No", "nothing"),
    ],
)
def test_more_samples_are_too_many_where_side_effects_grow_with_them(drift, pixel, leak, answer, worse):
    table = pd.DataFrame({"samples": [1000, 2000, 4000, 8000], "drift": drift, "pixel": pixel, "largest_leak": leak})
    table = table.assign(method="svm", k_percent=20.0, position="w", groups="16", **{f"{n}_corr": 0.9 for n in EDITED})
    for some in (table, table[::-1]):
        text = many_samples(some)
        assert f"unnatural?** {answer}. With w, 20 % at either end and 16 groups, from 1000 to 8000 samples" in text
        assert f"grows: {worse} (corr" in text


def test_what_the_oracle_reads_in_its_own_units_is_told_in_deviations_of_the_persona_or_of_all():
    units = pd.DataFrame({"persona": [0.2], "all": [0.8]}, index=["glasses"])
    own = leaks_of(0.1)[1:]
    told = in_deviations(own, units).iloc[0]
    assert told[["signed", "low", "high", "size", "up", "down"]].tolist() == pytest.approx([0.5] * 6)
    assert in_units_of_all(in_deviations(own, units), units)["signed"].tolist() == pytest.approx([0.125])
    assert in_deviations(own[:0], units).empty
