"""The image generation test and the honest-space table: what they measure, and what they refuse to call a pass."""

import numpy as np
import pandas as pd
import pytest
from vectorfind_world import gradients, make_bench

from pipeline.errors import PipelineError
from vectorfind.directions import DirectionSet
from vectorfind.evaluate import (
    BARS,
    Test,
    check_disjoint,
    grid_table,
    per_face,
    result_table,
    statistics_table,
    summary_table,
)
from vectorfind.graders import FINDER, Grader
from vectorfind.grid import GRIDS, PUBLISHED_GRADIENT, PUBLISHED_Z, grid_named
from vectorfind.groups import Grouping
from vectorfind.names import EDITED, PROPERTIES
from vectorfind.protocol import face_table, judge, run_graded
from vectorfind.space import honest_space

PUBLISHED_RESULT = [
    *("case", "vector_no", "passed", "group_name", "eyes_corr", "mouth_corr", "pose_corr", "sum_abs_corr"),
]
PUBLISHED_STATISTICS = [
    *("", "eyes_corr_mean", "mouth_corr_mean", "pose_corr_mean", "sum_abs_corr_mean", "passed", "passed_ratio"),
]


def exact_directions(bench, sign=1.0):
    """Directions that move one property alone by one unit, known from the linear world."""
    truth = gradients(bench)[:, [PROPERTIES.index(name) for name in EDITED]]
    vectors = sign * np.linalg.pinv(truth)
    lengths = np.linalg.norm(vectors, axis=1)
    return DirectionSet(
        EDITED,
        ("all",),
        "w",
        (vectors / lengths[:, None])[:, None].astype(np.float32),
        lengths[:, None].astype(np.float32),
        np.ones(3, np.float32),
        "none",
        (),
        {"generator_hash": bench.generator_hash},
    )


def edit_faces(directions=None, faces=6, grid="deviations", bench=None, ends=np.inf):
    bench = bench or make_bench()
    directions = directions or exact_directions(bench)
    ends = np.tile(np.array([-ends, ends], np.float32), (len(PROPERTIES), 1))
    finder = [Grader(FINDER, bench.scorer, np.ones(len(PROPERTIES), np.float32), ends)]
    seeds = range(50, 50 + faces)
    return run_graded(bench, directions, Grouping("none", ()), seeds, grid_named(grid), finder)[FINDER]


def test_all_grids_are_5_mouths_by_2_eyes_by_5_poses_in_the_published_order():
    for grid in (*GRIDS.values(), PUBLISHED_GRADIENT, PUBLISHED_Z):
        amounts = grid.amounts()
        assert amounts.shape == (50, 3) and len(np.unique(amounts, axis=0)) == 50
        assert len(set(amounts[:10, 1])) == 1 and len(set(amounts[:5, 0])) == 1 and len(set(amounts[:5, 2])) == 5
    published = GRIDS["published"]
    assert [-value for value in published.levels("pose")] == [-1.8, -1.2, -0.6, 0.0, 0.6]
    # v6 edited z by other weights, and the networks of v9 raise by positive ones.
    assert grid_named("published", position="z").levels("eyes") == (1.2, -1.8)
    assert grid_named("published", "gradient", "z").levels("pose") == (-1.4, -0.7, 0.0, 0.7, 1.4)
    assert grid_named("published", "mixed", "mapping_split1") is GRIDS["published"]
    with pytest.raises(PipelineError, match="deviations, reachable, published"):
        grid_named("other")


def test_the_slope_is_of_what_a_fitted_grid_asks_for():
    test = edit_faces(grid="reachable", ends=1.0)
    faces = per_face(test)
    narrow = np.ptp(test.asked[:, :, 1], axis=1) < 3
    assert narrow.any() and (faces["mouth_slope"][narrow] - 1).abs().max() < 1e-2
    np.testing.assert_allclose(faces["mouth_corr"], 1, atol=1e-3)


def test_exact_directions_score_one_everywhere():
    faces = per_face(edit_faces())
    for name in EDITED:
        for what in ("corr", "slope", "monotone"):
            np.testing.assert_allclose(faces[f"{name}_{what}"], 1, atol=1e-3)
    np.testing.assert_allclose(faces["mouth_range"], 3.6, atol=1e-2)


def test_steps_that_were_not_measured_are_not_falling_ones():
    test = edit_faces()
    column, weights = PROPERTIES.index("mouth"), test.amounts[:, 1]
    test.scores[0, weights == np.unique(weights)[1], column] = np.nan
    test.scores[1, :, column] = np.nan
    faces = per_face(test)
    assert faces["mouth_monotone"][0] == 1 and np.isnan(faces["mouth_monotone"][1])
    assert faces["mouth_monotone"][2:].eq(1).all()


def test_reversed_directions_fail_though_their_absolute_correlation_is_one():
    result = result_table(edit_faces(exact_directions(make_bench(), sign=-1.0)), BARS["v8"])
    assert (result["passed"] == "X").all()
    np.testing.assert_allclose(result["sum_abs_corr"], 3, atol=1e-3)
    summary = summary_table(result, BARS["v8"]).set_index("property")
    assert (summary.loc[list(EDITED), "reversed"] == 1).all() and (summary["pass_share"] == 0).all()


def test_a_score_that_never_moves_has_obeyed_nothing_and_one_that_was_never_measured_has_no_correlation():
    measured = edit_faces()
    measured.scores[2, :, PROPERTIES.index("eyes")] = 0.3
    result = result_table(measured, BARS["v8"])
    assert result.loc[2, "passed"] == "X" and result.loc[2, "eyes_corr"] == 0 and result.loc[1, "passed"] == "O"
    measured.scores[1, 2:, PROPERTIES.index("eyes")] = np.nan
    result = result_table(measured, BARS["v8"])
    assert result.loc[1, "passed"] == "X" and np.isnan(result.loc[1, "eyes_corr"])
    assert summary_table(result, BARS["v8"]).loc[0, "unmeasured"] == 1


def test_an_edit_that_could_not_be_measured_is_left_out_of_its_face():
    measured = edit_faces()
    measured.scores[0, :7, PROPERTIES.index("mouth")] = np.nan
    faces = per_face(measured)
    np.testing.assert_allclose(faces["mouth_corr"], 1, atol=1e-3)
    np.testing.assert_allclose(faces["mouth_slope"], 1, atol=1e-3)


def test_a_face_that_edits_break_for_a_grader_does_not_pass_by_the_rest():
    measured = edit_faces()
    measured.scores[0, :5, PROPERTIES.index("mouth")] = np.nan
    measured.scores[1, :6, PROPERTIES.index("eyes")] = np.nan
    result = result_table(measured, BARS["v8"])
    assert result.loc[:2, "measured"].tolist() == [0.9, 0.88, 1]
    assert result.loc[:2, "passed"].tolist() == ["O", "X", "O"] and result.loc[1, "eyes_corr"] > 0.99
    judged = judge(face_table({"finder": measured}), "a")
    assert judged["pass_v8"].tolist() == [pytest.approx(5 / 6, abs=1e-4)] * 3
    assert judged["measured_edits"].tolist() == [pytest.approx(1 - 11 / 300, abs=1e-4)] * 3


def test_correlation_agrees_with_pearson_on_noise():
    rng = np.random.default_rng(3)
    amounts = GRIDS["deviations"].amounts()
    scores = rng.standard_normal((4, 50, 8)).astype(np.float32)
    measured = Test(np.arange(4), np.full(4, "all"), scores[:, 0], scores, amounts, np.array([2.0, 3.0, 0.5]))
    faces = per_face(measured)
    for i, name in enumerate(EDITED):
        for face in range(4):
            expected = np.corrcoef(amounts[:, i], scores[face, :, PROPERTIES.index(name)])[0, 1]
            assert faces.loc[face, f"{name}_corr"] == pytest.approx(expected, abs=1e-6)


def test_tables_start_with_the_published_columns():
    result = result_table(edit_faces(), BARS["v8"])
    assert list(result.columns[:8]) == PUBLISHED_RESULT
    statistics = statistics_table(result)
    assert list(statistics.columns) == PUBLISHED_STATISTICS
    assert statistics.loc[0, "passed"] == 6 and statistics.loc[0, "passed_ratio"] == 1
    grid = grid_table(edit_faces())
    assert len(grid) == 6 * 50 and {"pm_idx", "eyes_pm", "mouth_pm", "pose_pm", "eyes_score"} <= set(grid.columns)
    assert grid["hairstyle_score"].notna().all()


def test_same_faces_same_tables_at_any_batch_size():
    one = result_table(edit_faces(bench=make_bench(batch=1)), BARS["v8"])
    many = result_table(edit_faces(bench=make_bench(batch=256)), BARS["v8"])
    again = result_table(edit_faces(bench=make_bench(batch=256)), BARS["v8"])
    pd.testing.assert_frame_equal(many, again, check_exact=True)
    pd.testing.assert_frame_equal(one, many, atol=2e-4)


def test_the_published_grid_moves_by_plain_latent_units():
    bench = make_bench()
    directions = exact_directions(bench)
    measured = edit_faces(directions, bench=bench, grid="published")
    base = bench.encode(bench.latents([50]), "w")
    step = np.einsum("p,pd->d", measured.amounts[0], directions.units[:, 0])
    np.testing.assert_allclose(measured.scores[0, 0], bench.measure(base + step, "w")[0], atol=1e-4)


def test_faces_that_trained_the_directions_cannot_test_them():
    check_disjoint(range(0, 100), range(100, 120))
    with pytest.raises(PipelineError, match=r"overlap the pool \(seeds 0-100\)"):
        check_disjoint(range(0, 101), range(100, 120))


def test_honest_space_tells_linear_from_curved_and_entangled_from_not():
    rng = np.random.default_rng(0)
    w = rng.standard_normal((3000, 12))
    targets = pd.DataFrame(
        {"line": w[:, 0], "same": 2 * w[:, 0] + 0.1 * w[:, 1], "other": w[:, 2], "curve": w[:, 3] ** 2}
    )
    table, cosines = honest_space({"z": rng.standard_normal((3000, 12)), "w": w}, targets)
    table = table.set_index("property")
    assert table.loc["line", "r2_w"] > 0.999 and abs(table.loc["line", "r2_z"]) < 0.05
    assert table.loc["curve", "r2_w"] < 0.1
    assert cosines.loc["line", "same"] > 0.99 and abs(cosines.loc["line", "other"]) < 0.05
    shifted, _ = honest_space({"w": w + 5}, targets * 7 + 3)
    np.testing.assert_allclose(shifted["r2_w"], table["r2_w"], atol=1e-3)
    still, _ = honest_space({"w": w}, targets.assign(still=2.5))
    assert np.isnan(still.set_index("property").loc["still", "r2_w"]) and still["r2_w"].notna().sum() == 4
