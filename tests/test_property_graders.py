"""Scorers that may judge each other: another architecture, other faces, the same units; hair texture, head angles."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from segmentation_world import random_parsenet, rendered

from pipeline.artefacts import save_weights
from pipeline.errors import PipelineError
from pipeline.profile import ROOT, Profile
from pipeline.run import Run
from pipeline.seeds import parse_seeds
from property_score.graders import SCORERS, check_independent, load_scorer, shared_faces
from property_score.hair_texture import scores_hair_texture
from property_score.head_pose import ANGLES, FaceXFormerHeadPose, OracleHeadPose, angle_table, head_pose_source
from property_score.measure import PROPERTIES
from property_score.normalisation import Normalisation
from property_score.nuisances import changed_pictures
from property_score.out_of_fold import fold_numbers, parts_of_fold
from property_score.property_cnn import CNNScorer, MergedPropertyCNN
from property_score.property_settings import PropertyTraining
from property_score.property_training import POSE, mirrored, split_parts, train_property_cnn
from property_score.second_grader import SecondGrader, load_second_grader
from property_score.train_bundled import in_units_of
from property_score.training_faces import BLOCKS, GENERATORS, PER_GENERATOR, face_seeds, persona_faces
from segmentation.parser import to_tensor
from stylegan.checkpoint import load_generator
from stylegan.sampling import sample, to_uint8
from tests.test_property_cnn_network import toy_scores

NARROW = 0.5


def hair(direction: np.ndarray, contrast: float = 40.0) -> tuple[np.ndarray, np.ndarray]:
    """A map full of hair [1, 224, 224] and its picture: waves of brightness along `direction` [224, 224]."""
    brightness = 110 + contrast * np.sin(direction)
    picture = np.repeat(brightness[None, :, :, None], 3, axis=3)
    return np.full((1, 224, 224), 10, np.uint8), picture.clip(0, 255).astype(np.uint8)


Y, X = np.mgrid[:224, :224].astype(float)
STRAIGHT, ASLANT = 0.8 * X, 0.6 * X + 0.5 * Y
CURLY = 0.8 * X + 6 * np.sin(Y / 6) + 6 * np.sin(X / 7)


def test_curls_score_high_and_straight_hair_low_at_any_angle_and_contrast():
    straight, aslant, curly = (scores_hair_texture(*hair(waves))[0][0] for waves in (STRAIGHT, ASLANT, CURLY))
    assert straight < 0.02 and aslant < 0.02 and curly > 0.25
    faint = scores_hair_texture(*hair(CURLY, contrast=12))[0][0]
    assert faint == pytest.approx(curly, abs=0.03)


def test_too_little_hair_has_no_texture_and_says_so():
    maps, images = hair(STRAIGHT)
    maps[:, :100], maps[:, 112:] = 1, 1
    values, reasons = scores_hair_texture(maps, images)
    assert 0 <= values[0] < 0.05, "short hair is enough"
    maps[:, 105:] = 1
    values, reasons = scores_hair_texture(maps, images)
    assert np.isnan(values[0]) and reasons == ["too little hair to see its strands: hairstyle"]


def test_the_second_grader_is_another_architecture_and_scores_a_picture_alike_in_any_batch(tmp_path):
    torch.manual_seed(0)
    network = SecondGrader(64, NARROW)
    assert not set(network.state_dict()) & set(MergedPropertyCNN(64, 0.25).state_dict())
    save_weights(tmp_path / "grader.pth", network.state_dict(), half=True, trained_on="7-9")
    loaded = load_second_grader(tmp_path / "grader.pth")
    assert (loaded.resolution, loaded.training) == (64, False)
    images = torch.rand(24, 3, 64, 64) * 2 - 1
    together = CNNScorer.load(tmp_path / "grader.pth", batch=24).score(images)
    alone = CNNScorer.load(tmp_path / "grader.pth", batch=1).score(images)
    assert list(together.columns) == [*PROPERTIES, "reason"]
    np.testing.assert_allclose(together[list(PROPERTIES)], alone[list(PROPERTIES)], atol=1e-5)
    with pytest.raises(ValueError, match="64x64 pictures"):
        network(images[..., :32])
    with pytest.raises(ValueError, match="multiple of 32"):
        SecondGrader(100)
    save_weights(tmp_path / "other.pth", {"weight": torch.zeros(3)})
    with pytest.raises(PipelineError, match=r"other\.pth is not a second grader"):
        load_second_grader(tmp_path / "other.pth")


def test_the_second_grader_learns_by_the_same_training():
    images, labels = toy_scores(200)
    settings = PropertyTraining(epochs=10, patience=10, batch=16, learning_rate=5e-3)
    trained = train_property_cnn(images, labels, architecture=SecondGrader, width=NARROW, settings=settings)
    assert isinstance(trained.network, SecondGrader) and trained.log["val_loss"].min() < 0.6


def test_the_second_grader_is_rewritten_to_the_units_of_the_property_cnn():
    torch.manual_seed(1)
    network, images = SecondGrader(64, NARROW).eval(), torch.rand(4, 3, 64, 64)
    rng = np.random.default_rng(0)
    own, other = (
        Normalisation(*({name: float(v) for name, v in zip(PROPERTIES, rng.random(8) + 0.5)} for _ in range(2)), {})
        for _ in range(2)
    )

    def raw(normalisation: Normalisation) -> np.ndarray:
        with torch.no_grad():
            scores = network(images).numpy()
        return scores * list(normalisation.scale.values()) + list(normalisation.centre.values())

    before = raw(own)
    factors = in_units_of(network, own, other)
    after = raw(other)
    np.testing.assert_allclose(before, after, atol=1e-5)
    assert factors["eyes"] == pytest.approx(own.scale["eyes"] / other.scale["eyes"])


def test_a_mirrored_face_has_its_pose_turned_around_and_nothing_else():
    pictures, labels = torch.rand(3, 3, 4, 4), torch.randn(3, 8)
    labels[2, POSE] = float("nan")
    turned, scores = mirrored(pictures, labels, torch.tensor([True, False, True]), level_pose=0.3)
    assert torch.equal(turned[0], pictures[0].flip(-1)) and torch.equal(turned[1], pictures[1])
    assert scores[0, POSE] == pytest.approx(0.6 - labels[0, POSE].item()) and torch.equal(scores[1], labels[1])
    others = [k for k in range(8) if k != POSE]
    assert torch.equal(scores[:, others], labels[:, others]) and scores[2, POSE].isnan()


def test_training_mirrors_faces_when_it_knows_what_a_level_head_scores():
    images, labels = toy_scores(40)
    settings = PropertyTraining(epochs=1, batch=20)
    plain, mirroring = (
        train_property_cnn(images, labels, width=0.125, settings=settings, level_pose=level) for level in (None, 0.0)
    )
    key = "pose_score_cnn.conv1.0.weight"
    assert not torch.equal(plain.network.state_dict()[key], mirroring.network.state_dict()[key])


def test_every_training_face_is_scored_by_one_network_that_did_not_see_it():
    parts = split_parts(100, 0)
    numbers = fold_numbers(parts, 3, 0)
    assert ((numbers >= 0) == (parts != "test")).all() and np.bincount(numbers[numbers >= 0]).tolist() == [30, 30, 30]
    scored = np.zeros(100, int)
    for fold in range(3):
        of_fold = parts_of_fold(numbers, fold, 0)
        assert (of_fold[numbers == fold] == "test").all() and (of_fold[parts == "test"] == "").all()
        assert [int((of_fold == part).sum()) for part in ("train", "val")] == [54, 6]
        scored += of_fold == "test"
    assert (scored == (parts != "test")).all()
    with pytest.raises(PipelineError, match=r"need 2 to 22 folds for 90 faces \(100 less the test's\), got 1: set"):
        fold_numbers(parts, 1, 0)


def test_no_two_uses_and_no_two_generators_share_a_seed():
    ends = [
        (face_seeds(use, name, 1)[0], face_seeds(use, name, PER_GENERATOR)[-1]) for use in BLOCKS for name in GENERATORS
    ]
    for (_, last), (first, _) in zip(sorted(ends), sorted(ends)[1:]):
        assert last < first
    with pytest.raises(PipelineError, match="no seeds for 0 faces"):
        face_seeds("report", "generator", 0)


def test_training_faces_are_those_of_their_own_seeds(tmp_path, tiny_generator):
    profile = tmp_path / "plain.toml"
    profile.write_text(f"resolution = 32\n[weights]\ngenerator = '{tiny_generator.as_posix()}'\n")
    faces = persona_faces(Profile.load(profile), "second_grader", 5, "cpu")
    assert faces.drawn == "40000000-40000004" and faces.images.shape == (5, 32, 32, 3)
    (_, _, expected), *_ = sample(load_generator(tiny_generator), parse_seeds("40000003"))
    assert np.abs(faces.images[3].astype(int) - to_uint8(expected)[0]).max() <= 1


def scorer(name: str, trained_on: str | None) -> SimpleNamespace:
    return SimpleNamespace(provenance={"scorer": name} | ({} if trained_on is None else {"trained_on": trained_on}))


def test_scorers_that_share_a_training_face_are_refused_as_judges():
    finder, judge, nobody = scorer("property CNN", "3,7-9"), scorer("second grader", "4-6,10"), scorer("geometric", "")
    check_independent(finder, judge, nobody)
    with pytest.raises(PipelineError, match="property CNN and the second grader were both trained on 2 faces .seed 8"):
        check_independent(finder, scorer("second grader", "8-20"), nobody)
    with pytest.raises(PipelineError, match="does not tell which faces"):
        check_independent(finder, scorer("second grader", None))


def test_the_bundled_scorers_share_no_training_face_and_score_in_the_same_units():
    profile = Profile.load("demo")
    property_cnn, second = (load_scorer(name, profile).provenance for name in ("property_cnn", "second_grader"))
    assert property_cnn["trained_on"] and second["trained_on"] and shared_faces(property_cnn, second) == []
    assert property_cnn["normalisation"] == second["normalisation"]
    assert (ROOT / "weights/demo/second_grader.pth").stat().st_size < 1.2 * 2**20


def test_scorers_are_loaded_by_name_in_the_units_of_the_property_cnn_or_of_the_run(tmp_path, write_profile):
    raw = pd.DataFrame(np.random.default_rng(0).normal(5, 2, (9, 8)), columns=list(PROPERTIES))
    fitted = Normalisation.fit(raw)
    torch.manual_seed(0)
    save_weights(
        tmp_path / "cnn.pth", MergedPropertyCNN(32, 0.125).state_dict(), trained_on="1-5", normalisation=fitted.record()
    )
    save_weights(
        tmp_path / "second.pth", SecondGrader(32, NARROW).state_dict(), trained_on="6-9", normalisation=fitted.record()
    )
    weights = {"property_cnn": tmp_path / "cnn.pth", "second_grader": tmp_path / "second.pth"}
    weights["parsenet"] = random_parsenet(tmp_path / "parsenet.pth")
    profile = Profile.load(write_profile(weights=weights))
    scorers = {name: load_scorer(name, profile) for name in SCORERS}
    check_independent(*scorers.values())
    assert [one.provenance["scorer"] for one in scorers.values()] == ["property CNN", "geometric", "second grader"]
    assert scorers["geometric"].normalisation == fitted
    run, other = Run(tmp_path / "run"), Normalisation.fit(raw, robust=True)
    other.save(run.path("segmentation", "property_score_results", "normalisation.json"))
    assert load_scorer("geometric", profile, run).normalisation == other
    with pytest.raises(PipelineError, match="unknown scorer 'mine'; use property_cnn, geometric, second_grader"):
        load_scorer("mine", profile)


def test_head_angles_come_from_whole_pictures_by_the_oracle_and_from_crops_by_facexformer(write_profile):
    pictures = rendered()[0]
    oracle = OracleHeadPose(Profile.load("demo").weight("attribute_net"))
    table = angle_table(oracle, [pictures[:4], pictures[4:]])
    expected = oracle._oracle.attributes(to_tensor(pictures))[list(ANGLES)]
    assert oracle.reads == "picture" and list(table.columns) == ["yaw", "pitch", "roll"]
    np.testing.assert_allclose(table, expected, atol=1e-5)
    facexformer = FaceXFormerHeadPose.__new__(FaceXFormerHeadPose)
    headpose = np.array([[0.1, 0.2, 0.3]], np.float32)  # pitch, yaw, roll
    facexformer._parser = SimpleNamespace(describe=lambda images: SimpleNamespace(headpose=headpose))
    assert facexformer.reads == "crop"
    np.testing.assert_allclose(facexformer.angles(pictures[:1]), [[0.2, 0.1, 0.3]], atol=1e-7)
    assert angle_table(oracle, []).shape == (0, 3)
    with pytest.raises(PipelineError, match="head_pose = 'eyes'; use oracle, facexformer or none"):
        head_pose_source(Profile.load(write_profile(property_score={"head_pose": "eyes"})))


def test_small_changes_leave_the_picture_nearly_as_it_was_and_are_the_same_each_time():
    pictures = rendered()[0]
    changed = changed_pictures(pictures, seed=3)
    assert set(changed) == {"JPEG", "moved", "taken again"}
    for name, others in changed.items():
        difference = np.abs(others.astype(int) - pictures).mean(axis=(1, 2, 3))
        assert others.shape == pictures.shape and others.dtype == np.uint8
        assert (difference > 0).all() and (difference < 12).all(), name
    again = changed_pictures(pictures, seed=3)
    assert all(np.array_equal(changed[name], again[name]) for name in changed)
