"""Stage 1: the faces follow from their seeds alone, survive a kill, and are not made twice."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import RESOLUTION, make_generator_file

import run_original_generator as stage
from pipeline.artefacts import read_arrays, read_image, save_weights
from pipeline.command import Summary
from pipeline.errors import PipelineError
from pipeline.seeds import latent_from_seed


def sample_into(run: Path, profile: Path, **options) -> list[str]:
    """Run the stage in this process; return the names that it says it wrote."""
    stage.run(stage.Options(profile=str(profile), run=str(run), device="cpu", **options))
    return [path.name for path, _ in Summary.printed[-1].written]


def bytes_of(run: Path) -> dict[str, bytes]:
    """Return the content of everything but the stamps, which hold times."""
    files = [path for path in run.rglob("*") if path.is_file() and path.suffix != ".json"]
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in files}


def images_of(run: Path) -> list[Path]:
    return sorted((run / "stylegan" / "synthesize_results").glob("[0-9]*.jpg"))


def test_it_writes_images_latents_and_a_sheet(tmp_path, tiny_profile):
    sample_into(tmp_path / "run", tiny_profile, n=10)
    assert [path.name for path in images_of(tmp_path / "run")] == [f"{k:06d}.jpg" for k in range(10)]
    assert read_image(images_of(tmp_path / "run")[3]).shape == (RESOLUTION, RESOLUTION, 3)
    latents = read_arrays(tmp_path / "run" / "stylegan" / "latents.npz", ("z", "label", "seed", "img_no"))
    assert latents["z"].shape == (10, 512) and latents["z"].dtype == np.float32 and latents["label"].shape == (10, 0)
    assert np.array_equal(latents["z"][7], latent_from_seed(7))
    assert (tmp_path / "run" / "stylegan" / "contact_sheet.png").is_file()


def test_the_same_seeds_give_the_same_bytes(tmp_path, tiny_profile):
    for name in ("one", "two"):
        sample_into(tmp_path / name, tiny_profile, n=10)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


def test_an_image_follows_from_its_seed_and_not_from_batch_or_place(tmp_path, tiny_profile):
    sample_into(tmp_path / "row", tiny_profile, seeds="0-9", batch=8)
    sample_into(tmp_path / "alone", tiny_profile, seeds="9,3", batch=1)
    row, alone = images_of(tmp_path / "row"), images_of(tmp_path / "alone")
    for one, other in ((row[9], alone[0]), (row[3], alone[1])):
        # Floats agree to 1e-4; one that rounds to the other side can move its JPEG block by a few steps.
        gap = np.abs(read_image(one).astype(int) - read_image(other))
        assert gap.max() <= 6 and gap.mean() < 0.1


def test_a_second_call_does_nothing_and_loads_no_network(tmp_path, tiny_profile, monkeypatch):
    sample_into(tmp_path / "run", tiny_profile, n=10)
    monkeypatch.setattr(stage, "_load", lambda *_: pytest.fail("the generator was loaded"))
    assert sample_into(tmp_path / "run", tiny_profile, n=10) == []


def test_only_a_missing_or_broken_image_is_made_again(tmp_path, tiny_profile):
    run = tmp_path / "run"
    sample_into(run, tiny_profile, n=10)
    before, times = bytes_of(run), {path: path.stat().st_mtime_ns for path in images_of(run)}
    lost, broken = images_of(run)[2], images_of(run)[9]
    lost.unlink()
    broken.write_bytes(broken.read_bytes()[:200])
    sample_into(run, tiny_profile, n=10)
    assert bytes_of(run) == before
    assert {path for path, time_ns in times.items() if path.stat().st_mtime_ns != time_ns} == {lost, broken}


def test_the_folder_keeps_in_step_with_a_smaller_and_a_larger_run(tmp_path, tiny_profile):
    for n in (6, 20):
        sample_into(tmp_path / f"fresh{n}", tiny_profile, n=n)
    sample_into(tmp_path / "run", tiny_profile, n=20)
    for n in (6, 20):
        sample_into(tmp_path / "run", tiny_profile, n=n)
        assert bytes_of(tmp_path / "run") == bytes_of(tmp_path / f"fresh{n}")


def test_pictures_that_it_did_not_write_are_never_deleted(tmp_path, tiny_profile):
    own, run = tmp_path / "own", tmp_path / "run"
    for folder, name in ((own, "000000.jpg"), (run, "000006.jpg"), (run, "holiday.jpg")):
        if folder == run:
            sample_into(run, tiny_profile, n=6)
        path = folder / "stylegan" / "synthesize_results" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"mine")
        before = bytes_of(folder)
        for options in ({"n": 4}, {"n": 4, "force": True}):
            with pytest.raises(PipelineError, match=rf"synthesize_results holds 1 pictures .*{name}.*--run.*--from 2"):
                sample_into(folder, tiny_profile, **options)
        assert bytes_of(folder) == before
        path.unlink()
    assert len(sample_into(run, tiny_profile, n=4)) == 3


def test_pictures_of_other_options_are_not_replaced_by_those_of_the_profile_unasked(tmp_path, write_profile):
    run, profile = tmp_path / "run", write_profile()
    sample_into(run, profile, seeds="100-103")
    chosen = bytes_of(run)
    with pytest.raises(PipelineError, match=r"4 pictures \(seeds 100-103, psi .*base.*\) that options .*--from 2.*--f"):
        sample_into(run, profile)
    assert bytes_of(run) == chosen
    sample_into(run, profile, seeds="0-24", psi=0.5)
    with pytest.raises(PipelineError, match=r"holds 25 pictures \(seeds 0-24, psi 0\.5, base"):
        sample_into(run, profile)
    sample_into(run, profile, force=True)
    assert len(images_of(run)) == 20
    # Another profile, or other weights in it, ask for others as well.
    weights = {"generator": make_generator_file(tmp_path / "other.pth", seed=1)}
    sample_into(run, write_profile("other", weights=weights, stylegan={"seeds": "5-9"}))
    assert len(images_of(run)) == 5


def test_pictures_that_only_newer_code_or_more_seeds_make_stale_need_no_force(tmp_path, tiny_profile, monkeypatch):
    run = tmp_path / "run"
    sample_into(run, tiny_profile, n=6)
    assert sample_into(run, tiny_profile) and len(images_of(run)) == 20  # the profile's seeds go on behind these
    assert sample_into(run, tiny_profile) == []
    monkeypatch.setattr(stage, "code_version", lambda *_: "newer")
    assert len(sample_into(run, tiny_profile)) == 3


def test_another_generator_or_psi_replaces_every_image(tmp_path, write_profile):
    run = tmp_path / "run"
    other = make_generator_file(tmp_path / "other.pth", seed=1)
    sample_into(run, write_profile(), n=4)
    first = bytes_of(run)
    sample_into(run, write_profile(weights={"generator": other}), n=4)
    second = bytes_of(run)
    assert all(first[name] != second[name] for name in first if name.endswith(".jpg"))
    sample_into(run, write_profile(), n=4)
    assert bytes_of(run) == first


def test_another_precision_replaces_every_image(tmp_path, write_profile):
    run = tmp_path / "run"
    profile = write_profile()
    sample_into(run, profile, n=3)
    first = {path: path.stat().st_mtime_ns for path in images_of(run)}
    profile.write_text("half = true\n" + profile.read_text())
    sample_into(run, profile, n=3)
    assert all(path.stat().st_mtime_ns != time_ns for path, time_ns in first.items())


def test_more_images_than_the_profile_has_seeds_go_on_behind_them(tmp_path, write_profile):
    profile = write_profile(stylegan={"seeds": "70-71"})
    work = stage.plan(stage.Options(profile=str(profile), run=str(tmp_path / "run"), n=4))
    assert work.seeds == [70, 71, 72, 73]


def test_a_run_killed_in_the_middle_ends_like_an_undisturbed_one(tmp_path, tiny_profile, root):
    sample_into(tmp_path / "calm", tiny_profile, seeds="0-599")
    call = [sys.executable, str(root / "run_original_generator.py"), "--profile", str(tiny_profile)]
    call += ["--run", str(tmp_path / "killed"), "--seeds", "0-599", "--device", "cpu"]
    process = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(images_of(tmp_path / "killed")) < 30 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    survivors = {path: path.stat().st_mtime_ns for path in images_of(tmp_path / "killed")}
    assert 30 <= len(survivors) < 600
    sample_into(tmp_path / "killed", tiny_profile, seeds="0-599")
    assert bytes_of(tmp_path / "killed") == bytes_of(tmp_path / "calm")
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in survivors.items())


def test_a_generator_of_another_resolution_is_refused_before_the_first_image(tmp_path, write_profile):
    with pytest.raises(PipelineError, match=rf"(?s)generator\.pth is not a .* of 64x64.*{RESOLUTION}x{RESOLUTION}"):
        sample_into(tmp_path / "run", write_profile(resolution=64), n=4)
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_no_generator_is_refused(tmp_path, write_profile):
    import torch

    save_weights(tmp_path / "g.pth", {"generator": {"something.weight": torch.zeros(3)}})
    with pytest.raises(PipelineError, match=r"g\.pth"):
        sample_into(tmp_path / "run", write_profile(weights={"generator": tmp_path / "g.pth"}), n=4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "-n 0"),
        ({"n": 5, "seeds": "0-2"}, "names 3 images"),
        ({"seeds": "2-1"}, "backwards"),
        ({"batch": 0}, "--batch 0"),
        ({"psi": 1.5}, "--psi 1.5: give 0"),
        ({"psi": float("nan")}, "--psi nan: give 0"),
    ],
)
def test_bad_options_are_refused(tmp_path, tiny_profile, options, message):
    with pytest.raises(PipelineError, match=message):
        stage.plan(stage.Options(profile=str(tiny_profile), run=str(tmp_path / "run"), **options))
