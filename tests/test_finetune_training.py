"""Fine-tuning: what is frozen stays, a killed run ends like an undisturbed one, the log tells the truth."""

from __future__ import annotations

import copy
import dataclasses
from types import SimpleNamespace

import finetune_world as world
import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.artefacts import code_version, read_weights
from pipeline.errors import PipelineError
from stylegan_modified.augment import Augment, camera, shifted
from stylegan_modified.climb import V5_JITTER
from stylegan_modified.faces import Faces
from stylegan_modified.monitor import Monitor, mean_distance, measure
from stylegan_modified.processes import Processes
from stylegan_modified.rung import TRAINING_CODE, Files, Rhythm, fingerprint_of, train_rung
from stylegan_modified.settings import Rates
from stylegan_modified.trainer import auroc
from stylegan_modified.versions import PUBLISHED, VERSIONS, train_critic, train_generator, version_of

RHYTHM = Rhythm(log=2, monitor=4, save=2)


class Killed(RuntimeError):
    """Stands for SIGKILL: nothing catches it, nothing is tidied."""


def rung(folder, steps, kill_at=None, seed=0, said=None, version="v9", published=False, save=2, fingerprint=None):
    """Train one rung of the tiny world in a folder; returns the trainer and its log."""
    trainer = world.trainer(version, seed=seed, published=published)
    if kill_at is not None:
        honest = trainer.step

        def step():
            if trainer.step_number == kill_at:
                raise Killed
            honest()

        trainer.step = step
    monitor = Monitor(world.BrightnessJudge(), trainer.faces, range(100, 132), 16, "cpu", strip=4)
    files = Files(folder / "state.pth", folder / "log.csv", folder / "strips", folder / "events")
    said, rhythm = [] if said is None else said, dataclasses.replace(RHYTHM, save=save)
    return trainer, train_rung(trainer, steps, monitor, files, rhythm, fingerprint or {"seed": seed}, said.append)


def weights(trainer):
    parts = {"a.": trainer.average, "g.": trainer.generator, "d.": trainer.discriminator}
    parts |= {f"o.{name}.": net for name, net in trainer.others.items()}
    return {key: value for start, net in parts.items() if net for key, value in net.state_dict(prefix=start).items()}


@pytest.mark.parametrize("version", list(VERSIONS))
@pytest.mark.parametrize("published", [False, True])
def test_frozen_weights_stay_bit_by_bit_and_the_others_move(version, published):
    trainer = world.trainer(version, published=published)
    before = {key: value.clone() for key, value in weights(trainer).items()}
    for _ in range(2):
        trainer.step()
    row = version_of(version, published)
    trained = {f"g.{k}" for k in train_generator(trainer.generator, row.generator_up_to)}
    trained |= {f"d.{k}" for k in (train_critic(row, trainer.discriminator) if trainer.discriminator else ())}
    trained |= {f"o.{k}" for k in trainer.others} if trainer.others else set()
    for key, value in weights(trainer).items():
        if key not in trained and not key.startswith(("a.", "o.")) and not key.endswith("w_avg"):
            assert torch.equal(value, before[key]), key
    moved = {key for key in trained if key.startswith("o.") or not torch.equal(weights(trainer)[key], before[key])}
    # Zero labels give the label's own weights no gradient, and at full size only the last output layer runs.
    idle = ("g.mapping.label_weight", "g.synthesis.output", "d.input")
    if not row.random_noise:
        idle += tuple(key for key in trained if "noise" in key)
    assert {key for key in trained - moved if not key.startswith(idle)} == set()
    if row.conditional and row.label_dim:
        assert "g.mapping.label_weight" in moved
    for name, net in trainer.others.items():
        assert any(not torch.equal(value, before[f"o.{name}.{key}"]) for key, value in net.state_dict().items())


def test_training_raises_the_share_of_what_the_faces_have_in_common():
    trainer = world.trainer(rates=Rates(mapping=3e-3, synthesis=3e-3, discriminator=3e-3, r1_gamma=1.0,
                                        average_images=100.0))  # fmt: skip
    judge, seeds = world.BrightnessJudge(), range(200)
    before = measure(trainer.average, judge, seeds, 50, "cpu").frame["concept"].mean()
    for _ in range(60):
        trainer.step()
    after = measure(trainer.average, judge, seeds, 50, "cpu").frame["concept"].mean()
    assert after > before + 0.1, (before, after)


@pytest.mark.parametrize(
    ("version", "published", "kill_at"),
    [("v9", False, 1), ("v9", False, 4), ("v9", False, 5), ("v1", False, 5), ("v1", True, 3), ("v2", True, 3),
     ("v3", False, 5), ("v5_1", False, 5), ("v5_3", False, 5), ("v5_3", True, 5)],
)  # fmt: skip
def test_a_killed_run_ends_like_an_undisturbed_one(tmp_path, version, published, kill_at):
    kind = {"version": version, "published": published}
    whole, log = rung(tmp_path / "whole", 8, **kind)
    with pytest.raises(Killed):
        rung(tmp_path / "killed", 8, kill_at=kill_at, **kind)
    again, log_again = rung(tmp_path / "killed", 8, **kind)
    a, b = weights(whole), weights(again)
    assert max(float((a[key] - b[key]).abs().max()) for key in a) <= 1e-6
    assert (tmp_path / "whole" / "log.csv").read_bytes() == (tmp_path / "killed" / "log.csv").read_bytes()
    pd.testing.assert_frame_equal(log, log_again)
    strips = [sorted(p.name for p in (tmp_path / name / "strips").iterdir()) for name in ("whole", "killed")]
    assert strips[0] == strips[1]


def test_more_steps_go_on_from_the_saved_state(tmp_path):
    whole, _ = rung(tmp_path / "whole", 8)
    rung(tmp_path / "grown", 4)
    said = []
    grown, _ = rung(tmp_path / "grown", 8, said=said)
    a, b = weights(whole), weights(grown)
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert any("going on from step 4" in line for line in said)


def test_same_seed_same_weights_and_another_seed_does_not_use_the_state(tmp_path):
    first, _ = rung(tmp_path / "a", 2)
    second, _ = rung(tmp_path / "b", 2)
    assert all(torch.equal(x, y) for x, y in zip(weights(first).values(), weights(second).values(), strict=True))
    said = []
    other, _ = rung(tmp_path / "b", 2, seed=1, said=said)
    assert any("anew" in line for line in said)
    assert not torch.equal(weights(other)["g.mapping.dense0.weight"], weights(first)["g.mapping.dense0.weight"])


def test_a_state_of_another_training_waits_until_it_is_wanted_again(tmp_path):
    first, _ = rung(tmp_path, 4)
    state, kept = (tmp_path / "state.pth").read_bytes(), tmp_path / "state.before.pth"
    said = []
    rung(tmp_path, 2, seed=1, said=said)
    assert kept.read_bytes() == state and (tmp_path / "state.pth").read_bytes() != state
    assert any("waits in state.before.pth" in line for line in said)
    other = (tmp_path / "state.pth").read_bytes()
    again, _ = rung(tmp_path, 4, said=said)
    assert any("going on from step 4" in line for line in said)
    assert all(torch.equal(x, y) for x, y in zip(weights(again).values(), weights(first).values(), strict=True))
    assert (tmp_path / "state.pth").read_bytes() == state and kept.read_bytes() == other


def test_the_further_of_two_states_of_one_training_stays(tmp_path):
    rung(tmp_path, 6)
    furthest = (tmp_path / "state.pth").read_bytes()
    rung(tmp_path, 4)
    rung(tmp_path, 2)
    assert (tmp_path / "state.before.pth").read_bytes() == furthest


def test_a_state_of_earlier_code_is_gone_on_with_and_told(tmp_path):
    calls = {"said": [], "fingerprint": {"seed": 0, "code": "old"}}
    rung(tmp_path, 2, **calls)
    trainer, _ = rung(tmp_path, 4, said=calls["said"], fingerprint={"seed": 0, "code": "new"})
    assert trainer.step_number == 4 and trainer.code == "old"
    assert any("of earlier code" in line for line in calls["said"])
    assert read_weights(tmp_path / "state.pth")["fingerprint"]["code"] == "old"


def test_what_a_state_depends_on_knows_code_and_inputs_but_not_what_is_measured(tmp_path):
    (tmp_path / "faces").mkdir()
    trainer = world.trainer()
    call = SimpleNamespace(settings={"batch": 4, "samples": 9, "accumulate": 2, "save_every": 3}, seed=3,
                           stamp={"inputs": {"faces": tmp_path / "faces"}})  # fmt: skip
    told = fingerprint_of(call, trainer)
    assert told["code"] == code_version(*TRAINING_CODE) and told["seed"] == 3 and len(told["faces"]) == 64
    assert "batch" in told and not {"samples", "accumulate", "save_every"} & set(told)


def test_published_forms_have_one_rate_for_both_nets_and_mended_ones_their_own():
    for version in ("v1", "v4", "v5_1", "v8", "v9"):
        published = world.trainer(version, published=True)
        rates = {group["lr"] for net in (published.generator_optimizer, published.discriminator_optimizer)
                 for group in net.param_groups}  # fmt: skip
        assert rates == {1e-4}, version
    mended = world.trainer("v1", rates=Rates(discriminator=3e-3))
    assert mended.discriminator_optimizer.param_groups[0]["lr"] == 3e-3


def test_each_net_moves_at_the_rate_of_its_effective_weights():
    trainer = world.trainer(rates=Rates(mapping=3e-4, synthesis=2e-4, discriminator=1e-3))
    nets = {"mapping": trainer.generator.mapping, "synthesis": trainer.generator.synthesis, "d": trainer.discriminator}
    before = {name: copy.deepcopy(net.state_dict()) for name, net in nets.items()}
    torch.manual_seed(0)
    trainer._update_discriminator()
    trainer._update_generator()
    # The first step of Adam is as long as the rate; weights of the mapping are stored 100-fold.
    longest = {name: max(float((net.state_dict()[key] - old).abs().max()) for key, old in before[name].items())
               for name, net in nets.items()}  # fmt: skip
    assert longest == pytest.approx({"mapping": 3e-2, "synthesis": 2e-4, "d": 1e-3}, rel=0.01)


def test_lazy_penalties_weigh_as_much_as_if_there_was_one_at_every_update():
    def slopes(**rates):
        trainer = world.trainer(rates=Rates(**rates))
        torch.manual_seed(0)
        trainer._update_discriminator()
        grads = [weight.grad.flatten() for weight in trainer.discriminator.parameters() if weight.grad is not None]
        return torch.cat(grads), trainer

    lazy, trainer = slopes(r1_gamma=10.0, r1_every=16)
    often, dear = slopes(r1_gamma=160.0, r1_every=1)
    rare, _ = slopes(r1_gamma=10.0, r1_every=1)
    assert torch.allclose(lazy, often, rtol=1e-3, atol=1e-6) and not torch.allclose(lazy, rare, rtol=0.1)
    penalty = trainer.counters["penalty"]
    assert 16 * penalty == pytest.approx(dear.counters["penalty"], rel=1e-4)
    # It is told as what it is, at the update that measured it and until the next.
    trainer._update_discriminator()
    assert trainer.counters["penalty"] == penalty > 0 and trainer.counters["d_updates"] == 2


@pytest.mark.parametrize(("images", "kept"), [(1.0, 0.5**4), (2000.0, 0.1), (0.0, 0.0)])
def test_the_average_keeps_a_known_share_of_itself_and_takes_the_mean_of_w_as_it_is(images, kept):
    trainer = world.trainer(rates=Rates(average_images=images, mapping=1e-2, synthesis=1e-2))
    before = {name: value.clone() for name, value in trainer.average.state_dict().items()}
    torch.manual_seed(0)
    trainer._update_discriminator()
    trainer._update_generator()
    own, average = trainer.generator.state_dict(), trainer.average.state_dict()
    buffers = dict(trainer.average.named_buffers())
    for name, value in average.items():
        share = 0.0 if name in buffers else kept
        assert torch.allclose(value, share * before[name] + (1 - share) * own[name], rtol=1e-4, atol=1e-5), name
    for name in ("mapping.dense3.weight", "truncation.w_avg"):
        assert not torch.allclose(own[name], before[name], rtol=1e-4, atol=1e-5), name


def test_centres_of_labels_follow_the_mapping_while_training():
    trainer = world.trainer("v5_3", rates=Rates(mapping=1e-2))
    label = torch.zeros(1, 3)
    before = trainer.truncation._centre(label[0]).clone()
    trainer.step()
    with torch.no_grad():
        now = trainer.generator.mapping(trainer.truncation.z, label.expand(len(trainer.truncation.z), -1)).mean(0)
    assert torch.allclose(trainer.truncation._centre(label[0]), now) and not torch.allclose(now, before)


def test_a_batch_that_makes_no_whole_groups_is_refused():
    with pytest.raises(PipelineError, match="6 faces .* cannot be split into groups of 4"):
        world.trainer("v1", batch=6)
    with pytest.raises(PipelineError, match="6 faces .batch 12 in 2 parts. cannot be split into groups of 4"):
        world.trainer("v1", batch=12, processes=Processes(accumulate=2))


def test_only_real_faces_of_the_published_v5_are_changed():
    trainer = world.trainer("v5_1", published=True)
    images = torch.rand(4, 3, 16, 16)
    trainer.augment = V5_JITTER
    changes = trainer.augment.draw(4, 16)
    assert torch.equal(trainer._as_fake(images, changes), images)
    assert not torch.equal(trainer.augment.apply(images, changes), images)


def test_log_has_a_row_per_interval_and_monitors_at_their_steps(tmp_path):
    said = []
    _, log = rung(tmp_path, 8, said=said)
    assert log["step"].tolist() == [0, 2, 4, 6, 8]
    assert log.loc[log["concept_share"].notna(), "step"].tolist() == [0, 4, 8]
    seen = log.dropna(subset=["concept_share"])
    assert (seen["concept_low"] <= seen["concept_share"]).all() and (
        seen["concept_share"] <= seen["concept_high"]
    ).all()
    assert log["branch_share"].max() < 1
    rows = log[log["step"] > 0]
    assert rows["d_train_count"].between(1, 4).all() and rows["g_train_count"].between(1, 4).all()
    assert not any("WARNING" in line for line in said)


def test_a_dead_branch_is_called_out(tmp_path):
    trainer = world.trainer()
    for net in (trainer.generator, trainer.average):
        net.mapping.dense_new1.weight.data *= 1e-3
        net.mapping.dense_new1.bias.data *= 1e-3
    monitor = Monitor(world.BrightnessJudge(), trainer.faces, range(16), 16, "cpu", strip=4)
    said = []
    files = Files(tmp_path / "state.pth", tmp_path / "log.csv", tmp_path / "strips", tmp_path / "events")
    train_rung(trainer, 1, monitor, files, Rhythm(1, 1, 1), {}, said.append)
    assert any("WARNING" in line and "branch" in line for line in said)


def test_a_judge_that_reads_no_persons_tells_no_identity():
    trainer = world.trainer()
    monitor = Monitor(world.BrightnessJudge(), trainer.faces, range(4), 4, "cpu", origin=trainer.generator)
    assert np.isnan(monitor.identity_change(trainer.average))


def test_a_discriminator_that_scores_the_faces_higher_separates_them_from_the_generated_ones():
    class Brightness(torch.nn.Module):
        sign = 1.0

        def forward(self, images, label, lod):
            return self.sign * images.mean((1, 2, 3))[:, None]

    critic, faces = Brightness(), world.bright_faces()
    monitor = Monitor(world.BrightnessJudge(), faces, range(100, 132), 16, "cpu")
    above = monitor.separation(world.base_generator(), critic)
    assert above > 0.8 and critic.training  # the faces are the brightest of many
    critic.sign = -1.0
    assert monitor.separation(world.base_generator(), critic) == pytest.approx(1 - above)


def test_rows_of_the_log_must_meet_monitors_and_states():
    with pytest.raises(PipelineError, match="multiples"):
        Rhythm(10, 25, 50).check()


def test_the_repeat_rules_stop_where_the_table_says(monkeypatch):
    trainer = world.trainer()
    calls = {"d": 0, "g": 0}
    d_losses, g_losses = [9.0, 9.0, 9.0, 2.0, 9.0, 9.0, 9.0, 9.0], [1.0, 30.0, 30.0, 1.0]

    def d_update():
        calls["d"] += 1
        return d_losses[calls["d"] - 1]

    def g_update():
        calls["g"] += 1
        return g_losses[calls["g"] - 1]

    monkeypatch.setattr(trainer, "_update_discriminator", d_update)
    monkeypatch.setattr(trainer, "_update_generator", g_update)
    trainer.step()
    assert calls == {"d": 1, "g": 1}  # the first step trains D once
    trainer.step()
    assert calls == {"d": 4, "g": 4}  # D until 2.0 < 2.5 * 1.0, then G until 1.0 < 2 * 2.0


def test_each_epoch_draws_every_face_once_in_an_order_of_its_own():
    images = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1).repeat(3, axis=3)
    faces = Faces(images, 4, seed=0)
    drawn = [((faces.draw(k)[:, 0, 0, 0] + 1) * 127.5).round().int().tolist() for k in range(4)]
    assert faces.per_epoch == 2
    for epoch in (drawn[0] + drawn[1], drawn[2] + drawn[3]):
        assert len(epoch) == len(set(epoch)) == 8
    assert drawn[:2] != drawn[2:]
    with pytest.raises(PipelineError, match="one batch"):
        Faces(images[:3], 4, seed=0)


def test_a_face_of_another_size_is_named(tmp_path):
    from pipeline.artefacts import save_image

    save_image(tmp_path / "000001.jpg", np.zeros((16, 16, 3), np.uint8))
    save_image(tmp_path / "000002.jpg", np.zeros((8, 16, 3), np.uint8))
    with pytest.raises(PipelineError, match="000002.jpg is 16x8, expected 16x16"):
        Faces.read(sorted(tmp_path.glob("*.jpg")), 16, 1, 0)


def test_augmentation_keeps_shape_gradient_and_colour_of_flat_pictures():
    images = (torch.rand(4, 3, 16, 16) * 2 - 1).requires_grad_(True)
    torch.manual_seed(0)
    changed = Augment()(images)
    changed.square().sum().backward()
    assert changed.shape == images.shape and float(images.grad.abs().min(1).values.max()) > 0
    flat = torch.tensor([0.5, -0.2, 0.1]).reshape(1, 3, 1, 1).expand(2, 3, 8, 8)
    assert torch.allclose(camera(flat), flat, atol=1e-6)
    still = Augment(brightness=0, contrast=0, saturation=0, shift=0, noise=0)
    assert torch.allclose(still(flat), flat, atol=1e-6)
    assert shifted(images, torch.randint(-2, 3, (4, 2))).shape == images.shape


def test_auroc_and_diversity_of_known_cases():
    assert auroc([2.0, 3.0], [0.0, 1.0]) == 1.0
    assert auroc([1.0], [1.0]) == 0.5
    assert auroc([0.0, 2.0], [1.0]) == 0.5
    assert np.isnan(auroc([], [1.0]))
    assert mean_distance(torch.tensor([[0.0, 0.0], [3.0, 4.0]])) == pytest.approx(5.0)
    assert mean_distance(torch.zeros(5, 3)) == 0.0


def test_versions_are_settings_of_one_class():
    assert {"v1", "v2", "v3", "v4", "v5_1", "v5_2", "v5_3", "v8", "v9"} == set(VERSIONS) == set(PUBLISHED)
    with pytest.raises(PipelineError, match="split mapping"):
        v9 = dataclasses.replace(VERSIONS["v9"], name="v9")
        trainer = world.trainer("v8")
        type(trainer)(trainer.generator, trainer.discriminator, v9, trainer.faces, trainer.rates)
