"""Stage 3: three pictures per face, no stop for a picture without one, and the same table after a kill."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from segmentation_world import filtered_run, random_parsenet

import run_segmentation
from pipeline.artefacts import read_image, read_mask, write_json
from pipeline.command import Summary
from pipeline.errors import PipelineError
from pipeline.tables import read_table
from segmentation import stage
from segmentation.classes import PALETTE
from segmentation.face_crop import crop
from segmentation.tables import segmentation_schema


@pytest.fixture
def profile(tmp_path, write_profile) -> Path:
    return write_profile(weights={"parsenet": random_parsenet(tmp_path / "parsenet.pth")})


def parse(run: Path, profile: Path, **options) -> Summary:
    run_segmentation.run(run_segmentation.Options(profile=str(profile), run=str(run), device="cpu", **options))
    return Summary.printed[-1]


def bytes_of(run: Path) -> dict[str, bytes]:
    """Return the content of what the stage wrote, without the stamps, which hold times."""
    files = [path for path in (run / "segmentation").rglob("*") if path.is_file() and path.suffix != ".json"]
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in files}


def test_each_face_gets_its_map_its_overlay_and_its_crop(tmp_path, profile):
    run = tmp_path / "run"
    folder = filtered_run(run)
    summary = parse(run, profile)
    table = read_table(run / "segmentation" / "segmentation.csv", segmentation_schema())
    assert table["img_no"].tolist() == [1, 4, 7, 10, 13, 16, 19]
    assert table["found"].tolist() == [True] * 6 + [False]
    assert table["reason"].tolist()[-1] == "no face found" and table["faces"].tolist()[-1] == 0
    assert any("skipped 000019.jpg: no face found" in note for note in summary.notes)
    results = run / "segmentation" / "segmentation_results"
    assert len(list(results.glob("*.png"))) == 18
    row = table.set_index("img_no").loc[4]
    assert row["img_path"] == "stylegan/synthesize_results_filtered/000004.jpg"
    face, parsing = read_image(results / "face_000004.png"), read_mask(results / "parsing_000004.png")
    box = tuple(float(row[name]) for name in ("x0", "y0", "x1", "y1"))
    assert np.array_equal(face, crop(read_image(folder / "000004.jpg"), box))
    assert parsing.shape == (224, 224) and parsing.max() <= 10
    shown = read_image(results / "parsing_visualization_000004.png")
    assert np.abs(shown - (face / 2 + PALETTE[parsing] / 2)).max() <= 1


def test_a_second_call_does_nothing_and_loads_no_network(tmp_path, profile, monkeypatch):
    filtered_run(tmp_path / "run")
    parse(tmp_path / "run", profile)
    monkeypatch.setattr(stage, "_parse", lambda *_: pytest.fail("the networks were loaded"))
    assert parse(tmp_path / "run", profile).written == []


def test_a_picture_has_the_same_row_in_any_company(tmp_path, profile):
    whole, alone = tmp_path / "whole", tmp_path / "alone"
    filtered_run(whole, copies=3)
    folder = filtered_run(alone)
    for path in folder.glob("*.jpg"):
        if path.stem != "000007":
            path.unlink()
    parse(whole, profile)
    parse(alone, profile)
    rows = [read_table(run / "segmentation" / "segmentation.csv", segmentation_schema()) for run in (whole, alone)]
    assert rows[0].set_index("img_no").loc[7].equals(rows[1].set_index("img_no").loc[7])
    name = "segmentation/segmentation_results/parsing_000007.png"
    assert (whole / name).read_bytes() == (alone / name).read_bytes()


def test_it_keeps_in_step_with_the_filtered_folder_and_parses_only_what_is_new(tmp_path, profile):
    run = tmp_path / "run"
    folder = filtered_run(run)
    parse(run, profile)
    before = bytes_of(run)
    name = "segmentation/segmentation_results/face_000007.png"
    held = (folder / "000007.jpg").read_bytes()
    (folder / "000007.jpg").unlink()
    parse(run, profile)
    assert name not in bytes_of(run) and len(bytes_of(run)) == len(before) - 3
    (folder / "000007.jpg").write_bytes(held)
    times = {path: path.stat().st_mtime_ns for path in (run / "segmentation").rglob("*.png")}
    parse(run, profile)
    assert bytes_of(run) == before
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in times.items())


def test_results_that_it_did_not_write_are_never_deleted_unasked(tmp_path, profile):
    run = tmp_path / "run"
    folder, results = filtered_run(run), run / "segmentation" / "segmentation_results"
    results.mkdir(parents=True)
    (results / "notes.png").write_bytes(b"mine")
    (results / "face_000001.png").write_bytes(b"mine")
    refusal = r"results holds 1 pictures that stage 3 did not write, the first is face_0.*--run, or .*--force"
    with pytest.raises(PipelineError, match=refusal):
        parse(run, profile)
    assert (results / "face_000001.png").read_bytes() == b"mine"
    parse(run, profile, force=True)
    assert (results / "notes.png").read_bytes() == b"mine" and len(list(results.glob("face_*.png"))) == 6
    (results / "face_000100.png").write_bytes(b"mine")
    with pytest.raises(PipelineError, match=r"the first is face_000100\.png"):
        parse(run, profile)
    (results / "face_000100.png").unlink()
    journal = results.with_name("segmentation_results.jsonl")
    journal.write_text(journal.read_text().replace('"pictures"', '"unknown"', 1))  # as earlier code wrote it
    (folder / "000007.jpg").unlink()
    parse(run, profile)
    assert not (results / "face_000007.png").exists() and (results / "notes.png").exists()


def test_a_lost_picture_is_made_again(tmp_path, profile):
    filtered_run(tmp_path / "run")
    parse(tmp_path / "run", profile)
    before = bytes_of(tmp_path / "run")
    (tmp_path / "run" / "segmentation" / "segmentation_results" / "parsing_000010.png").unlink()
    parse(tmp_path / "run", profile)
    assert bytes_of(tmp_path / "run") == before


def test_other_weights_make_everything_stale(tmp_path, write_profile):
    filtered_run(tmp_path / "run")
    weights = [random_parsenet(tmp_path / "a.pth"), random_parsenet(tmp_path / "b.pth", widths=(8, 16, 8))]
    parse(tmp_path / "run", write_profile(weights={"parsenet": weights[0]}))
    before = bytes_of(tmp_path / "run")
    parse(tmp_path / "run", write_profile(weights={"parsenet": weights[1]}))
    after = bytes_of(tmp_path / "run")
    assert all(before[name] != after[name] for name in before if "/parsing_0" in name)


def test_another_precision_makes_everything_stale(tmp_path, profile, monkeypatch):
    filtered_run(tmp_path / "run")
    parse(tmp_path / "run", profile)
    profile.write_text("half = true\n" + profile.read_text())
    parsed, real = [], stage._parse
    monkeypatch.setattr(
        stage, "_parse", lambda work, missing, *rest: parsed.extend(missing) or real(work, missing, *rest)
    )
    parse(tmp_path / "run", profile)
    assert len(parsed) == 7
    assert parse(tmp_path / "run", profile).written == []


KILLED = """
import itertools, os, signal, sys
import run_segmentation
from segmentation import stage
save, calls = stage._save_png, itertools.count(1)
def save_or_die(path, image):
    if next(calls) == 60:
        os.kill(os.getpid(), signal.SIGKILL)
    save(path, image)
stage._save_png = save_or_die
run_segmentation.run(run_segmentation.Options(profile=sys.argv[1], run=sys.argv[2], device="cpu"))
"""


def test_a_run_killed_in_the_middle_ends_like_an_undisturbed_one(tmp_path, profile, root):
    for name in ("calm", "killed"):
        filtered_run(tmp_path / name, copies=5)
    parse(tmp_path / "calm", profile)
    call = [sys.executable, "-c", KILLED, str(profile), str(tmp_path / "killed")]
    done = subprocess.run(call, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "killed" / "segmentation" / "segmentation.csv").exists()
    journal = tmp_path / "killed" / "segmentation" / "segmentation_results.jsonl"
    with journal.open("a") as stream:
        stream.write('{"img_no": 12')  # as a kill in the middle of a line leaves it
    summary = parse(tmp_path / "killed", profile)
    assert "16 pictures of an earlier run were parsed already and stayed" in summary.notes
    assert bytes_of(tmp_path / "killed") == bytes_of(tmp_path / "calm")


def test_a_truncated_picture_is_named_with_its_cure(tmp_path, profile):
    folder = filtered_run(tmp_path / "run")
    path = folder / "000010.jpg"
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(PipelineError, match=r"000010\.jpg cannot be read.*delete it and run its stage again"):
        parse(tmp_path / "run", profile)


def test_a_filtered_folder_that_stage_2_did_not_finish_is_refused(tmp_path, profile):
    run = tmp_path / "run"
    write_json(f"{filtered_run(run)}.json", {"command": "run_cnn.py"})
    with pytest.raises(PipelineError, match=r"was not finished .* run run_cnn\.py"):
        parse(run, profile)


def test_a_device_that_is_not_there_costs_no_results(tmp_path, profile):
    run = tmp_path / "run"
    filtered_run(run)
    parse(run, profile)
    before = bytes_of(run)
    with pytest.raises(PipelineError, match="CUDA devices found"):
        run_segmentation.run(run_segmentation.Options(profile=str(profile), run=str(run), device="cuda:7", force=True))
    assert bytes_of(run) == before


def test_generated_faces_do_not_take_the_place_of_photographs(tmp_path, profile):
    run = tmp_path / "run"
    filtered_run(run)
    table = run / "segmentation" / "segmentation.csv"
    table.parent.mkdir()
    table.write_text("img_no,img_path,note\n0,me.jpg,\n")
    with pytest.raises(PipelineError, match="holds the results of photographs"):
        parse(run, profile)


def test_without_filtered_pictures_it_says_which_stage_comes_first(tmp_path, profile):
    with pytest.raises(PipelineError, match=r"run run_cnn\.py first"):
        parse(tmp_path / "run", profile)


def test_a_foreign_file_among_the_pictures_is_named(tmp_path, profile):
    folder = filtered_run(tmp_path / "run")
    (folder / "me.jpg").write_bytes(b"")
    with pytest.raises(PipelineError, match=r"me\.jpg.*named by its number"):
        parse(tmp_path / "run", profile)
