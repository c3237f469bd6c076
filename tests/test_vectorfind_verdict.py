"""The verdict in the world whose truth is known: oracle, renders and the factors behind the codes have their say."""

import pandas as pd

import run_vectorfind
from pipeline.profile import ROOT


def test_the_verdict_of_the_demo_tells_what_oracle_renders_and_factors_say(tmp_path, monkeypatch):
    monkeypatch.setattr("vectorfind.crosstalk.PEOPLE", 1)
    monkeypatch.setattr("vectorfind.truth.FACES", 2)
    weights = ROOT / "weights/demo"
    run_vectorfind.run(
        run_vectorfind.VectorFindOptions(
            steps=("compare",),
            run=str(tmp_path / "run"),
            samples=120,
            faces=2,
            methods=("svm", "ridge"),
            groups="none",
            graders=("finder", "second"),
            generator=str(weights / "generator_v9.pth"),
            scorer=str(weights / "property_cnn.pth"),
        )
    )
    text = (tmp_path / "run/reports/vectorfind_ungrouped.md").read_text()
    assert "Best by the 'second' grader" in text and "leak to a head or person, oracle" in text
    for way in (
        "the oracle, in deviations among people of every kind",
        "the oracle, less its own error on renders",
        "the codes themselves",
    ):
        assert way in text
    assert (
        "## What an edit truly moves" in text
        and "Factors behind the codes, 2 faces" in text
        and "Too few faces could be ranked" in text
        and "follow what the factors behind the codes make" in text
    )
    assert "Gain on svm_w_ungrouped in mean correlation" in text and "pixel more than svm_w_ungrouped" in text
    moves = pd.read_csv(tmp_path / "run/vectorfind/judgement/ridge_w_ungrouped/factor_moves.csv")
    matched = moves[(moves["property"] == "pose") & moves["matched"]]
    assert len(moves) == 12 and matched["roll"].mean() > 0.4
