"""Trains the oracle on renders and their true attributes.

python -m virtual_face.train_oracle --data work/renders --out weights/demo/attribute_net.pth --minutes 15
python -m virtual_face.train_oracle --data work/heldout --out weights/demo/attribute_net.pth --evaluate
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.artefacts import atomic, provenance_of, save_weights
from pipeline.checkpoint import read_checkpoint, training_of
from pipeline.command import main
from virtual_face.oracle import SHARES, AttributeNet, load_oracle
from virtual_face.population import ATTRIBUTES
from virtual_face.shards import read_shards

MIRRORED = ("yaw", "roll")


@dataclass
class OracleOptions:
    """Train or evaluate the attribute network."""

    data: str
    out: str
    minutes: float = 15.0
    """Minutes of training altogether; the same command goes on where it stopped."""
    work: str = "work/oracle"
    """Folder of the training checkpoint; one of other --data or another --seed is refused."""
    batch: int = 32
    evaluate: bool = False
    seed: int = 0


def augment(images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirror, slight shift, blur, noise and contrast: what a generator's pictures have and renders have not."""
    n = len(images)

    def uniform(low, high, *shape):
        return torch.rand(shape or (n,), generator=generator) * (high - low) + low

    flip = uniform(0, 1) < 0.5
    sign = torch.tensor([-1.0 if name in MIRRORED else 1.0 for name in ATTRIBUTES])
    images = torch.where(flip[:, None, None, None], images.flip(-1), images)
    targets = torch.where(flip[:, None], targets * sign, targets)
    theta = torch.eye(2, 3).repeat(n, 1, 1)
    theta[:, 0, 2], theta[:, 1, 2] = uniform(-0.03, 0.03), uniform(-0.03, 0.03)
    images = F.grid_sample(
        images,
        F.affine_grid(theta, list(images.shape), align_corners=False),
        padding_mode="border",
        align_corners=False,
    )
    small = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2, mode="bilinear", align_corners=False)
    amount = (uniform(-0.5, 0.8)).clamp(min=0)[:, None, None, None]
    images = images + (small - images) * amount
    images = images * uniform(0.96, 1.04)[:, None, None, None] + uniform(-0.02, 0.02)[:, None, None, None]
    images = images + torch.randn(images.shape, generator=generator) * uniform(0, 0.05)[:, None, None, None]
    return images, targets


def loss_of(network: AttributeNet, output: Tensor, targets: Tensor) -> Tensor:
    shares = torch.tensor([name in SHARES for name in ATTRIBUTES])
    values = (targets - network.mean) / network.spread
    regression = F.smooth_l1_loss(output[:, ~shares], values[:, ~shares], beta=0.3)
    return regression + F.binary_cross_entropy_with_logits(output[:, shares], targets[:, shares])


def train(options: OracleOptions) -> None:
    data = read_shards(options.data, ("images", "attributes"))
    images, targets = torch.from_numpy(data["images"]), torch.from_numpy(data["attributes"])
    torch.manual_seed(options.seed)
    network = AttributeNet()
    network.mean.copy_(targets.mean(0))
    network.spread.copy_(targets.std(0))
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998), use_buffers=True
    )
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-3)
    generator = torch.Generator().manual_seed(options.seed)
    spent, step, checkpoint = 0.0, 0, Path(options.work) / "training.pth"
    training = training_of(options.data, options.seed)
    if checkpoint.exists():
        state = read_checkpoint(checkpoint, training)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        spent, step = state["spent"], state["step"]
        generator.set_state(state["generator"])

    def write() -> None:
        told = {"steps": step, "minutes": round(spent, 1), "pictures": len(images)}
        save_weights(options.out, average.module.state_dict(), half=True, **told)

    last, losses = time.time(), []
    while spent < options.minutes:
        decay = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1, spent / options.minutes)))
        rate = 2e-3 * min(1, step / 100) * decay
        for group in optimiser.param_groups:
            group["lr"] = rate
        pick = torch.randint(len(images), (options.batch,), generator=generator)
        batch = images[pick].permute(0, 3, 1, 2).float() / 127.5 - 1
        batch, wanted = augment(batch, targets[pick], generator)
        with torch.autocast("cpu", torch.bfloat16):
            output = network(batch)
        loss = loss_of(network, output.float(), wanted)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        average.update_parameters(network)
        losses.append(loss.item())
        step += 1
        now = time.time()
        spent, last = spent + (now - last) / 60, now
        if step % 200 == 0 or spent >= options.minutes:
            print(f"step {step}  {spent:.1f} min  loss {np.mean(losses[-200:]):.4f}", flush=True)
            with atomic(checkpoint) as temporary:
                torch.save(
                    {
                        "training": training,
                        "network": network.state_dict(),
                        "average": average.state_dict(),
                        "optimiser": optimiser.state_dict(),
                        "spent": spent,
                        "step": step,
                        "generator": generator.get_state(),
                    },
                    temporary,
                )
            write()
    # Stopped between the checkpoint and the weights, or asked for another file, the training is over all the same.
    if int(provenance_of(options.out).get("steps", 0)) < step:
        write()
    print(f"{options.out}: {step} steps in {spent:.1f} of {options.minutes:g} minutes", flush=True)


def evaluate(options: OracleOptions) -> None:
    data = read_shards(options.data, ("images", "attributes"))
    oracle = load_oracle(options.out)
    found = oracle.attributes(torch.from_numpy(data["images"]).permute(0, 3, 1, 2).float() / 127.5 - 1)
    truth = pd.DataFrame(data["attributes"], columns=list(ATTRIBUTES))
    table = pd.DataFrame(
        {
            "r": [np.corrcoef(found[c], truth[c])[0, 1] for c in ATTRIBUTES],
            "mean error": [(found[c] - truth[c]).abs().mean() for c in ATTRIBUTES],
        },
        index=list(ATTRIBUTES),
    )
    for name in SHARES:
        table.loc[name, "agree at .5"] = ((found[name] >= 0.5) == (truth[name] >= 0.5)).mean()
    print(table.round(4).to_string())


def run(options: OracleOptions) -> None:
    (evaluate if options.evaluate else train)(options)


if __name__ == "__main__":
    main(OracleOptions, run, examples=__doc__)
