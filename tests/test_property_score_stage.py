"""Stage 4 and the geometric scorer: tables with reasons, one saved normalisation, clear errors."""

import math
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from segmentation_world import GREY, filtered_run, random_parsenet, rendered, score_cases

import compute_property_scores as stage
import run_property_cnn
import run_segmentation
from pipeline.artefacts import read_image, save_image, write_json
from pipeline.command import Summary
from pipeline.errors import PipelineError
from pipeline.profile import Profile
from pipeline.tables import read_table, write_table
from property_score.head_pose import ANGLES, OracleHeadPose
from property_score.measure import measure
from property_score.normalisation import Normalisation
from property_score.scorer import ALIGNED_WINDOW, PROPERTIES, GeometricScorer
from property_score.tables import SCORE_COLUMNS, score_schema
from segmentation.face_crop import FaceCropper
from segmentation.parsenet import ParseNetParser
from segmentation.tables import RESULTS, TABLE, result_name, segmentation_schema

MAPS, IMAGES, CASES = score_cases()
FOLDER = Path("segmentation") / "property_score_results"


@pytest.fixture(scope="module")
def parsed(tmp_path_factory) -> Path:
    """Return a run after stage 3 whose faces are the golden cases, and one picture without a face."""
    run = tmp_path_factory.mktemp("parsed") / "run"
    rows = []
    for k in range(len(CASES)):
        save_image(run / RESULTS / result_name("parsing", k), MAPS[k])
        save_image(run / RESULTS / result_name("face", k), IMAGES[k])
        save_image(run / "stylegan" / "synthesize_results_filtered" / f"{k:06d}.jpg", IMAGES[k, ::2, ::2])
        rows.append((k, f"stylegan/synthesize_results_filtered/{k:06d}.jpg", True, "", 1.0, 2.0, 90.0, 100.0, 1))
    rows.append((99, "stylegan/synthesize_results_filtered/000099.jpg", False, "no face found", *[math.nan] * 4, 0))
    schema = segmentation_schema()
    write_table(run / TABLE, pd.DataFrame(rows, columns=list(schema.columns)), schema)
    return run


@pytest.fixture
def parsed_run(parsed, tmp_path) -> Path:
    """Return a copy of the parsed run for one test."""
    return Path(shutil.copytree(parsed, tmp_path / "run"))


def score(run: Path, profile: Path, **options) -> Summary:
    stage.run(stage.Options(profile=str(profile), run=str(run), **options))
    return Summary.printed[-1]


def table(run: Path, name: str) -> pd.DataFrame:
    return read_table(run / FOLDER / name, score_schema())


def test_the_tables_hold_the_measured_values_and_their_z_scores(parsed_run, tiny_profile):
    summary = score(parsed_run, tiny_profile)
    raw, scores = table(parsed_run, "all_scores_v2_raw.csv"), table(parsed_run, "all_scores_v2.csv")
    expected = measure(MAPS, IMAGES)
    np.testing.assert_allclose(raw[list(SCORE_COLUMNS)], expected[list(PROPERTIES)], rtol=1e-12, equal_nan=True)
    assert raw["reason"].tolist() == expected["reason"].tolist() == scores["reason"].tolist()
    assert scores["img_no"].tolist() == list(range(len(CASES)))
    for name in SCORE_COLUMNS:
        assert abs(scores[name].mean()) < 1e-5 and scores[name].std(ddof=1) == pytest.approx(1, abs=1e-5)
        assert scores[name].isna().equals(raw[name].isna())
    assert "1 pictures without a face have no row (see segmentation.csv)" in summary.notes
    assert any("left empty" in note and "pose 3" in note for note in summary.notes)
    fitted = Normalisation.load(parsed_run / FOLDER / "normalisation.json")
    again = fitted.apply(expected)
    np.testing.assert_allclose(again[list(PROPERTIES)], scores[list(SCORE_COLUMNS)], atol=1e-6, equal_nan=True)


def test_imputed_values_are_the_median_and_keep_their_reason(parsed_run, write_profile):
    summary = score(parsed_run, write_profile(property_score={"missing": "impute"}))
    scores = table(parsed_run, "all_scores_v2.csv")
    assert not scores[list(SCORE_COLUMNS)].isna().any().any()
    row = scores.iloc[CASES.index("no_eyes")]
    assert row["pose_score"] == pytest.approx(scores["pose_score"].median()) and "no eyes" in row["reason"]
    assert table(parsed_run, "all_scores_v2_raw.csv")["pose_score"].isna().sum() == 3
    assert any("set to the median" in note for note in summary.notes)


def test_angles_of_the_head_stand_beside_the_scores_in_radians(parsed_run, tiny_profile):
    score(parsed_run, tiny_profile)
    raw, scores = table(parsed_run, "all_scores_v2_raw.csv"), table(parsed_run, "all_scores_v2.csv")
    assert raw.columns.tolist() == ["img_no", "img_path", *SCORE_COLUMNS, *ANGLES, "reason"]
    pictures = np.stack([read_image(parsed_run / path) for path in raw["img_path"]])
    expected = OracleHeadPose(Profile.load(tiny_profile).weight("attribute_net")).angles(pictures)
    np.testing.assert_allclose(raw[list(ANGLES)], expected, atol=1e-5)
    assert raw[list(ANGLES)].equals(scores[list(ANGLES)])
    score(parsed_run, tiny_profile, published=True)
    published = pd.read_csv(parsed_run / FOLDER / "all_scores_v2_published.csv")
    assert published.columns.tolist() == ["img_no", "img_path", *SCORE_COLUMNS, "reason"]


def test_the_profile_chooses_how_hair_is_measured_and_by_whom_the_head_pose(parsed_run, write_profile):
    score(parsed_run, write_profile(property_score={"hairstyle": "blocks", "head_pose": "none"}))
    raw = table(parsed_run, "all_scores_v2_raw.csv")
    expected = measure(MAPS, IMAGES, hairstyle="blocks")
    np.testing.assert_allclose(raw["hairstyle_score"], expected["hairstyle"], rtol=1e-12, equal_nan=True)
    assert not raw["hairstyle_score"].equals(measure(MAPS, IMAGES)["hairstyle"]) and "yaw" not in raw
    with pytest.raises(PipelineError, match="hairstyle = 'braids'; use texture or blocks"):
        score(parsed_run, write_profile(property_score={"hairstyle": "braids"}))


def test_published_v1_takes_its_colours_from_the_whole_picture_resized(parsed_run, tiny_profile):
    score(parsed_run, tiny_profile, algorithm="v1", published=True)
    published = table(parsed_run, "all_scores_published_raw.csv")
    score(parsed_run, tiny_profile, algorithm="v1")
    mended = table(parsed_run, "all_scores_raw.csv")
    k = CASES.index("typical")
    assert mended.loc[k, "hair_color_score"] == measure(MAPS, IMAGES, "v1").loc[k, "hair_color"]
    assert published.loc[k, "hair_color_score"] != mended.loc[k, "hair_color_score"]
    assert published.loc[k, "hairstyle_score"] == measure(MAPS, IMAGES, "v1", True).loc[k, "hairstyle"]
    assert (parsed_run / FOLDER / "normalisation_v1_published.json").is_file()
    assert not (parsed_run / FOLDER / "normalisation.json").exists()


def test_a_second_call_does_nothing_and_the_same_input_gives_the_same_bytes(parsed_run, tiny_profile, monkeypatch):
    score(parsed_run, tiny_profile)
    names = ("all_scores_v2.csv", "all_scores_v2_raw.csv", "normalisation.json")
    files = [parsed_run / FOLDER / name for name in names]
    before = [path.read_bytes() for path in files]
    score(parsed_run, tiny_profile, force=True)
    assert [path.read_bytes() for path in files] == before
    monkeypatch.setattr(stage, "_measure", lambda *_: pytest.fail("it measured again"))
    assert score(parsed_run, tiny_profile).written == []


KILLED = """
import os, signal, sys
import compute_property_scores as stage
import pipeline.tables
write = pipeline.tables.write_table
def write_or_die(path, *rest):
    if path.name == "all_scores_v2.csv":
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, *rest)
pipeline.tables.write_table = write_or_die
stage.run(stage.Options(profile=sys.argv[1], run=sys.argv[2]))
"""


def test_a_run_killed_between_its_tables_ends_like_an_undisturbed_one(parsed_run, parsed, tmp_path, tiny_profile, root):
    call = [sys.executable, "-c", KILLED, str(tiny_profile), str(parsed_run)]
    done = subprocess.run(call, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [path.name for path in (parsed_run / FOLDER).iterdir()] == ["all_scores_v2_raw.csv"]
    calm = Path(shutil.copytree(parsed, tmp_path / "calm"))
    for run in (calm, parsed_run):
        score(run, tiny_profile)
    for name in ("all_scores_v2.csv", "all_scores_v2_raw.csv", "normalisation.json"):
        assert (parsed_run / FOLDER / name).read_bytes() == (calm / FOLDER / name).read_bytes()


def test_stage_4b_reads_the_table(parsed_run, tiny_profile):
    score(parsed_run, tiny_profile)
    wanted = read_table(parsed_run.joinpath(*run_property_cnn.SCORES), run_property_cnn.score_schema())
    assert len(wanted) == len(CASES) and set(SCORE_COLUMNS) <= set(wanted.columns)
    assert wanted["pose_score"].isna().sum() == 3


def test_a_table_without_a_column_is_named_with_its_cure(parsed_run, tiny_profile):
    path = parsed_run / TABLE
    pd.read_csv(path).drop(columns="found").to_csv(path, index=False)
    with pytest.raises(PipelineError, match=r"segmentation\.csv: column found is missing.*run the stage"):
        score(parsed_run, tiny_profile)


def test_a_truncated_or_foreign_map_is_named_with_its_cure(parsed_run, tiny_profile):
    path = parsed_run / RESULTS / result_name("parsing", 5)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PipelineError, match=r"parsing_000005\.png cannot be read.*delete it"):
        score(parsed_run, tiny_profile)
    save_image(path, IMAGES[5][..., 0])
    with pytest.raises(PipelineError, match=r"parsing_000005\.png is no parsing map.*run_segmentation\.py"):
        score(parsed_run, tiny_profile)


def test_missing_stage_3_and_a_wrong_policy_are_told_before_anything_is_read(tmp_path, tiny_profile, write_profile):
    with pytest.raises(PipelineError, match=r"segmentation\.csv is missing; run run_segmentation\.py first"):
        score(tmp_path / "empty", tiny_profile)
    with pytest.raises(PipelineError, match="missing = 'guess'; use drop or impute"):
        score(tmp_path / "empty", write_profile(property_score={"missing": "guess"}))


def test_robust_is_true_or_false_and_no_text(parsed_run, write_profile):
    with pytest.raises(PipelineError, match=r"\[property_score\] robust = 'false'; write true or false"):
        score(parsed_run, write_profile(property_score={"robust": "false"}))


def test_normalisation_is_the_sample_mean_and_deviation_or_robust_and_survives_saving(tmp_path):
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, 10.0, math.nan], "b": [5.0] * 5, "reason": ["", "", "", "", "x"]})
    fitted = Normalisation.fit(frame)
    assert fitted.centre["a"] == 4.0 and fitted.scale["a"] == pytest.approx(frame["a"].std(ddof=1))
    assert fitted.scale["b"] == 1.0 and fitted.count == {"a": 4, "b": 5}
    robust = Normalisation.fit(frame, robust=True)
    assert robust.centre["a"] == 2.5 and robust.scale["a"] == pytest.approx(3.0 / 1.34898, rel=1e-4)
    closed = pd.DataFrame({"mouth": [0.0] * 80 + [0.2, 0.6] * 10})  # no range between the quartiles
    assert Normalisation.fit(closed, robust=True).scale["mouth"] == pytest.approx(closed["mouth"].std(ddof=1))
    robust.save(tmp_path / "n.json")
    assert Normalisation.load(tmp_path / "n.json") == robust
    z_scores = robust.apply(frame)
    np.testing.assert_allclose(z_scores["a"] * robust.scale["a"] + robust.centre["a"], frame["a"])
    assert z_scores["b"].eq(0.0).all() and z_scores["reason"].equals(frame["reason"])
    with pytest.raises(PipelineError, match="column b"):
        fitted.apply(frame[["a"]])
    write_json(tmp_path / "other.json", [1])
    with pytest.raises(PipelineError, match=r"other\.json is not a normalisation"):
        Normalisation.load(tmp_path / "other.json")


@pytest.fixture(scope="module")
def parser(tmp_path_factory):
    return ParseNetParser.load(random_parsenet(tmp_path_factory.mktemp("weights") / "parsenet.pth"))


def pictures() -> torch.Tensor:
    images = np.concatenate([rendered()[0][:3], GREY[None]])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


@pytest.mark.parametrize("window", [None, ALIGNED_WINDOW])
def test_the_geometric_scorer_gives_a_picture_the_same_row_in_any_batch(parser, window):
    scorer = GeometricScorer(parser, None if window else FaceCropper(), window=window)
    images = pictures()
    together = scorer.score(images)
    assert list(together.columns) == [*PROPERTIES, "reason"] and len(together) == 4
    for k in range(4):
        pd.testing.assert_frame_equal(scorer.score(images[k : k + 1]), together.iloc[k : k + 1].reset_index(drop=True))
    assert scorer.score(images[:0]).shape == (0, 9)


def test_a_picture_without_a_face_has_no_score_and_says_so(parser):
    row = GeometricScorer(parser, FaceCropper()).score(pictures()).iloc[3]
    assert row[list(PROPERTIES)].isna().all() and row["reason"] == "no face found"


def test_with_a_normalisation_the_scores_are_z_scores(parser):
    raw = GeometricScorer(parser, window=ALIGNED_WINDOW).score(pictures())
    fitted = Normalisation.fit(raw, PROPERTIES)
    scorer = GeometricScorer(parser, window=ALIGNED_WINDOW, normalisation=fitted)
    pd.testing.assert_frame_equal(scorer.score(pictures()), fitted.apply(raw))
    assert scorer.provenance["units"] == "z" and scorer.provenance["parser"] == "parsenet"


def test_the_geometric_scorer_gives_a_filtered_picture_its_row_of_stages_3_and_4(tmp_path, write_profile):
    profile, run = write_profile(weights={"parsenet": random_parsenet(tmp_path / "parsenet.pth")}), tmp_path / "run"
    folder = filtered_run(run)
    run_segmentation.run(run_segmentation.Options(profile=str(profile), run=str(run), device="cpu"))
    score(run, profile)
    files = sorted(folder.glob("*.jpg"))
    images = torch.from_numpy(np.stack([read_image(path) for path in files])).permute(0, 3, 1, 2) / 127.5 - 1
    scores = GeometricScorer.load(Profile.load(profile), run / FOLDER / "normalisation.json").score(images)
    of_stages = table(run, "all_scores_v2.csv")
    assert scores["reason"].tolist() == [*of_stages["reason"], "no face found"]
    np.testing.assert_allclose(scores[list(PROPERTIES)][:-1], of_stages[list(SCORE_COLUMNS)], atol=1e-6, equal_nan=True)


def test_a_scorer_wants_either_a_cropper_or_a_window(parser):
    with pytest.raises(ValueError, match="either a cropper or a window"):
        GeometricScorer(parser)
