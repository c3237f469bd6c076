"""The closed loop: reaches what was asked, holds the rest, says how far a face can go."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from vectorfind_world import COLUMNS, CurvedScorer, TwoLooks, make_bench

from pipeline.errors import PipelineError
from vectorfind.closed_loop import REACHED, ClosedLoop, LoopOptions, code_factor, slopes_at
from vectorfind.finding import make_loop
from vectorfind.grid import ends_of
from vectorfind.groups import Grouping
from vectorfind.model_loop import ENDED, WELL_BELOW, ModelLoop, ModelLoopOptions, _Plans
from vectorfind.names import EDITED, PROPERTIES
from vectorfind.pool import plan_for, sample_pool
from vectorfind.score_model import ScoreModel
from vectorfind.setting import Setting

KEPT_COLUMNS = [k for k in range(len(PROPERTIES)) if k not in COLUMNS]


def loop_in(bench, position="w", **options):
    codes = bench.encode(bench.latents(range(400)), position)
    sds = bench.measure(codes, position).std(0)
    known = {"generator_hash": bench.generator_hash, "scorer_hash": bench.scorer_hash, "identity": False}
    factor = code_factor(codes, position)
    slopes = slopes_at(bench, codes[:100], position, factor, sds).mean(0)
    return ClosedLoop(bench, position, factor, sds, options=LoopOptions(**options), provenance=known, slopes=slopes)


@pytest.fixture(scope="module")
def curved():
    bench = make_bench(batch=50)
    bench.scorer = CurvedScorer()
    return bench


@pytest.mark.parametrize("position", ["z", "w", "mapping_split2"])
def test_it_reaches_the_wished_change_from_any_position(position):
    bench = make_bench(batch=50, split=True)
    bench.scorer = CurvedScorer()
    loop = loop_in(bench, position)
    codes = bench.encode(bench.latents(range(1000, 1006)), position)
    amounts = np.tile(np.array([[1.0, -0.8, 0.5]], np.float32), (6, 1))
    walk = loop.walk(codes, amounts)
    moved = (bench.measure(walk.codes, position) - bench.measure(codes, position)) / loop.all_sds
    assert (walk.why == REACHED).mean() >= 0.8
    reached = walk.why == REACHED
    np.testing.assert_allclose(moved[reached][:, COLUMNS], amounts[reached], atol=0.06)
    # The slopes of what is kept stay those of the pool, and bend away most in z.
    assert np.abs(moved[reached][:, KEPT_COLUMNS]).mean() < (0.3 if position == "z" else 0.2)
    np.testing.assert_allclose(walk.scores, bench.measure(walk.codes, position), atol=2e-3)


def model_loop_in(bench, position="w", **options):
    codes = bench.encode(bench.latents(range(1500)), position)
    scores = bench.measure(codes, position)
    sds = scores.std(0)
    known = {"generator_hash": bench.generator_hash, "scorer_hash": bench.scorer_hash}
    model = ScoreModel.fit(codes, scores, sds)
    options = ModelLoopOptions(**{"trust": 1.0, **options})
    known = {"options": options, "provenance": known, "model": model, "ends": np.full((8, 2), (-9, 9), np.float32)}
    return ModelLoop(bench, position, code_factor(codes, position), sds, **known)


@pytest.mark.parametrize("position", ["z", "w", "mapping_split2"])
def test_led_by_a_model_it_reaches_the_wished_change_and_holds_the_rest(position):
    bench = make_bench(batch=50, split=True)
    bench.scorer = CurvedScorer()
    loop = model_loop_in(bench, position, rounds=14)
    assert loop.model.held_r.min() > 0.9
    codes = bench.encode(bench.latents(range(2000, 2010)), position)
    amounts = np.tile(np.array([[1.0, -0.8, 0.5]], np.float32), (10, 1))
    walk = loop.walk(codes, amounts)
    moved = (bench.measure(walk.codes, position) - bench.measure(codes, position)) / loop.all_sds
    reached = walk.why == REACHED
    assert reached.mean() >= 0.8
    np.testing.assert_allclose(moved[reached][:, COLUMNS], amounts[reached], atol=0.06)
    assert np.abs(moved[reached][:, KEPT_COLUMNS]).mean() < 0.2
    np.testing.assert_allclose(walk.scores, bench.measure(walk.codes, position), atol=2e-3)


def test_no_more_is_asked_of_a_score_than_its_end(curved):
    loop = model_loop_in(curved)
    codes = curved.encode(curved.latents(range(2000, 2006)), "w")
    start = curved.measure(codes, "w") / loop.all_sds
    mouth = PROPERTIES.index("mouth")
    loop.ends[mouth] = (-9, start[:, mouth].max() + 0.3)
    amounts = np.tile(np.array([[0.0, 8.0, 0.0]], np.float32), (6, 1))
    walk = loop.walk(codes, amounts)
    assert (walk.why == ENDED).mean() >= 0.8
    ended = walk.scores[walk.why == ENDED, mouth] / loop.all_sds[mouth]
    np.testing.assert_allclose(ended, loop.ends[mouth, 1], atol=0.06)


class ErringScorer(CurvedScorer):
    """Reads the scores of CurvedScorer with ripples; short ones are an error of its own in every picture.

    height: in deviations `spread` [8]. pace: radians per deviation; height * pace above 1 turns gradients about.
    """

    def __init__(self, spread, height=0.3, pace=300):
        super().__init__()
        self.spread, self.height, self.pace = torch.from_numpy(spread), height, pace

    def score_tensor(self, images):
        true = super().score_tensor(images)
        return true + self.height * self.spread * torch.sin(self.pace * true / self.spread)


def curved_faces():
    """A bench of CurvedScorer, 40 codes, their scores [40, 8], the deviations [8] of all faces, wishes [40, 3]."""
    bench = make_bench(batch=50)
    bench.scorer = CurvedScorer()
    codes = bench.encode(bench.latents(range(2000, 2040)), "w")
    spread = bench.measure(bench.encode(bench.latents(range(1500)), "w"), "w").std(0)
    return bench, codes, bench.measure(codes, "w"), spread, np.tile(np.array([[0.9, -0.6, 0.6]], np.float32), (40, 1))


def test_a_scorer_that_errs_is_not_followed_to_the_letter():
    bench, codes, start, spread, amounts = curved_faces()
    bench.scorer, truth = ErringScorer(spread), bench.scorer
    ends = [model_loop_in(bench, trust=trust).walk(codes, amounts).codes for trust in (1.0, 0.5)]
    bench.scorer = truth
    changes = [((bench.measure(end, "w") - start) / spread)[:, COLUMNS] for end in ends]
    followed, trusted = (np.abs(change - amounts).mean() for change in changes)
    assert trusted < 0.8 * followed


class SteepScorer(CurvedScorer):
    """Moves two and a half times as far as the scorer that the model learnt from."""

    def score_tensor(self, images):
        return 2.5 * super().score_tensor(images)


def test_where_the_scorer_moves_much_further_than_the_model_says_half_the_gain_gets_there():
    bench = make_bench(batch=50)
    bench.scorer = CurvedScorer()
    loops = [model_loop_in(bench, rounds=6, backtrack=backtrack) for backtrack in (0, 6)]
    bench.scorer = SteepScorer()
    codes = bench.encode(bench.latents(range(2000, 2030)), "w")
    amounts = np.zeros((30, 3), np.float32)
    amounts[np.arange(30), np.arange(30) % 3] = 1.0
    straight, back = ((loop.walk(codes, amounts).why == REACHED).mean() for loop in loops)
    assert back > 0.75 and back > straight + 0.2, (straight, back)


class BowlScorer(CurvedScorer):
    """Eyes that turn at `rim`: what lies below it is read a little above it, up to `height`."""

    def __init__(self, rim: float, height: float):
        super().__init__()
        self.rim, self.height = rim, height

    def score_tensor(self, images):
        scores = super().score_tensor(images).clone()
        eyes = PROPERTIES.index("eyes")
        below = (self.rim - scores[:, eyes]).clamp(min=0)
        scores[:, eyes] = scores[:, eyes].clamp(min=self.rim) + self.height * torch.tanh(1.5 * below / self.height)
        return scores


def test_a_walk_that_the_slopes_of_its_place_lead_astray_is_walked_from_where_the_mean_slopes_lead():
    bench, eyes = make_bench(batch=50), PROPERTIES.index("eyes")
    bench.scorer = CurvedScorer()
    codes = bench.encode(bench.latents(range(2000, 2600)), "w")
    true = bench.measure(codes, "w")[:, eyes]
    lowest = codes[np.argsort(true)[:30]]
    bench.scorer = BowlScorer(float(np.percentile(true, 30)), 0.3 * float(true.std()))
    loop = model_loop_in(bench, trust=0.5)
    amounts = np.zeros((30, 3), np.float32)
    amounts[:, EDITED.index("eyes")] = 1.0
    change = (loop.walk(lowest, amounts).scores - bench.measure(lowest, "w"))[:, eyes] / loop.all_sds[eyes]
    assert change.min() > 0.5  # by the slopes of their place alone two in three stayed as they were


def test_ripples_of_the_scorer_do_not_lead_it_astray():
    bench, codes, start, spread, amounts = curved_faces()
    bench.scorer, truth = ErringScorer(spread, 0.06, 40), bench.scorer
    loop = loop_in(bench, looks=0)
    own = slopes_at(bench, codes, "w", loop.factor, loop.all_sds)
    turned = np.einsum("ncd,cd->nc", own, loop.slopes)[:, COLUMNS] < 0
    ends = loop.walk(codes, amounts).codes
    bench.scorer = truth
    change = ((bench.measure(ends, "w") - start) / spread)[:, COLUMNS]
    assert turned.mean() > 0.25 and np.abs(change - amounts).mean() < 0.15


def test_a_face_that_the_pools_slopes_do_not_carry_goes_along_those_around_it(monkeypatch):
    bench = make_bench(batch=50)
    bench.scorer = CurvedScorer()
    codes, eyes = bench.encode(bench.latents(range(2000, 2010)), "w"), PROPERTIES.index("eyes")
    amounts = np.zeros((10, 3), np.float32)
    amounts[:, EDITED.index("eyes")] = 0.8
    loops = [loop_in(bench, looks=looks) for looks in (0, 16)]
    for loop in loops:
        loop.slopes[eyes] = 0  # in the mean over the pool nothing moves the eyes
    drawn, slopes = [], bench.slopes
    monkeypatch.setattr(bench, "slopes", lambda codes, *rest: drawn.append(len(codes)) or slopes(codes, *rest))
    pool_only, around = (loop.walk(codes, amounts) for loop in loops)
    start = bench.measure(codes, "w")
    stayed, moved = ((walk.scores - start)[:, eyes] / loops[0].all_sds[eyes] for walk in (pool_only, around))
    assert np.abs(stayed).max() < 0.3 and (pool_only.why != REACHED).all() and drawn == [16] * 10
    assert (around.why == REACHED).mean() >= 0.8 and np.median(np.abs(moved - 0.8)) < 0.05
    for k in range(10):  # each face along its own surroundings
        alone = replace(loops[1], bench=bench).walk(codes[k : k + 1], amounts[k : k + 1])
        np.testing.assert_allclose(alone.codes[0], around.codes[k], atol=2e-3)
    drawn.clear()
    again = loops[1].walk(codes, -amounts)  # what was drawn around a face serves its next edit
    assert not drawn and np.median(np.abs((again.scores - start)[:, eyes] / loops[0].all_sds[eyes] + 0.8)) < 0.05
    unmoved = replace(loops[1], options=replace(loops[1].options, gain=9.0)).walk(codes, amounts)
    assert (unmoved.codes == pool_only.codes).all()  # nearer, but by too little to count


class TurningScorer(CurvedScorer):
    """Reads the scores of CurvedScorer, but falling again by as much as they rise above `turn` [8]."""

    def __init__(self, turn):
        super().__init__()
        self.turn = torch.from_numpy(turn)

    def score_tensor(self, images):
        true = super().score_tensor(images)
        return torch.minimum(true, 2 * self.turn - true)


def test_a_single_wish_of_which_the_scorer_reads_the_opposite_leaves_the_face_alone():
    bench = make_bench(batch=50)
    bench.scorer = CurvedScorer()
    loop = model_loop_in(bench, trust=0.5)
    bench.scorer = TurningScorer(np.median(bench.measure(bench.encode(bench.latents(range(1500)), "w"), "w"), 0))
    codes = bench.encode(bench.latents(range(2000, 2040)), "w")
    amounts = np.zeros((40, 3), np.float32)
    amounts[:, EDITED.index("mouth")] = 0.6
    walk = loop.walk(codes, amounts)
    change = ((walk.scores - bench.measure(codes, "w")) / loop.all_sds)[:, PROPERTIES.index("mouth")]
    assert change.min() > -0.05 and (walk.length > 0).mean() > 0.3


def test_what_a_part_of_the_pool_tells_of_a_person_is_held_too(curved):
    read = torch.randn(3 * 16 * 16, 2, generator=torch.Generator().manual_seed(7)) * 0.05
    codes = curved.encode(curved.latents(range(1500)), "w")
    scores = curved.measure(codes, "w")
    person = np.full((1500, 2), np.nan, np.float32)
    person[::2] = (curved.images(codes[::2], "w").flatten(1) @ read).numpy()
    readings = np.concatenate([scores, person], 1)
    spreads = np.nanstd(readings, axis=0)
    known = {"generator_hash": curved.generator_hash, "scorer_hash": curved.scorer_hash}
    starts = curved.encode(curved.latents(range(2000, 2010)), "w")
    amounts, drifts = np.tile(np.array([[0.0, 1.0, 0.0]], np.float32), (10, 1)), []
    for columns in (slice(0, 8), slice(0, 10)):
        model = ScoreModel.fit(codes, readings[:, columns], spreads[columns])
        ends = ends_of(scores) / spreads[:8, None]
        loop = ModelLoop(
            curved, "w", code_factor(codes, "w"), spreads[:8], provenance=known, model=model, ends=ends
        )  # fmt: skip
        ends = loop.walk(starts, amounts).codes
        moved = curved.images(ends, "w").flatten(1) @ read - curved.images(starts, "w").flatten(1) @ read
        drifts.append(float(moved.abs().mean()))
    assert model.held_r.min() > 0.85 and drifts[1] < 0.6 * drifts[0]


class FlooredScorer(CurvedScorer):
    """A mouth that four in ten faces have closed, and none more closed than closed."""

    def score_tensor(self, images):
        scores = super().score_tensor(images).clone()
        mouth = PROPERTIES.index("mouth")
        scores[:, mouth] = torch.nn.functional.softplus(12 * (scores[:, mouth] - 0.1)) / 12
        return scores


def test_a_closed_mouth_stays_closed_opens_on_demand_and_is_told_where_it_ends():
    bench = make_bench(batch=50)
    bench.scorer = FlooredScorer()
    loop = model_loop_in(bench)
    scores = bench.measure(bench.encode(bench.latents(range(1500)), "w"), "w")
    loop.ends = ends_of(scores) / loop.all_sds[:, None]
    mouth = PROPERTIES.index("mouth")
    assert loop.model.floors[mouth] > -1 and (np.delete(loop.model.floors, mouth) < -1e6).all()
    codes = bench.encode(bench.latents(range(2000, 2100)), "w")
    start = bench.measure(codes, "w")
    shut = start[:, mouth] / loop.all_sds[mouth] < loop.model.floors[mouth]
    assert 20 < shut.sum() < 80
    down = loop.walk(codes, np.tile(np.array([[0, -1.8, 0]], np.float32), (100, 1)))
    end = (bench.measure(down.codes, "w") - start) / loop.all_sds
    assert np.abs(end[shut, mouth]).max() < 0.2 and (end[~shut, mouth] < 0).all()
    # Of the open ones some could close so far and say that they did.
    assert (down.why[shut] == ENDED).all() and 0.5 < (down.why[~shut] == ENDED).mean() < 1
    assert (down.length[shut] == 0).all()
    up = loop.walk(codes[shut], np.tile(np.array([[0, 1.0, 0]], np.float32), (shut.sum(), 1)))
    opened = (bench.measure(up.codes, "w") - start[shut]) / loop.all_sds
    assert np.median(np.abs(opened[:, mouth] - 1)) < 0.1 and (up.why == REACHED).mean() > 0.8
    assert np.abs(opened[:, KEPT_COLUMNS]).mean() < 0.25


def test_of_a_score_at_its_end_the_model_is_asked_again_for_what_the_scorer_still_misses():
    mouth, eyes, rows = PROPERTIES.index("mouth"), PROPERTIES.index("eyes"), 5
    floors = np.full(len(PROPERTIES), -1e9, np.float32)
    floors[mouth] = 0
    loop = ModelLoop(None, "w", np.eye(3), np.ones(8), model=SimpleNamespace(floors=floors))
    begin, told, believed, target = np.full((rows, 9), 7.0), np.zeros((rows, 9)), *np.zeros((2, rows, 8))
    # At the floor: read above it; met though told below; told above. Then an open mouth, told open and told shut.
    target[:, mouth], told[:, mouth] = (0, 0, -0.1, 1, 1), (-0.2, -0.2, 0.1, 0.4, -0.2)
    believed[:, mouth], target[:, eyes] = (0.3, 0, 0, 0.5, 0.2), 0.6
    for gain in (1.0, 0.5):
        plan = _Plans(None, told, None, believed, None)
        goal = loop._goal(begin, target, plan, np.full((rows, 1), gain))
        expected = [-0.2 - 0.3 * gain, -0.2, -WELL_BELOW, 0.4 + 0.5 * gain, 0.8 * gain]
        np.testing.assert_allclose(goal[:, mouth], expected)
        np.testing.assert_allclose(goal[:, eyes], 0.6 * gain)
        assert (goal[:, 8] == 7).all()


@pytest.fixture(scope="module")
def pool(curved, tmp_path_factory):
    plan = replace(plan_for(curved, ("z", "w"), 0), shard_rows=300)
    return sample_pool(curved, tmp_path_factory.mktemp("pool"), plan, 600)


def test_loops_are_made_with_what_should_stay_of_a_person(curved, pool):
    none = Grouping("none", ())
    led = make_loop(curved, pool, none, Setting("model_loop", "w", "none"), TwoLooks())
    assert len(led.model.held_r) == len(PROPERTIES) + 2 and led.model.held_r.min() > 0.5
    assert len(led.provenance["person_r"]) == 2 and led.score_sds == pytest.approx(pool.scores.std(0, ddof=1)[COLUMNS])
    loop = make_loop(curved, pool, none, Setting("closed_loop", "w", "none"), TwoLooks(as_features=True))
    codes = pool.codes("w")[:64]
    looks = TwoLooks()(curved.images(codes[:50], "w")), TwoLooks()(curved.images(codes[50:], "w"))
    rows = np.unique(np.linspace(0, len(pool.scores) - 1, 256).astype(int))
    slopes = slopes_at(curved, pool.codes("w")[rows], "w", loop.factor, loop.all_sds)
    np.testing.assert_allclose(loop.slopes, slopes.mean(0), atol=1e-4)
    between = np.linalg.norm(np.diff(np.concatenate(looks), axis=0), axis=1).mean()
    assert loop.identity_spread == pytest.approx(between, rel=1e-4) and loop.provenance["identity"] is True


@pytest.mark.parametrize("method", ["closed_loop", "model_loop"])
def test_a_score_that_never_varies_cannot_be_edited_nor_need_it_be_held(curved, tmp_path, method):
    class Constant(CurvedScorer):
        column = PROPERTIES.index("mouth")

        def score_tensor(self, images):
            scores = super().score_tensor(images).clone()
            scores[:, self.column] = 1.5
            return scores

    bench = make_bench(batch=50)
    bench.scorer = Constant()
    none, setting = Grouping("none", ()), Setting(method, "w", "none")
    still = sample_pool(bench, tmp_path / "still", replace(plan_for(bench, ("z", "w"), 0), shard_rows=300), 300)
    with pytest.raises(PipelineError, match="the mouth score is the same for all"):
        make_loop(bench, still, none, setting)
    bench.scorer.column = PROPERTIES.index("background_std")
    kept = sample_pool(bench, tmp_path / "kept", replace(plan_for(bench, ("z", "w"), 0), shard_rows=300), 600)
    loop = make_loop(bench, kept, none, setting)
    codes = bench.encode(bench.latents(range(2000, 2008)), "w")
    walk = loop.walk(codes, np.tile(np.array([[0.8, 0, 0]], np.float32), (8, 1)))
    moved = (bench.measure(walk.codes, "w") - bench.measure(codes, "w"))[:, COLUMNS[0]] / loop.all_sds[COLUMNS[0]]
    assert np.median(np.abs(moved - 0.8)) < 0.25 and (walk.length < 6).all()


def test_a_loop_of_another_version_is_refused_in_a_sentence(curved, tmp_path):
    loop = model_loop_in(curved)
    loop.save(tmp_path / "loop.npz")
    with np.load(tmp_path / "loop.npz") as file:
        arrays = dict(file)
    about = json.loads(str(arrays["about"]))
    about["options"]["haste"] = 3
    np.savez(tmp_path / "options.npz", **{**arrays, "about": np.array(json.dumps(about))})
    np.savez(tmp_path / "model.npz", **{name: value for name, value in arrays.items() if name != "model_floors"})
    for name in ("options", "model"):
        with pytest.raises(PipelineError, match=rf"{name}\.npz was written by another version"):
            ModelLoop.load(tmp_path / f"{name}.npz", curved)


def test_a_saved_model_loop_walks_the_same_and_only_with_its_own_nets(curved, tmp_path):
    loop = model_loop_in(curved)
    loop.save(tmp_path / "loop.npz")
    again = ModelLoop.load(tmp_path / "loop.npz", curved)
    codes, amounts = curved.encode(curved.latents(range(1000, 1003)), "w"), np.full((3, 3), 0.5, np.float32)
    assert (again.edit(codes, None, amounts) == loop.edit(codes, None, amounts)).all()
    with pytest.raises(PipelineError, match="belongs to another generator"):
        ModelLoop.load(tmp_path / "loop.npz", make_bench(seed=1))
    with pytest.raises(PipelineError, match="belongs to another scorer"):
        ModelLoop.load(tmp_path / "loop.npz", replace_scorer(curved))
    with pytest.raises(PipelineError, match="--method model_loop"):
        ModelLoop.load(tmp_path / "none.npz", curved)


def replace_scorer(bench):
    other = make_bench(batch=50)
    other.scorer_hash = bench.scorer_hash + " trained on"
    return other


def test_what_should_stay_stays_only_because_it_is_held(curved):
    codes = curved.encode(curved.latents(range(1000, 1010)), "w")
    amounts = np.tile(np.array([[0.0, 1.2, 0.0]], np.float32), (10, 1))
    held, free = loop_in(curved), loop_in(curved, softness=1e6)
    start = curved.measure(codes, "w")
    leaks = [np.abs(loop.walk(codes, amounts).scores - start)[:, KEPT_COLUMNS].mean() for loop in (held, free)]
    assert leaks[0] < 0.3 * leaks[1]


def test_a_curved_score_needs_steps_and_a_wish_of_nothing_none(curved):
    loop = loop_in(curved)
    codes = curved.encode(curved.latents(range(1000, 1004)), "w")
    still = loop.walk(codes, np.zeros((4, 3), np.float32))
    assert (still.codes == codes).all() and (still.steps == 0).all() and (still.why == REACHED).all()
    walk = loop.walk(codes, np.full((4, 3), 0.9, np.float32))
    assert (walk.steps >= 2).all()


def test_no_edit_leaves_the_ball_in_which_codes_lie(curved):
    loop = loop_in(curved, furthest=1.0)
    codes = curved.encode(curved.latents(range(1000, 1003)), "w")
    walk = loop.walk(codes, np.full((3, 3), 5.0, np.float32))
    assert (walk.length <= 1.0 + 1e-4).all() and (walk.why != REACHED).all()


def test_the_reach_of_a_face_is_down_and_up_and_what_lies_inside_is_met(curved):
    loop = loop_in(curved)
    codes = curved.encode(curved.latents(range(1000, 1005)), "w")
    reach, why = loop.reach(codes, wish=2.0)
    assert reach.shape == why.shape == (5, 3, 2)
    assert (reach[:, :, 0] < 0).all() and (reach[:, :, 1] > 0).all()
    inside = np.minimum(0.6 * reach[:, 1, 1], 1.0)
    amounts = np.zeros((5, 3), np.float32)
    amounts[:, 1] = inside
    assert (loop.walk(codes, amounts).why == REACHED).all()


def test_each_face_walks_alone_whatever_the_batch(curved):
    codes = curved.encode(curved.latents(range(1000, 1006)), "w")
    amounts = np.linspace(-1, 1, 18, dtype=np.float32).reshape(6, 3)
    together = loop_in(curved).walk(codes, amounts).codes
    small = make_bench(batch=2)
    small.scorer = curved.scorer
    np.testing.assert_allclose(replace(loop_in(curved), bench=small).walk(codes, amounts).codes, together, atol=1e-5)
    alone = np.concatenate([loop_in(curved).walk(codes[k : k + 1], amounts[k : k + 1]).codes for k in range(6)])
    np.testing.assert_allclose(together, alone, atol=2e-3)


def test_identity_drifts_less_when_it_is_held(curved):
    maker = torch.Generator().manual_seed(5)
    read = torch.randn(3 * 16 * 16, 6, generator=maker) * 0.05
    codes = curved.encode(curved.latents(range(1000, 1008)), "w")
    amounts = np.tile(np.array([[0.0, 0.0, 1.2]], np.float32), (8, 1))

    def identity(images):
        return images.flatten(1) @ read

    drifts = []
    for features in (identity, None):
        ends = replace(loop_in(curved), identity=features).walk(codes, amounts).codes
        pair = [identity(curved.images(part, "w")) for part in (codes, ends)]
        drifts.append(float((pair[0] - pair[1]).norm(dim=1).mean()))
    assert drifts[0] < 0.95 * drifts[1]


def test_saved_and_loaded_it_walks_the_same_and_only_on_its_generator(curved, tmp_path):
    loop = loop_in(curved)
    loop.save(tmp_path / "loop.npz")
    again = ClosedLoop.load(tmp_path / "loop.npz", curved)
    codes = curved.encode(curved.latents(range(1000, 1003)), "w")
    amounts = np.full((3, 3), 0.5, np.float32)
    assert (again.edit(codes, None, amounts) == loop.edit(codes, None, amounts)).all()
    with pytest.raises(PipelineError, match="belongs to another generator"):
        ClosedLoop.load(tmp_path / "loop.npz", make_bench(seed=1))
    with pytest.raises(PipelineError, match="--grid deviations"):
        loop.edit(codes, None, amounts, raw=True)


def test_the_label_beside_z_never_moves():
    codes = np.concatenate([np.random.default_rng(0).standard_normal((50, 4)), np.zeros((50, 3))], 1)
    factor = code_factor(codes, "z")
    assert (np.diag(factor) == [1, 1, 1, 1, 0, 0, 0]).all() and np.count_nonzero(factor) == 4
