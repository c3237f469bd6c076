"""Who judges, and who holds a person, belongs to what a table rests on: replaced, it makes the table stale."""

import shutil

import pytest
from vectorfind_run import runner_in
from vectorfind_world import LinearScorer

import vectorfind.graders
from pipeline.artefacts import stamp_path
from pipeline.command import Summary
from pipeline.errors import PipelineError
from pipeline.profile import ROOT


@pytest.fixture
def weights(tmp_path):
    """Files of the graders, with the normalisation beside property_cnn, and the networks that tell gender and age."""
    folder = tmp_path / "cnn"
    folder.mkdir()
    names = ("second_grader", "parsenet", "property_cnn")
    files = {name: tmp_path / f"{name}.pth" for name in names} | {
        name: folder / f"{name}_model_0.pth" for name in ("gender", "age")
    }
    for path in files.values():
        path.write_bytes(b"weights")
    bundled = ROOT / "weights/demo/property_cnn.pth"
    for path, other in ((bundled, files["property_cnn"]), (stamp_path(bundled), stamp_path(files["property_cnn"]))):
        shutil.copy(path, other)
    return files


@pytest.fixture
def further(tmp_path, write_profile, weights, monkeypatch):
    named = {name: path for name, path in weights.items() if path.parent == tmp_path}
    profile = write_profile("judged", weights=named, cnn={"bundled": weights["age"].parent})
    return runner_in(tmp_path, profile, monkeypatch)


def test_a_judgement_is_taken_again_once_a_grader_was_replaced_and_it_is_said_which(further, weights, monkeypatch):
    graders = ("second", "geometric")
    monkeypatch.setattr(vectorfind.graders, "open_scorers", lambda *_: ({name: LinearScorer() for name in graders}, []))
    wish = {"method": "ridge", "graders": ("finder", *graders)}
    further("pool", "directions", "judge", "effects", **wish)
    replaced = {
        "second_grader": weights["second_grader"],
        "parser": weights["parsenet"],
        "normalisation": stamp_path(weights["property_cnn"]),
    }
    for name, path in replaced.items():
        path.write_bytes(path.read_bytes() + b" ")
        further("judge", "effects", **wish)
        told = {f"{step} again: input {name} changed" for step in ("judge", "effects")}
        assert told <= set(Summary.printed[-1].notes)
    # Who was not asked is no ground of a judgement.
    further("judge", "effects", **wish | {"graders": ("finder",)})
    for path in replaced.values():
        path.write_bytes(path.read_bytes() + b" ")
    further("judge", "effects", **wish | {"graders": ("finder",)})
    assert not Summary.printed[-1].written


@pytest.mark.parametrize("method, weight, name", [("closed_loop", "age", "age"), ("model_loop", "parsenet", "parser")])
def test_a_loop_is_found_again_once_what_holds_a_person_was_replaced(
    further, weights, monkeypatch, method, weight, name
):
    monkeypatch.setattr("vectorfind.score_model.EPOCHS", 1)
    further("pool", "directions", method=method)
    further("directions", method=method)
    assert not Summary.printed[-1].written
    weights[weight].write_bytes(b"others")
    with pytest.raises(PipelineError, match=rf"does not hold what these options ask for \(input {name} changed\)"):
        further("judge", method=method)
    further("directions", method=method)
    assert f"directions again: input {name} changed" in Summary.printed[-1].notes
