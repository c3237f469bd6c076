"""The report on property scores: what its statistics say, and that one call writes text, tables and figures."""

import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from segmentation_world import random_parsenet, rendered

from benchmarks import scorer_speed
from pipeline.artefacts import save_weights
from pipeline.errors import PipelineError
from pipeline.profile import Profile
from property_score import report
from property_score.correlation import interval, pearson, spearman, standardised_effects
from property_score.measure import PROPERTIES
from property_score.nuisances import REPEAT
from property_score.panel import MEASURED, Panel, Readings
from property_score.property_cnn import MergedPropertyCNN
from property_score.reference_figures import ASKED_CNN_R, ASKED_TRUTH_R, PUBLISHED_CNN, PUBLISHED_V1_V2_R, TRUTH
from property_score.report_tables import (
    missing_table,
    network_table,
    pose_table,
    reason_table,
    reliability_table,
    short_of_truth,
    truth_table,
    verdicts,
)
from virtual_face.population import ATTRIBUTES

RANDOM = np.random.default_rng(0)
SCORERS = [*MEASURED, "property CNN"]


def readings(count: int = 60, noise: float = 0.1, seed: int = 0) -> Readings:
    """Scores of all scorers that follow one column of numbers each, the same for every call, plus noise."""
    base, random = np.random.default_rng(7).standard_normal((count, 8)), np.random.default_rng(seed)
    tables = {}
    for name in SCORERS:
        table = pd.DataFrame(base + noise * random.standard_normal(base.shape), columns=list(PROPERTIES))
        tables[name] = table.assign(reason="")
    return Readings(tables)


def attributes(count: int = 60) -> pd.DataFrame:
    base = np.random.default_rng(7).standard_normal((count, 8))
    table = pd.DataFrame(np.random.default_rng(8).uniform(0, 1, (count, len(ATTRIBUTES))), columns=list(ATTRIBUTES))
    for column, name in enumerate(PROPERTIES):
        table[TRUTH[name]] = base[:, column]
    return table


def test_correlations_leave_missing_values_out_and_know_when_there_is_none():
    first, second = np.array([1.0, 2, 3, 4, math.nan]), np.array([1.0, 4, 9, 16, 0])
    assert pearson(first, second) == (pytest.approx(0.98437, abs=1e-5), 4)
    assert spearman(first, second) == (1.0, 4)
    assert math.isnan(pearson(first, np.ones(5))[0]) and math.isnan(spearman(first[:2], second[:2])[0])
    low, high = interval(0.9, 100)
    assert (low, high) == (pytest.approx(0.8547, abs=1e-3), pytest.approx(0.9317, abs=1e-3))


def test_effects_tell_a_cause_from_what_only_goes_with_it():
    roll = RANDOM.standard_normal(2000)
    yaw = 0.6 * roll + 0.8 * RANDOM.standard_normal(2000)
    effects, explained = standardised_effects(
        3 * roll + 0.3 * RANDOM.standard_normal(2000), np.column_stack([yaw, roll])
    )
    assert abs(effects[0]) < 0.03 and effects[1] == pytest.approx(1, abs=0.03) and explained > 0.98
    truth = attributes().assign(yaw=RANDOM.standard_normal(60))
    table = pose_table(readings(noise=0.01), truth, ["geometric"]).iloc[0]
    assert table["r roll"] > 0.99 and table["effect roll"] > 0.95 and abs(table["r yaw"]) < 0.4


def test_truth_and_what_falls_short_of_it():
    table = truth_table(readings(noise=0.1), attributes(), SCORERS)
    assert (table[SCORERS] > 0.97).all(axis=None) and short_of_truth(table) == []
    noisy = truth_table(readings(noise=1.5), attributes(), SCORERS)
    assert any(text.startswith("hair_color 0.") and text.endswith("of 0.95") for text in short_of_truth(noisy))
    assert not any(text.startswith("pose") for text in short_of_truth(noisy)), "nothing is asked of pose"
    unknown = table.assign(geometric=float("nan"))
    assert len(short_of_truth(unknown)) == len(unknown) - 1, "what could not be measured is not reached"


def test_a_network_that_falls_short_is_told_from_a_score_that_is_too_noisy():
    before, after = readings(noise=0.1), {REPEAT: readings(noise=0.1, seed=1), "other wall colour": readings(seed=2)}
    repeats = reliability_table(before, after, "geometric")
    assert (repeats[REPEAT] > 0.95).all()
    untold = repeats.set_index("score")["other wall colour"].isna()
    assert untold[untold].index.tolist() == ["background_mean", "background_std"]
    reliable = pd.Series(0.99, index=list(PROPERTIES)) - pd.Series({"hairstyle": 0.9}).reindex(PROPERTIES, fill_value=0)
    table = network_table(readings(noise=0.9), "property CNN", None, reliable, {"eyes": 0.5})
    assert table.set_index("score").loc["eyes", "r, test split"] == 0.5 and table["MAE"].isna().all()
    told = {text.split(":")[0]: text for text in verdicts(table)}
    assert "the network falls short" in told["eyes"] and "too noisy" in told["hairstyle"]
    assert verdicts(network_table(readings(noise=0.01), "property CNN", None, reliable, {})) == []
    assert all("nothing can be told" in text for text in verdicts(table.assign(r=float("nan"))))


def test_what_is_missing_is_counted_with_its_reasons():
    some = readings(10)
    some.tables["geometric"].loc[:2, ["hair_color", "pose"]] = math.nan
    some.tables["geometric"].loc[:2, "reason"] = ["no hair: hair_color; no left eye: pose"] * 3
    shares = missing_table({"renders": some}).set_index("algorithm")
    assert shares.loc["geometric", "pose"] == 30.0 and shares.loc["v2 published", "pose"] == 0.0
    assert reason_table({"renders": some})["count"].tolist() == [3, 3]


def test_every_score_has_its_reference_figures():
    for figures in (ASKED_CNN_R, ASKED_TRUTH_R, PUBLISHED_CNN, PUBLISHED_V1_V2_R, TRUTH):
        assert tuple(figures) == PROPERTIES


@pytest.fixture
def profile(tmp_path, write_profile) -> Profile:
    """A profile at 128 pixels with a random parser and a random property CNN that tells nothing of its training."""
    save_weights(tmp_path / "cnn.pth", MergedPropertyCNN(128, 0.125).state_dict())
    weights = {"property_cnn": tmp_path / "cnn.pth", "parsenet": random_parsenet(tmp_path / "parsenet.pth")}
    weights["second_grader"] = tmp_path / "absent.pth"
    return Profile.load(write_profile(resolution=128, weights=weights))


def test_the_panel_reads_every_picture_with_every_scorer_and_says_what_it_lacks(profile):
    panel = Panel(profile)
    assert panel.scorers == SCORERS and list(panel.absent) == ["second grader"]
    assert panel.judge_table()["trained on seeds"].tolist() == ["no scored face", "not told"]
    assert panel.independence().startswith("Not shown: the property CNN does not tell")
    pictures = rendered()[0]
    together, alone = panel.read(pictures[:3], "all"), panel.read(pictures[2:3], "one")
    for name in SCORERS:
        assert len(together.tables[name]) == 3
        found, expected = (table.tables[name][list(PROPERTIES)] for table in (together.rows(np.arange(3) == 2), alone))
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_report_holds_every_section_table_and_figure(tmp_path, profile):
    pictures, count = np.repeat(rendered()[0], 10, axis=0), 60
    truth = attributes(count).assign(gender=1.0, quality=1.0, age=0.0, glasses=0.0)
    sample = report.Sample(pictures, truth, readings(count))
    again = {name: readings(6, seed=1) for name in ("JPEG", "moved", REPEAT)}
    lights = {name: readings(6, seed=2) for name in ("other light", "other wall colour")}
    changed = {"as drawn": pictures[:6], **dict.fromkeys(again, pictures[:6])}
    evidence = report.Evidence(sample, sample, lights, again, changed)
    options = report.ReportOptions(repeats=6, out=str(tmp_path / "property_scores.md"))
    written = report.write_report(options, profile, Panel(profile), evidence)
    assert all(path.exists() for path in written)
    text = written[0].read_text()
    for heading in (
        "Against the truth",
        "What each score really measures",
        "Between scorers",
        "Beside the published",
        "Reliability",
        "Distribution and what is missing",
    ):
        assert f"## {heading}" in text
    assert "Without the second grader: weight file" in text and "left empty (drop)" in text
    shown = re.findall(r"\]\((\S+\.(?:png|jpg))\)", text)
    assert len(shown) == 8 + 2 + 1 + 1 + 2 and all((tmp_path / path).stat().st_size > 5000 for path in shown)
    kept = json.loads(written[1].read_text())["tables"]
    assert kept["truth"][0]["geometric"] > 0.97 and kept["property CNN"][3]["asked r"] == 0.97


def test_renders_of_another_size_are_refused_with_their_cure(tmp_path, profile):
    folder = tmp_path / "renders"
    folder.mkdir()
    arrays = {"attributes": np.zeros((1, len(ATTRIBUTES)), np.float32), "factors": np.zeros((1, 48), np.float32)}
    np.savez(folder / "shard_0000.npz", images=np.zeros((1, 64, 64, 3), np.uint8), **arrays)
    options = report.ReportOptions(folder=str(folder))
    with pytest.raises(PipelineError, match="renders of 64 pixels.*--size 128"):
        report.gather(options, profile, Panel(profile), "cpu")


def test_the_throughput_benchmark_times_scorers_and_names_those_that_are_not_there(profile):
    options = scorer_speed.Options(profile=str(profile.path), pictures=2, alone=1)
    rows, absent = scorer_speed.measure_throughput(options, ("second_grader",))
    assert rows == [] and absent[0].startswith("second_grader: weight file 'second_grader'")
    with pytest.raises(PipelineError, match="--alone 3 must be"):
        scorer_speed.measure_throughput(scorer_speed.Options(pictures=2, alone=3))
