"""Artefacts are written whole, stamped, and damaged ones are refused by name."""

import os
import shutil

import numpy as np
import pytest
import torch

from pipeline.artefacts import (
    atomic,
    code_version,
    is_fresh,
    load_into,
    provenance_of,
    read_arrays,
    read_image,
    read_json,
    read_mask,
    read_weights,
    remove_leftovers,
    save_arrays,
    save_image,
    save_weights,
    stamp_path,
    write_json,
    write_stamp,
)
from pipeline.errors import PipelineError

PICTURE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def test_a_failed_write_leaves_the_old_file_and_no_leftover(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with atomic(path) as temporary:
        temporary.write_text("old")
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(path.parent.iterdir()) == [path]


def test_leftovers_of_a_killed_run_are_swept(tmp_path):
    (tmp_path / ".part-123-a.jpg").write_text("half")
    (tmp_path / "b.jpg").write_text("whole")
    assert remove_leftovers(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["b.jpg"]


def test_json_takes_paths_and_numpy_values(tmp_path):
    write_json(tmp_path / "a.json", {"path": tmp_path, "n": np.int64(3), "x": np.array([1.5, 2.5])})
    assert read_json(tmp_path / "a.json") == {"path": tmp_path.as_posix(), "n": 3, "x": [1.5, 2.5]}
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(PipelineError, match="not valid JSON"):
        read_json(tmp_path / "a.json")


def test_images_come_back_as_they_were_written(tmp_path):
    save_image(tmp_path / "a.png", PICTURE)
    assert np.array_equal(read_image(tmp_path / "a.png"), PICTURE)
    save_image(tmp_path / "m.png", PICTURE[..., 0])
    assert np.array_equal(read_mask(tmp_path / "m.png"), PICTURE[..., 0])
    smooth = np.broadcast_to(np.arange(0, 240, 10, dtype=np.uint8)[:, None, None], (24, 32, 3))
    save_image(tmp_path / "a.jpg", smooth)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - smooth).max() <= 3


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_truncated_image_is_named_with_the_cure(tmp_path, name):
    save_image(tmp_path / name, PICTURE)
    whole = (tmp_path / name).read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 40):
        (tmp_path / name).write_bytes(whole[:size])
        with pytest.raises(PipelineError, match=rf"{name} cannot be read .*delete it and run its stage again"):
            read_image(tmp_path / name)


def test_a_float_image_is_refused(tmp_path):
    with pytest.raises(PipelineError, match="uint8"):
        save_image(tmp_path / "a.png", PICTURE / 255.0)


def test_equal_arrays_and_weights_are_equal_bytes(tmp_path):
    for name in ("one", "two"):
        save_arrays(tmp_path / f"{name}.npz", z=PICTURE)
        save_weights(tmp_path / f"{name}.pth", {"a": torch.arange(5.0)})
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    assert (tmp_path / "one.pth").read_bytes() == (tmp_path / "two.pth").read_bytes()


def test_a_damaged_or_incomplete_array_file_is_named(tmp_path):
    save_arrays(tmp_path / "a.npz", z=PICTURE)
    with pytest.raises(PipelineError, match="lacks seed .it holds z"):
        read_arrays(tmp_path / "a.npz", ("z", "seed"))
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PipelineError, match="a.npz cannot be read"):
        read_arrays(tmp_path / "a.npz")


def test_half_weights_come_back_as_float32_and_large_values_stay_whole(tmp_path):
    state = {"net": {"a": torch.randn(40), "big": torch.tensor([1e6]), "count": torch.tensor(3)}}
    save_weights(tmp_path / "w.pth", state, half=True, steps=7)
    back = read_weights(tmp_path / "w.pth")["net"]
    assert back["a"].dtype == torch.float32 and torch.allclose(back["a"], state["net"]["a"], atol=2e-3)
    assert back["big"].item() == 1e6 and back["count"].item() == 3
    assert read_json(stamp_path(tmp_path / "w.pth"))["provenance"] == {"steps": 7}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"rubbish" * 50, "damaged"),
    ],
)
def test_what_is_no_weight_file_is_refused_by_name(tmp_path, content, reason):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(PipelineError, match=rf"w\.pth.*{reason}"):
        read_weights(tmp_path / "w.pth")


def test_a_damaged_archive_is_refused_as_damaged(tmp_path):
    path = tmp_path / "net.pth"
    save_weights(path, {"weight": torch.zeros(3)})
    whole = bytearray(path.read_bytes())
    middle = whole.rfind(b"PK\x01\x02") + 10  # in the directory at its end
    whole[middle : middle + 40] = b"\xff" * 40
    path.write_bytes(whole)
    with pytest.raises(PipelineError, match=r"net\.pth .*damaged"):
        read_weights(path)


def test_a_record_of_another_content_tells_nothing(tmp_path):
    path = tmp_path / "net.pth"
    save_weights(path, {"weight": torch.zeros(3)}, seed=4)
    assert provenance_of(path) == {"seed": 4}
    content = path.read_bytes()
    save_weights(path, {"weight": torch.ones(3)}, seed=5)
    path.write_bytes(content)
    assert provenance_of(path) == {}


def test_a_truncated_or_missing_weight_file_is_refused(tmp_path):
    save_weights(tmp_path / "w.pth", {"a": torch.randn(1000)})
    whole = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "w.pth").write_bytes(whole[:-100])
    with pytest.raises(PipelineError, match="truncated or damaged"):
        read_weights(tmp_path / "w.pth")
    with pytest.raises(PipelineError, match="is missing"):
        read_weights(tmp_path / "none.pth")


def test_a_mismatch_lists_missing_unexpected_and_wrongly_shaped_keys():
    state = torch.nn.Linear(3, 2).state_dict() | {"extra": torch.zeros(1)}
    del state["bias"]
    with pytest.raises(
        PipelineError, match=r"(?s)w\.pth.*missing: bias.*unexpected: extra.*\[2, 3\], expected \[2, 4\]"
    ):
        load_into(torch.nn.Linear(4, 2), state, "w.pth")


@pytest.fixture
def made(tmp_path):
    """Return an artefact with one input, stamped, and what it was stamped with."""
    (tmp_path / "in.csv").write_text("1,2\n")
    (tmp_path / "out.csv").write_text("3\n")
    known = {"options": {"batch": 4}, "seed": 0, "inputs": {"table": tmp_path / "in.csv"}, "code": "c1"}
    write_stamp(tmp_path / "out.csv", command="test", rows=1, **known)
    return tmp_path / "out.csv", known


def test_an_undisturbed_artefact_is_fresh(made):
    path, known = made
    assert is_fresh(path, **known) == (True, "fresh")


def test_a_touched_but_equal_input_is_still_fresh(made):
    path, known = made
    os.utime(known["inputs"]["table"], ns=(1, 1))
    assert is_fresh(path, **known) == (True, "fresh")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"options": {"batch": 5}}, "option batch changed from 4 to 5"),
        ({"options": {}}, "option batch changed"),
        ({"seed": 1}, "seed changed"),
        ({"code": "c2"}, "code changed"),
        ({"inputs": {}}, "other inputs"),
    ],
)
def test_a_change_of_what_made_it_makes_an_artefact_stale(made, change, reason):
    path, known = made
    fresh, why = is_fresh(path, **{**known, **change})
    assert not fresh and reason in why


def test_changed_or_missing_files_make_an_artefact_stale(made):
    path, known = made
    known["inputs"]["table"].write_text("1,3\n")
    assert is_fresh(path, **known) == (False, "input table changed")
    known["inputs"]["table"].write_text("1,2\n")
    path.write_text("4\n")
    assert is_fresh(path, **known) == (False, "changed since it was written")
    stamp_path(path).unlink()
    assert is_fresh(path, **known) == (False, "no stamp beside it")
    path.unlink()
    assert is_fresh(path, **known) == (False, "missing")


def test_a_folder_is_stale_when_a_file_in_it_comes_goes_or_changes_size(tmp_path):
    folder, known = tmp_path / "images", {"options": {}, "seed": 0, "inputs": {}, "code": "c"}
    folder.mkdir()
    (folder / "a.jpg").write_text("aa")
    write_stamp(folder, command="test", **known)
    assert is_fresh(folder, **known)[0]
    (folder / "b.jpg").write_text("b")
    assert is_fresh(folder, **known) == (False, "changed since it was written")
    (folder / "b.jpg").unlink()
    (folder / ".part-1-c.jpg").write_text("an unfinished file does not count")
    assert is_fresh(folder, **known)[0]
    (folder / "a.jpg").write_text("aaa")
    assert not is_fresh(folder, **known)[0]


def test_a_run_folder_may_move(made, tmp_path_factory):
    path, known = made
    moved = tmp_path_factory.mktemp("elsewhere") / "run"
    shutil.copytree(path.parent, moved)
    assert is_fresh(moved / path.name, **{**known, "inputs": {"table": moved / "in.csv"}})[0]


def test_the_stamp_of_a_weight_file_keeps_its_provenance(tmp_path):
    save_weights(tmp_path / "w.pth", {"a": torch.zeros(2)}, steps=9)
    write_stamp(tmp_path / "w.pth", command="train", options={}, seed=0, inputs={}, code="c")
    assert read_json(stamp_path(tmp_path / "w.pth"))["provenance"] == {"steps": 9}


def test_the_code_version_follows_the_text_of_the_modules():
    assert code_version("pipeline.seeds") == code_version("pipeline.seeds")
    assert code_version("pipeline.seeds") != code_version("pipeline.run")
    with pytest.raises(PipelineError, match="no source file"):
        code_version("pipeline.nowhere")
