"""Photographs of any kind become upright RGB, and stages 3 and 4 take a whole folder of them, the broken ones too."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from segmentation_world import GREY, random_parsenet, rendered

import compute_property_scores
import run_segmentation
from pipeline.artefacts import read_image
from pipeline.command import Summary
from pipeline.errors import PipelineError
from pipeline.tables import read_table
from property_score.tables import score_schema
from segmentation import photographs, stage
from segmentation.face_crop import Detection, FaceCropper, crop
from segmentation.photographs import Photograph, UnreadablePhotograph, find_face, list_photographs
from segmentation.tables import RESULTS, TABLE, photograph_schema, result_name, segmentation_schema

SCORES = Path("segmentation/property_score_results")
TURNED = {  # how a camera that notes this orientation has stored the upright picture
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


def turned(image: np.ndarray, orientation: int) -> tuple[Image.Image, Image.Exif]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return Image.fromarray(np.ascontiguousarray(TURNED[orientation](image))), exif


@pytest.mark.parametrize("orientation", TURNED)
def test_a_turned_photograph_is_seen_upright_whole_in_part_and_reduced(tmp_path, orientation):
    image = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    picture, exif = turned(image, orientation)
    picture.save(tmp_path / "a.png", exif=exif)
    photograph = Photograph.open(tmp_path / "a.png")
    assert (photograph.width, photograph.height) == (53, 37) and not photograph.transparent
    assert np.array_equal(photograph.region(0, 0, 53, 37), image)
    assert np.array_equal(photograph.region(3, 5, 40, 30), image[5:30, 3:40])
    assert np.array_equal(read_image(tmp_path / "a.png"), image)
    copy, factor = photograph.reduced(500)
    assert factor == 2 and np.array_equal(copy, np.asarray(Image.fromarray(image).reduce(2)))


def test_a_reduced_copy_is_made_in_strips_that_join_without_a_seam(tmp_path, monkeypatch):
    image = np.random.default_rng(1).integers(0, 256, (101, 64, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    monkeypatch.setattr(photographs, "_STRIP", 4)
    copy, factor = Photograph.open(tmp_path / "a.png").reduced(800)
    assert factor == 3 and np.array_equal(copy, np.asarray(Image.fromarray(image).reduce(3)))


def test_every_kind_of_pixels_becomes_rgb_and_what_is_transparent_shows_white(tmp_path):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    half = np.where(np.arange(16) < 8, 0, 255).astype(np.uint8)[None].repeat(16, 0)
    on_white = np.where(half == 255, grey, 255)
    with_alpha = Image.merge("LA", (Image.fromarray(grey), Image.fromarray(half)))
    palette = Image.fromarray(grey).convert("P")
    kinds = {
        "grey.png": (Image.fromarray(grey), grey, {}),
        "wide.png": (Image.fromarray(grey.astype(np.uint16) * 257), grey, {}),
        "palette.png": (palette, grey, {}),
        "grey_alpha.png": (with_alpha, on_white, {}),
        "alpha.png": (with_alpha.convert("RGBA"), on_white, {}),
        "alpha.webp": (with_alpha.convert("RGBA"), on_white, {"lossless": True}),
        "opaque.png": (Image.fromarray(grey).convert("RGBA"), grey, {}),
        "hole.png": (palette, np.where(grey == 7, 255, grey), {"transparency": 7}),
        "bits.png": (Image.fromarray(half).convert("1"), half, {}),
    }
    for name, (picture, expected, how) in kinds.items():
        picture.save(tmp_path / name, **how)
        photograph = Photograph.open(tmp_path / name)
        pixels = photograph.region(0, 0, 16, 16)
        assert np.array_equal(pixels, np.repeat(expected[..., None], 3, 2)), name
        assert photograph.transparent == ("alpha" in name or "hole" in name), name
    colours = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    colours.save(tmp_path / "print.jpg")
    assert np.abs(Photograph.open(tmp_path / "print.jpg").region(0, 0, 16, 16).astype(int) - (0, 255, 255)).max() < 6


def test_a_photograph_that_may_be_read_now_is_another_listing(tmp_path, monkeypatch):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    before = photographs.listing_digest([tmp_path / "a.png"])
    monkeypatch.setattr(photographs.os, "access", lambda *_: False)
    assert photographs.listing_digest([tmp_path / "a.png"]) != before


def test_head_poses_of_pictures_of_unequal_size_are_read_one_by_one(tmp_path):
    sizes = {"a.png": (8, 8), "b.png": (8, 8), "c.png": (16, 12)}
    for name, (height, width) in sizes.items():
        Image.fromarray(np.full((height, width, 3), 9, np.uint8)).save(tmp_path / name)
    paths = [tmp_path / name for name in sizes]
    assert [part.shape for part in compute_property_scores._stacked(paths[:2])] == [(2, 8, 8, 3)]
    assert [part.shape for part in compute_property_scores._stacked(paths)] == [
        (1, 8, 8, 3),
        (1, 8, 8, 3),
        (1, 16, 12, 3),
    ]


def test_what_cannot_be_read_says_why(tmp_path, monkeypatch):
    Image.fromarray(rendered()[0][0]).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "page.jpg").write_text("<html>not found</html>")
    Image.fromarray(GREY).save(tmp_path / "drawing.jpg", format="GIF")
    (tmp_path / "lost.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "folder.jpg").mkdir()
    monkeypatch.setattr(photographs, "MOST_PIXELS", 128 * 128)
    Image.new("L", (129, 128)).save(tmp_path / "huge.png")
    reasons = {
        "cut.jpg": "truncated",
        "empty.png": "no JPEG, PNG or WebP",
        "page.jpg": "no JPEG, PNG or WebP",
        "drawing.jpg": "no JPEG, PNG or WebP",
        "lost.png": "No such file",
        "huge.png": "129x128 pixels are more than",
    }
    for name, reason in reasons.items():
        with pytest.raises(UnreadablePhotograph, match=reason):
            Photograph.open(tmp_path / name)
    assert Photograph.open(tmp_path / "whole.jpg").width == 128
    names = [path.name for path in list_photographs(tmp_path)[0]]
    assert names == sorted([*reasons, "whole.jpg"])


def test_the_face_of_a_large_photograph_is_found_on_a_copy_and_cut_from_the_full_picture(tmp_path, monkeypatch):
    image = np.full((520, 600, 3), 120, np.uint8)
    image[200:500, 260:560] = np.asarray(Image.fromarray(rendered()[0][0]).resize((300, 300)))
    Image.fromarray(image).save(tmp_path / "large.png")
    monkeypatch.setattr(photographs, "DETECTOR_PIXELS", (40_000, 160_000))
    cropper, seen = FaceCropper(), []

    class Watched:
        def detect(self, images):
            seen.extend(picture.shape[:2] for picture in images)
            return cropper.detect(images)

    hit, cut = find_face(Watched(), Photograph.open(tmp_path / "large.png"))
    assert seen == [(174, 200)] and hit.faces == 1
    assert hit.box[0] > 260 and hit.box[1] > 200 and hit.box[2] < 560 and hit.box[3] < 500
    assert np.array_equal(cut, crop(image, hit.box))


def test_a_face_too_small_for_the_first_copy_is_sought_on_a_larger_one(tmp_path):
    Image.new("RGB", (2400, 2000)).save(tmp_path / "large.png")
    found = [Detection(None, "no face found"), Detection((10.0, 10.0, 40.0, 50.0), "", 1)]

    class Scripted:
        def detect(self, images):
            return [found.pop(0)]

    hit, cut = find_face(Scripted(), Photograph.open(tmp_path / "large.png"))
    assert hit.box == (10.0, 10.0, 40.0, 50.0) and cut.shape == (224, 224, 3) and not found


@pytest.fixture
def profile(tmp_path, write_profile) -> Path:
    return write_profile(weights={"parsenet": random_parsenet(tmp_path / "parsenet.pth")})


@pytest.fixture
def album(tmp_path) -> Path:
    """Return a folder of photographs as people have them."""
    folder = tmp_path / "Fotos für Oma"
    folder.mkdir()
    faces = rendered()[0]
    large = [Image.fromarray(face).resize((300, 300)) for face in faces]
    picture, exif = turned(np.asarray(large[1]), 6)
    picture.save(folder / "IMG 0001.JPG", exif=exif, quality=95)
    large[0].save(folder / "same.jpg", quality=95)
    large[2].convert("L").save(folder / "same.png")
    alpha = large[3].convert("RGBA")
    alpha.putalpha(Image.new("L", (300, 300), 255).point(lambda _: 254))
    alpha.save(folder / "öffentlich.webp")
    both = np.full((300, 420, 3), 120, np.uint8)
    both[:, 120:], both[100:200, 5:105] = np.asarray(large[4]), np.asarray(large[5].resize((100, 100)))
    Image.fromarray(both).save(folder / "two.png")
    Image.fromarray(GREY).save(folder / "wall.png")
    (folder / "broken.jpeg").write_bytes((folder / "same.jpg").read_bytes()[:2000])
    (folder / "notes.txt").write_text("not a photograph")
    (folder / "older").mkdir()
    return folder


NAMES = ["IMG 0001.JPG", "broken.jpeg", "same.jpg", "same.png", "two.png", "wall.png", "öffentlich.webp"]


def score(album: Path, profile: Path, run: Path, **options) -> list[Summary]:
    before = len(Summary.printed)
    settings = {"images": str(album), "profile": str(profile), "run": str(run), "device": "cpu", **options}
    compute_property_scores.run(compute_property_scores.Options(**settings))
    return Summary.printed[before:]


def test_scores_of_a_folder_of_photographs_come_by_one_command(tmp_path, album, profile, monkeypatch):
    run = tmp_path / "run"
    parsing, scoring = score(album, profile, run)
    table = read_table(run / TABLE, photograph_schema())
    assert read_table(run / TABLE, segmentation_schema())["img_path"].tolist() == NAMES
    assert table["img_no"].tolist() == list(range(7))
    row = table.set_index("img_path")
    assert row["found"].to_dict() == {name: name not in ("broken.jpeg", "wall.png") for name in NAMES}
    assert "cannot be read" in row.loc["broken.jpeg", "reason"] and "truncated" in row.loc["broken.jpeg", "reason"]
    assert row.loc["wall.png", "reason"] == "no face found"
    assert row.loc["two.png", "faces"] == 2 and row.loc["two.png", "note"] == "the largest of 2 faces"
    assert row.loc["two.png", "x0"] > 120 and row.loc["öffentlich.webp", "note"] == "transparent parts shown on white"
    told = "\n".join(parsing.notes)
    assert "5 of 7 pictures show a face" in told and "two.png: the largest of 2 faces was taken" in told
    assert "skipped broken.jpeg: cannot be read" in told and "left out 1 files" in told and "notes.txt" in told

    # Upright, although its file lies on its side.
    number = int(row.loc["IMG 0001.JPG", "img_no"])
    box = tuple(row.loc["IMG 0001.JPG", ["x0", "y0", "x1", "y1"]].astype(float))
    upright = read_image(album / "IMG 0001.JPG")
    assert np.array_equal(read_image(run / RESULTS / result_name("face", number)), crop(upright, box))

    scores = read_table(run / SCORES / "all_scores_v2.csv", score_schema())
    assert scores["img_path"].tolist() == [name for name in NAMES if row.loc[name, "found"]]
    assert any("compare these 5 photographs with each other" in note for note in scoring.notes)

    monkeypatch.setattr(stage, "_parse", lambda *_: pytest.fail("it parsed again"))
    assert [summary.written for summary in score(album, profile, run)] == [[], []]
    score(album, profile, run, algorithm="v1", published=True)
    assert len(read_table(run / SCORES / "all_scores_published.csv", score_schema())) == 5


def test_one_photograph_more_or_changed_is_all_that_is_parsed(tmp_path, album, profile):
    def parse() -> Summary:
        options = {"images": str(album), "profile": str(profile), "run": str(tmp_path / "run"), "device": "cpu"}
        run_segmentation.run(run_segmentation.Options(**options))
        return Summary.printed[-1]

    parse()
    Image.fromarray(rendered()[0][5]).save(album / "über.png")
    assert "7 pictures of an earlier run were parsed already and stayed" in parse().notes
    Image.fromarray(rendered()[0][4]).save(album / "über.png")
    assert "7 pictures of an earlier run were parsed already and stayed" in parse().notes
    (album / "über.png").unlink()
    parse()
    assert len(read_table(tmp_path / "run" / TABLE, photograph_schema())) == 7
    assert len(list((tmp_path / "run" / RESULTS).glob("face_*.png"))) == 5


def test_a_photograph_that_comes_first_renumbers_the_others_and_is_all_that_is_parsed(tmp_path, album, profile):
    def pictures(run: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (run / RESULTS).glob("*.png")}

    moved, anew = tmp_path / "moved", tmp_path / "anew"
    score(album, profile, moved)
    Image.fromarray(rendered()[0][5]).save(album / "A first one.png")
    parsing, _ = score(album, profile, moved)
    assert "7 pictures of an earlier run were parsed already and stayed" in parsing.notes
    score(album, profile, anew)
    assert (moved / TABLE).read_bytes() == (anew / TABLE).read_bytes()
    assert pictures(moved) == pictures(anew) and len(pictures(moved)) == 18
    (album / "A first one.png").unlink()
    assert "7 pictures of an earlier run were parsed already and stayed" in score(album, profile, moved)[0].notes
    assert len(pictures(moved)) == 15


def test_a_wrong_setting_is_told_before_any_photograph_is_parsed(tmp_path, album, write_profile):
    weights = {"parsenet": random_parsenet(tmp_path / "parsenet.pth")}
    profile = write_profile(weights=weights, property_score={"missing": "guess"})
    with pytest.raises(PipelineError, match="missing = 'guess'; use drop or impute"):
        score(album, profile, tmp_path / "run")
    assert not (tmp_path / "run" / RESULTS).exists()


def test_a_run_of_other_photographs_is_not_overwritten_unasked(tmp_path, album, profile):
    run = tmp_path / "run"
    score(album, profile, run)
    other = tmp_path / "other"
    other.mkdir()
    Image.fromarray(rendered()[0][5]).save(other / "a.png")
    before = (run / TABLE).read_bytes()
    with pytest.raises(PipelineError, match="results of 7 other photographs.*--run.*--force"):
        score(other, profile, run)
    assert (run / TABLE).read_bytes() == before
    score(other, profile, run, force=True)
    assert len(read_table(run / TABLE, photograph_schema())) == 1


def test_a_run_of_photographs_is_known_without_their_folder(tmp_path, album, profile):
    run = tmp_path / "run"
    score(album, profile, run)
    assert [summary.written for summary in score("", profile, run)] == [[]]  # the oracle of virtual faces is not asked
    with pytest.raises(PipelineError, match="holds photographs.*add --images FOLDER"):
        score("", profile, run, algorithm="v1", published=True)


def test_without_a_single_face_the_tables_are_empty_and_say_so(tmp_path, profile):
    (tmp_path / "walls").mkdir()
    Image.fromarray(GREY).save(tmp_path / "walls" / "wall.jpg")
    parsing, scoring = score(tmp_path / "walls", profile, tmp_path / "run")
    assert "0 of 1 pictures show a face" in parsing.notes
    assert any("no picture shows a face, so nothing was measured" in note for note in scoring.notes)
    for name in ("all_scores_v2.csv", "all_scores_v2_raw.csv"):
        assert read_table(tmp_path / "run" / SCORES / name, score_schema()).empty
    assert [summary.written for summary in score(tmp_path / "walls", profile, tmp_path / "run")] == [[], []]


def test_photographs_want_a_run_of_their_own_and_a_folder_that_holds_some(tmp_path, album, profile, monkeypatch):
    def plan(images: Path, run: str = "") -> stage.Plan:
        return run_segmentation.plan(run_segmentation.Options(profile=str(profile), run=run, images=str(images)))

    monkeypatch.chdir(tmp_path)
    assert str(plan(album).run) == "runs/photos"
    (tmp_path / "generated" / "stylegan").mkdir(parents=True)
    with pytest.raises(PipelineError, match="a run folder of their own, as in --run runs/photos"):
        plan(album, "generated")
    for images, message in (
        (album / "nowhere", "does not exist"),
        (album / "same.jpg", "is a file; give the folder"),
        (album / "older", "holds no photograph"),
        (tmp_path / "generated", "its 1 folders are not searched"),
    ):
        with pytest.raises(PipelineError, match=message):
            plan(images)
