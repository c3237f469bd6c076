"""Directions: right way up, one deviation long, bound to their generator, in the published format."""

from itertools import product

import numpy as np
import pytest
import torch
from vectorfind_world import W, gradients, make_bench, make_pool

import vectorfind.methods
from pipeline.artefacts import read_json
from pipeline.errors import PipelineError
from vectorfind.calibration import LONGEST_STEP, calibrate
from vectorfind.directions import DirectionSet, read_vectors, write_vector
from vectorfind.finding import accuracy_table, find_directions, find_networks
from vectorfind.groups import PUBLISHED_CUTS, Grouping
from vectorfind.methods import BYTES_PER_NUMBER, MethodOptions
from vectorfind.names import EDITED, PROPERTIES
from vectorfind.setting import Setting


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    bench = make_bench(batch=100)
    return bench, make_pool(bench, tmp_path_factory.mktemp("pool"), 3000)


def found_by(world, method="svm", groups="16", position="w", conditional=False):
    bench, pool = world
    setting = Setting(method, position, groups, conditional)
    return find_directions(bench, pool, Grouping.at_medians(groups, pool.scores), setting, MethodOptions())


@pytest.mark.parametrize("groups, count, names", [("none", 1, "all"), ("8", 8, "hlh"), ("16", 16, "lhlh")])
def test_groups_are_named_by_letters_and_cut_at_the_medians(world, tmp_path, groups, count, names):
    _, pool = world
    grouping = Grouping.at_medians(groups, pool.scores)
    assert len(grouping.names) == count and names in grouping.names
    assigned = grouping.assign(pool.scores)
    assert set(assigned) <= set(grouping.names)
    for i, letter in enumerate(grouping.letters):
        high = np.array([name[i] == "h" for name in assigned])
        assert high.mean() == pytest.approx(0.5, abs=0.01)
        assert pool.score(letter)[high].min() >= pool.score(letter)[~high].max()
    grouping.save(tmp_path / "groups.json")
    cuts = dict(zip(grouping.letters, grouping.cuts, strict=True))
    assert read_json(tmp_path / "groups.json") == {"kind": groups, "cuts": cuts}


def test_the_published_cuts_can_be_chosen_and_a_missing_score_has_no_group():
    assert Grouping.published("v9").cuts == PUBLISHED_CUTS["v9"]
    scores = np.zeros((3, 8))
    assert set(Grouping.published("v8").assign(scores)) == {"hllh"}
    scores[1, PROPERTIES.index("hairstyle")] = np.nan
    with pytest.raises(PipelineError, match="sample 1 has no hairstyle score"):
        Grouping.published("v8").assign(scores)


@pytest.mark.parametrize("method", ["svm", "ridge"])
def test_in_a_linear_world_plus_one_raises_the_score_by_one_deviation(world, method):
    bench, pool = world
    directions, fits = found_by(world, method)
    truth = gradients(bench)
    for i, name in enumerate(EDITED):
        rise = directions.units[i] @ truth[:, PROPERTIES.index(name)] * directions.steps[i]
        free = ~fits.loc[fits["property"] == name, "capped"].to_numpy()
        np.testing.assert_allclose(rise[free], np.std(pool.score(name), ddof=1), rtol=1e-3)
        assert free.mean() > 0.8 and (rise > 0).all()
    np.testing.assert_allclose(np.linalg.norm(directions.units, axis=-1), 1, rtol=1e-5)


def test_ridge_finds_the_gradient_itself(world):
    directions, _ = found_by(world, "ridge", "none")
    truth = gradients(world[0])
    for i, name in enumerate(EDITED):
        true = truth[:, PROPERTIES.index(name)]
        assert directions.units[i, 0] @ true / np.linalg.norm(true) > 0.999


def test_svm_reports_its_held_out_accuracy_and_whether_it_converged(world):
    _, fits = found_by(world)
    assert len(fits) == 48
    assert fits["held_out"].gt(0).all() and fits["accuracy"].between(0, 1).all() and fits["accuracy"].mean() > 0.9
    assert fits["converged"].dtype == bool
    table = accuracy_table(fits)
    assert list(table["property"]) == list(EDITED) and table["accuracy"].min() > 0.9
    # Groups of which nothing was held out tell nothing, and those that share the pool's fit tell it once.
    eyes = fits[fits["property"] == "eyes"].head(4).reset_index(drop=True)
    eyes["accuracy"], eyes["held_out"] = [0.8, np.nan, 0.5, 0.5], [10, 0, 10, 10]
    eyes["source"] = ["group", "group", "pooled", "pooled"]
    table = accuracy_table(eyes)
    assert table["accuracy"][0] == pytest.approx(0.65) and table["held_out"][0] == 20
    assert accuracy_table(eyes.iloc[1:2])["accuracy"].isna().all()


@pytest.mark.parametrize("value", [0.5, np.nan])
def test_a_score_that_never_varies_has_no_direction(world, value):
    bench, pool = world
    alike = pool.head(100)
    alike._scores = np.array(alike.scores)
    alike.scores[:, PROPERTIES.index("mouth")] = value
    grouping = Grouping.at_medians("none", alike.scores)
    for method, mended in product(("svm", "ridge", "gradient"), (False, True)):
        find = find_networks if method == "gradient" else find_directions
        with pytest.raises(
            PipelineError, match="mouth score is the same for all of its 100 samples, or was not measured"
        ):
            find(bench, alike, grouping, Setting(method, groups="none", mended=mended), MethodOptions())


@pytest.mark.parametrize("mended", [False, True])
def test_an_svm_is_given_no_more_samples_than_memory_holds(world, monkeypatch, mended):
    bench, pool = world
    grouping = Grouping.at_medians("none", pool.scores)
    wish = bench, pool, grouping, Setting(groups="none", mended=mended), MethodOptions()
    found, whole = find_directions(*wish)
    monkeypatch.setattr(vectorfind.methods, "SVM_BYTES", 60 * BYTES_PER_NUMBER * W)
    fewer, fits = find_directions(*wish)
    # A fifth of the extremes is held out at the published settings.
    assert (fits["samples"] <= 60).all() and (fits["samples"] >= (40 if mended else 48)).all()
    assert (whole["samples"] > 60).all()
    assert ((found.units * fewer.units).sum(2) > 0.6).all()


def test_a_solver_that_stops_early_is_recorded_not_hidden(world):
    bench, pool = world
    grouping = Grouping.at_medians("none", pool.scores)
    _, fits = find_directions(bench, pool, grouping, Setting(groups="none"), MethodOptions(max_iter=1))
    assert not fits["converged"].any() and (fits["iterations"] == 1).all()


def test_a_group_too_small_for_its_own_direction_takes_the_pools(world):
    bench, pool = world
    few = pool.head(60)
    _, fits = find_directions(bench, few, Grouping.at_medians("16", few.scores), Setting(), MethodOptions())
    small = fits["faces"] < 20
    assert small.any() and (fits.loc[small, "source"] == "pooled").all()


@pytest.mark.parametrize("method", ["svm", "ridge"])
def test_conditional_directions_are_orthogonal_to_the_other_normals(world, method):
    plain, _ = found_by(world, method, "8")
    conditional, _ = found_by(world, method, "8", conditional=True)
    cosines = np.einsum("igd,jgd->ijg", conditional.units, plain.units)
    for i in range(3):
        for j in range(3):
            if i != j:
                # The plain fit solves for other columns beside these, which moves its last digits: 1.5e-5 on one CPU.
                np.testing.assert_allclose(cosines[i, j], 0, atol=1e-4)


def test_a_vector_of_the_wrong_sign_is_turned_and_a_useless_one_is_not_stretched_without_end(world):
    bench, pool = world
    truth = gradients(bench)[:, PROPERTIES.index("eyes")]
    dead = np.linalg.svd(gradients(bench).T)[2][-1].astype(np.float32)
    units = np.stack([-truth / np.linalg.norm(truth), dead])[:, None].astype(np.float32)
    groups = np.full(len(pool), "all")
    sds = [pool.score("eyes").std()] * 2
    found = calibrate(bench, pool.codes("w"), groups, ["all"], units, ("eyes", "eyes"), "w", sds)
    assert found.flipped[0, 0] and found.units[0, 0] @ truth > 0
    spread = (pool.codes("w")[:] @ dead).std()
    assert found.capped[1, 0] and found.steps[1, 0] <= LONGEST_STEP * spread * 1.05


def test_a_probe_of_which_one_side_is_not_measured_tells_nothing(world):
    bench, pool = world
    eyes = PROPERTIES.index("eyes")
    truth = gradients(bench)[:, eyes]
    unit = (truth / np.linalg.norm(truth)).astype(np.float32)[None, None]
    measured = bench.measure(pool.codes("w")[:], "w")[:, eyes]
    scorer, limit = bench.scorer, float(np.quantile(measured, 0.95))

    class Blind:
        def score_tensor(self, images):
            scores = scorer.score_tensor(images) + 10  # a level that one side alone would take for an effect
            return torch.where(scores > limit + 10, float("nan"), scores)

    groups, sds = np.full(len(pool), "all"), [measured.std()]
    bench.scorer = Blind()
    try:
        found = calibrate(bench, pool.codes("w"), groups, ["all"], unit, ("eyes",), "w", sds)
    finally:
        bench.scorer = scorer
    moved = found.steps[0, 0] * found.units[0, 0] @ truth / sds[0]
    assert not found.flipped[0, 0] and moved == pytest.approx(1, abs=0.1)


def test_edits_move_each_face_by_its_own_group(world):
    bench, pool = world
    directions, _ = found_by(world)
    codes = pool.codes("w")[:4]
    groups = ["hhhh", "llll", "hhhh", "lhlh"]
    amounts = np.array([[1, 0, 0], [0, -2, 0], [0, 0, 0], [0.5, 0, 1]], np.float32)
    edited = directions.edit(codes, groups, amounts)
    for k, group in enumerate(groups):
        by_hand = codes[k : k + 1]
        for i, name in enumerate(EDITED):
            one = directions.get(name, group)
            by_hand = by_hand + amounts[k, i] * one.step * one.unit
        np.testing.assert_allclose(edited[k], by_hand[0], atol=1e-5)
    raw = directions.edit(codes, groups, amounts, raw=True)
    np.testing.assert_allclose(np.linalg.norm(raw - codes, axis=1)[:3], [1, 2, 0], rtol=1e-4, atol=1e-6)
    with pytest.raises(PipelineError, match="no direction for eyes of group 'xxxx'"):
        directions.edit(codes[:1], ["xxxx"], amounts[:1])


def test_directions_of_another_generator_are_refused(world, tmp_path):
    bench, _ = world
    directions, _ = found_by(world, groups="8")
    directions.save(tmp_path / "directions.npz")
    same = DirectionSet.load(tmp_path / "directions.npz", bench)
    assert (same.units == directions.units).all() and (same.steps == directions.steps).all()
    assert same.provenance == directions.provenance and same.cuts == directions.cuts
    with pytest.raises(PipelineError, match="belongs to another generator"):
        DirectionSet.load(tmp_path / "directions.npz", make_bench(seed=1))
    other = make_bench()
    other.scorer_hash = "other"
    with pytest.raises(PipelineError, match="belongs to another scorer"):
        DirectionSet.load(tmp_path / "directions.npz", other)
    with pytest.raises(PipelineError, match=r"run_vectorfind\.py"):
        DirectionSet.load(tmp_path / "absent.npz", bench)
    whole = (tmp_path / "directions.npz").read_bytes()
    (tmp_path / "directions.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PipelineError, match=r"directions\.npz"):
        DirectionSet.load(tmp_path / "directions.npz", bench)


def test_the_published_csv_keeps_every_bit(tmp_path):
    vector = np.random.default_rng(0).standard_normal(512).astype(np.float32)
    write_vector(tmp_path / "v.csv", vector)
    lines = (tmp_path / "v.csv").read_text().splitlines()
    assert (
        lines[0].startswith(",0,1,2,") and lines[0].endswith(",511") and lines[1].startswith("0,") and len(lines) == 2
    )
    assert (read_vectors(tmp_path / "v.csv")[0] == vector).all()


def test_a_spoilt_vector_csv_is_named_with_row_and_column(tmp_path):
    (tmp_path / "v.csv").write_text(",0,1\n0,0.5,oops\n")
    with pytest.raises(PipelineError, match=r"v\.csv, row 2, column 1: expected a number, found 'oops'"):
        read_vectors(tmp_path / "v.csv")
    (tmp_path / "v.csv").write_text("a,b\n1,2\n")
    with pytest.raises(PipelineError, match="expected the header"):
        read_vectors(tmp_path / "v.csv")
