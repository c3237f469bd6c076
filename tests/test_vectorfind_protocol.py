"""Graders, side effects, mended methods, published files: each against the linear world's known answer."""

import warnings
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
from test_vectorfind_evaluate import exact_directions
from vectorfind_world import COLUMNS, LinearScorer, W, cosine, gradients, make_bench, make_pool

from pipeline.errors import PipelineError
from vectorfind.directions import write_vector
from vectorfind.effects import ORACLE_ATTRIBUTES, Effects, cost, leakage, match, measure_effects, outside_change
from vectorfind.evaluate import Test, most_corr
from vectorfind.finding import find_directions
from vectorfind.graders import check_second, measure_spreads
from vectorfind.grid import face_amounts, grid_named
from vectorfind.groups import Grouping
from vectorfind.leaks import over_shared_edits
from vectorfind.mended import _best_share, fit_svm_mended
from vectorfind.methods import Fit, MethodOptions, normal_ranks, project_off
from vectorfind.names import EDITED, PROPERTIES, vector_file
from vectorfind.protocol import bootstrap, compare, face_table, judge, run_graded
from vectorfind.published import import_vectors, read_latents, write_latents
from vectorfind.setting import Setting

NONE = Grouping("none", ())


class Backward(LinearScorer):
    """A grader that sees everything the other way round, in units three times as large."""

    def score_tensor(self, images):
        return -3 * super().score_tensor(images)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    bench = make_bench(batch=100)
    return bench, make_pool(bench, tmp_path_factory.mktemp("pool"), 1200)


def graders_of(world):
    bench, pool = world
    return measure_spreads(bench, {"second": Backward()}, pool.codes("w"), "w", pool.scores)


def test_every_grader_judges_the_same_images_in_its_own_units(world):
    bench, _ = world
    directions = exact_directions(bench)
    graders = graders_of(world)
    tests = run_graded(bench, directions, NONE, range(40, 45), grid_named("deviations"), graders)
    np.testing.assert_allclose(tests["second"].scores, -3 * tests["finder"].scores, atol=1e-3)
    table = judge(face_table(tests), "exact").set_index(["grader", "property"])
    for name in EDITED:
        fine, wrong = table.loc[("finder", name)], table.loc[("second", name)]
        assert fine["corr"] > 0.999 and fine["reversed"] == 0 and fine["pass_v7"] == fine["pass_v8"] == 1
        assert wrong["corr"] < -0.999 and wrong["abs_corr"] > 0.999 and wrong["reversed"] == 1 and wrong["pass_v8"] == 0
        assert abs(wrong["slope"]) == pytest.approx(fine["slope"], rel=0.2)


def test_methods_are_compared_on_the_same_faces(world):
    bench, _ = world
    grid = grid_named("deviations")
    good = exact_directions(bench)
    noisy = exact_directions(bench)
    noisy.units = noisy.units + 0.3 * np.random.default_rng(0).standard_normal(noisy.units.shape).astype(np.float32)
    graders = graders_of(world)[:1]
    faces = {
        "good": face_table(run_graded(bench, good, NONE, range(40, 50), grid, graders)),
        "noisy": face_table(run_graded(bench, noisy, NONE, range(42, 52), grid, graders)),
    }
    pairs = compare(faces, "good")
    assert (pairs["pairs"] == 8).all() and (pairs["unpaired"] == 2).all()
    assert (pairs["difference"] < 0).all() and (pairs["better"] == 0).all() and (pairs["high"] < 0).all()


def test_the_bootstrap_interval_holds_the_mean_and_leaves_missing_values_out():
    values = np.random.default_rng(1).normal(0.5, 0.1, 400)
    mean, low, high = bootstrap(np.append(values, np.nan))
    assert mean == pytest.approx(values.mean()) and low < mean < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.15)
    assert all(np.isnan(bootstrap(np.array([np.nan]))))
    # Of few values the resampled means lie together, most of all of one.
    assert np.isnan(bootstrap(values[:4])[1:]).all() and np.isfinite(bootstrap(values[:5])).all()
    # Two values of a face are one observation: saying everything twice makes nothing surer.
    faces = np.repeat(np.arange(400), 2)
    assert bootstrap(np.repeat(values, 2), faces) == bootstrap(values)
    assert bootstrap(np.array([1.0, np.nan, 2.0, 4.0]), np.array([0, 0, 1, 1]))[0] == 2


def test_edits_are_matched_to_what_they_achieve_not_to_what_they_ask(world):
    bench, _ = world
    timid = exact_directions(bench)
    timid.steps = timid.steps * 0.4
    codes = bench.encode(bench.latents(range(60, 66)), "w")
    ends, achieved = match(bench, timid, codes, bench.measure(codes, "w"), ["all"] * 6, "mouth", -1.0)
    np.testing.assert_allclose(achieved, -1, atol=0.06)
    column = PROPERTIES.index("mouth")
    moved = bench.measure(ends, "w")[:, column] - bench.measure(codes, "w")[:, column]
    np.testing.assert_allclose(moved, achieved, atol=1e-3)


def test_leakage_is_zero_for_exact_directions_and_what_was_mixed_in_otherwise(world):
    bench, pool = world
    graders = graders_of(world)[:1]
    graders[0].sds = np.ones(8, np.float32)
    truth = gradients(bench)
    exact = exact_directions(bench)
    clean = leakage(measure_effects(bench, exact, NONE, range(60, 64), graders))
    own = clean[clean["intended"]]
    np.testing.assert_allclose(own["signed"], 1, atol=0.02)
    among = clean["column"].isin([f"finder {name}" for name in EDITED]) & ~clean["intended"]
    np.testing.assert_allclose(clean.loc[among, "signed"], 0, atol=0.02)
    # Half a deviation of pose for each one of mouth, mixed in by hand.
    vectors = exact.units[:, 0] * exact.steps
    mixed = vectors[1] + 0.5 * vectors[2]
    exact.units[1, 0], exact.steps[1, 0] = mixed / np.linalg.norm(mixed), np.linalg.norm(mixed)
    effects = measure_effects(bench, exact, NONE, range(60, 64), graders)
    table = leakage(effects).set_index(["property", "column"])
    assert table.loc[("mouth", "finder pose"), "signed"] == pytest.approx(0.5, abs=0.02)
    expected = truth[:, PROPERTIES.index("hair_color")] @ mixed
    assert table.loc[("mouth", "finder hair_color"), "signed"] == pytest.approx(expected, abs=0.03)
    assert (cost(effects)["matched"] == 1).all() and cost(effects)["drift"].isna().all()
    # The table of edits holds all that leaks are told from.
    pd.testing.assert_frame_equal(leakage(Effects.of_table(effects.table())), leakage(effects), atol=2e-4)
    # Of a method that matched other edits, those that both matched count.
    other = effects.table()
    other.loc[(other["property"] == "mouth") & (other["asked"] > 0), "matched"] = False
    alike = over_shared_edits({"a": effects.table(), "b": other}, ("a", "b"))
    counted = alike["a"].set_index(["property", "column"])["edits"]
    assert counted[("mouth", "finder pose")] == 4 and counted[("eyes", "finder pose")] == 8
    pd.testing.assert_frame_equal(alike["a"], alike["b"])
    assert over_shared_edits({"a": other}, ("a", "a")) == {}


def test_what_moves_one_way_whichever_way_the_property_goes_is_told():
    rows = [(seed, "eyes", sign, True) for seed in range(8) for sign in (1.0, -1.0)] + [(9, "eyes", 1.0, False)]
    edits = pd.DataFrame(rows, columns=["seed", "property", "achieved", "matched"])
    table = leakage(Effects(edits, np.full((len(edits), 1), 0.8), ["glasses"]))
    row = table[table["property"] == "eyes"].iloc[0]
    assert (row["signed"], row["up"], row["down"], row["size"]) == (0, 0.8, -0.8, 0.8)
    assert (row["edits"], row["edits_up"], row["edits_down"]) == (16, 8, 8)


class KnownJudge:
    """Reads the mouth's score as glasses, twice over, and a face's identity off its red."""

    def __init__(self, bench):
        self.bench = bench

    def read(self, images):
        scores = self.bench.scores(images)
        read = np.zeros((len(scores), len(ORACLE_ATTRIBUTES)))
        read[:, ORACLE_ATTRIBUTES.index("glasses")] = 2 * scores[:, PROPERTIES.index("mouth")]
        return read, scores[:, [PROPERTIES.index("hair_color")]].astype(float) * 3


def test_a_judge_is_read_in_deviations_of_the_faces_and_drift_in_those_between_people(world):
    bench, _ = world
    graders = graders_of(world)[:1]
    graders[0].sds = np.ones(8, np.float32)
    exact, seeds = exact_directions(bench), range(60, 72)
    found = measure_effects(bench, exact, NONE, seeds, graders, KnownJudge(bench))
    start = bench.measure(bench.encode(bench.latents(seeds), "w"), "w")
    table = leakage(found).set_index(["property", "column"])
    expected = 2 / (2 * start[:, PROPERTIES.index("mouth")].std(ddof=1))
    assert table.loc[("mouth", "glasses"), "signed"] == pytest.approx(expected, rel=0.03)
    assert table.loc[("mouth", "gender"), "signed"] == 0 and not table.loc[("mouth", "glasses"), "intended"]
    hair = start[:, PROPERTIES.index("hair_color")]
    moved = np.abs(found.changes[:, found.columns.index("finder hair_color")])
    np.testing.assert_allclose(found.edits["drift"], moved / np.abs(np.diff(hair)).mean(), rtol=0.02, atol=1e-3)


def test_only_pixels_outside_the_region_count():
    before = np.zeros((2, 100, 100, 3), np.uint8)
    after = before.copy()
    after[0, 65:80, 40:60] = 200
    after[1, :10] = 200
    inside, outside = outside_change(before, after, "mouth")
    assert inside == 0 and outside == pytest.approx(200 * 1000 / (10000 - 28 * 40), rel=0.02)


def test_the_mended_svm_finds_the_gradient_better_than_the_published_one(world):
    bench, pool = world
    grouping, known = Grouping.at_medians("8", pool.scores), {}
    for mended in (False, True):
        setting = Setting("svm", "w", "8", mended=mended)
        known[mended], fits = find_directions(bench, pool, grouping, setting, MethodOptions(), as_normals=True)
        assert not mended or fits["converged"].all()
    cosines = {mended: cosine(found.units, gradients(bench)) for mended, found in known.items()}
    assert cosines[True] > cosines[False] and cosines[True] > 0.97


@pytest.mark.parametrize("method", ["svm", "ridge"])
def test_mended_directions_go_where_codes_vary(world, method):
    bench, pool = world
    truth = gradients(bench)
    pattern = np.cov(pool.codes("w")[:], rowvar=False) @ truth
    found, _ = find_directions(bench, pool, NONE, Setting(method, "w", "none", mended=True), MethodOptions())
    assert cosine(found.units, pattern) > 0.97 > cosine(found.units, truth)


def test_a_group_is_shrunk_toward_the_pool_when_its_own_samples_teach_less(world):
    _, pool = world
    few = pool.head(320)
    grouping = Grouping.at_medians("8", few.scores)
    groups = grouping.assign(few.scores)
    fits = fit_svm_mended(few.codes("w"), few.scores, groups, grouping.names, ("mouth",), MethodOptions())
    shares = {fit.shrinkage for fit in fits.values() if fit.source == "group"}
    assert len(shares) == 1 and shares.pop() >= 0.5
    alone = fit_svm_mended(few.codes("w"), few.scores, np.full(320, "all"), ["all"], ("mouth",), MethodOptions())
    assert alone["mouth", "all"].source == "group"


def test_a_group_whose_scores_are_all_the_same_has_no_say_in_the_shrinkage():
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((80, 3))
    column = np.where(np.arange(80) < 40, codes[:, 0], 1.0)
    right, wrong = Fit(np.array([1.0, 0, 0]), "pooled", 80), Fit(np.array([0, 1.0, 0]), "group", 40)
    inside = {"h": np.arange(40), "l": np.arange(40, 80)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert _best_share(codes, column, right, {"h": wrong, "l": wrong}, inside) == 1.0


def test_conditional_directions_can_move_where_codes_vary():
    covariance = np.diag([4.0, 1.0, 0.01])
    normals = {"eyes": [1, 1, 1], "mouth": [0, 1, 0]}
    fits = {(name, "all"): Fit(np.array(n, np.float32), "group", 9) for name, n in normals.items()}
    kept = {("hair_color", "all"): Fit(np.array([0, 0, 1], np.float32), "group", 9)}
    eyes = project_off(fits, kept, covariance)["eyes", "all"].normal
    np.testing.assert_allclose(eyes, [1, 0, 0], atol=1e-6)
    free = project_off({("eyes", "all"): fits["eyes", "all"]}, None, covariance)["eyes", "all"].normal
    assert free[0] > 0.95 and abs(free[2]) < 0.01


def test_ranks_as_normal_deviates_do_not_see_outliers():
    values = np.array([[1.0], [2.0], [3.0], [1e9]])
    ranks = normal_ranks(values)
    assert (np.diff(ranks[:, 0]) > 0).all() and ranks[3, 0] == pytest.approx(-ranks[0, 0])


def test_published_vectors_point_down_and_are_turned_by_measurement(world, tmp_path):
    bench, pool = world
    truth = gradients(bench)
    for column, name in zip(COLUMNS, EDITED, strict=True):
        write_vector(tmp_path / vector_file(name, "w", "all"), -truth[:, column])
    directions, turned = import_vectors(bench, pool, NONE, tmp_path, "w")
    assert turned.all()
    for i, column in enumerate(COLUMNS):
        assert directions.units[i, 0] @ truth[:, column] > 0
    write_vector(tmp_path / vector_file("eyes", "w", "all"), np.ones(W + 1))
    with pytest.raises(PipelineError, match="belong to another generator or position"):
        import_vectors(bench, pool, NONE, tmp_path, "w")


def test_published_latents_are_read_with_the_label_that_their_face_was_drawn_with(tmp_path):
    z = np.random.default_rng(0).standard_normal((2, 27)).astype(np.float32)
    published, numbered, ours = (tmp_path / f"{name}.csv" for name in ("published", "numbered", "ours"))
    # The author's file begins `0,1,…` and has no numbers of rows; his loader takes the first column for z[0].
    pd.DataFrame(z).to_csv(published, index=False)
    write_vector(numbered, z)
    write_latents(ours, z)
    for path in (published, numbered, ours):
        latents, labels = read_latents(path, 24, 3)
        np.testing.assert_allclose(latents, z[:, :24], rtol=1e-6)
        np.testing.assert_allclose(labels, z[:, 24:], rtol=1e-6)
        assert read_latents(path, 27, 3)[1] is None
    assert (pd.read_csv(ours).to_numpy(np.float32) == z).all()
    with pytest.raises(PipelineError, match="takes 512, or 515 with a label"):
        read_latents(published, 512, 3)
    # Numbers that this generator would not read are not dropped: they made the face.
    with pytest.raises(PipelineError, match="has 27 numbers a row, this generator takes 24: "):
        read_latents(published, 24)
    with pytest.raises(PipelineError, match=r"none\.csv cannot be read"):
        read_latents(tmp_path / "none.csv", 24)


@dataclass
class Taught:
    """A scorer that says which faces it learnt from."""

    provenance: dict


def test_a_second_cnn_that_learnt_from_the_finders_faces_is_no_judge():
    finder = Taught({"scorer": "property CNN", "trained_on": "0-9"})
    assert check_second(finder, {"second": Taught({"scorer": "second CNN", "trained_on": "10-19"})}) == ""
    assert "is not recorded" in check_second(LinearScorer(), {"second": finder}) and check_second(finder, {}) == ""
    with pytest.raises(PipelineError, match=r"both trained on 1 faces .* --graders finder geometric"):
        check_second(finder, {"second": Taught({"scorer": "second CNN", "trained_on": "9-19"})})


def test_settings_are_read_from_the_names_in_reports():
    assert Setting.named("svm_mended_conditional", "z", "8") == Setting("svm", "z", "8", True, mended=True)
    for name in ("svm", "svm_mended", "ridge_conditional", "gradient_mended_conditional_looks", "closed_loop"):
        assert Setting.named(name).name == f"{name}_w"
    with pytest.raises(PipelineError, match="for 16 groups"):
        Setting(groups="8", cuts="v9")
    for wrong in ({"method": "ridge"}, {"method": "model_loop"}):
        with pytest.raises(PipelineError, match="add --conditional"):
            Setting(**wrong, looks=True)
    with pytest.raises(PipelineError, match="no unit vectors"):
        Setting("closed_loop", grid="published")


def test_a_fitted_grid_asks_of_each_face_what_its_scores_can_reach():
    grid, mouth = grid_named("reachable"), EDITED.index("mouth")
    ends = np.tile(np.array([-2.0, 2.0], np.float32), (len(PROPERTIES), 1))
    ends[PROPERTIES.index("mouth")] = (0.0, 3.0)
    base = np.zeros((4, len(PROPERTIES)), np.float32)
    base[:, PROPERTIES.index("mouth")] = (0.0, 1.5, 3.0, -0.5)
    asked = face_amounts(grid, base, np.full(3, 0.5, np.float32), ends)
    levels = np.unique(asked[:, :, mouth], axis=1)
    np.testing.assert_allclose(levels[0], [0, 0.9, 1.8, 2.7, 3.6], atol=1e-5)
    np.testing.assert_allclose(levels[1], [-1.8, -0.9, 0, 0.9, 1.8], atol=1e-5)
    np.testing.assert_allclose(levels[2], [-3.6, -2.7, -1.8, -0.9, 0], atol=1e-5)
    np.testing.assert_allclose(levels[3], levels[0], atol=1e-5)  # below the end, where nothing is asked for
    narrow = face_amounts(grid, base, np.full(3, 1.0, np.float32), ends)[0, :, mouth]
    np.testing.assert_allclose(np.unique(narrow), [0, 0.75, 1.5, 2.25, 3.0], atol=1e-5)
    plain = face_amounts(grid_named("deviations"), base, np.full(3, 0.5, np.float32), ends)
    np.testing.assert_array_equal(plain, np.repeat(grid.amounts()[None], 4, axis=0))
    np.testing.assert_allclose(asked[:, :, 0], np.repeat(grid.amounts()[None, :, 0], 4, axis=0), atol=1e-5)


def test_who_obeys_to_the_letter_is_held_up_by_the_end_of_a_score_alone():
    grid = grid_named("deviations")
    amounts, sds = grid.amounts(), np.ones(3, np.float32)
    base = np.zeros((2, len(PROPERTIES)), np.float32)
    base[1, PROPERTIES.index("mouth")] = 5.0
    ends = np.tile(np.array([-9.0, 9.0], np.float32), (3, 1))
    ends[EDITED.index("mouth")] = (0.0, 9.0)
    scores = np.zeros((2, len(amounts), len(PROPERTIES)), np.float32)
    test = Test(np.arange(2), np.array(["", ""]), base, scores, amounts, sds, np.repeat(amounts[None], 2, 0), ends)
    most = dict(zip(EDITED, most_corr(test).T, strict=True))
    np.testing.assert_allclose(most["eyes"], 1)
    # Five weights of which two change nothing: -1.8, -.9, 0, .9, 1.8 against 0, 0, 0, .9, 1.8.
    np.testing.assert_allclose(most["mouth"], [4.05 / (8.1 * 2.592) ** 0.5, 1], atol=1e-5)
    assert np.isnan(most_corr(replace(test, asked=None))).all()
