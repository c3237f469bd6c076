"""The published scores to 1e-9 against the golden cases and a pixel-by-pixel oracle; the mended ones say what lacks."""

import json
import math

import numpy as np
import pytest
from segmentation_world import DATA, score_cases

from benchmarks.naive_property_scores import naive_hairstyle, naive_v1, naive_v2
from benchmarks.score_speed import Options, measure_speed, random_faces
from pipeline.errors import PipelineError
from property_score.algorithm_v1 import scores_v1
from property_score.algorithm_v2 import scores_v2
from property_score.facemaps import NAMES
from property_score.hairstyle import scores_hairstyle
from property_score.measure import PROPERTIES, measure

GOLDEN = {case["name"]: case for case in json.loads((DATA / "score_golden.json").read_text(encoding="utf-8"))}
MAPS, IMAGES, CASES = score_cases()
EYES, HAIR_COLOR, HAIR_LENGTH, MOUTH, POSE, BACK_MEAN, BACK_STD = range(7)


def golden(entry: dict) -> float:
    """Return the published value; NaN where the published code stops or returns nothing."""
    return {"ok": entry["value"], "inf": math.inf}.get(entry["status"], math.nan)


def case(name: str) -> tuple[np.ndarray, np.ndarray]:
    k = CASES.index(name)
    return MAPS[k : k + 1], IMAGES[k : k + 1]


@pytest.mark.parametrize(("algorithm", "score"), [("v1", scores_v1), ("v2", scores_v2)])
def test_published_scores_equal_the_golden_ones(algorithm, score):
    values, _ = score(MAPS, IMAGES, published=True)
    expected = [[golden(GOLDEN[name][algorithm][property_name]) for property_name in NAMES] for name in CASES]
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-9, equal_nan=True)


def test_the_published_hairstyle_equals_the_golden_one():
    values, _ = scores_hairstyle(MAPS, IMAGES, published=True)
    expected = [golden(GOLDEN[name]["hairstyle"]) for name in CASES]
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-9)


def test_published_scores_equal_the_pixel_by_pixel_oracle_on_random_maps():
    maps, images = random_faces(10)
    assert set(np.unique(maps)) == {0, 1, *range(4, 11)}
    for score, naive in ((scores_v1, naive_v1), (scores_v2, naive_v2)):
        expected = [naive(parsing, image) for parsing, image in zip(maps, images, strict=True)]
        np.testing.assert_allclose(score(maps, images, published=True)[0], expected, rtol=0, atol=1e-9, equal_nan=True)
    hair, _ = scores_hairstyle(maps[:4], images[:4], published=True)
    expected = [naive_hairstyle(parsing, image) for parsing, image in zip(maps[:4], images[:4], strict=True)]
    np.testing.assert_allclose(hair, expected, rtol=0, atol=1e-9)


def test_the_speed_benchmark_times_and_checks_every_algorithm():
    rows = measure_speed(Options(maps=3, naive=2))
    assert [name for name, _, _ in rows] == ["algorithm v1", "algorithm v2", "hairstyle"]
    assert all(slow > fast > 0 for _, fast, slow in rows)
    with pytest.raises(PipelineError, match="--naive 4 must be"):
        measure_speed(Options(maps=3, naive=4))


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("algorithm", ["v1", "v2"])
def test_a_map_has_the_same_row_alone_and_among_64(algorithm, published):
    maps, images = random_faces(64, seed=1)
    together = measure(maps, images, algorithm, published)
    for k in (0, 17, 63):
        alone = measure(maps[k : k + 1], images[k : k + 1], algorithm, published)
        np.testing.assert_array_equal(alone[list(PROPERTIES)].iloc[0], together[list(PROPERTIES)].iloc[k])
        assert alone["reason"].iloc[0] == together["reason"].iloc[k]


def test_where_everything_is_there_only_the_eyes_and_heights_of_v1_and_the_hairstyle_are_mended():
    whole = case("typical")
    published, mended = (scores_v2(*whole, published=flag)[0] for flag in (True, False))
    np.testing.assert_array_equal(published, mended)
    published, mended = (scores_v1(*whole, published=flag)[0][0] for flag in (True, False))
    assert mended[EYES] == published[EYES] + 1  # heights count both end rows
    assert mended[MOUTH] == published[MOUTH] + 2
    assert np.array_equal(np.delete(mended, [EYES, MOUTH]), np.delete(published, [EYES, MOUTH]))


@pytest.mark.parametrize(
    ("name", "missing", "reason"),
    [
        ("no_eyes", {"eyes", "pose"}, "no eyes: eyes, pose"),
        ("no_hair", {"hair_color", "hairstyle"}, "no hair: hair_color"),
        ("no_background", {"background_mean", "background_std"}, "no background: background_mean, background_std"),
        ("one_background_pixel", {"background_std"}, "one background pixel: background_std"),
        ("stacked_eyes", {"pose"}, "eyes above each other: pose"),
        ("all_background", {"eyes", "hair_color", "mouth", "pose", "hairstyle"}, "no mouth: mouth"),
    ],
)
def test_what_cannot_be_measured_is_missing_with_its_reason(name, missing, reason):
    row = measure(*case(name)).iloc[0]
    assert {column for column in PROPERTIES if math.isnan(row[column])} == missing
    assert reason in row["reason"]


def test_a_complete_face_has_no_reason():
    assert measure(*case("typical"))["reason"].tolist() == [""]


def test_one_visible_eye_is_enough_for_the_eyes_but_not_for_the_pose():
    maps, images = case("typical")
    maps = np.where(maps == 4, 1, maps)
    for score in (scores_v1, scores_v2):
        both = score(*case("typical"))[0][0, EYES]
        values, reasons = score(maps, images)
        assert values[0, EYES] == pytest.approx(both, rel=0.3)
    assert math.isnan(values[0, POSE]) and reasons == ["no left eye: pose"]
    assert scores_v1(maps, images, published=True)[0][0, EYES] < 0.6 * scores_v1(maps, images)[0][0, EYES]
    assert scores_v2(maps, images, published=True)[0][0, POSE] == 0.0


def test_the_mended_v1_scans_all_rows_of_the_eye_window():
    maps = np.ones((1, 224, 224), np.uint8)
    maps[0, 150:160, 60:80], maps[0, 150:160, 140:160] = 4, 5
    images = np.zeros((1, 224, 224, 3), np.uint8)
    assert scores_v1(maps, images)[0][0, EYES] == 10
    assert scores_v1(maps, images, published=True)[0][0, EYES] == 0


def test_the_mended_hairstyle_wants_whole_blocks_of_hair():
    maps, images = case("hair_edges")
    holes = maps.copy()
    holes[0, 113:224:4, 2:224:4] = 0  # holes that the two published test pixels of each block step over
    assert not np.isnan(scores_hairstyle(holes, images, published=True)[0]).any()
    assert np.isnan(scores_hairstyle(np.where(maps == 10, holes, maps), images)[0]).all()


def test_curls_score_higher_than_straight_hair():
    maps = np.full((2, 224, 224), 10, np.uint8)
    rng = np.random.default_rng(0)
    strands = np.broadcast_to(rng.normal(0, 40, 224), (224, 224))
    curls = np.kron(rng.normal(0, 40, (28, 28)), np.ones((8, 8)))
    images = np.stack([strands, curls])[..., None] + 120 + np.zeros(3)
    values, _ = scores_hairstyle(maps, images.clip(0, 255).astype(np.uint8))
    assert values[0] < 0.1 < 0.5 < values[1]


def test_maps_of_another_shape_or_class_are_refused():
    maps, images = case("typical")
    with pytest.raises(ValueError, match="maps must be uint8"):
        scores_v2(maps[:, :128, :128], images[:, :128, :128])
    with pytest.raises(ValueError, match="maps must be uint8"):
        scores_v2(maps.astype(np.int64), images)
    with pytest.raises(ValueError, match="images must be uint8"):
        scores_v2(maps, images.astype(np.float32))
    with pytest.raises(ValueError, match="found 11"):
        scores_v2(maps + 1, images)
    with pytest.raises(PipelineError, match="unknown score algorithm 'v3'; use v1 or v2"):
        measure(maps, images, "v3")


def test_an_empty_batch_has_an_empty_table():
    table = measure(MAPS[:0], IMAGES[:0])
    assert len(table) == 0 and list(table.columns) == [*PROPERTIES, "reason"]
