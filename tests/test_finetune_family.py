"""The family of versions: what each rung carries over, whether faces obey labels, what reports are told."""

from __future__ import annotations

import finetune_world as world
import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.errors import PipelineError
from property_score.tables import SCORE_COLUMNS
from stylegan.sampling import images_of
from stylegan_modified import network_diagram
from stylegan_modified.aim import aim_labels, calibrate_labels, mean_slopes
from stylegan_modified.carry import relabelled_generator
from stylegan_modified.critics import (
    PropertyDiscriminator,
    critic_for,
    load_critic,
    plain_discriminator,
    projection_discriminator,
    save_critic,
)
from stylegan_modified.draws import draw, given_noise
from stylegan_modified.labels import label_faces
from stylegan_modified.latents import Curriculum, Latents
from stylegan_modified.obedience import GRID_8, GRID_50, label_rows, summarise, try_labels
from stylegan_modified.processes import Processes
from stylegan_modified.sampler import Sampler
from stylegan_modified.spread import identity_distance, kernel_distance, recall
from stylegan_modified.terms import LabelTerm
from stylegan_modified.truncation import ConditionalTruncation
from stylegan_modified.versions import PUBLISHED, VERSIONS, version_of

Z = torch.randn(6, 16, generator=torch.Generator().manual_seed(5))


def obeying_v1():
    """A conditional net whose labels move the face."""
    net = relabelled_generator(world.base_generator(), VERSIONS["v1"])
    net.mapping.label_weight.data[[0, 3, 4]] *= 20.0
    return net


@pytest.mark.parametrize("name", ["v2", "v3", "v4", "v5_1"])
def test_each_rung_keeps_dense0_and_what_the_labels_meant(name):
    source, version = obeying_v1(), VERSIONS[name]
    net = relabelled_generator(source, version)
    old, new = source.state_dict(), net.state_dict()
    assert torch.equal(new["mapping.dense0.weight"][:, :16], old["mapping.dense0.weight"][:, :16])
    others = [key for key in old if key not in ("mapping.dense0.weight", "mapping.label_weight")]
    assert all(torch.equal(new[key], old[key]) for key in others) and set(old) == set(new)
    assert torch.allclose(images_of(net, Z), images_of(source, Z), atol=1e-4)  # zero labels
    wish = torch.zeros(6, 7)
    wish[:, [0, 3, 4]] = torch.tensor([0.1, -0.05, 0.05])
    given = wish[:, [0, 3, 4]] if version.label_size == 3 else wish
    with torch.no_grad():
        a, b, still = source.eval()(Z, wish)["w"], net.eval()(Z, given)["w"], source(Z)["w"]
    # v5 appends the label itself, which weighs less in the pixel norm: for small labels that is nothing.
    alike = torch.nn.functional.cosine_similarity(a - still, b - still).min()
    assert alike > 0.9, float(alike)


@pytest.mark.parametrize("name", [name for name, row in PUBLISHED.items() if row.dropped])
def test_published_rungs_throw_dense0_away(name):
    source = obeying_v1()
    if VERSIONS[name].start == "base":
        source = world.base_generator()
    net = relabelled_generator(source, PUBLISHED[name])
    old, new = source.state_dict()["mapping.dense0.weight"], net.state_dict()["mapping.dense0.weight"]
    assert new.std() == pytest.approx(100.0, rel=0.2)
    assert abs(float(torch.corrcoef(torch.stack([new[:, :16].flatten(), old[:, :16].flatten()]))[0, 1])) < 0.3
    if name == "v2":  # whose published code dropped dense0 alone
        assert torch.equal(net.mapping.label_weight, source.mapping.label_weight)
    elif source.label_size and source.mapping.label_weight.shape == net.mapping.label_weight.shape:
        assert not torch.allclose(net.mapping.label_weight, source.mapping.label_weight, atol=0.1)


def test_labels_that_a_rung_does_not_obey_change_nothing():
    net = relabelled_generator(world.base_generator(), VERSIONS["v1"])
    label = torch.zeros(6, 7)
    label[:, [1, 2, 5, 6]] = 3.0
    with torch.no_grad():
        assert torch.allclose(net.eval()(Z, label)["image"], net(Z)["image"], atol=1e-5)


def test_the_mean_slope_of_a_score_is_that_of_finite_differences():
    net, scorer = world.base_generator(), world.scorer()
    slopes = mean_slopes(net, scorer, count=8)
    z = torch.randn(8, 16, generator=torch.Generator().manual_seed(20250408))
    way = torch.nn.functional.normalize(torch.randn(16, generator=torch.Generator().manual_seed(1)), dim=0)
    step = 1e-2
    with torch.no_grad():
        ends = [scorer(net(z + side * step * way)["image"].clamp(-1, 1)).mean(0) for side in (1, -1)]
    assert torch.allclose((ends[0] - ends[1]) / (2 * step), slopes.T @ way, atol=2e-2)


def test_an_aimed_label_is_the_shift_of_z_that_moves_one_score_by_one_and_no_other():
    net, version = relabelled_generator(world.base_generator(), VERSIONS["v1"]), VERSIONS["v1"]
    slopes = torch.randn(16, 8, generator=torch.Generator().manual_seed(3))
    aim_labels(net, version, slopes)
    weight, matrix = net.mapping.dense0.weight.detach(), net.mapping.label_weight.detach()
    for row, output in zip(version.obeyed, (0, 3, 4)):
        shift = torch.linalg.solve(weight[:, :16].double(), (weight[:, 16:] @ matrix[row]).double()).float()
        expected = torch.zeros(8)
        expected[output] = 1.0
        assert torch.allclose(slopes.T @ shift, expected, atol=1e-3)


def test_calibration_undoes_labels_that_are_too_strong_and_mixed():
    class Linear(torch.nn.Module):
        """A generator whose scores are its labels, mixed; and its own scorer."""

        label_size, z_dim = 3, 4

        def __init__(self):
            super().__init__()
            self.mapping = torch.nn.Module()
            self.mapping.label_weight = torch.nn.Parameter(
                torch.tensor([[1.5, 0.4, 0.0], [0.0, 0.8, 0.0], [0.2, 0.0, 1.2]])
            )

        def encode(self, z, label):
            return label @ self.mapping.label_weight

        def decode(self, mid):
            return mid / 10.0

    def scorer(images):
        scores = torch.zeros(len(images), 8)
        scores[:, [0, 3, 4]] = images * 10.0
        return scores

    response = calibrate_labels(Linear(), VERSIONS["v4"], scorer, count=32)
    assert torch.allclose(response, torch.eye(3), atol=1e-3)


def test_the_published_head_is_blind_to_agreement_and_the_mended_one_is_not():
    images = torch.rand(4, 3, 16, 16).requires_grad_(True)
    labels = torch.randn(2, 4, 3)

    def slopes(critic):
        return [torch.autograd.grad(critic(images, label).sum(), images)[0] for label in labels]

    concat = world.critic(version_of("v4", True))
    concat.layer6.weight.data.normal_()
    a, b = slopes(concat)
    assert torch.allclose(a, b, atol=1e-7)
    projection = world.critic(version_of("v4"))
    projection.projection.weight.data.normal_()
    a, b = slopes(projection)
    assert not torch.allclose(a, b, atol=1e-5)
    a, b = slopes(PropertyDiscriminator(world.scorer()))
    assert not torch.allclose(a, b, atol=1e-8)


def test_projection_starts_equal_to_its_base_and_survives_the_disk(tmp_path):
    base = world.base_discriminator()
    critic = projection_discriminator(base, 3)
    images, label = torch.randn(4, 3, 16, 16), torch.randn(4, 3)
    assert torch.allclose(critic(images, label), base(images), atol=1e-5)
    critic.projection.weight.data.normal_()
    save_critic(tmp_path / "d.pth", critic)
    assert torch.allclose(load_critic(tmp_path / "d.pth")(images, label), critic(images, label), atol=1e-5)
    labelled = critic_for(version_of("v8"), critic, None)
    assert labelled.label_concat and torch.allclose(labelled(images), base(images), atol=1e-5)
    assert torch.allclose(plain_discriminator(labelled)(images), base(images), atol=1e-5)


def test_the_property_discriminator_sees_three_readings_and_the_label_only():
    critic = critic_for(version_of("v5_1"), None, world.scorer())
    assert critic.head[0].in_features == 6 and critic.head[2].out_features == 1
    images = torch.randn(4, 3, 16, 16)
    scores = world.scorer()(images)[:, [0, 3, 4]]
    assert torch.allclose(critic(images), critic.head(torch.cat([scores, torch.zeros(4, 3)], 1)), atol=1e-6)


def test_truncation_by_label_keeps_the_centre_and_halves_the_distance():
    net = obeying_v1()
    truncation = ConditionalTruncation(net.mapping, 0.5, latents=50)
    label = torch.zeros(6, 7)
    label[3:, 0] = 1.0
    with torch.no_grad():
        w = net.mapping(Z, label)
        short = truncation(w, label)
        centre = net.mapping(truncation.z, label[5].expand(50, -1)).mean(0)
    assert torch.allclose(short[5], centre + 0.5 * (w[5] - centre), atol=1e-5)
    assert len(truncation._kept) == 2  # one centre per label, not per face
    with torch.no_grad():
        net.mapping.dense3.bias.add_(1.0)
        truncation.forget()
        assert not torch.allclose(truncation(w, label), short)
    w = net.mapping(Z, label)
    assert truncation(w, label).requires_grad and not truncation._centre(label[0]).requires_grad
    assert ConditionalTruncation(net.mapping, 0.5, gradient=True)._centre(label[0]).requires_grad
    # One that takes no label has one centre for all.
    plain = world.base_generator().mapping
    with torch.no_grad():
        truncation, w = ConditionalTruncation(plain, 0.5), plain(torch.randn(3, plain.z_dim), None)
        centre = plain(truncation.z, None).mean(0)
    assert torch.allclose(truncation(w, None), centre + 0.5 * (w - centre), atol=1e-5)


def test_a_sampler_gives_the_images_of_the_generator():
    net, label = obeying_v1(), torch.randn(6, 7)
    with torch.no_grad():
        whole = net.eval()(Z, label)["image"].clamp(-1, 1)
    assert torch.allclose(Sampler(net, batch=4).images(Z, label), whole, atol=1e-5)


def test_given_noise_is_used_for_one_pass_and_the_stored_one_stays():
    net = world.base_generator()
    for name, value in net.named_parameters():
        if name.endswith("apply_noise.weight"):
            value.data.fill_(0.5)
    stored = net.state_dict()["synthesis.layer3.apply_noise.noise"].clone()
    made = draw(net, 6, None, torch.device("cpu"))
    wp = net.mapping(Z).unsqueeze(1).expand(-1, net.num_layers, -1)
    with torch.no_grad():
        plain = net.synthesis(wp)["image"]
        with given_noise(net.synthesis, made.noise):
            noisy = net.synthesis(wp)["image"]
        with given_noise(net.synthesis, made.part(slice(1, None, 2)).noise):
            part = net.synthesis(wp[1::2])["image"]
        again = net.synthesis(wp)["image"]
    assert not torch.allclose(plain, noisy) and torch.equal(plain, again)
    assert torch.allclose(part, noisy[1::2], atol=1e-5)
    assert torch.equal(net.state_dict()["synthesis.layer3.apply_noise.noise"], stored)


def test_published_v1_learns_from_the_seven_scores_of_algorithm_v1(tmp_path):
    images, network = world.bright_faces().images, world.scorer()
    rows = {"img_no": [4, 8], "img_path": ["a.jpg", "b.jpg"], "reason": ["no hairstyle", "no nose"]}
    scores = {column: [0.5 + k, 1.5 + k] for k, column in enumerate(SCORE_COLUMNS)}
    scores["hairstyle_score"][0] = None  # came later and is no label
    scores["pose_score"][1] = None
    pd.DataFrame({**rows, **scores}).to_csv(tmp_path / "all_scores_published.csv", index=False)
    numbers = list(range(len(images)))
    arguments = (images, network, PUBLISHED["v1"])
    read = label_faces(*arguments, None, numbers, "cpu").values
    labels = label_faces(*arguments, tmp_path / "all_scores_published.csv", numbers, "cpu")
    assert labels.values[4] == pytest.approx(0.5 + np.arange(7))
    others = np.arange(len(images)) != 4
    assert np.array_equal(labels.values[others], read[others])
    assert f"for {len(images) - 1} faces" in labels.source


def test_drawn_labels_take_each_property_from_another_face():
    faces, version = world.bright_faces(batch=8, labels=7), VERSIONS["v1"]
    torch.manual_seed(0)
    drawn = torch.cat([Latents().labels(faces, 0, version, judged=True) for _ in range(40)])
    assert float(drawn[:, [1, 2, 5, 6]].abs().max()) == 0.0
    assert set(drawn[:, 0].tolist()) <= set(faces.labels[:, 0].tolist())
    assert abs(float(torch.corrcoef(drawn[:, [0, 3]].T)[0, 1])) < 0.2
    wide = torch.cat([Latents().labels(faces, 0, version, judged=False) for _ in range(40)])
    assert not set(wide[:, 0].tolist()) <= set(faces.labels[:, 0].tolist())
    own = Latents().own(faces.draw_labels(0), version)
    assert torch.equal(own[:, 3], faces.draw_labels(0)[:, 3]) and float(own[:, 1].abs().max()) == 0.0
    assert torch.equal(Latents().labels(faces, 1, version_of("v1", True), True), faces.draw_labels(1))


def test_the_curriculum_leaves_its_first_batch_by_a_tenth_every_fifty_steps():
    net, curriculum = world.base_generator(), Curriculum(4, 16, 7)
    for step, kept in ((0, 1.0), (49, 1.0), (50, 0.9), (100, 0.81)):
        made = draw(net, 4, torch.randn(4, 7), torch.device("cpu"), noise=False)
        expected = kept * curriculum.z + (1 - kept) * made.z
        assert torch.allclose(curriculum.batch(made, step).z, expected)


def test_following_the_label_term_makes_faces_obey():
    images, label = torch.zeros(4, 3, 16, 16, requires_grad=True), torch.randn(4, 7)
    term = LabelTerm(world.scorer(), [0, 3, 4], [0, 3, 4], 2.0)
    before = term(images, label)
    before.backward()
    with torch.no_grad():
        assert term(images - 0.5 * images.grad / images.grad.norm(), label) < before
    bright = torch.full((1, 3, 16, 16), 3.0, requires_grad=True)
    term(bright, label[:1]).backward()
    assert float(bright.grad.abs().max()) > 0  # beyond white the slope is still there


def test_in_pairs_only_the_difference_that_labels_make_counts():
    scorer = world.scorer()
    images, label = torch.rand(4, 3, 16, 16) - 0.5, torch.randn(4, 7)
    term = LabelTerm(scorer, [0, 3, 4], [0, 3, 4], 2.0, paired=True)
    with torch.no_grad():
        scores = scorer(images)[:, [0, 3, 4]]
        obeyed = label.clone()
        obeyed[:, [0, 3, 4]] = scores + torch.randn(2, 3).repeat(2, 1)  # each person's own mouth is no fault
        assert float(term(images, obeyed)) == pytest.approx(0, abs=1e-10)
        gap = (scores[:2] - scores[2:]) - (label[:2, [0, 3, 4]] - label[2:, [0, 3, 4]])
        assert float(term(images, label)) == pytest.approx(float(gap.square().mean()), rel=1e-5)


def test_the_two_halves_of_a_batch_are_the_same_persons_with_other_labels():
    trainer = world.trainer("v1")
    made, judged = trainer._draw(0, seen=False), trainer._draw(0, seen=True)
    half = len(made.z) // 2
    assert torch.equal(made.z[:half], made.z[half:]) and not torch.equal(made.label[:half], made.label[half:])
    assert all(torch.equal(maps[:half], maps[half:]) for maps in made.noise)
    assert not torch.equal(judged.z[:half], judged.z[half:])
    with pytest.raises(PipelineError, match="split pairs of faces that share a latent"):
        world.trainer("v1", processes=Processes(accumulate=4))


def test_grids_are_the_published_ones():
    assert len(GRID_50) == 50 and GRID_50[0] == (-1.8, -1.2, -1.2) and GRID_50[6] == (1.8, -1.2, 0.0)
    assert len(GRID_8) == 8 and {row[2] for row in GRID_8} == {-1.2, 2.4}
    assert label_rows(GRID_8, VERSIONS["v1"])[0].tolist() == pytest.approx([-1.6, 0, 0, -1.2, -1.2, 0, 0])
    assert label_rows(GRID_8, VERSIONS["v4"])[0].tolist() == pytest.approx([-1.6, -1.2, -1.2])


def test_obedience_of_a_net_that_obeys_and_of_one_that_does_not():
    frame = pd.DataFrame({"case": np.repeat([0, 1], 8)})
    for k, name in enumerate(("eyes", "mouth", "pose")):
        frame[f"{name}_label"] = [row[k] for row in GRID_8] * 2
        frame[f"{name}_cnn_score"] = frame[f"{name}_label"] * 0.5 + frame["case"] * 10
        frame[f"{name}_oracle"] = -frame[f"{name}_label"] if name == "pose" else 3.0
    frame["identity_change"] = 0.25
    seen = summarise(frame)
    assert seen["eyes_corr"] == pytest.approx(1.0) and seen["eyes_pooled"] < 0.3
    assert seen["pose_oracle"] == pytest.approx(-1.0) and seen["mouth_oracle"] == 0.0
    assert seen["identity_under_labels"] == 0.25
    spread = pd.Series({"gender": 1.0, "age": 1.0})
    net = relabelled_generator(world.base_generator(), VERSIONS["v1"])
    net.mapping.label_weight.data.zero_()
    tried = try_labels(Sampler(net), world.scorer(), world.BrightnessJudge(), VERSIONS["v1"], range(2), GRID_8, spread)
    assert len(tried) == 16 and tried["identity_change"].max() < 1e-3
    assert tried.groupby("case")["eyes_cnn_score"].std().max() < 1e-3


def test_distances_of_sets_and_persons_in_known_cases():
    random = torch.Generator().manual_seed(0)
    a, b = (torch.randn(200, 8, generator=random) for _ in range(2))
    assert abs(kernel_distance(a, b)) < 0.1 < kernel_distance(a, b + 1.0)
    assert recall(a, a) == 1.0 and recall(a, b) > 0.5 and recall(a, torch.zeros(50, 8)) == 0.0
    frame = pd.DataFrame({"gender": [0.0, 1.0], "age": [0.0, 1.0], "mouth": [0.0, 9.0]})
    spread = pd.Series({"gender": 1.0, "age": 1.0, "mouth": 1.0})
    same = frame.iloc[[0, 0]].reset_index(drop=True)
    assert identity_distance(frame, same, spread).tolist() == pytest.approx([0.0, 0.5**0.5])


def test_the_diagram_is_read_off_the_modules(tmp_path):
    trainer = world.trainer("v1")
    boxes = {name: (sizes, trained) for name, sizes, trained in network_diagram.boxes_of(trainer.generator)}
    assert boxes["mapping.label_weight"] == ("7 to 16", 1.0) and boxes["mapping.dense0"] == ("32 to 16", 1.0)
    assert boxes["synthesis.layer3"] == ("8 to 8, 3x3", 0.0)
    network_diagram.draw({"generator": trainer.generator, "discriminator": trainer.discriminator},
                         tmp_path / "network.png", "v1")  # fmt: skip
    assert (tmp_path / "network.png").stat().st_size > 10_000


def test_unknown_versions_and_foreign_labels_are_refused():
    with pytest.raises(PipelineError, match="no version v7"):
        version_of("v7")
    with pytest.raises(PipelineError, match="without a split mapping"):
        relabelled_generator(world.v9_generator(), VERSIONS["v2"])
    with pytest.raises(PipelineError, match="cannot take over"):
        relabelled_generator(relabelled_generator(world.base_generator(), VERSIONS["v4"]), VERSIONS["v1"])
