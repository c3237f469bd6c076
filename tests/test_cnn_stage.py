"""Stage 2: train, score, filter; the same tables whatever happens in between, and clear errors."""

import dataclasses
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

import run_cnn
from cnn import bundle, models
from cnn.filter_cnn import FilterEnsemble
from cnn.labels import deal_folds, match_labels, read_labels
from cnn.settings import FILTER_NAMES, FOLDS, FilterSettings
from cnn.training import class_weights
from pipeline.artefacts import check_whole, read_json, stamp_path, write_json
from pipeline.command import Summary
from pipeline.errors import PipelineError
from pipeline.profile import Profile
from pipeline.run import Run
from tests.cnn_faces import toy_faces, write_world

ROOT = Path(__file__).resolve().parents[1]


def options(run, profile, **others):
    return run_cnn.Options(profile=str(profile), run=str(run), device="cpu", **others)


def tables(run):
    """All tables and models of stage 2 as bytes."""
    files = [*run.glob("cnn/**/*.csv"), *run.glob("cnn/models/*.pt"), *run.glob("stylegan/*_filtered/*.jpg")]
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run whose twenty models were trained (2 epochs) without any disturbance."""
    run, profile, labels = write_world(tmp_path_factory.mktemp("trained"))
    run_cnn.run(options(run, profile, train=True))
    return run, profile, labels


@pytest.fixture
def world(trained, tmp_path):
    """A copy of the trained run that a test may spoil."""
    run, profile, labels = trained
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run", profile, labels


def without_results(run):
    shutil.rmtree(run / "cnn")
    shutil.rmtree(run / "stylegan" / "synthesize_results_filtered", ignore_errors=True)
    return run


def test_training_writes_models_logs_scores_and_the_filtered_folder(trained):
    run, _, labels = trained
    truth = pd.read_csv(labels)
    for name in FILTER_NAMES:
        log = pd.read_csv(run / "cnn" / "log" / f"train_log_{name}.csv")
        assert log["fold_no"].tolist() == list(range(FOLDS))
        assert (log["train_faces"] + log["val_faces"] + log["heldout_faces"]).tolist() == [len(truth)] * FOLDS
        assert log["heldout_faces"].sum() == len(truth)
        detail = pd.read_csv(run / "cnn" / "log" / f"epoch_detail_{name}_0.csv")
        assert {"epoch", "val_loss", "tp", "val_f1_score", "val_auroc", "val_auprc"} <= set(detail.columns)
        scores = pd.read_csv(run / "cnn" / "inference_result" / f"{name}.csv")
        mean = scores[[f"score_model_{fold}" for fold in range(FOLDS)]].mean(axis=1)
        np.testing.assert_allclose(scores[f"property_{name}_final_score"], mean, atol=2e-6)
    table = pd.read_csv(run / "cnn" / "all_image_scores.csv")
    assert len(table) == 60 and (table["source"] == "label").sum() == 50
    np.testing.assert_array_equal(table["gender_score"][:50], truth["gender"])
    wanted = (table["gender_score"] >= 0.5) & (table["quality_score"] >= 0.5)
    wanted &= (table["age_score"] <= 0.5) & (table["glass_score"] <= 0.5)
    assert table["passed"].equals(wanted)
    kept = sorted(path.name for path in (run / "stylegan" / "synthesize_results_filtered").glob("*.jpg"))
    assert kept == [Path(path).name for path in table.loc[wanted, "img_path"]]
    held_out = pd.read_csv(run / "cnn" / "log" / "heldout_auroc.csv")
    assert held_out["fold"].tolist() == [*map(str, range(FOLDS)), "mean", "all"] * 4


def test_run_again_there_is_nothing_new(world):
    run, profile, _ = world
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    run_cnn.run(options(run, profile, train=True))
    assert not Summary.printed[-1].written
    run_cnn.run(options(run, profile))
    assert not Summary.printed[-1].written
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}


def test_killed_in_the_middle_and_run_again_it_ends_with_the_same_models_and_tables(world, tmp_path):
    run, profile, _ = world
    undisturbed = tables(run)
    without_results(run)
    call = [
        sys.executable,
        str(ROOT / "run_cnn.py"),
        "--profile",
        str(profile),
        "--run",
        str(run),
        "--train",
        "--device",
        "cpu",
    ]
    process = subprocess.Popen(call, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    models_folder, deadline = run / "cnn" / "models", time.monotonic() + 60
    while len(list(models_folder.glob("[a-z]*.pt"))) < 4 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    whole = [path for path in models_folder.glob("[a-z]*.pt") if models.is_trained_here(path)]
    finished = {path: path.stat().st_mtime_ns for path in whole}
    assert 3 <= len(finished) < 20
    ready = tmp_path / "ready.toml"
    ready.write_text(profile.read_text().replace("[cnn]\n", "[cnn]\nbundled = 'weights/demo/cnn'\n"))
    with pytest.raises(PipelineError, match="go on with run_cnn.py --train"):
        run_cnn.run(options(run, ready))
    run_cnn.run(options(run, profile))  # nothing is bundled there, so the same command goes on
    assert tables(run) == undisturbed
    assert finished == {path: path.stat().st_mtime_ns for path in finished}


def test_the_log_of_models_that_are_gone_goes_with_them(world, tmp_path):
    run, _, _ = world
    assert len(list(run.glob("cnn/log/train_log_age.csv*"))) == 2  # with its stamp
    published = tmp_path / "published.pth"
    shutil.copy(models.model_paths(Run(run))["age"][0], published)
    assert models.write_logs(Run(run), "age", [published]) == []
    assert not list(run.glob("cnn/log/train_log_age.csv*"))


def test_bundled_models_are_copied_and_judged_on_their_held_out_faces(world, tmp_path):
    run, profile, labels = world
    bundle.bundle(bundle.Options(run=str(run), to=str(tmp_path / "bundled")))
    text = profile.read_text().replace("[cnn]", f'[cnn]\nbundled = "{(tmp_path / "bundled").as_posix()}"')
    (tmp_path / "bundled.toml").write_text(text)
    before = pd.read_csv(run / "cnn" / "log" / "heldout_auroc.csv")
    logs = {path.name: path.read_bytes() for path in run.glob("cnn/log/train_log_*.csv")}
    without_results(run)
    run_cnn.run(options(run, tmp_path / "bundled.toml"))
    after = pd.read_csv(run / "cnn" / "log" / "heldout_auroc.csv")
    np.testing.assert_allclose(after["auroc"], before["auroc"], atol=0.05)  # half precision may swap near ties
    assert logs == {path.name: path.read_bytes() for path in run.glob("cnn/log/train_log_*.csv")}

    with pytest.raises(PipelineError, match="was not trained in this run"):  # a copy of a copy, in half precision
        bundle.bundle(bundle.Options(run=str(run), to=str(tmp_path / "again")))

    # Other labels: the models may have trained on what they would be judged by, so there are no such figures.
    table = pd.read_csv(labels)
    table.loc[0, "age"] = 1 - table.loc[0, "age"]
    table.to_csv(tmp_path / "mine.csv", index=False)
    run_cnn.run(options(run, tmp_path / "bundled.toml", labels=str(tmp_path / "mine.csv")))
    assert not list(run.glob("cnn/log/heldout_auroc.csv*")) + list(run.glob("cnn/log/cutoffs.csv*"))
    assert any("no held-out figures" in text for text in Summary.printed[-1].notes)

    models.bundled_path(tmp_path / "bundled", "age", 3).unlink()
    shutil.rmtree(run / "cnn")
    with pytest.raises(PipelineError, match=r"age_model_3\.pth is missing"):
        run_cnn.run(options(run, tmp_path / "bundled.toml"))


def test_the_filtered_folder_is_kept_in_step(world, tmp_path):
    run, profile, _ = world
    folder = run / "stylegan" / "synthesize_results_filtered"
    kept = {path.name for path in folder.glob("*.jpg")}
    lost = sorted(kept)[0]
    (folder / lost).unlink()
    stranger = next(path for path in (run / "stylegan" / "synthesize_results").iterdir() if path.name not in kept)
    shutil.copy(stranger, folder)
    run_cnn.run(options(run, profile))
    assert {path.name for path in folder.glob("*.jpg")} == kept
    strict = tmp_path / "strict.toml"
    strict.write_text(profile.read_text().replace("gender = 0.5", "gender = 1.0"))
    run_cnn.run(options(run, strict))
    table = pd.read_csv(run / "cnn" / "all_image_scores.csv")
    names = {Path(path).name for path in table.loc[table["passed"], "img_path"]}
    assert {path.name for path in folder.glob("*.jpg")} == names
    assert set(table.loc[table["passed"], "source"]) == {"label"}


def test_filtered_pictures_that_it_did_not_put_there_are_never_deleted_unasked(world):
    run, profile, _ = world
    folder = run / "stylegan" / "synthesize_results_filtered"
    stamp_path(folder).unlink()
    run_cnn.run(options(run, profile))  # copies of sampled faces are nobody's, whoever put them there
    stamp_path(folder).unlink()
    for name in ("000099.jpg", next(folder.iterdir()).name):
        (folder / name).unlink(missing_ok=True)  # else the sampled face, to which it is a link, would be written
        (folder / name).write_bytes(b"mine")
        with pytest.raises(PipelineError, match=rf"holds 1 pictures .* first is {name}.*--from 3 --run .*--force"):
            run_cnn.run(options(run, profile))
        assert (folder / name).read_bytes() == b"mine"
        run_cnn.plan(options(run, profile, force=True))
        (folder / name).unlink()


def test_a_run_stays_labelled_by_the_table_that_was_given(world, tmp_path):
    run, profile, labels = world
    mine = Path(shutil.copy(labels, tmp_path / "mine.csv"))
    pd.read_csv(mine).head(45).to_csv(mine, index=False)
    write_json(stamp_path(mine), {"origin": {"psi": 1.0}})
    run_cnn.run(options(run, profile, labels=str(mine)))
    scores = run / "cnn" / "all_image_scores.csv"
    assert (pd.read_csv(scores)["source"] == "label").sum() == 45
    # Wherever that table is by now: the run has its own copy.
    mine.unlink()
    run_cnn.run(options(run, profile))
    assert not Summary.printed[-1].written and any("--labels gave before" in note for note in Summary.printed[-1].notes)
    assert read_json(stamp_path(run / "cnn" / "labels.csv")) == {"origin": {"psi": 1.0}}
    run_cnn.run(options(run, profile, labels=str(run / "cnn" / "labels.csv")))
    assert not Summary.printed[-1].written
    run_cnn.run(options(run, profile, labels=str(labels)))
    assert (pd.read_csv(scores)["source"] == "label").sum() == 50
    run_cnn.run(options(run, profile, force=True))  # the profile's again
    assert not (run / "cnn" / "labels.csv").exists() and (pd.read_csv(scores)["source"] == "label").sum() == 50


def test_labels_given_for_a_training_that_was_killed_serve_the_next_call(world, tmp_path, monkeypatch):
    run, profile, labels = world
    mine = Path(shutil.copy(labels, tmp_path / "mine.csv"))
    pd.read_csv(mine).head(45).to_csv(mine, index=False)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_cnn, "train_models", stop)
        with pytest.raises(KeyboardInterrupt):
            run_cnn.run(options(run, profile, train=True, labels=str(mine)))
    assert len(run_cnn.plan(options(run, profile, train=True)).labelled) == 45


def test_folds_depend_on_the_label_table_and_the_seed_alone(trained):
    labels = read_labels(trained[2])
    folds = deal_folds(labels, "glass", 0)
    for value in (0, 1):
        counts = folds[labels["glass"].to_numpy() == value].value_counts()
        assert counts.max() - counts.min() <= 1 and len(counts) == FOLDS
    assert folds.equals(deal_folds(labels, "glass", 0)) and not folds.equals(deal_folds(labels, "glass", 1))
    rare = labels.assign(glass=(np.arange(len(labels)) < 3).astype(int))
    with pytest.raises(PipelineError, match=r"my labels\.csv: only 3 faces are labelled glass = 1"):
        deal_folds(rare, "glass", 0, path=Path("my labels.csv"))


def test_a_faulty_label_table_is_named_and_never_to_be_deleted(world, tmp_path):
    run, profile, labels = world
    pd.read_csv(labels).drop(columns="age").to_csv(tmp_path / "short.csv", index=False)
    with pytest.raises(PipelineError, match=r"short\.csv: column age is missing"):
        run_cnn.plan(options(run, profile, labels=str(tmp_path / "short.csv")))
    text = Path(labels).read_text().splitlines()
    text[4] = "3,1,1,2,0"
    (tmp_path / "odd.csv").write_text("\n".join(text))
    with pytest.raises(PipelineError, match=r"odd\.csv, row 5, column age.*found '2'"):
        run_cnn.plan(options(run, profile, labels=str(tmp_path / "odd.csv")))
    head = "img_no,gender,quality,age,glass\n"
    faults = (b"", head.encode("utf-16"), *(f"{head}{row}\n".encode() for row in ("0,1,1,2,0", "0,1", "0,x,1,0,0")))
    for fault in faults:
        (tmp_path / "odd.csv").write_bytes(fault)
        with pytest.raises(PipelineError, match=r"odd\.csv.*mend this label table") as raised:
            run_cnn.plan(options(run, profile, labels=str(tmp_path / "odd.csv")))
        assert "delete" not in str(raised.value) and "stage" not in str(raised.value)
    with pytest.raises(PipelineError, match="label table .* is missing; name the right file"):
        run_cnn.plan(options(run, profile, labels=str(tmp_path)))


def test_labels_of_other_faces_are_refused_or_left_out(world, tmp_path):
    run, profile, labels = world
    for field, value, message in (
        ("generator", "b" * 64, "made for the faces of generator bbbb"),
        ("psi", 0.7, "truncation psi 0.7"),
    ):
        other = tmp_path / f"{field}.csv"
        shutil.copy(labels, other)
        origin = {"generator": "a" * 64, "psi": 1.0, field: value}
        models.write_json(f"{other}.json", {"origin": origin})
        with pytest.raises(PipelineError, match=message):
            run_cnn.plan(options(run, profile, labels=str(other)))
    shifted = tmp_path / "shifted.csv"
    shutil.copy(labels, shifted)
    models.write_json(f"{shifted}.json", {"origin": {"generator": "a" * 64, "psi": 1.0, "seeds": "0-9,100-139"}})
    work = run_cnn.plan(options(run, profile, labels=str(shifted)))
    assert work.labelled["img_no"].tolist() == list(range(10))
    assert any("40 labels left out" in text for text in work.notes)


def test_faces_of_another_generator_need_no_labels_where_the_cnns_come_ready_made(world, tmp_path):
    run, profile, labels = world
    pictures = run / "stylegan" / "synthesize_results"
    write_json(stamp_path(pictures), {"origin": {"generator": "b" * 64, "psi": 1.0, "seeds": "0-59"}, "output": {}})
    pictures = pd.DataFrame({"img_no": range(60), "seed": range(60)})
    table = read_labels(labels)
    found, notes = match_labels(labels, table, pictures, Run(run), needed=False, given=False)
    assert not len(found) and "no labels are used" in notes[0]
    for needed, given in ((True, False), (False, True)):
        with pytest.raises(PipelineError, match="another|generator"):
            match_labels(labels, table, pictures, Run(run), needed, given)


def test_a_given_table_that_labels_no_face_of_the_run_is_refused(world, tmp_path):
    run, profile, labels = world
    table = tmp_path / "labels.csv"
    rows = pd.read_csv(labels).assign(img_no=lambda frame: frame["img_no"] + 100_000)
    rows.to_csv(table, index=False)
    with pytest.raises(PipelineError, match="none of the .* labelled faces is in"):
        run_cnn.plan(options(run, profile, labels=str(table)))
    rows["img_no"] -= 99_989  # all but one belong to a picture
    rows.to_csv(table, index=False)
    assert any("belong to no picture" in note for note in run_cnn.plan(options(run, profile, labels=str(table))).notes)


def test_models_of_two_trainings_are_not_taken_for_one(world):
    run, profile, labels = world
    path = run / "cnn" / "models" / "age_model_3.pt"
    record = read_json(stamp_path(path))
    record["provenance"]["seed"] = 5
    write_json(stamp_path(path), record)
    for call in (lambda: run_cnn.plan(options(run, profile)), lambda: bundle.bundle(bundle.Options(run=str(run)))):
        with pytest.raises(PipelineError, match="different trainings.*age_model_3"):
            call()


def test_a_model_of_another_crop_is_refused(world):
    run, profile, labels = world
    path = run / "cnn" / "models" / "glass_model_0.pt"
    architecture = FilterSettings.of(Profile.load(profile)).architectures["glass"]
    window, step = architecture.window, 1 / architecture.resolution
    moved = dataclasses.replace(window, top=window.top + step, bottom=window.bottom + step)
    moved = dataclasses.replace(architecture, window=moved)
    FilterEnsemble.load("glass", [path], architecture)
    with pytest.raises(PipelineError, match="was trained with window"):
        FilterEnsemble.load("glass", [path], moved)


def test_an_interrupted_sampling_and_pictures_of_another_name_are_told(world):
    run, profile, labels = world
    folder = run / "stylegan" / "synthesize_results"
    shutil.copy(folder / "000000.jpg", folder / "._000000.jpg")
    run_cnn.plan(options(run, profile))  # what another system leaves beside its copies counts for nothing
    shutil.copy(folder / "000000.jpg", folder / "face.jpeg")
    with pytest.raises(PipelineError, match=r"face\.jpeg is not named as a sampled face"):
        run_cnn.plan(options(run, profile))
    (folder / "face.jpeg").unlink()
    record = read_json(stamp_path(folder))
    del record["output"]
    write_json(stamp_path(folder), record)
    with pytest.raises(
        PipelineError, match="was not finished when its stage was stopped; run the same run_original_generator"
    ):
        run_cnn.plan(options(run, profile))


def test_bad_input_is_named_with_its_cure(world, tmp_path):
    run, profile, _ = world
    with pytest.raises(PipelineError, match=r"sample more faces .*--min-passed"):
        run_cnn.run(options(run, profile, min_passed=61))
    # Stage 3 does not go on with faces that passed before.
    folder = run / "stylegan" / "synthesize_results_filtered"
    assert list(folder.glob("*.jpg"))
    with pytest.raises(PipelineError, match="was not finished"):
        check_whole(folder, "any stage")
    broken = run / "stylegan" / "synthesize_results" / "000007.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(PipelineError, match=r"000007\.jpg"):
        run_cnn.run(options(run, profile))
    broken.unlink()
    with pytest.raises(PipelineError, match=r"1 faces listed in .*latents\.npz have no picture"):
        run_cnn.plan(options(run, profile))
    with pytest.raises(PipelineError, match=r"no sampled faces.*000000\.jpg, 000001\.jpg.*exactly"):
        run_cnn.plan(options(tmp_path / "empty", profile))
    misspelt = tmp_path / "misspelt.toml"
    misspelt.write_text(profile.read_text().replace("min_passed", "min_pased"))
    with pytest.raises(PipelineError, match="unknown key min_pased"):
        run_cnn.plan(options(run, misspelt))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[cnn]\nhead = 'x'", r"\[cnn\] head = 'x'; write a whole number of at least 1"),
        ("[cnn]\nwidth = 'x'", r"\[cnn\] width = 'x'; write a number of more than 0"),
        ("[cnn]\nbatch = 0", r"\[cnn\] batch = 0; write a whole number of at least 1"),
        ("[cnn]\nwindows = 3", r"'cnn.windows' must be a section \[cnn.windows\], found 3"),
        ("[cnn]\ntraining = 3", r"'cnn.training' must be a section"),
        ("[cnn]\nbundled = 3", r"\[cnn\] bundled = 3; write a text"),
        ("[cnn.windows]\nglass = 3", r"\[cnn.windows\] glass: .*give \[top, bottom, left, right\]"),
        (
            "[cnn.cutoffs]\ngender = 'high'",
            r"\[cnn.cutoffs\] gender = 'high'; write a number of at least 0 and at most 1",
        ),
        ("[cnn.cutoffs]\ngender = nan", r"\[cnn.cutoffs\] gender = nan; write a number"),
        ("[cnn.learning_rates]\nage = 0", r"\[cnn.learning_rates\] age = 0; write a number of more than 0"),
        ("[cnn.epochs]\nage = 0", r"\[cnn.epochs\] age = 0; write a whole number of at least 1"),
        ("[cnn.training]\nepochs = '7'", r"\[cnn.training\] epochs = '7'; write a whole number of at least 1"),
        ("[cnn.training]\nflip = 1", r"\[cnn.training\] flip = 1; write true or false"),
    ],
)
def test_impossible_settings_are_named_with_file_key_and_what_is_expected(tmp_path, line, message):
    (tmp_path / "odd.toml").write_text(f"resolution = 32\n{line}\n")
    with pytest.raises(PipelineError, match=rf"odd\.toml.*{message}"):
        FilterSettings.of(Profile.load(tmp_path / "odd.toml"))


def test_a_filter_may_have_epochs_and_a_threshold_of_its_own():
    trainings = FilterSettings.of(Profile.load("celeba256")).trainings
    assert {name: row.retry_above for name, row in trainings.items()} == {
        "gender": 0.35, "quality": 0.13, "age": 0.23, "glass": 0.10,
    }  # fmt: skip
    # As the published losses, on whose scale the cutoffs are: no class weighs more.
    assert {class_weights(np.array([0] * 19 + [1]), row.rare_weight) for row in trainings.values()} == {(1.0, 1.0)}


def test_a_checkpoint_of_the_wrong_shape_is_refused(world, tmp_path):
    run, profile, _ = world
    wider = tmp_path / "wider.toml"
    wider.write_text(profile.read_text().replace("width = 0.125", "width = 0.25"))
    with pytest.raises(PipelineError, match=r"gender_model_0\.pt does not fit FilterCNN(.|\n)*wrong shape"):
        run_cnn.run(options(run, wider))


def test_retries_are_bounded_and_the_best_attempt_counts(monkeypatch):
    import torch

    from cnn import training
    from cnn.fit import Window
    from cnn.settings import Architecture, TrainSettings

    pixels, labels = toy_faces(40)
    architecture = Architecture(32, 0.125, 8, Window())
    folds = deal_folds(labels, "gender", 0).to_numpy()
    data = training.FoldData(training.crop_pixels(pixels, architecture), labels["gender"].to_numpy(), folds)
    losses = iter([0.9, 0.4, 0.6])

    def attempt(*_):
        state = training.build("gender", architecture).state_dict()
        return state, pd.DataFrame({"val_loss": [next(losses)]})

    monkeypatch.setattr(training, "_attempt", attempt)
    settings = TrainSettings(max_retries=2, retry_above=0.1)
    done = training.train_fold("gender", data, 0, architecture, settings, 1e-3, 0.5, 0, torch.device("cpu"))
    assert (done.log["attempts"], done.log["chosen_attempt"], done.log["success"]) == (3, 1, False)


def test_a_class_too_rare_in_any_property_is_told_before_the_first_training(world, tmp_path):
    run, profile, table = world
    labels = pd.read_csv(table)
    labels["glass"] = (np.arange(len(labels)) < 3).astype(int)
    rare = tmp_path / "rare.csv"
    labels.to_csv(rare, index=False)
    shutil.copy(f"{table}.json", f"{rare}.json")
    before = tables(run)
    with pytest.raises(PipelineError, match="glass = 1"):
        run_cnn.run(options(run, profile, train=True, labels=str(rare)))
    assert tables(run) == before


def test_the_rarer_class_weighs_more_and_the_mean_weight_is_one():
    from cnn.training import class_weights

    labels = np.array([1] * 10 + [0] * 90)
    zero, one = class_weights(labels, 20.0)
    assert one / zero == pytest.approx(9) and 0.9 * zero + 0.1 * one == pytest.approx(1)
    assert class_weights(labels, 4.0)[1] / class_weights(labels, 4.0)[0] == pytest.approx(4)


def test_pictures_of_another_size_are_refused(world):
    run, profile, _ = world
    from cnn.pictures import read_pictures

    path = Run(run).path("stylegan", "synthesize_results", "000000.jpg")
    with pytest.raises(PipelineError, match="is 32x32 pixels, the profile's resolution is 64"):
        read_pictures([path], 64)


def test_labels_of_generated_faces_are_not_put_on_somebody_elses_pictures(tmp_path):
    path = tmp_path / "labels.csv"
    labels = pd.DataFrame({"img_no": [0, 1], "gender": [1, 0], "quality": [1, 1], "age": [0, 0], "glass": [0, 0]})
    labels.to_csv(path, index=False)
    pictures = pd.DataFrame({"img_no": [0, 1, 2], "seed": -1})
    matched, notes = match_labels(path, labels, pictures, Run(tmp_path / "run"))
    assert len(matched) == 2 and "on trust" in notes[0]  # a table that names no generator: the user's own
    sampled = pictures.assign(seed=[5000, 5001, 5002])  # faces of --seeds 5000-5002, labelled by hand
    matched, notes = match_labels(path, labels, sampled, Run(tmp_path / "run"))
    assert matched["img_no"].tolist() == [0, 1] and len(notes) == 1
    write_json(stamp_path(path), {"origin": {"generator": "a" * 64, "psi": 1.0, "seeds": "0-1"}, "output": {}})
    matched, notes = match_labels(path, labels, pictures, Run(tmp_path / "run"))
    assert not len(matched) and "no labels" in notes[0]
