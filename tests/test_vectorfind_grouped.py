"""Editing, matching and grading where faces of several groups stand side by side."""

from dataclasses import replace

import numpy as np
from test_vectorfind_evaluate import exact_directions
from test_vectorfind_protocol import Backward
from vectorfind_world import make_bench

from vectorfind.effects import match, measure_effects
from vectorfind.evaluate import per_face
from vectorfind.graders import measure_spreads
from vectorfind.grid import face_amounts, grid_named
from vectorfind.groups import Grouping
from vectorfind.names import EDITED, PROPERTIES
from vectorfind.protocol import run_graded

# Hair colour alone decides.
LIGHT, DARK, GROUPING = "hhh", "lhh", Grouping("8", (0.0, -1e9, -1e9))
MOUTH, POSE = EDITED.index("mouth"), EDITED.index("pose")
IN_TURN = [LIGHT, DARK, LIGHT, DARK]


def two_groups(bench):
    """Exact directions, the same for both groups."""
    exact = exact_directions(bench)
    units, steps = (np.repeat(values, 2, axis=1) for values in (exact.units, exact.steps))
    return replace(exact, groups=(LIGHT, DARK), units=units, steps=steps, grouping="8", cuts=GROUPING.cuts)


def scores_of(bench, seeds):
    return bench.measure(bench.encode(bench.latents(seeds), "w"), "w")


def seeds_in_turn(bench) -> np.ndarray:
    """Four seeds of faces whose hair is light and dark in turn."""
    groups = GROUPING.assign(scores_of(bench, range(100, 120)))
    return 100 + np.stack([np.flatnonzero(groups == name)[:2] for name in (LIGHT, DARK)], 1).ravel()


def graders_of(bench):
    """The finder, and one that sees everything the other way round."""
    codes = bench.encode(bench.latents(range(300)), "w")
    return measure_spreads(bench, {"second": Backward()}, codes, "w", bench.measure(codes, "w"))


def test_faces_of_several_groups_in_one_batch_go_each_along_its_own_directions():
    tests = []
    for batch in (200, 50):
        bench = make_bench(batch=batch)
        editor, finder = two_groups(bench), graders_of(bench)[:1]
        editor.units[MOUTH, 1] *= -1
        grid = grid_named("deviations")
        tests.append(run_graded(bench, editor, GROUPING, seeds_in_turn(bench), grid, finder)["finder"])
    faces = per_face(tests[0])
    assert faces["group_name"].tolist() == IN_TURN
    np.testing.assert_allclose(faces["mouth_corr"], [1, -1, 1, -1], atol=1e-3)
    np.testing.assert_allclose(tests[0].scores, tests[1].scores, atol=1e-3)


def test_one_deviation_is_one_of_the_score_that_is_edited():
    bench = make_bench()
    editor, sds = exact_directions(bench), np.array([2, 0.5, 3], np.float32)
    editor.score_sds, editor.steps = sds, editor.steps * sds[:, None]
    codes = bench.encode(bench.latents(range(60, 64)), "w")
    base = bench.measure(codes, "w")
    for name, sd in zip(EDITED, sds, strict=True):
        ends, achieved = match(bench, editor, codes, base, ["all"] * 4, name, 1.0)
        moved = (bench.measure(ends, "w") - base)[:, PROPERTIES.index(name)]
        np.testing.assert_allclose(moved, sd, rtol=0.01)
        np.testing.assert_allclose(achieved, 1, rtol=0.01)


def test_a_face_that_is_matched_later_than_others_keeps_to_the_directions_of_its_group():
    bench = make_bench()
    editor = two_groups(bench)
    # Dark hair: less than half the way, and the head tilts along.
    mixed = editor.units[MOUTH, 1] + editor.units[POSE, 1]
    editor.units[MOUTH, 1] = mixed / np.linalg.norm(mixed)
    editor.steps[MOUTH, 1] *= 0.5
    codes = bench.encode(bench.latents(seeds_in_turn(bench)), "w")
    ends, achieved = match(bench, editor, codes, bench.measure(codes, "w"), IN_TURN, "mouth", 1.0)
    np.testing.assert_allclose(achieved, 1, atol=0.05)
    own = editor.units[MOUTH, [0, 1, 0, 1]]
    np.testing.assert_allclose((own * (ends - codes)).sum(1), np.linalg.norm(ends - codes, axis=1), rtol=1e-3)


def test_the_finder_says_what_a_face_can_reach_and_which_group_is_its_own_whoever_else_judges():
    bench = make_bench()
    editor, graders, seeds, grid = two_groups(bench), graders_of(bench), seeds_in_turn(bench), grid_named("reachable")
    asked = face_amounts(grid, scores_of(bench, seeds), editor.score_sds, graders[0].ends)
    for test in run_graded(bench, editor, GROUPING, seeds, grid, graders).values():
        assert test.groups.tolist() == IN_TURN and (test.asked == asked).all()
    assert (asked != grid.amounts()).any()
    found = measure_effects(bench, editor, GROUPING, seeds, graders)
    assert found.edits["group_name"].tolist() == IN_TURN * 6 and found.edits["matched"].all()
    for name in EDITED:
        rows, column = found.edits["property"] == name, found.columns.index(f"finder {name}")
        moved = found.changes[rows, column] * graders[0].sds[PROPERTIES.index(name)]
        np.testing.assert_allclose(moved, found.edits.loc[rows, "achieved"], atol=1e-3)
