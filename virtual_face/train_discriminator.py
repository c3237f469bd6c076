"""Trains the bundled discriminator: renders against the finished generator's faces (logistic loss, lazy R1).

    python -m virtual_face.train_discriminator --minutes 5

The generator was trained by regression, so its discriminator learns afterwards, with the generator held still.
Fine-tuning starts from it. The same command goes on from the weights in the file, with a new optimiser and other faces;
nothing is written before the minutes are over.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from pipeline.artefacts import provenance_of, save_weights
from pipeline.command import limit_threads, main
from stylegan.checkpoint import load_discriminator, load_generator
from virtual_face.shards import read_shards


@dataclass
class DiscriminatorOptions:
    """Train the discriminator that belongs to the bundled generator."""

    data: str = "work/renders"
    weights: str = "weights/demo/generator.pth"
    """Checkpoint {generator, discriminator}; the discriminator in it is replaced."""
    minutes: float = 5.0
    batch: int = 16
    rate: float = 2e-3
    r1_gamma: float = 1.0
    r1_every: int = 16
    seed: int = 0


def train(options: DiscriminatorOptions) -> None:
    limit_threads()
    provenance = provenance_of(options.weights)
    before = int(provenance.get("discriminator_steps", 0))
    torch.manual_seed(options.seed + before)
    generator = load_generator(options.weights)
    discriminator = load_discriminator(options.weights).train()
    images = torch.from_numpy(read_shards(options.data, ("images",))["images"])
    optimiser = torch.optim.Adam(discriminator.parameters(), lr=options.rate, betas=(0.0, 0.99))
    start, step, history = time.time(), 0, []
    while (time.time() - start) / 60 < options.minutes:
        real = images[torch.randint(len(images), (options.batch,))].permute(0, 3, 1, 2).float() / 127.5 - 1
        real = torch.where(torch.rand(options.batch, 1, 1, 1) < 0.5, real, real.flip(-1))
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            fake = generator(torch.randn(options.batch, generator.z_dim))["image"].float()
        with torch.autocast("cpu", torch.bfloat16):
            on_real, on_fake = discriminator(real).float(), discriminator(fake).float()
        loss = F.softplus(-on_real).mean() + F.softplus(on_fake).mean()
        if step % options.r1_every == 0:
            real.requires_grad_(True)
            slope = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)[0]
            loss = loss + 0.5 * options.r1_gamma * options.r1_every * slope.square().sum((1, 2, 3)).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        wins = (on_real[:, 0, None] > on_fake[None, :, 0]).float().mean().item()
        history.append((loss.item(), wins))
        step += 1
        if step % 100 == 0:
            mean = np.mean(history[-100:], axis=0)
            print(f"step {step}  loss {mean[0]:.3f}  AUROC {mean[1]:.3f}", flush=True)
    provenance |= {
        "discriminator_steps": before + step,
        "discriminator_auroc": round(float(np.mean(history[-200:], axis=0)[1]), 3),
    }
    state = {"generator": generator.state_dict(), "discriminator": discriminator.state_dict()}
    save_weights(options.weights, state, half=True, **provenance)


if __name__ == "__main__":
    main(DiscriminatorOptions, train, examples=__doc__)
