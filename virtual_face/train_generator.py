"""Trains the bundled generator and discriminator on renders.

    python -m virtual_face.train_generator --start work/generator_init.pth
    python -m virtual_face.train_generator --minutes 90
    python -m virtual_face.train_generator --minutes 120 --oracle weights/demo/attribute_net.pth

The mapping network stays as it was drawn; a latent's face is the render of the factors that `LatentMap` reads from its
w, and the synthesis network learns to draw it: 32, then 64, then 128 pixels. While it trains, the style layers take the
whitened p = read (w - mean) in place of w, which is far better conditioned; the product is folded into ordinary style
weights at the end. With --oracle a feature loss and a
discriminator on the oracle's features sharpen it. The same command goes on where it stopped.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.artefacts import atomic
from pipeline.command import main
from pipeline.seeds import latents_from_seeds
from stylegan.checkpoint import load_generator, save_checkpoint
from stylegan.discriminator import Discriminator
from stylegan.generator import Generator, Synthesis
from stylegan.sampling import to_uint8
from virtual_face.latent_map import latent_map_of
from virtual_face.oracle import AttributeNet, load_oracle
from virtual_face.population import FACTORS, ODD_FACTORS
from virtual_face.shards import read_shards

CHANNEL_BASE, CHANNEL_MAX = 2048, 256
DISCRIMINATOR_MAX = 128  # it ships twice, and learns from few faces
# How much a pixel of each parser class counts: large plain areas little, eyes and mouth much.
CLASS_WEIGHT = (0.6, 1.3, 4.8, 4.8, 8.0, 8.0, 2.2, 6.0, 6.0, 6.0, 0.9)


@dataclass
class GeneratorOptions:
    """Train the bundled generator by regression onto renders, then sharpen it."""

    start: str = ""
    """Only write an untrained generator (its mapping network defines the latents to render) and stop."""
    data: str = "work/renders"
    work: str = "work/generator"
    """Folder of the training checkpoint and progress sheets."""
    out: str = "weights/demo/generator.pth"
    minutes: float = 60.0
    """Minutes of training altogether."""
    resume: str = ""
    """Finished weights to go on from where there is no training checkpoint."""
    batch: int = 16
    until_64: int = 16_000
    """Pictures seen at 32 pixels."""
    until_128: int = 40_000
    """Pictures seen at 32 and 64 pixels."""
    oracle: str = ""
    """Oracle weights: adds the feature loss and the feature discriminator."""
    adversarial: float = 0.06
    """Weight of the adversarial term once the feature discriminator is warm."""
    rate: float = 1e-2
    final_rate: float = 1.5e-3
    seed: int = 0


def new_generator(seed: int = 0) -> Generator:
    """An untrained generator: the mapping network as it will stay, and its mean w."""
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    generator = Generator(128, channel_base=CHANNEL_BASE, channel_max=CHANNEL_MAX).eval()
    with torch.no_grad():
        generator.truncation.w_avg.copy_(generator.mapping(torch.randn(20_000, 512)).mean(0))
    torch.random.set_rng_state(state)
    return generator


def pixel_loss(made: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """Weighted L1 on a pyramid plus L1 of the differences between neighbours."""
    loss, scale = 0.0, 1.0
    for level in range(3):
        total = weight.sum() * 3
        loss = loss + scale * ((made - wanted).abs() * weight).sum() / total
        if level == 0:
            for axis in (2, 3):
                loss = (
                    loss
                    + 0.5
                    * ((made - wanted).diff(dim=axis).abs() * weight.narrow(axis, 0, weight.shape[axis] - 1)).sum()
                    / total
                )
        made, wanted, weight, scale = F.avg_pool2d(made, 2), F.avg_pool2d(wanted, 2), F.avg_pool2d(weight, 2), 0.6
    return loss


class FeatureDiscriminator(nn.Module):
    """Real or drawn, judged on the oracle's feature maps (Sauer et al. 2021, Projected GANs): patch scores."""

    def __init__(self, widths: tuple[int, ...]):
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Conv2d(w, 64, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(64, 1, 1)) for w in widths
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return [head(m) for head, m in zip(self.heads, maps)]


class Training:
    """State of one training run: networks, average, optimiser, data order."""

    def __init__(self, options: GeneratorOptions):
        self.options = options
        data = read_shards(options.data, ("images", "masks", "w"))
        self.images, self.masks, self.w = (torch.from_numpy(data[name]) for name in ("images", "masks", "w"))
        torch.manual_seed(options.seed)
        self.map = latent_map_of(new_generator())
        self.p = self.map.p(self.w)
        self.mirror = torch.tensor([-1.0 if name in ODD_FACTORS else 1.0 for name in FACTORS])
        self.synthesis = Synthesis(128, CHANNEL_BASE, CHANNEL_MAX, len(FACTORS))
        with torch.no_grad():
            for name, parameter in self.synthesis.named_parameters():
                if name.endswith("style.weight"):
                    parameter.mul_(0.2)  # mild styles for a calm start
        self.average = {k: v.clone() for k, v in self.synthesis.state_dict().items()}
        self.parameters = [p for n, p in self.synthesis.named_parameters() if "apply_noise" not in n]
        self.optimiser = torch.optim.Adam(self.parameters, lr=options.rate, betas=(0.0, 0.99))
        self.random = torch.Generator().manual_seed(options.seed)
        self.seen, self.minutes, self.feature_seen = 0, 0.0, 0
        self.class_weight = torch.tensor(CLASS_WEIGHT)
        self.oracle: AttributeNet | None = None
        if options.oracle:
            self.oracle = load_oracle(options.oracle).network.requires_grad_(False)
            self.critic = FeatureDiscriminator(tuple(b.conv.out_channels for b in self.oracle.blocks[:4]))
            self.critic_optimiser = torch.optim.Adam(self.critic.parameters(), lr=1e-3, betas=(0.0, 0.99))
        self.checkpoint = Path(options.work) / "training.pth"
        if self.checkpoint.exists():
            self.load()
        elif options.resume:
            self.take(load_generator(options.resume))

    def load(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True)
        self.synthesis.load_state_dict(state["synthesis"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.random.set_state(state["random"])
        self.seen, self.minutes, self.feature_seen = state["seen"], state["minutes"], state["feature_seen"]
        if self.oracle is not None and "critic" in state:
            self.critic.load_state_dict(state["critic"])
            self.critic_optimiser.load_state_dict(state["critic_optimiser"])

    def take(self, generator: Generator) -> None:
        """Goes on from finished weights: reads the style weights of w back as those of p, and skips the small sizes."""
        state = generator.synthesis.state_dict()
        k, width = self.map.read.shape
        for name in [n for n in state if n.endswith("style.weight")]:
            effective = state[name] / width**0.5 @ self.map.lift
            state[name] = effective * k**0.5
            bias = name.replace("weight", "bias")
            state[bias] = state[bias] + effective @ (self.map.read @ self.map.mean)
        self.synthesis.load_state_dict(state)
        self.average = {name: value.clone() for name, value in state.items()}
        self.seen = self.options.until_128

    def save(self) -> None:
        state = {
            "synthesis": self.synthesis.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "random": self.random.get_state(),
            "seen": self.seen,
            "minutes": self.minutes,
            "feature_seen": self.feature_seen,
        }
        if self.oracle is not None:
            state["critic"], state["critic_optimiser"] = self.critic.state_dict(), self.critic_optimiser.state_dict()
        with atomic(self.checkpoint) as temporary:
            torch.save(state, temporary)

    def averaged(self) -> Generator:
        """The averaged generator in its final form: style weights that take w."""
        generator = new_generator()
        state = dict(self.average)
        k, width = self.map.read.shape
        for name in [n for n in state if n.endswith("style.weight")]:
            effective = state[name] / k**0.5
            bias = name.replace("weight", "bias")
            state[name] = effective @ self.map.read * width**0.5
            state[bias] = state[bias] - effective @ (self.map.read @ self.map.mean)
        generator.synthesis.load_state_dict(state)
        return generator.eval()

    def batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures, pixel weights and p: half of them mirrored."""
        n = self.options.batch
        pick = torch.randint(len(self.images), (n,), generator=self.random)
        images = self.images[pick].permute(0, 3, 1, 2).float() / 127.5 - 1
        weight, p = self.class_weight[self.masks[pick].long()][:, None], self.p[pick]
        flip = torch.rand(n, generator=self.random) < 0.5
        images = torch.where(flip[:, None, None, None], images.flip(-1), images)
        weight = torch.where(flip[:, None, None, None], weight.flip(-1), weight)
        return images, weight, torch.where(flip[:, None], p * self.mirror, p)

    def step(self) -> dict[str, float]:
        options = self.options
        lod = 2 if self.seen < options.until_64 else 1 if self.seen < options.until_128 else 0
        progress = min(1.0, self.minutes / options.minutes)
        rate = float(options.final_rate + (options.rate - options.final_rate) * 0.5 * (1 + np.cos(np.pi * progress)))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        images, weight, p = self.batch()
        factor = 2**lod
        if factor > 1:
            images, weight = F.avg_pool2d(images, factor), F.avg_pool2d(weight, factor)
        with torch.autocast("cpu", torch.bfloat16):
            made = self.synthesis(p[:, None].expand(-1, self.synthesis.num_layers, -1), float(lod))["image"]
        made = made.float()[:, :, ::factor, ::factor]
        losses = {"pixel": pixel_loss(made, images, weight)}
        total = losses["pixel"]
        if self.oracle is not None and lod == 0:
            with torch.autocast("cpu", torch.bfloat16):
                maps = self.oracle.maps(made)[:4]
                with torch.no_grad():
                    wanted = self.oracle.maps(images)[:4]
            losses["feature"] = sum((a.float() - b.float()).abs().mean() for a, b in zip(maps, wanted))
            total = total + 0.15 * losses["feature"]
            warm = float(np.clip((self.feature_seen - 4000) / 8000, 0, 1))
            if warm > 0:
                losses["adversarial"] = -sum(score.mean() for score in self.critic([m.float() for m in maps])) / 4
                total = total + options.adversarial * warm * losses["adversarial"]
            self.feature_seen += len(images)
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        self.optimiser.step()
        if self.oracle is not None and lod == 0:
            real = self.critic([m.detach().float() for m in wanted])
            fake = self.critic([m.detach().float() for m in maps])
            hinge = sum(F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in zip(real, fake)) / 4
            self.critic_optimiser.zero_grad(set_to_none=True)
            hinge.backward()
            self.critic_optimiser.step()
            losses["critic"] = hinge
        self.seen += len(images)
        decay = min(0.5 ** (options.batch / 8000), 1 - 1 / (1 + self.seen / options.batch / 10))
        with torch.no_grad():
            for name, value in self.synthesis.state_dict().items():
                self.average[name].lerp_(value, 1 - decay)
        return {name: value.item() for name, value in losses.items()} | {"rate": rate, "lod": lod}

    def sheet(self, path: Path) -> None:
        """Eight renders, the generator's drawings of the same latents, and 16 fresh faces at psi 0.7 and 1."""
        from pipeline.sheets import save_sheet

        generator = self.averaged()
        lod = 2.0 if self.seen < self.options.until_64 else 1.0 if self.seen < self.options.until_128 else 0.0
        fresh = torch.from_numpy(latents_from_seeds(list(range(16))))
        with torch.no_grad():
            w = torch.cat([self.w[:8], generator.encode(fresh, position="w")])
            w[8:16] = self.map.mean + 0.7 * (w[8:16] - self.map.mean)
            made = generator.synthesis(w[:, None].expand(-1, generator.num_layers, -1), lod)["image"]
        save_sheet(path, np.concatenate([self.images[:8].numpy(), to_uint8(made)]), 8)

    def finish(self) -> None:
        """Writes the averaged generator (noise strengths are zero) with a discriminator that is still to be trained."""
        discriminator = Discriminator(128, channel_base=CHANNEL_BASE, channel_max=DISCRIMINATOR_MAX)
        save_checkpoint(
            self.options.out,
            half=True,
            generator=self.averaged(),
            discriminator=discriminator,
            pictures_seen=self.seen,
            with_feature_loss=self.feature_seen,
            training_pictures=len(self.images),
            minutes=round(self.minutes, 1),
        )


def train(options: GeneratorOptions) -> None:
    if options.start:
        save_checkpoint(options.start, generator=new_generator())
        return
    training = Training(options)
    log = Path(options.work) / "log.csv"
    start, base, last_save, history = time.time(), training.minutes, 0.0, []
    while training.minutes < options.minutes:
        history.append(training.step())
        training.minutes = base + (time.time() - start) / 60
        if len(history) == 100:
            mean = {k: np.mean([h[k] for h in history if k in h]) for k in history[-1]}
            line = f"{training.seen},{training.minutes:.2f}," + ",".join(f"{k}={v:.4f}" for k, v in mean.items())
            with open(log, "a") as file:
                file.write(line + "\n")
            history = []
        if training.minutes - last_save > 4 or training.minutes >= options.minutes:
            last_save = training.minutes
            training.save()
            training.finish()
            training.sheet(Path(options.work) / f"sheet_{training.seen // 1000:05d}k.png")


if __name__ == "__main__":
    main(GeneratorOptions, train, examples=__doc__)
