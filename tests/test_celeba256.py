"""The profile celeba256: every stage runs at 256 pixels, also without a single face, and says what is missing."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from celeba256_world import write_profile, write_weights
from PIL import Image
from segmentation_world import rendered

import run_cnn
import run_pipeline
import run_property_cnn
import run_segmentation
from cnn.schemas import ALL_SCORES, INFERENCE
from pipeline.artefacts import read_arrays, read_image, read_mask, save_weights
from pipeline.command import Summary
from pipeline.errors import PipelineError
from pipeline.profile import Profile
from pipeline.tables import read_table
from property_score.normalisation import Normalisation
from property_score.tables import score_schema
from segmentation.tables import RESULTS, TABLE, photograph_schema, segmentation_schema
from stylegan_modified.rung import LOG, SAMPLES
from vectorfind import tables as of_stage_6

FACES = 8
SCORES = Path("segmentation/property_score_results")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("celeba256")
    write_weights(folder)
    return folder


def options(profile: Path, run: Path, **others) -> run_pipeline.Options:
    return run_pipeline.Options(profile=str(profile), run=str(run), device="cpu", **others)


@pytest.fixture(scope="module")
def sampled(weights, tmp_path_factory) -> Path:
    """Return a run after stage 1; the pictures of random weights show no face."""
    run = tmp_path_factory.mktemp("sampled") / "run"
    run_pipeline.run(options(write_profile(weights), run, last="1"))
    return run


@pytest.fixture(scope="module")
def whole(weights, sampled, tmp_path_factory) -> Path:
    """Return a run after all stages."""
    run = tmp_path_factory.mktemp("whole") / "run"
    shutil.copytree(sampled, run, copy_function=shutil.copy2)
    run_pipeline.run(options(write_profile(weights), run))
    return run


def no_face_scores(run: Path) -> None:
    """Assert that stages 3 and 4 found no face and wrote valid tables all the same."""
    assert not read_table(run / TABLE, segmentation_schema())["found"].any()
    for name in ("all_scores_v2.csv", "all_scores_v2_raw.csv"):
        assert read_table(run / SCORES / name, score_schema()).empty
    assert set(Normalisation.load(run / SCORES / "normalisation.json").count.values()) == {0}


def test_every_stage_ends_and_its_tables_pass_their_schemas(whole):
    folder = whole / "stylegan"
    assert read_image(folder / "synthesize_results" / "000007.jpg").shape == (256, 256, 3)
    assert read_arrays(folder / "latents.npz")["seed"].tolist() == list(range(FACES))
    assert read_table(whole / "cnn" / "all_image_scores.csv", ALL_SCORES)["passed"].sum() == FACES
    for name, schema in INFERENCE.items():
        assert len(read_table(whole / "cnn" / "inference_result" / f"{name}.csv", schema)) == FACES
    no_face_scores(whole)
    scored = read_table(whole / SCORES / "all_scores_v2_cnn.csv", run_property_cnn.score_schema())
    assert len(scored) == FACES and np.isfinite(scored["eyes_score"]).all()
    figures = read_table(whole / "property_score" / "log" / "figures.csv", run_property_cnn._figure_schema())
    assert figures["faces"].tolist() == [0] * 8 and figures["r"].isna().all()
    tuned = whole / "stylegan_modified"
    assert read_table(tuned / "train_log_v9.csv", LOG)["step"].tolist() == [0, 1]
    for side in ("before", "after"):
        measured = read_table(tuned / f"concept_{side}_v9.csv", SAMPLES)
        assert len(measured) == 8 and {"gender", "quality", "age", "glasses"} <= set(measured.columns)
    found = whole / "vectorfind" / "image_generation_report" / "svm_w"
    for name, schema, rows in (
        ("test_result", of_stage_6.RESULT, 1),
        ("grid_scores", of_stage_6.GRID, 50),
        ("test_statistics", of_stage_6.STATISTICS, 1),
        ("test_summary", of_stage_6.SUMMARY, 4),
    ):
        assert len(read_table(found / f"{name}.csv", schema)) == rows
    vectors = whole / "vectorfind" / "property_score_vectors"
    assert len(read_table(vectors / "directions_w_16.csv", of_stage_6.FITS)) == 3 * 16


def test_without_an_oracle_the_report_says_that_the_filter_cnns_judge(whole):
    text = (whole / "reports" / "finetune_v9.md").read_text(encoding="utf-8")
    assert "This world has no oracle. The filter CNNs of stage 2 judge" in text and "The oracle that judges" not in text


def test_a_second_call_finds_everything_fresh(weights, whole, capsys):
    run_pipeline.run(options(write_profile(weights), whole))
    assert "7 of 7 were fresh" in capsys.readouterr().out


def test_where_no_face_passes_the_filter_tables_are_empty_and_fine_tuning_says_why(weights, sampled, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(sampled, run)
    profile = write_profile(weights, "strict", passing=False)
    with pytest.raises(PipelineError, match=r"stage 5 .*holds 0 faces.*loosen the cutoffs of stage 2"):
        run_pipeline.run(options(profile, run))
    assert not read_table(run / "cnn" / "all_image_scores.csv", ALL_SCORES)["passed"].any()
    no_face_scores(run)
    assert read_table(run / TABLE, segmentation_schema()).empty
    assert read_table(run / SCORES / "all_scores_v2_cnn.csv", run_property_cnn.score_schema()).empty
    with pytest.raises(PipelineError, match="no face to train the property CNN on.*name a property CNN"):
        run_pipeline.run(options(profile, run, first="4b", last="4b", train=True))


def test_without_models_and_labels_stage_2_names_both_ways(weights, sampled, tmp_path):
    shutil.copytree(sampled, tmp_path / "run")
    text = write_profile(weights).read_text()
    (tmp_path / "bare.toml").write_text(text.replace(f'"{weights.as_posix()}/cnn"', '"nowhere/cnn"'))
    wish = {"profile": str(tmp_path / "bare.toml"), "run": str(tmp_path / "run"), "device": "cpu"}
    with pytest.raises(PipelineError, match=r"(?s)nowhere/cnn/gender_model_0\.pth is missing \(all.*--train --labels"):
        run_cnn.run(run_cnn.Options(**wish))
    with pytest.raises(PipelineError, match=r"name a label table with --labels \(columns img_no, gender"):
        run_cnn.run(run_cnn.Options(**wish, train=True))


def test_the_profile_holds_the_published_numbers_and_every_stage_takes_them():
    from cnn.settings import FILTERS, FilterSettings
    from stylegan_modified.settings import finetune_settings

    profile = Profile.load("celeba256")
    settings = FilterSettings.of(profile)
    for name, published in FILTERS.items():
        assert settings.cutoffs[name] == published.cutoff and settings.learning_rates[name] == published.learning_rate
        assert settings.architectures[name].window == published.window
    assert (settings.architectures["age"].width, settings.architectures["age"].head) == (1.0, 512)
    assert profile.get("segmentation.parser") == "facexformer" and profile.get("property_cnn.width") == 1.0
    tuning = finetune_settings(profile, train=True)
    assert (tuning["batch"], tuning["r1_gamma"], tuning["guidance"]) == (8, 10.0, 0.0)
    assert profile.get("vectorfind.pool") == 240_000 and profile.get("vectorfind.passes") == [0.92, 0.88, 0.88]


def test_a_photograph_is_parsed_by_facexformer(tmp_path):
    import torch

    from segmentation.facexformer import FaceXFormer

    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = FaceXFormer().state_dict()
    save_weights(tmp_path / "facexformer.pt", {"state_dict_backbone": state})
    profile = tmp_path / "small256.toml"
    profile.write_text(
        f'extends = "celeba256"\n[weights]\nfacexformer = "{(tmp_path / "facexformer.pt").as_posix()}"\n'
    )
    (tmp_path / "photos").mkdir()
    Image.fromarray(rendered()[0][0]).resize((256, 256)).save(tmp_path / "photos" / "me.jpg")
    wish = {"profile": str(profile), "run": str(tmp_path / "run"), "images": str(tmp_path / "photos"), "device": "cpu"}
    run_segmentation.run(run_segmentation.Options(**wish))
    assert "1 of 1 pictures show a face" in Summary.printed[-1].notes
    assert read_table(tmp_path / "run" / TABLE, photograph_schema())["img_path"].tolist() == ["me.jpg"]
    parsing = read_mask(tmp_path / "run" / RESULTS / "parsing_000000.png")
    assert parsing.shape == (224, 224) and len(np.unique(parsing)) > 1 and parsing.max() <= 10
