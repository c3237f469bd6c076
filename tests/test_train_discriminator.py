"""Training of the bundled discriminator: it tells renders from what the generator draws, and can be gone on with."""

from itertools import count
from types import SimpleNamespace

import numpy as np
import torch
from weight_files import discriminator, generator

from pipeline.artefacts import provenance_of
from stylegan.checkpoint import generator_hash, load_discriminator, load_generator, save_checkpoint
from virtual_face import train_discriminator
from virtual_face.train_discriminator import DiscriminatorOptions, train


def test_the_discriminator_learns_and_the_generator_stays_and_a_second_run_goes_on(tmp_path, monkeypatch):
    # A second a step, however fast the machine is.
    monkeypatch.setattr(train_discriminator, "time", SimpleNamespace(time=count().__next__))
    torch.manual_seed(0)
    weights = tmp_path / "generator.pth"
    save_checkpoint(weights, half=True, generator=generator(), discriminator=discriminator())
    white = np.full((20, 16, 16, 3), 255, np.uint8)
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data/shard_00000.npz", images=white)
    options = DiscriminatorOptions(data=str(tmp_path / "data"), weights=str(weights), minutes=2)
    before = generator_hash(load_generator(weights))
    train(options)
    first = provenance_of(weights)
    assert first["discriminator_steps"] == 119 and first["discriminator_auroc"] > 0.9
    assert generator_hash(load_generator(weights)) == before
    learnt = load_discriminator(weights).state_dict()
    train(options)
    assert provenance_of(weights)["discriminator_steps"] == 2 * 119
    again = load_discriminator(weights).state_dict()
    assert any(not torch.equal(learnt[name], again[name]) for name in learnt)
