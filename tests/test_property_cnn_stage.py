"""Stage 4b: copy or train the property CNN, score the filtered faces, compare with stage 4."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import run_property_cnn
from pipeline.artefacts import read_arrays, read_image, read_json, save_arrays, save_image, write_json
from pipeline.command import Summary
from pipeline.errors import PipelineError
from pipeline.run import Run
from pipeline.seeds import parse_seeds
from property_score.graders import shared_faces
from property_score.measure import PROPERTIES
from property_score.normalisation import Normalisation
from property_score.property_cnn import CNNScorer
from property_score.seen_faces import SeenFaces
from segmentation.parser import to_tensor
from tests.test_property_cnn_network import toy_scores

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = [f"{name}_score" for name in PROPERTIES]


def options(run, profile, **others):
    return run_property_cnn.Options(profile=str(profile), run=str(run), device="cpu", **others)


def write_world(folder, count=60, extra=""):
    """A run with filtered faces (every second number), scores of stage 4 with gaps, and a profile."""
    images, labels = toy_scores(count)
    run = folder / "run"
    numbers = np.arange(count) * 2
    for number, image in zip(numbers, images, strict=True):
        save_image(run / "stylegan" / "synthesize_results_filtered" / f"{number:06d}.jpg", image)
    table = pd.DataFrame(labels.round(4), columns=COLUMNS)
    table.loc[3, "pose_score"] = np.nan
    table.insert(0, "img_no", numbers)
    table.insert(1, "img_path", [f"stylegan/synthesize_results_filtered/{number:06d}.jpg" for number in numbers])
    table["reason"] = ""
    scores = run / "segmentation" / "property_score_results" / "all_scores_v2.csv"
    scores.parent.mkdir(parents=True)
    table.drop(index=5).to_csv(scores, index=False)  # stage 3 found no face in one of them
    Normalisation.fit(table[COLUMNS].set_axis(list(PROPERTIES), axis=1)).save(scores.parent / "normalisation.json")
    save_arrays(run / "stylegan" / "latents.npz", img_no=np.arange(2 * count), seed=np.arange(2 * count) + 500)
    profile = folder / "toy.toml"
    profile.write_text(f"""
resolution = 32
{extra}
[property_cnn]
width = 0.125
folds = 2
[property_cnn.training]
epochs = 6
batch = 16
""")
    return run, profile


def results(run):
    patterns = ("segmentation/**/*.csv", "property_score/**/*.csv", "property_score/**/*.pth")
    files = [path for pattern in patterns for path in run.glob(pattern)]
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run, profile = write_world(tmp_path_factory.mktemp("property"))
    run_property_cnn.run(options(run, profile, train=True))
    return run, profile


@pytest.fixture
def world(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "run")
    return tmp_path / "run", trained[1]


def test_training_scores_every_filtered_face_and_takes_figures_from_the_test_part(trained):
    run, _ = trained
    scores = pd.read_csv(run / "segmentation" / "property_score_results" / "all_scores_v2_cnn.csv")
    assert scores.columns.tolist() == ["img_no", "img_path", *COLUMNS, "source"]
    assert scores["img_no"].tolist() == list(range(0, 120, 2)) and scores[COLUMNS].notna().all(axis=None)
    split = pd.read_csv(run / "property_score" / "log" / "split.csv")
    assert split["part"].value_counts().to_dict() == {"train": 47, "val": 6, "test": 6}
    figures = pd.read_csv(run / "property_score" / "log" / "figures.csv")
    assert figures["property"].tolist() == list(PROPERTIES)
    assert set(figures["of"]) == {"test"} and figures["faces"].max() == 6
    stage4 = pd.read_csv(run / "segmentation" / "property_score_results" / "all_scores_v2.csv").set_index("img_no")
    test = split.loc[split["part"] == "test", "img_no"]
    expected = (scores.set_index("img_no").loc[test, "eyes_score"] - stage4.loc[test, "eyes_score"]).abs().mean()
    assert figures["mae"][0] == pytest.approx(expected, abs=1e-4)
    log = pd.read_csv(run / "property_score" / "log" / "train_log_property_cnn.csv")
    assert {"epoch", "val_loss", "mouth_score_corr", "hairstyle_score_abs_diff"} <= set(log.columns)
    assert not list(run.glob("**/training_checkpoint*"))


def test_faces_of_the_training_are_scored_by_networks_that_did_not_see_them(trained):
    run, _ = trained
    scores = pd.read_csv(run / "segmentation" / "property_score_results" / "all_scores_v2_cnn.csv").set_index("img_no")
    split = pd.read_csv(run / "property_score" / "log" / "split.csv").set_index("img_no")["part"]
    expected = split.map({"train": "out of fold", "val": "out of fold", "test": "unseen"}).reindex(scores.index)
    assert scores["source"].tolist() == expected.fillna("unseen").tolist()
    model = run / "property_score" / "models" / "merged_property_cnn.pth"
    seeing = CNNScorer.load(model)
    paths = [run / path for path in scores["img_path"]]
    own = seeing.score(to_tensor(np.stack([read_image(path) for path in paths])))[list(PROPERTIES)].to_numpy()
    near = np.isclose(own, scores[COLUMNS], atol=1e-3).all(axis=1)
    assert near[scores["source"] == "unseen"].all() and not near[scores["source"] == "out of fold"].any()


def test_the_model_tells_its_faces_and_its_units(trained):
    run, _ = trained
    record = CNNScorer.load(run / "property_score" / "models" / "merged_property_cnn.pth").provenance
    numbers = [number for number in range(0, 120, 2) if number != 10]
    assert parse_seeds(record["trained_on"]) == [number + 500 for number in numbers]
    fitted = read_json(run / "segmentation" / "property_score_results" / "normalisation.json")
    assert record["normalisation"] == fitted and record["scorer"] == "property CNN"


def test_of_pictures_without_seeds_the_model_does_not_tell_its_faces(tmp_path):
    run, profile = write_world(tmp_path)
    (run / "stylegan" / "latents.npz").unlink()
    run_property_cnn.run(options(run, profile, train=True, epochs=1))
    record = CNNScorer.load(run / "property_score" / "models" / "merged_property_cnn.pth").provenance
    assert "trained_on" not in record
    with pytest.raises(PipelineError, match="does not tell which faces it was trained on"):
        shared_faces(record, {"trained_on": "1-5"})


def test_evaluate_prints_the_figures_of_the_test_part_and_changes_no_model(world, capsys):
    run, profile = world
    before = results(run)
    run_property_cnn.run(options(run, profile, evaluate=True))
    out = capsys.readouterr().out
    assert results(run) == before
    figures = pd.read_csv(run / "property_score" / "log" / "figures.csv").set_index("property")
    line = next(line.split() for line in out.splitlines() if line.strip().startswith("mouth "))
    assert line[:4] == ["mouth", "test", "6", f"{figures.loc['mouth', 'r']:.3f}"] and "to" in line
    with pytest.raises(PipelineError, match="--train and --evaluate exclude each other"):
        run_property_cnn.plan(options(run, profile, evaluate=True, train=True))
    shutil.rmtree(run / "property_score")
    with pytest.raises(PipelineError, match=r"merged_property_cnn\.pth is missing; run run_property_cnn\.py"):
        run_property_cnn.run(options(run, profile, evaluate=True))


def test_run_again_there_is_nothing_new(world):
    run, profile = world
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    for train in (True, False):
        run_property_cnn.run(options(run, profile, train=train))
        assert not Summary.printed[-1].written
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}


def test_another_precision_scores_the_faces_again(world, tmp_path):
    run, profile = world
    half = tmp_path / "half.toml"
    half.write_text("half = true\n" + profile.read_text())
    run_property_cnn.run(options(run, half))
    written = [path.name for path, _ in Summary.printed[-1].written]
    assert written == ["all_scores_v2_cnn.csv", "figures.csv"]


def test_killed_in_the_middle_and_run_again_it_ends_with_the_same_model_and_tables(world):
    run, profile = world
    undisturbed = results(run)
    shutil.rmtree(run / "property_score")
    call = [
        sys.executable,
        str(ROOT / "run_property_cnn.py"),
        "--profile",
        str(profile),
        "--run",
        str(run),
        "--train",
        "--device",
        "cpu",
    ]
    process = subprocess.Popen(call, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoint, deadline = run / "property_score" / "log" / "training_checkpoint.pt", time.monotonic() + 300
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert checkpoint.exists() and not list(run.glob("property_score/models/*.pth"))
    run_property_cnn.run(options(run, profile, train=True))
    assert results(run) == undisturbed


def test_other_scores_of_the_trainings_own_faces_are_not_taken_for_fresh(world):
    run, profile = world
    beside = run / "property_score" / "models" / "merged_property_cnn.pth.json"
    record = json.loads(beside.read_text())
    record["provenance"]["out_of_fold"] = record["provenance"]["out_of_fold"].replace("0.", "0.0")
    beside.write_text(json.dumps(record))
    run_property_cnn.run(options(run, profile))
    assert "all_scores_v2_cnn.csv" in [path.name for path, _ in Summary.printed[-1].written]


def test_other_pictures_under_the_same_numbers_get_scores_of_their_own(world):
    run, profile = world
    faces = sorted((run / "stylegan" / "synthesize_results_filtered").glob("*.jpg"))
    before = pd.read_csv(run / "segmentation/property_score_results/all_scores_v2_cnn.csv").set_index("img_no")
    other = read_image(faces[0])[::-1]
    changed = [path for path in faces if before.loc[int(path.stem), "source"] == "out of fold"][:3]
    for path in changed:
        save_image(path, other)
    run_property_cnn.run(options(run, profile))
    after = pd.read_csv(run / "segmentation/property_score_results/all_scores_v2_cnn.csv").set_index("img_no")
    numbers = [int(path.stem) for path in changed]
    assert set(after.loc[numbers, "source"]) == {"unseen"} and after.loc[numbers, "eyes_score"].nunique() == 1
    rest = after.index.difference(numbers)
    assert (after.loc[rest, "source"] == before.loc[rest, "source"]).all()


def test_a_model_trained_here_needs_no_bundled_one(world, tmp_path):
    run, profile = world
    other = tmp_path / "absent.toml"
    other.write_text(
        profile.read_text().replace("[property_cnn]", '[weights]\nproperty_cnn = "gone.pth"\n[property_cnn]')
    )
    for evaluate in (False, True):
        run_property_cnn.run(options(run, other, evaluate=evaluate))
    with pytest.raises(PipelineError, match=r"gone\.pth"):
        run_property_cnn.run(options(run, other, force=True))


def test_a_model_that_was_put_there_by_hand_is_not_written_over(world, tmp_path):
    run, profile = world
    model = run / "property_score" / "models" / "merged_property_cnn.pth"
    bundled = tmp_path / "property_cnn.pth"
    shutil.copy(model, bundled)
    other = tmp_path / "bundled.toml"
    other.write_text(f'resolution = 32\n[weights]\nproperty_cnn = "{bundled.as_posix()}"\n')
    run_property_cnn.run(options(run, other, force=True))
    mine = b"a model of my own"
    model.write_bytes(mine)
    with pytest.raises(PipelineError, match=r"changed, by hand .* property_cnn under \[weights\]"):
        run_property_cnn.run(options(run, other))
    Path(f"{model}.json").unlink()
    with pytest.raises(PipelineError, match=r"put there, or changed, by hand"):
        run_property_cnn.run(options(run, other))
    with pytest.raises(PipelineError, match="has no record of this stage beside it"):
        run_property_cnn.run(options(run, other, evaluate=True))
    assert model.read_bytes() == mine
    shutil.copy(bundled, model)  # as a copy that was stopped before its stamp
    run_property_cnn.run(options(run, other))
    assert "bundled" in Summary.printed[-1].written[0][1]


def test_faces_of_the_training_that_come_back_under_other_numbers_are_known(world):
    run, _ = world
    model = run / "property_score" / "models" / "merged_property_cnn.pth"
    record = read_json(f"{model}.json")
    trained = parse_seeds(record["provenance"]["trained_on"])
    record["provenance"]["generators"] = {"generator": "a" * 64}
    write_json(f"{model}.json", record)
    arrays = read_arrays(run / "stylegan" / "latents.npz", ("img_no", "seed"))
    back = np.isin(arrays["seed"] + 4, trained) & (arrays["img_no"] % 2 == 0)
    save_arrays(run / "stylegan" / "latents.npz", **(arrays | {"seed": arrays["seed"] + 4}))
    filtered = run / "stylegan" / "synthesize_results_filtered"
    numbers = np.array(sorted(int(path.stem) for path in filtered.glob("*.jpg")))
    for number in numbers:  # other pictures under these numbers
        save_image(filtered / f"{number:06d}.jpg", np.full((32, 32, 3), number, np.uint8))
    assert not len(SeenFaces.of_model(model, Run(run), numbers).elsewhere)  # of whatever generator these are
    write_json(run / "stylegan" / "synthesize_results.json", {"origin": {"generator": "a" * 64}, "output": {}})
    seen = SeenFaces.of_model(model, Run(run), numbers)
    assert seen.split is None and set(arrays["img_no"][back]) <= set(seen.elsewhere) and back.any()


def test_a_bundled_model_is_copied_and_compared_on_all_filtered_faces(world, tmp_path):
    run, profile = world
    bundled = tmp_path / "property_cnn.pth"
    for suffix in ("", ".json"):
        shutil.copy(f"{run / 'property_score' / 'models' / 'merged_property_cnn.pth'}{suffix}", f"{bundled}{suffix}")
    other = tmp_path / "bundled.toml"
    other.write_text(f'resolution = 32\n[weights]\nproperty_cnn = "{bundled.as_posix()}"\n')
    run_property_cnn.run(options(run, other))
    assert any("is kept" in text for text in Summary.printed[-1].notes)
    shutil.rmtree(run / "property_score")
    run_property_cnn.run(options(run, other))
    # These very faces trained it, elsewhere.
    cnn_scores = run / "segmentation" / "property_score_results" / "all_scores_v2_cnn.csv"
    figures = run / "property_score" / "log" / "figures.csv"
    assert set(pd.read_csv(cnn_scores)["source"]) == {"trained on", "unseen"}  # one has no score
    assert not pd.read_csv(figures)["faces"].any()
    beside = tmp_path / "property_cnn.pth.json"
    record = json.loads(beside.read_text())
    write_json(run / "stylegan" / "synthesize_results.json", {"origin": {"generator": "a" * 64}, "output": {}})
    record["provenance"]["generators"] = {"base": "b" * 64}  # the same seeds of another generator are other faces
    beside.write_text(json.dumps(record))
    run_property_cnn.run(options(run, other, force=True))
    assert set(pd.read_csv(cnn_scores)["source"]) == {"unseen"}
    record["provenance"]["trained_on"] = "900000-900059"
    beside.write_text(json.dumps(record))
    run_property_cnn.run(options(run, other, force=True))
    assert set(pd.read_csv(cnn_scores)["source"]) == {"unseen"}
    figures = pd.read_csv(run / "property_score" / "log" / "figures.csv")
    assert set(figures["of"]) == {"all filtered"}
    assert figures.set_index("property")["faces"].to_dict() == {**dict.fromkeys(PROPERTIES, 59), "pose": 58}
    assert not (run / "property_score" / "log" / "split.csv").exists()

    def errors(eyes: dict[str, float] | None) -> pd.Series:
        record = json.loads(beside.read_text())
        if eyes is None:
            del record["provenance"]["normalisation"]
        else:
            record["provenance"]["normalisation"]["columns"]["eyes"] |= eyes
        beside.write_text(json.dumps(record))
        run_property_cnn.run(options(run, other, force=True))
        return pd.read_csv(run / "property_score" / "log" / "figures.csv").set_index("property").loc["eyes"]

    fitted = read_json(run / "segmentation" / "property_score_results" / "normalisation.json")["columns"]["eyes"]
    eyes = figures.set_index("property").loc["eyes"]
    moved = errors({"centre": fitted["centre"] + 100 * fitted["scale"]})
    assert moved["r"] == eyes["r"] and moved["mae"] == pytest.approx(100, abs=5)
    unknown = errors(None)
    assert unknown["r"] == eyes["r"] and np.isnan(unknown["mae"]) and np.isnan(unknown["mse"])
    assert any("errors are not told" in text for text in Summary.printed[-1].notes)
    bundled.unlink()
    with pytest.raises(PipelineError, match=r"property_cnn\.pth"):
        run_property_cnn.run(options(run, other))


@pytest.mark.parametrize(
    ("written", "instead", "message"),
    [
        ("width = 0.125", "width = 0", r"\[property_cnn\] width = 0; write a number of at least 0\.125"),
        ("width = 0.125", "width = 0.3", r"\[property_cnn\] width = 0\.3; write a multiple of 1/32"),
        ("width = 0.125", "width = 'wide'", r"\[property_cnn\] width = 'wide'; write a number"),
        ("folds = 2", "folds = 1", r"\[property_cnn\] folds = 1; write a whole number of at least 2"),
        ("batch = 16", "batch = 0", r"\[property_cnn.training\] batch = 0; write a whole number of at least 1"),
        ("epochs = 6", "epochs = 1.5", r"\[property_cnn.training\] epochs = 1.5; write a whole number"),
    ],
)
def test_impossible_settings_are_refused_before_any_work(world, tmp_path, written, instead, message):
    run, profile = world
    (tmp_path / "odd.toml").write_text(profile.read_text().replace(written, instead))
    with pytest.raises(PipelineError, match=message):
        run_property_cnn.plan(options(run, tmp_path / "odd.toml", train=True))


def test_epochs_are_for_a_training_and_at_least_one(world):
    run, profile = world
    with pytest.raises(PipelineError, match="--epochs 0: give at least 1"):
        run_property_cnn.plan(options(run, profile, train=True, epochs=0))
    for others in ({}, {"evaluate": True}):
        with pytest.raises(PipelineError, match="--epochs 3 concerns a training.*add --train"):
            run_property_cnn.plan(options(run, profile, epochs=3, **others))
    assert run_property_cnn.plan(options(run, profile, train=True, epochs=3)).training["epochs"] == 3


def test_folds_that_do_not_fit_the_faces_are_refused_before_the_main_training(world, tmp_path, monkeypatch):
    run, profile = world
    (tmp_path / "odd.toml").write_text(profile.read_text().replace("folds = 2", "folds = 50"))
    monkeypatch.setattr(run_property_cnn, "read_pictures", lambda *_: pytest.fail("pictures were read"))
    with pytest.raises(PipelineError, match=r"need 2 to 13 folds for 53 faces .*got 50: set folds under"):
        run_property_cnn.run(options(run, tmp_path / "odd.toml", train=True))


def test_bad_input_is_named_with_its_cure(world, tmp_path):
    run, profile = world
    scores = run / "segmentation" / "property_score_results" / "all_scores_v2.csv"
    pd.read_csv(scores).drop(columns="mouth_score").to_csv(scores, index=False)
    with pytest.raises(PipelineError, match=r"all_scores_v2\.csv: column mouth_score is missing"):
        run_property_cnn.run(options(run, profile, train=True))
    scores.unlink()
    with pytest.raises(PipelineError, match=r"run compute_property_scores\.py"):
        run_property_cnn.plan(options(run, profile))
    with pytest.raises(PipelineError, match=r"run run_cnn\.py"):
        run_property_cnn.plan(options(tmp_path / "empty", profile))
    misspelt = tmp_path / "misspelt.toml"
    misspelt.write_text(profile.read_text().replace("epochs", "epoch"))
    with pytest.raises(PipelineError, match="unknown key epoch"):
        run_property_cnn.plan(options(run, misspelt))
