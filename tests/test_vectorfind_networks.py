"""Edits along the gradients of networks: against the linear world's known answer, and what mends them by itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_vectorfind_evaluate import exact_directions
from vectorfind_world import COLUMNS, TwoLooks, W, cosine, gradients, make_bench, make_pool

from pipeline.errors import PipelineError
from vectorfind.closed_loop import ways_around
from vectorfind.finding import find_editor, find_networks
from vectorfind.gradient_net import GradientNet
from vectorfind.groups import Grouping
from vectorfind.methods import MethodOptions
from vectorfind.names import EDITED
from vectorfind.network_editor import NetworkEditor, level_normals, moves
from vectorfind.setting import Setting

NONE = Grouping("none", ())


class Straight(torch.nn.Linear):
    """A network whose score is linear in the code."""

    def slope(self, mid, around=None):
        return self.weight.expand(len(mid), -1)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    bench = make_bench(batch=100)
    return bench, make_pool(bench, tmp_path_factory.mktemp("pool"), 1200)


@pytest.mark.parametrize("conditional", [False, True])
def test_vectors_beside_a_network_are_normals_where_they_are_freed_of_others(world, monkeypatch, conditional):
    import vectorfind.network_training as training

    monkeypatch.setattr(training, "MENDED", replace(training.MENDED, most_epochs=1, patience=1, batch=64))
    bench, pool = world
    truth = gradients(bench)
    pattern = np.cov(pool.codes("w")[:], rowvar=False) @ truth
    editor, _ = find_networks(
        bench, pool, NONE, Setting("mixed", "w", "none", conditional, mended=True), MethodOptions()
    )
    near, far = (truth, pattern) if conditional else (pattern, truth)
    assert cosine(editor.vectors.units, near) > 0.97 > cosine(editor.vectors.units, far)


@pytest.mark.parametrize("mended", [False, True])
def test_a_network_learns_the_gradient_and_its_step_is_one_deviation(world, mended, monkeypatch, tmp_path):
    bench, pool = world
    short = {"most_epochs": 12, "patience": 12, "batch": 32}
    import vectorfind.network_training as training

    monkeypatch.setattr(training, "PUBLISHED", replace(training.PUBLISHED, **short))
    monkeypatch.setattr(training, "MENDED", replace(training.MENDED, **short))
    setting = Setting("gradient", "w", "none", mended=mended)
    editor, fits = find_networks(bench, pool, NONE, setting, MethodOptions())
    assert list(fits["property"]) == list(EDITED) and fits["accuracy"].min() > 0.8
    codes = pool.codes("w")[:20]
    moved = editor.edit(codes, ["all"] * 20, np.tile([[0, 1, 0]], (20, 1)))
    change = (bench.measure(moved, "w") - bench.measure(codes, "w"))[:, COLUMNS] / editor.score_sds
    assert change[:, 1].mean() == pytest.approx(1, abs=0.15)
    editor.save(tmp_path / "nets.npz")
    again = NetworkEditor.load(tmp_path / "nets.npz", bench)
    assert (again.edit(codes, ["all"] * 20, np.tile([[0, 1, 0]], (20, 1))) == moved).all()
    with pytest.raises(PipelineError, match="another generator"):
        NetworkEditor.load(tmp_path / "nets.npz", make_bench(seed=1))


def test_a_network_that_points_the_wrong_way_is_followed_backwards(world, monkeypatch):
    bench, pool = world
    import vectorfind.network_training as training

    monkeypatch.setattr(training, "MENDED", replace(training.MENDED, most_epochs=2, patience=2, batch=32))
    editor, fits = find_networks(bench, pool, NONE, Setting("gradient", "w", "none", mended=True), MethodOptions())
    assert not fits["flipped"].any()
    for parameter in (editor.nets["eyes"].fc_final.weight, editor.nets["eyes"].fc_final.bias):
        parameter.data.neg_()
    _, flipped = editor.calibrate(bench, pool.codes("w")[:20], ["all"] * 20)
    assert flipped == {"eyes": True, "mouth": False, "pose": False} and editor.steps["eyes"] < 0
    codes = pool.codes("w")[:20]
    moved = editor.edit(codes, ["all"] * 20, np.tile([[1, 0, 0]], (20, 1)))
    change = (bench.measure(moved, "w") - bench.measure(codes, "w"))[:, COLUMNS[0]] / editor.score_sds[0]
    assert change.mean() == pytest.approx(1, abs=0.2)
    # In latent units as well, as on the published grid.
    moved = editor.edit(codes, ["all"] * 20, np.tile([[0.5, 0, 0]], (20, 1)), raw=True)
    assert ((bench.measure(moved, "w") - bench.measure(codes, "w"))[:, COLUMNS[0]] > 0).all()
    np.testing.assert_allclose(np.linalg.norm(moved - codes, axis=1), 0.5, rtol=1e-3)


def test_conditional_networks_leave_hair_and_background_alone(world, monkeypatch, tmp_path):
    bench, pool = world
    import vectorfind.network_training as training

    monkeypatch.setattr(training, "MENDED", replace(training.MENDED, most_epochs=2, patience=2, batch=32))
    amounts = np.tile([[1.0, 0, 0]], (20, 1))
    codes, before, moved = pool.codes("w")[:20], bench.measure(pool.codes("w")[:20], "w"), {}
    for conditional in (False, True):
        setting = Setting("gradient", "w", "none", conditional, mended=True)
        editor, _ = find_networks(bench, pool, NONE, setting, MethodOptions())
        change = np.abs(bench.measure(editor.edit(codes, ["all"] * 20, amounts), "w") - before)
        moved[conditional] = np.delete(change, COLUMNS, axis=1).mean()
    assert moved[True] < 0.3 * moved[False]
    editor.save(tmp_path / "nets.npz")
    again = NetworkEditor.load(tmp_path / "nets.npz", bench)
    assert (again.edit(codes, ["all"] * 20, amounts) == editor.edit(codes, ["all"] * 20, amounts)).all()


def test_a_normal_is_that_of_raw_codes_whatever_the_net_reads_and_0_in_a_dead_dimension():
    net = Straight(3, 1)
    normals = level_normals(net, np.ones((2, 3), np.float32), np.zeros(3), np.array([1.0, 2.0, 0.0]))
    slopes = net.weight.detach().numpy()[0] * [1, 0.5, 0]
    np.testing.assert_allclose(normals, np.tile(slopes / np.linalg.norm(slopes), (2, 1)), rtol=1e-5)


def factor_of(dimension: int, rng) -> np.ndarray:
    """A factor of a covariance whose dimensions hang together and spread by up to 30 times; the last one is dead."""
    factor = np.tril(rng.standard_normal((dimension, dimension))) * np.logspace(-1, 0.5, dimension)[:, None]
    factor[-1] = 0
    return factor.astype(np.float32)


def test_moves_go_where_codes_vary():
    rng = np.random.default_rng(0)
    factor = factor_of(6, rng)
    normals = rng.standard_normal((4, 3, 6)).astype(np.float32)
    expected = normals @ (factor @ factor.T)
    np.testing.assert_allclose(
        moves(normals, factor), expected / np.linalg.norm(expected, axis=2, keepdims=True), atol=1e-5
    )


@pytest.mark.parametrize("along", [True, False])
def test_a_move_freed_of_others_leaves_their_levels_alone_and_raises_its_own(along):
    rng = np.random.default_rng(0)
    factor = factor_of(6, rng) if along else None
    # Normals that nearly agree.
    normals = (rng.standard_normal((4, 1, 6)) + 0.3 * rng.standard_normal((4, 3, 6))).astype(np.float32)
    kept = rng.standard_normal((2, 6)).astype(np.float32)
    free = moves(normals, factor, kept)
    crossed = np.einsum("npd,nqd->npq", free, normals)
    np.testing.assert_allclose(crossed[:, ~np.eye(3, dtype=bool)], 0, atol=1e-5)
    np.testing.assert_allclose(free @ kept.T, 0, atol=1e-5)
    assert (np.einsum("npp->np", crossed) > 0).all()
    assert (free[:, :, 5] == 0).all() == along
    np.testing.assert_allclose(np.linalg.norm(free, axis=2), 1, rtol=1e-5)


def test_mended_networks_move_along_the_codes_and_vectors_as_they_were_found():
    rng = np.random.default_rng(1)
    factor = factor_of(W, rng)
    net = Straight(W, 1)
    flat, live = (np.zeros(W, np.float32), np.ones(W, np.float32))
    vectors = exact_directions(make_bench())
    editor = NetworkEditor("w", {"eyes": net}, flat, live, np.ones(3), factor=factor, vectors=vectors)
    units = editor.units(rng.standard_normal((2, W)).astype(np.float32), ["all"] * 2)
    expected = factor @ factor.T @ net.weight.detach().numpy()[0]
    np.testing.assert_allclose(units[:, 0], np.tile(expected / np.linalg.norm(expected), (2, 1)), atol=1e-5)
    for i, name in enumerate(EDITED[1:], 1):
        assert (units[:, i] == vectors.get(name, "all").unit).all()


def test_a_conditional_standardised_network_moves_its_own_value_alone():
    """Dimensions spread by up to 30 times and hang together: a move where codes vary is no normal of its level."""
    torch.manual_seed(0)
    rng = np.random.default_rng(1)
    factor = factor_of(W, rng)
    spread = np.linalg.norm(factor, axis=1)
    mean = rng.standard_normal(W).astype(np.float32)
    nets = {name: Straight(W, 1) for name in EDITED}
    kept = rng.standard_normal((2, W)).astype(np.float32)
    steps = dict.fromkeys(EDITED, 3.0)
    editor = NetworkEditor("w", nets, mean, spread, np.ones(3), steps, substeps=3, factor=factor, kept=kept)
    codes = mean + rng.standard_normal((5, W)).astype(np.float32) @ factor.T

    def told(codes):
        with torch.no_grad():
            x = torch.from_numpy((codes - mean) / np.where(spread > 0, spread, 1))
            return np.concatenate([net(x).numpy() for net in nets.values()], 1)

    for i in range(3):
        amounts = np.zeros((5, 3), np.float32)
        amounts[:, i] = 1.0
        edited = editor.edit(codes, ["all"] * 5, amounts)
        change = told(edited) - told(codes)
        assert (change[:, i] > 0.1).all()
        np.testing.assert_allclose(np.delete(change, i, axis=1), 0, atol=1e-4)
        np.testing.assert_allclose((edited - codes) @ kept.T, 0, atol=1e-4)


@pytest.mark.parametrize("looks", [0, 16])
def test_the_slope_of_a_network_is_its_gradient_in_the_mean_over_the_surroundings(looks):
    torch.manual_seed(3)
    net, mid = GradientNet(8).eval(), torch.randn(5, 8)
    around = torch.from_numpy(ways_around(np.eye(8, dtype=np.float32), looks, 0.5)) if looks else None
    places = (mid[:, None] + (0 if around is None else around)).requires_grad_(True)
    with torch.enable_grad():
        (wanted,) = torch.autograd.grad(net(places).sum(), places)
    torch.testing.assert_close(net.slope(mid, around), wanted.mean(1))


def test_ways_around_come_in_pairs_as_long_as_asked():
    ways = ways_around(2 * np.eye(300, dtype=np.float32), 16, 0.5)
    assert ways.shape == (16, 300) and ways.dtype == np.float32
    np.testing.assert_array_equal(ways[:8], -ways[8:])
    assert ways.std() == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("method", ["ridge", "svm", "gradient", "mixed"])
@pytest.mark.parametrize("mended", [False, True])
def test_how_a_face_looks_is_left_alone_where_that_is_asked_for(world, monkeypatch, method, mended):
    """Looks are linear in this world's codes, so that a direction that leaves them alone leaves them as they are."""
    import vectorfind.network_training as training

    for options in ("PUBLISHED", "MENDED"):
        few = replace(getattr(training, options), most_epochs=1, patience=1, batch=64)
        monkeypatch.setattr(training, options, few)
    bench, pool = world
    codes, amounts, moved = pool.codes("w")[:20], np.tile([[1.0, 1.0, 1.0]], (20, 1)), {}
    for looks in (False, True):
        setting = Setting(method, "w", "none", True, mended=mended, looks=looks)
        options = MethodOptions(ranks=mended and method == "ridge")
        editor, _ = find_editor(bench, pool, NONE, setting, options, TwoLooks)
        assert editor.provenance["looks"] == looks
        ends = editor.edit(codes, ["all"] * 20, amounts)
        moved[looks] = np.abs(TwoLooks()(bench.images(ends, "w")) - TwoLooks()(bench.images(codes, "w"))).mean()
        gained = (bench.measure(ends, "w") - bench.measure(codes, "w"))[:, COLUMNS] / editor.score_sds
        assert (gained.mean(0) > 0.5).all()
    assert moved[True] < 0.1 * moved[False]
