"""Published reports carry their pictures with them."""

import numpy as np
import pytest

from pipeline.errors import PipelineError
from pipeline.images import read_image, save_image
from pipeline.publish import PublishOptions, publish


def test_a_report_takes_its_pictures_along_and_finds_them(tmp_path):
    run, to = tmp_path / "run", tmp_path / "reports"
    (run / "reports" / "own").mkdir(parents=True)
    (run / "stage").mkdir()
    picture = np.random.default_rng(0).integers(0, 8, (40, 40, 3), np.uint8) // 7 * 200
    save_image(run / "stage" / "curve.png", picture)
    save_image(run / "reports" / "own" / "strip.jpg", picture)
    (run / "reports" / "a.md").write_text("# A\n\n![c](../stage/curve.png)\n![s](own/strip.jpg)\n[b](b.md)\n")
    (to / "a").mkdir(parents=True)
    (to / "a" / "old.png").write_bytes(b"of an earlier report")
    (to / "a.md").write_text("![o](a/old.png)\n")
    publish(PublishOptions(str(run), to=str(to)))
    assert (to / "a.md").read_text() == "# A\n\n![c](a/curve.png)\n![s](a/strip.jpg)\n[b](b.md)\n"
    assert {path.name for path in (to / "a").iterdir()} == {"curve.png", "strip.jpg"}
    assert (read_image(to / "a" / "curve.png") == picture).all()  # few colours: nothing is lost


def test_a_report_takes_its_tables_along_and_another_name(tmp_path):
    run, to = tmp_path / "run", tmp_path / "reports"
    (run / "reports" / "own").mkdir(parents=True)
    (run / "reports" / "own" / "reach.csv").write_text("seed\n1\n")
    save_image(run / "reports" / "own" / "strip.png", np.zeros((8, 8, 3), np.uint8))
    (run / "reports" / "own.md").write_text("![s](own/strip.png)\nEvery number: [reach.csv](own/reach.csv).\n")
    publish(PublishOptions(str(run), ("own",), "mine", str(to)))
    assert (to / "mine.md").read_text() == "![s](mine/strip.png)\nEvery number: [reach.csv](mine/reach.csv).\n"
    assert (to / "mine" / "reach.csv").read_text() == "seed\n1\n" and (to / "mine" / "strip.png").is_file()
    (run / "reports" / "own" / "reach.csv").unlink()
    with pytest.raises(PipelineError, match=r"tells of own/reach\.csv, which is missing"):
        publish(PublishOptions(str(run), ("own",), "mine", str(to)))
    with pytest.raises(PipelineError, match="--name mine names one report"):
        publish(PublishOptions(str(run), ("own", "other"), "mine", str(to)))


def test_a_folder_that_no_report_filled_is_never_emptied(tmp_path):
    (tmp_path / "run" / "reports").mkdir(parents=True)
    (tmp_path / "run" / "reports" / "vectorfind.md").write_text("# V\n")
    package = tmp_path / "vectorfind"
    (package / "inner").mkdir(parents=True)
    (package / "stage.py").write_text("code\n")
    (package / "a.png").write_bytes(b"picture")
    with pytest.raises(PipelineError, match=r"vectorfind holds a\.png, which no report put there: choose another --to"):
        publish(PublishOptions(str(tmp_path / "run"), to=str(tmp_path)))
    assert {path.name for path in package.iterdir()} == {"inner", "stage.py", "a.png"}
    assert not (tmp_path / "vectorfind.md").exists()
    holidays = tmp_path / "images"
    holidays.mkdir()
    (holidays / "holiday.jpg").write_bytes(b"picture")
    (tmp_path / "run" / "reports" / "images.md").write_text("# I\n")
    for earlier in ("", "![another](images/shown.jpg)\n"):
        (tmp_path / "images.md").write_text(earlier)
        with pytest.raises(PipelineError, match=r"images holds holiday\.jpg, which no report put there"):
            publish(PublishOptions(str(tmp_path / "run"), ("images",), to=str(tmp_path)))
    assert (holidays / "holiday.jpg").is_file()


def test_two_pictures_of_one_name_are_refused(tmp_path):
    for folder in ("a", "b"):
        save_image(tmp_path / "run" / "reports" / folder / "x.png", np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "run" / "reports" / "z.md").write_text("![1](a/x.png)\n![2](b/x.png)\n")
    with pytest.raises(PipelineError, match=r"two files called x\.png"):
        publish(PublishOptions(str(tmp_path / "run"), to=str(tmp_path / "to")))


def test_a_missing_report_or_picture_is_named(tmp_path):
    (tmp_path / "reports").mkdir()
    with pytest.raises(PipelineError, match="holds no reports"):
        publish(PublishOptions(str(tmp_path), to=str(tmp_path / "to")))
    (tmp_path / "reports" / "a.md").write_text("![c](gone.png)\n")
    with pytest.raises(PipelineError, match="tells of gone.png, which is missing"):
        publish(PublishOptions(str(tmp_path), to=str(tmp_path / "to")))
    (tmp_path / "to" / "a").mkdir(parents=True)
    (tmp_path / "to" / "a" / "old.png").write_bytes(b"of an earlier report")
    with pytest.raises(PipelineError, match="tells of gone.png"):
        publish(PublishOptions(str(tmp_path), to=str(tmp_path / "to")))
    assert (tmp_path / "to" / "a" / "old.png").is_file()  # nothing is lost
    with pytest.raises(PipelineError, match="name another folder"):
        publish(PublishOptions(str(tmp_path), to=str(tmp_path / "reports")))
    with pytest.raises(PipelineError, match="b.md is missing"):
        publish(PublishOptions(str(tmp_path), ("b",), to=str(tmp_path / "to")))
