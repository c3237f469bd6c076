"""What a loop holds of a person besides the scores, and what an edit truly moved."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.profile import ROOT, Profile
from pipeline.run import Run
from pipeline.seeds import latents_from_seeds
from property_score.scorer import ALIGNED_WINDOW
from segmentation.classes import (
    HAIR,
    LEFT_BROW,
    LEFT_EYE,
    LOWER_LIP,
    NOSE,
    RIGHT_BROW,
    RIGHT_EYE,
    SKIN,
    UPPER_LIP,
)
from stylegan.checkpoint import load_generator
from stylegan.generator import Generator
from vectorfind.appearance import PLACES, READINGS, appearance
from vectorfind.effects import ORACLE_ATTRIBUTES, Judge
from vectorfind.finding import read_person
from vectorfind.graders import Grader, open_scorers
from vectorfind.groups import Grouping
from vectorfind.leaks import person_units
from vectorfind.models import ModelFiles, identity_files, open_bench, open_identity
from vectorfind.names import EDITED, PROPERTIES
from vectorfind.protocol import score_codes
from vectorfind.setting import Setting
from vectorfind.truth import MEANT, draws_alike, factor_moves, latent_map_behind, person_moves, summary, w_of
from virtual_face.latent_map import latent_map_of
from virtual_face.oracle import load_oracle
from virtual_face.population import INDEX

LOOPS = ("closed_loop", "model_loop")
PLACED = [READINGS.index(name) for name in PLACES]


def drawn_face(lids: int = 0, smile: float = 0.0, opened: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A face of rectangles [224, 224] and its colours.

    lids: rows of each eye that are shut. opened: by how many rows the chin is lowered, the lower lip by twice as many.
    """
    classes = np.zeros((224, 224), np.uint8)
    classes[10:200, 30:190] = HAIR
    classes[40 : 190 + opened, 50:174] = SKIN
    for eye, brow, left in ((LEFT_EYE, LEFT_BROW, 70), (RIGHT_EYE, RIGHT_BROW, 130)):
        classes[84 + lids : 100, left : left + 26] = eye
        classes[64:70, left : left + 26] = brow
    classes[104:134, 102:124] = NOSE
    for x in range(90, 136):
        lift = round(smile * (x - 113) ** 2)
        classes[146 - lift : 152 - lift, x] = UPPER_LIP
        classes[152 - lift + 2 * opened : 160 - lift + 2 * opened, x] = LOWER_LIP
    colours = np.full((224, 224, 3), (200, 150, 120), np.uint8)
    colours[np.isin(classes, (LEFT_EYE, RIGHT_EYE))] = (40, 60, 90)
    colours[classes == HAIR] = (90, 50, 20)
    return classes, colours


def looks(classes: np.ndarray, colours: np.ndarray) -> np.ndarray:
    return appearance(classes[None], colours[None])[0]


def test_colours_of_the_parts_and_places_in_units_of_the_eyes():
    read = dict(zip(READINGS, looks(*drawn_face()), strict=True))
    assert (read["iris warmth"], read["iris green"]) == (-50, -5)
    assert (read["hair warmth"], read["skin light"], read["skin green"]) == (70, pytest.approx(156.67, abs=0.01), -10)
    places = {"brow height": (118.5 - 66.5) / 60, "nose aside": 0, "smile": 0}
    assert {name: read[name] for name in places} == pytest.approx(places, abs=1e-6)
    assert read["crown"] == pytest.approx((118.5 - 12) / 60, abs=0.05)
    assert read["chin"] == pytest.approx((188 - (118.5 + 159) / 2) / 60, abs=0.05)


def test_lids_and_jaw_leave_the_looks_as_they_are_and_a_smile_shows():
    plain, shut = looks(*drawn_face()), looks(*drawn_face(lids=12))
    np.testing.assert_allclose(shut, plain, rtol=0.01, atol=1e-5)
    opened = looks(*drawn_face(opened=6))
    np.testing.assert_allclose(opened, plain, rtol=0.02, atol=0.02)
    smiling = looks(*drawn_face(smile=0.01))
    assert smiling[READINGS.index("smile")] > 0.3 and abs(plain[READINGS.index("smile")]) < 1e-6


def test_places_turn_with_the_head():
    classes, colours = drawn_face(smile=0.005)
    turned = looks(np.rot90(classes).copy(), np.rot90(colours).copy())
    # A quarter turn to the left takes the left eye below the right one, which the frame follows.
    np.testing.assert_allclose(turned, looks(classes, colours), atol=1e-4)


def test_what_cannot_be_seen_is_missing():
    classes, colours = drawn_face()
    classes[np.isin(classes, (LEFT_BROW, RIGHT_BROW))] = SKIN
    read = looks(classes, colours)
    assert np.isnan(read[PLACED]).all() and np.isnan(read[READINGS.index("brows light")])
    assert np.isfinite(read[READINGS.index("iris warmth")])
    nobody = appearance(np.empty((0, 224, 224), np.uint8), np.empty((0, 224, 224, 3), np.uint8))
    assert nobody.shape == (0, len(READINGS))


@pytest.fixture(scope="module")
def world():
    generator = load_generator(Profile.load("demo").weight("generator"), "cpu")
    return generator, latent_map_of(generator)


class FactorBench:
    """Measures eyes, mouth and pose as the very factors behind w."""

    device = torch.device("cpu")

    def __init__(self, generator, latent_map):
        self.generator, self.latent_map = generator, latent_map

    def latents(self, seeds):
        return latents_from_seeds(list(seeds))

    def encode(self, z, position):
        with torch.inference_mode():
            return self.generator.encode(torch.from_numpy(z), None, position).numpy()

    def measure(self, codes, position):
        factors = self.latent_map.factors(self.latent_map.p(torch.from_numpy(codes))).numpy()
        scores = np.zeros((len(codes), len(PROPERTIES)), np.float32)
        for name in EDITED:
            scores[:, PROPERTIES.index(name)] = factors[:, INDEX[MEANT[name]]]
        return scores


def test_factors_behind_an_edit(world):
    generator, latent_map = world

    def edit(also: float):
        lift = latent_map.lift.numpy()

        def moved(codes, groups, amounts):
            steps = sum(amounts[:, [i]] * lift[:, INDEX[MEANT[name]]] for i, name in enumerate(EDITED))
            return (codes + steps + also * amounts[:, [0]] * lift[:, INDEX["glasses"]]).astype(np.float32)

        return SimpleNamespace(edit=moved, position="w", score_sds=np.ones(3))

    bench, grouping = FactorBench(generator, latent_map), Grouping.at_medians("none", np.zeros((4, 8)))
    pure = factor_moves(bench, edit(0.0), grouping, latent_map, range(20))
    told = summary(pure).set_index("property")
    assert told["moves"].between(0.95, 1.05).all() and (told["beside"] < 0.05).all()
    # A head that tilts turns a little in this world: with the factor of the roll alone yaw moves by .05 of .245.
    turned = person_moves(pure).set_index(["property", "column"])["signed"]
    assert turned["pose", "yaw"] == pytest.approx(0.2, abs=0.05) and abs(turned["eyes", "yaw"]) < 0.02
    mixed = person_moves(factor_moves(bench, edit(0.5), grouping, latent_map, range(20)))
    mixed = mixed.set_index(["property", "column"])
    assert mixed.loc[("eyes", "glasses"), "signed"] > 0.2 and not mixed.loc[("eyes", "glasses"), "intended"]
    assert abs(mixed.loc[("mouth", "glasses"), "signed"]) < 0.01 and not mixed.loc[("pose", "yaw"), "intended"]


def test_w_of_every_position_is_what_the_generator_decodes():
    generator = Generator(16, 256, 64, split=True, split_width=64).eval()
    z = torch.randn(3, 512, generator=torch.Generator().manual_seed(1))
    for position in ("z", "w", "mapping_split1", "mapping_split2"):
        code = generator.encode(z, None, position)
        with torch.inference_mode():
            drawn = generator.decode(w_of(generator, code, position), "w")
            torch.testing.assert_close(drawn, generator.decode(code, position), rtol=1e-4, atol=1e-4)


def test_a_generator_that_draws_otherwise_has_no_latent_map(world):
    generator, _ = world
    other = load_generator(Profile.load("demo").weight("generator"), "cpu")
    assert draws_alike(other, generator)
    with torch.no_grad():
        next(other.synthesis.parameters()).mul_(1.5)
    assert not draws_alike(other, generator)
    assert not draws_alike(Generator(16, 256, 64), generator)


@pytest.fixture(scope="module")
def demo():
    """(bench of the bundled v9, what each loop holds a person by)."""
    profile = Profile.load("demo")
    files = ModelFiles(ROOT / "weights/demo/generator_v9.pth", profile.weight("property_cnn"))
    held = {loop: open_identity(profile, Setting(loop).holds, "cpu") for loop in LOOPS}
    return open_bench(files, "cpu", batch=4), held


def stage_of(bench, first_seed: int = 9_100_000, faces: int = 6):
    """What the judging of a stage asks of it."""
    options = SimpleNamespace(profile="demo", device="cpu")
    plan = SimpleNamespace(test_seeds=range(first_seed, first_seed + faces))
    return SimpleNamespace(bench=bench, options=options, plan=plan)


def test_the_geometric_grader_follows_the_finder_in_units_of_its_own(demo, tmp_path):
    bench, _ = demo
    profile, run = Profile.load("demo"), Run(tmp_path)
    scorers, notes = open_scorers(profile, run, ["geometric"], "cpu")
    assert list(scorers) == ["geometric"] and not notes
    codes = bench.encode(bench.latents(range(9_100_000, 9_100_008)), "w")
    graders = [Grader(name, scorer, *np.ones((2, 8))) for name, scorer in ({"finder": bench.scorer} | scorers).items()]
    finder, geometric = score_codes(bench, codes, "w", graders).values()
    assert geometric.shape == (8, len(PROPERTIES)) and np.isfinite(geometric).all() and (geometric != finder).all()
    for name in EDITED:
        column = PROPERTIES.index(name)
        assert np.corrcoef(geometric[:, column], finder[:, column])[0, 1] > 0.5, name
    about = scorers["geometric"].provenance
    assert (about["scorer"], about["units"], about["crop"]) == ("geometric", "z", list(ALIGNED_WINDOW))


def test_a_person_is_read_from_some_rows_of_the_pool_and_the_same_in_any_batch(demo, monkeypatch):
    bench, identities = demo
    monkeypatch.setattr("vectorfind.finding.PERSON_ROWS", 5)
    codes = bench.encode(bench.latents(range(9_100_000, 9_100_009)), "w")
    looks, features = identities["model_loop"], identities["closed_loop"](bench.images(codes[:3], "w").clone())
    read = read_person(bench, codes, "w", looks)
    assert read.shape == (9, len(READINGS))
    known = np.isfinite(read).all(1)
    assert known.tolist() == [True, False] * 4 + [True]
    again = read_person(bench, codes[[0, 2, 4, 6, 8]], "w", looks)
    np.testing.assert_allclose(again, read[known], rtol=0.02, atol=0.02)
    assert features.shape[0] == 3 and features.std(0).max() > 0


def test_the_judge_leaves_what_a_face_does_out_of_who_it_is(demo):
    bench, _ = demo
    oracle = load_oracle(ROOT / "weights/demo/attribute_net.pth", "cpu")
    judge = Judge(oracle)
    images = bench.images(bench.encode(bench.latents(range(9_100_000, 9_100_004)), "w"), "w")
    read, who = judge.read(images)
    table, features = oracle.read(images)
    assert read.shape == (4, len(ORACLE_ATTRIBUTES)) and (read == table[list(ORACLE_ATTRIBUTES)].to_numpy()).all()
    rows = oracle.network.head.weight.detach().double().numpy()
    own = [rows[judge.attributes.index(word)] for word in ("eyes", "mouth", "yaw", "pitch", "roll")]
    scale = np.linalg.norm(features.numpy(), axis=1).max() * np.linalg.norm(own, axis=1).max()
    assert np.abs(who @ np.transpose(own)).max() < 1e-6 * scale
    assert np.abs(who @ rows[judge.attributes.index("gender")]).max() > 1e-3


def test_units_of_a_person_tell_what_the_oracle_can_be_believed_in(demo):
    bench, _ = demo
    stage = stage_of(bench, faces=24)
    latent_map = latent_map_behind(stage)
    units = person_units(stage, latent_map)
    assert units.index.tolist() == list(ORACLE_ATTRIBUTES) and (units[["persona", "all"]] > 0).all().all()
    # Everyone is more varied than the persona, and the attitude of a head can be read off a picture.
    assert units.loc["gender", "all"] > units.loc["gender", "persona"] and units.loc["glasses", "all"] > 0.1
    assert units.loc[["yaw", "roll"], "follows"].min() > 0.8
    assert person_units(stage, None)["follows"].isna().all()


def test_the_latent_map_behind_a_stage(demo, monkeypatch):
    bench, _ = demo
    assert latent_map_behind(stage_of(bench)) is not None
    other = copy.deepcopy(bench.generator)
    for value in other.synthesis.parameters():
        value.data.mul_(1.2)
    assert latent_map_behind(stage_of(SimpleNamespace(generator=other))) is None
    monkeypatch.setattr("vectorfind.further.oracle_file", lambda _: {})
    assert latent_map_behind(stage_of(bench)) is None


def test_each_loop_asks_for_its_own_weights_only(tmp_path):
    own = tmp_path / "own.toml"
    own.write_text('extends = "demo"\n[cnn]\nbundled = "nowhere"\n')
    profile = Profile.load(str(own))
    assert list(identity_files(profile, "looks")) == ["parser"] and identity_files(profile, "features") == {}
    assert open_identity(profile, "features", "cpu") is None
    assert list(identity_files(Profile.load("demo"), "features")) == ["gender", "age"]
    assert identity_files(Profile.load("demo"), "") == {}
