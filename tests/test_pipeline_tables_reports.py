"""Tables with schemas, reports, sheets, the command line."""

import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pytest
import torch

from pipeline.command import StageOptions, Summary, main, resolve_device, usable_cores
from pipeline.errors import PipelineError
from pipeline.progress import progress
from pipeline.report import Report, mean_interval, wilson_interval
from pipeline.sheets import contact_sheet, side_by_side
from pipeline.tables import read_table, write_table

SCHEMA = pa.DataFrameSchema(
    {
        "img_no": pa.Column(int, pa.Check.ge(0), unique=True),
        "img_path": pa.Column(str),
        "found": pa.Column(bool),
        ".*_score$": pa.Column(float, pa.Check.in_range(0, 1), nullable=True, regex=True),
        "reason": pa.Column(str),
    }
)
FRAME = pd.DataFrame(
    {
        "img_no": [0, 2, 5],
        "img_path": ["a/0.jpg", "a/2.jpg", "ä/5.jpg"],
        "found": [True, False, True],
        "eyes_score": [0.1, np.nan, 1 / 3],
        "reason": ["", 'no face, "sorry"', "two\nlines"],
    }
)
HEAD = "img_no,img_path,found,eyes_score,reason\n"


def test_a_table_comes_back_as_it_was_written(tmp_path):
    write_table(tmp_path / "t.csv", FRAME, SCHEMA)
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.csv", SCHEMA), FRAME)
    write_table(tmp_path / "empty.csv", FRAME.iloc[:0], SCHEMA)
    assert len(read_table(tmp_path / "empty.csv", SCHEMA)) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "0,a,True,.1,\n1,a,True,abc,\n", "row 3, column eyes_score: expected a number, found 'abc'"),
        (HEAD + "0,a,True,.1,\n1,a,True,7,\n", r"row 3, column eyes_score: expected in_range\(0, 1\), found '7.0'"),
        (HEAD + "0,a,True,.1,\n1.5,a,True,,\n", "row 3, column img_no: expected a whole number, found '1.5'"),
        (HEAD + "0,a,True,.1,\n1e30,a,True,,\n", "row 3, column img_no: expected a whole number, found '1e30'"),
        (HEAD + "0,a,perhaps,.1,\n", "row 2, column found: expected True or False, found 'perhaps'"),
        (HEAD + "0,a,True,.1,\n0,a,True,.1,\n", "column img_no: expected field_uniqueness, found '0'"),
        (HEAD + '0,a,True,.1,"x\ny"\n1,a\n', "row 4: expected 5 fields, found 2"),
        ("img_no,img_path,found\n0,a,True\n", "column .*reason is missing"),
        ("img_no,img_no\n", "img_no occurs twice"),
        ("", "is empty"),
    ],
)
def test_a_bad_table_is_named_with_row_column_expected_and_found(tmp_path, text, message):
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(PipelineError, match=rf"bad\.csv.*{message}"):
        read_table(tmp_path / "bad.csv", SCHEMA)


def test_a_missing_or_binary_table_is_named(tmp_path):
    with pytest.raises(PipelineError, match="none.csv is missing"):
        read_table(tmp_path / "none.csv", SCHEMA)
    (tmp_path / "b.csv").write_bytes(b"img_no\n\xff\xfe\n")
    with pytest.raises(PipelineError, match="not a UTF-8 CSV"):
        read_table(tmp_path / "b.csv", SCHEMA)


def test_a_bad_frame_is_not_written(tmp_path):
    with pytest.raises(PipelineError, match="row 2, column eyes_score"):
        write_table(tmp_path / "t.csv", FRAME.assign(eyes_score=[3.0, 0.0, 0.0]), SCHEMA)
    assert list(tmp_path.iterdir()) == []


def test_the_wilson_interval_agrees_with_known_values():
    assert wilson_interval(90, 100) == pytest.approx((0.8256, 0.9448), abs=1e-4)
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_the_interval_of_a_mean_is_that_of_student():
    mean, low, high = mean_interval([1, 2, 3, 4, np.nan])
    assert (mean, low, high) == pytest.approx((2.5, 0.4457, 4.5543), abs=1e-4)


def test_a_report_links_figures_relative_to_itself(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"x")
    frame = pd.DataFrame({"name": ["a|b"], "share": [0.12345], "n": [7], "none": [np.nan]})
    report = Report("Title").heading("Part").text("Text.").table(frame).figure(tmp_path / "images" / "a.png", "A face")
    text = report.write(tmp_path / "reports" / "r.md").read_text()
    assert text.startswith("# Title\n\n## Part\n\nText.\n")
    assert "| a\\|b | 0.123 | 7 | - |" in text
    assert "![A face](../images/a.png)" in text


def test_a_report_without_its_figure_is_refused(tmp_path):
    with pytest.raises(PipelineError, match=r"figure .*none\.png does not exist"):
        Report("T").figure(tmp_path / "none.png", "").write(tmp_path / "r.md")


def test_a_sheet_lays_images_out_row_by_row():
    images = np.stack([np.full((4, 6, 3), k * 10, dtype=np.uint8) for k in range(5)])
    sheet = contact_sheet(images, columns=3, gap=2)
    assert sheet.shape == (2 * 6 + 2, 3 * 8 + 2, 3)
    assert sheet[2, 2, 0] == 0 and sheet[2, 10, 0] == 10 and sheet[8, 2, 0] == 30 and sheet[8, 18, 0] == 255
    labelled = contact_sheet(images, 3, gap=2, labels=list("abcde"))
    first = contact_sheet(images, 3, gap=2, labels=["a", "", "", "", ""])
    assert labelled.shape[0] > first.shape[0] > sheet.shape[0]
    assert (first[-images.shape[1] - 2 : -2, 2 : 2 + images.shape[2]] == images[3]).all()


def test_sheets_stand_side_by_side_under_their_titles():
    left, right = np.zeros((30, 60, 3), np.uint8), np.full((30, 40, 3), 9, np.uint8)
    joined = side_by_side([left, right], ["left", "right"])
    above, between = joined[:-30], joined[-30:, 60:-40]
    assert (joined[-30:, :60] == 0).all() and (joined[-30:, -40:] == 9).all()
    assert (between == 255).all() and between.shape[1] >= 10
    assert (above[:, :60] < 128).any() and (above[:, -40:] < 128).any()  # the titles are drawn


def test_a_bar_stays_quiet_in_a_log(capsys):
    assert list(progress([1, 2, 3], "count")) == [1, 2, 3]
    with progress(10, "count") as bar:
        bar.update(10)
    assert capsys.readouterr().err == ""


def test_a_summary_says_what_was_written_and_kept(capsys, tmp_path):
    summary = Summary("1 sample faces")
    summary.wrote(tmp_path / "a", "3 images")
    summary.kept(tmp_path / "b")
    summary.note("careful")
    summary.print()
    text = capsys.readouterr().out
    assert "1 sample faces: done" in text and "(3 images)" in text and "(fresh)" in text and "careful" in text
    assert Summary.printed.pop() is summary


def test_devices_resolve_or_are_refused_with_a_choice():
    assert resolve_device("cpu").type == "cpu" and resolve_device("auto").type in ("cpu", "cuda")
    for name in ("gpu", "cuda:99"):
        with pytest.raises(PipelineError, match="--device"):
            resolve_device(name)
    assert usable_cores() >= 1


KEEPS = """
import ctypes
from pipeline.command import reuse_freed_memory
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
size = 64 << 20  # above what glibc keeps by default
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
def block():
    address = libc.malloc(size)
    libc.memset(address, 1, size)
    libc.free(address)
reuse_freed_memory()
before = resident()
block()
print(int(resident() - before > size // 2))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="without glibc nothing is asked of it")
def test_freed_memory_is_kept_for_the_next_tensor():
    kept = subprocess.run(
        [sys.executable, "-c", KEEPS], capture_output=True, text=True, cwd=Path(__file__).parents[1], check=True
    )
    assert kept.stdout.strip() == "1"


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_each_process_of_torchrun_gets_a_gpu_of_its_own(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert resolve_device(name) == torch.device("cuda")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert resolve_device(name) == torch.device("cuda:1")
    assert resolve_device("cuda:0").index == 0 and resolve_device("cpu").type == "cpu"
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(PipelineError, match="process 2 of torchrun .* 2 CUDA devices"):
        resolve_device(name)


@pytest.mark.parametrize(("error", "code"), [
    ("PipelineError('bad row')", 2), ("KeyboardInterrupt", 130), ("OSError(28, 'no room', 'a/b.csv')", 2),
])  # fmt: skip
def test_a_command_ends_with_a_clear_line_and_exit_code(root, error, code):
    script = (
        "from pipeline.command import StageOptions, main\nfrom pipeline.errors import PipelineError\n"
        f"def run(options):\n    raise {error}\nmain(StageOptions, run)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == code
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1
    if "OSError" in error:
        assert "a/b.csv: No space left on device; free some space and run the same command again" in done.stderr


def test_a_gpu_without_enough_memory_is_told_with_a_cure(monkeypatch, capsys):
    import torch

    def run(options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore words")

    monkeypatch.setattr(sys, "argv", ["command"])
    with pytest.raises(SystemExit, match="2"):
        main(StageOptions, run)
    assert capsys.readouterr().err.startswith(
        "error: CUDA out of memory. Tried to allocate 20.00 GiB.\n  cure: a smaller"
    )


@pytest.mark.parametrize(
    ("seed", "told"),
    [(-1, "-1: seeds are not negative"), (10**10, "10000000000 is too large: give at most 9000000000")],
)
def test_a_seed_out_of_range_is_refused_before_anything_runs(monkeypatch, capsys, seed, told):
    monkeypatch.setattr(sys, "argv", ["stage", "--seed", str(seed)])
    with pytest.raises(SystemExit) as ended:
        main(StageOptions, lambda options: pytest.fail("it ran"))
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: --seed {told}\n"
