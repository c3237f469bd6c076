"""What a judge reads into renders of which nothing else has changed."""

from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.profile import ROOT
from property_score.property_cnn import CNNScorer
from vectorfind.bench import read_scores
from vectorfind.crosstalk import _where_one_is_achieved, crosstalk, factors_of_people, moved
from vectorfind.effects import ORACLE_ATTRIBUTES
from vectorfind.names import EDITED, PROPERTIES
from virtual_face.population import head_parameters


def test_people_wear_no_glasses_and_of_each_one_property_alone_moves():
    factors = factors_of_people(5)
    p = head_parameters(factors)
    assert len(factors) == 5 and p["glasses"].max() < 0.02 and p["age"].max() < 0.5 and p["gender"].min() >= 0.5
    for name in EDITED:
        other = head_parameters(moved(factors, name, 0.6))
        changed = {key for key in p if (p[key] - other[key]).abs().max() > 1e-5}
        assert changed == {"roll" if name == "pose" else name}


def test_a_judge_that_takes_open_eyes_for_glasses_is_found_out():
    scorer = CNNScorer.load(ROOT / "weights/demo/property_cnn.pth", "cpu", batch=10)
    bench = SimpleNamespace(
        generator=SimpleNamespace(resolution=128), device="cpu", scores=lambda images: read_scores(scorer, images)
    )

    def read(images):
        told = np.zeros((len(images), len(ORACLE_ATTRIBUTES)))
        told[:, ORACLE_ATTRIBUTES.index("glasses")] = 0.1 * bench.scores(images)[:, PROPERTIES.index("eyes")]
        return told, None

    table = crosstalk(bench, SimpleNamespace(read=read), np.full(len(PROPERTIES), 0.5), people=1)
    found = table.set_index(["property", "column"])
    assert found.loc[("eyes", "glasses"), "signed"] == pytest.approx(0.05, abs=1e-3)
    assert abs(found.loc[("mouth", "glasses"), "signed"]) < 0.01 and found.loc[("eyes", "gender"), "size"] == 0
    assert found.loc[("pose", "roll"), "intended"] and not found.loc[("eyes", "glasses"), "intended"]


def test_between_renders_lies_the_one_that_achieved_one_deviation():
    achieved, changes = np.array([0.5, 1.5, 2.0]), np.array([[0.0], [4.0], [9.0]])
    reached, change = _where_one_is_achieved(achieved, changes)
    assert reached == 1 and change.tolist() == [2.0]
    reached, change = _where_one_is_achieved(np.array([0.5, 0.7, 0.6]), changes)
    assert reached == 0.7 and change.tolist() == [4.0]
