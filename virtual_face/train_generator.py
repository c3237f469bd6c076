"""Trains the bundled generator and discriminator on renders.

    python -m virtual_face.train_generator --start work/generator_init.pth
    python -m virtual_face.train_generator --minutes 90
    python -m virtual_face.train_generator --minutes 120 --oracle weights/demo/attribute_net.pth
    python -m torch.distributed.run --nproc-per-node 2 -m virtual_face.train_generator --minutes 120

The mapping network stays as it was drawn; a latent's face is the render of the factors that `LatentMap` reads from its
w, and the synthesis network learns to draw it: 32, then 64, then 128 pixels. While it trains, the style layers take the
whitened p = read (w - mean) in place of w, which is far better conditioned; the product is folded into ordinary style
weights at the end. With --oracle a feature loss sharpens it, with --adversarial also a critic of the oracle's features.
The same command goes on where it stopped; under torch.distributed.run each process takes a core and a batch of its own.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.artefacts import atomic, provenance_of
from pipeline.checkpoint import read_checkpoint, training_of
from pipeline.command import main
from pipeline.seeds import latents_from_seeds
from stylegan.checkpoint import load_generator, save_checkpoint
from stylegan.discriminator import Discriminator
from stylegan.generator import Generator, Synthesis
from stylegan.sampling import to_uint8
from virtual_face.latent_map import latent_map_of
from virtual_face.oracle import AttributeNet, load_oracle
from virtual_face.population import FACTORS, ODD_FACTORS, head_parameters
from virtual_face.shards import read_shards

CHANNEL_BASE, CHANNEL_MAX = 2048, 256
DISCRIMINATOR_MAX = 96  # it ships twice, and learns from few faces
# How much a pixel of each parser class counts: large plain areas little, eyes and mouth much.
CLASS_WEIGHT = (0.6, 1.3, 4.8, 4.8, 8.0, 8.0, 2.2, 6.0, 6.0, 6.0, 1.3)
# How much oftener than a plain face one that shows the trait fully is drawn: what is rare or fine is learned last.
OFTENER = {"glasses": 2.5, "blurred": 4.0, "hair_curl": 2.5, "beard": 0.7, "bald": 0.5, "age": 0.5}
LENSES = (slice(40, 80), slice(18, 110))  # rows and columns where glasses are, and count more
AVERAGED_OVER = 6000  # pictures after which a set of weights counts half in the average
HAIR = 10  # parser class
HELD_OUT = 256  # of the renders: the error in the log is theirs


@dataclass
class GeneratorOptions:
    """Train the bundled generator by regression onto renders, then sharpen it."""

    start: str = ""
    """Only write an untrained generator (its mapping network defines the latents to render) and stop."""
    data: str = "work/renders"
    work: str = "work/generator"
    """Folder of the training checkpoint (of other --data or another --seed it is refused) and progress sheets."""
    out: str = "weights/demo/generator.pth"
    minutes: float = 60.0
    """Minutes of training altogether: the learning rate falls toward their end."""
    resume: str = ""
    """Finished weights to go on from where there is no training checkpoint."""
    batch: int = 16
    until_64: int = 16_000
    """Pictures seen at 32 pixels."""
    until_128: int = 40_000
    """Pictures seen at 32 and 64 pixels."""
    oracle: str = ""
    """Oracle weights: adds the feature loss, and with --adversarial above 0 the feature discriminator."""
    feature: float = 0.25
    """Weight of the feature loss."""
    adversarial: float = 0.0
    """Weight of the adversarial term once the feature discriminator is warm; 0 trains none. For the last minutes, when
    rates are low: earlier it costs more pictures than it gives."""
    rate: float = 1e-2
    """Adam's, for vectors."""
    matrix_rate: float = 3e-2
    """Muon's, for matrices and kernels."""
    final: float = 0.05
    """Both rates at the end, as a share of the start."""
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


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def workers() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def join_workers() -> None:
    """Under torch.distributed.run: joins the group and takes one core for each process."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        dist.init_process_group("gloo")
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[rank() % len(cores)]})
        torch.set_num_threads(1)


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """The mean over all processes, in one message."""
    if workers() == 1:
        return
    found = [p for p in parameters if p.grad is not None]
    flat = torch.cat([p.grad.flatten() for p in found])
    dist.all_reduce(flat)
    for p, part in zip(found, flat.div_(workers()).split([p.numel() for p in found])):
        p.grad.copy_(part.view_as(p))


class KernelMuon:
    """Muon (Jordan et al. 2024) for matrices and for kernels as matrices [outputs, inputs * taps].

    Each process orthogonalises its share of the updates and hands the result to the others.
    """

    def __init__(self, parameters: list[nn.Parameter], rate: float):
        self.parameters = parameters
        self.flat = [nn.Parameter(p.detach().flatten(1)) for p in parameters]  # views: they share memory
        own = self.flat[rank() :: workers()]
        self.optimiser = torch.optim.Muon(own, lr=rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")

    def step(self, rate: float) -> None:
        for parameter, flat in zip(self.parameters, self.flat):
            flat.grad = None if parameter.grad is None else parameter.grad.flatten(1)
        self.optimiser.param_groups[0]["lr"] = rate
        self.optimiser.step()
        if workers() > 1:
            for i, flat in enumerate(self.flat):
                if flat.grad is not None:
                    dist.broadcast(flat.detach(), i % workers())


class Training:
    """State of one training run: networks, average, optimisers, data order."""

    def __init__(self, options: GeneratorOptions):
        self.options = options
        data = read_shards(options.data, ("images", "masks", "factors"))
        self.images, self.masks, factors = (torch.from_numpy(data[name]) for name in ("images", "masks", "factors"))
        torch.manual_seed(options.seed)
        self.map = latent_map_of(new_generator())
        self.p = self.map.p_of(factors)
        traits = head_parameters(factors)
        traits["blurred"] = 1 - traits["quality"]
        self.often = 1 + sum(gain * traits[name] for name, gain in OFTENER.items())
        self.often[-HELD_OUT:] = 0 if len(self.often) > 4 * HELD_OUT else self.often[-HELD_OUT:]
        self.glasses, self.curl = traits["glasses"], traits["hair_curl"]
        self.mirror = torch.tensor([-1.0 if name in ODD_FACTORS else 1.0 for name in FACTORS])
        self.synthesis = Synthesis(128, CHANNEL_BASE, CHANNEL_MAX, len(FACTORS))
        with torch.no_grad():
            for name, parameter in self.synthesis.named_parameters():
                if name.endswith("style.weight"):
                    parameter.mul_(0.2)  # mild styles for a calm start
        self.average = {k: v.clone() for k, v in self.synthesis.state_dict().items()}
        named = [(n, p) for n, p in self.synthesis.named_parameters() if "apply_noise" not in n]
        matrices = {n for n, p in named if n.endswith("weight") and len(p) > 3}  # three rows: ToRGB
        self.parameters = [p for _, p in named]
        self.muon = KernelMuon([p for n, p in named if n in matrices], options.matrix_rate)
        vectors = [p for n, p in named if n not in matrices]
        self.adam = torch.optim.Adam(vectors, lr=options.rate, betas=(0.9, 0.99))
        self.seen, self.minutes, self.feature_seen = 0, 0.0, 0
        self.class_weight = torch.tensor(CLASS_WEIGHT)
        self.oracle: AttributeNet | None = None
        if options.oracle:
            self.oracle = load_oracle(options.oracle).network.requires_grad_(False)
            self.critic = FeatureDiscriminator(tuple(b.conv.out_channels for b in self.oracle.blocks[:4]))
            self.critic_optimiser = torch.optim.Adam(self.critic.parameters(), lr=1e-3, betas=(0.0, 0.99))
        self.checkpoint = Path(options.work) / "training.pth"
        self.training = training_of(options.data, options.seed)
        if self.checkpoint.exists():
            self.load()
        elif options.resume:
            self.take(load_generator(options.resume))
            self.seen = max(self.seen, int(provenance_of(options.resume).get("pictures_seen", 0)))
        # Every process, and every start, draws pictures of its own.
        self.random = torch.Generator().manual_seed(hash((options.seed, self.seen, rank())))

    def load(self) -> None:
        state = read_checkpoint(self.checkpoint, self.training)
        self.synthesis.load_state_dict(state["synthesis"])
        self.average = state["average"]
        self.adam.load_state_dict(state["adam"])
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
            "training": self.training,
            "synthesis": self.synthesis.state_dict(),
            "average": self.average,
            "adam": self.adam.state_dict(),  # Muon's momenta are rebuilt within some twenty steps
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

    def weights(self, pick: Tensor) -> Tensor:
        """Weights of the pixels [n, 1, 128, 128]: by class, and more where glasses sit and where hair curls."""
        masks = self.masks[pick].long()[:, None]
        weight = self.class_weight[masks]
        weight *= 1 + 1.5 * self.curl[pick].reshape(-1, 1, 1, 1) * (masks == HAIR)
        weight[:, :, LENSES[0], LENSES[1]] *= 1 + 1.5 * self.glasses[pick].reshape(-1, 1, 1, 1)
        return weight

    def batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures, pixel weights and p: half of them mirrored."""
        n = self.options.batch
        pick = torch.multinomial(self.often, n, generator=self.random)
        images = self.images[pick].permute(0, 3, 1, 2).float() / 127.5 - 1
        weight, p = self.weights(pick), self.p[pick]
        flip = torch.rand(n, generator=self.random) < 0.5
        images = torch.where(flip[:, None, None, None], images.flip(-1), images)
        weight = torch.where(flip[:, None, None, None], weight.flip(-1), weight)
        return images, weight, torch.where(flip[:, None], p * self.mirror, p)

    @torch.no_grad()
    def held_out(self) -> float:
        """Pixel loss of the averaged synthesis at full size on renders that are never drawn."""
        synthesis = Synthesis(128, CHANNEL_BASE, CHANNEL_MAX, len(FACTORS))
        synthesis.load_state_dict(self.average)
        losses = []
        for pick in torch.arange(len(self.images))[-HELD_OUT:].split(32):
            images = self.images[pick].permute(0, 3, 1, 2).float() / 127.5 - 1
            with torch.autocast("cpu", torch.bfloat16):
                made = synthesis(self.p[pick][:, None].expand(-1, synthesis.num_layers, -1), 0.0)["image"]
            losses.append(pixel_loss(made.float(), images, self.weights(pick)).item())
        return float(np.mean(losses))

    def step(self) -> dict[str, float]:
        options = self.options
        lod = 2 if self.seen < options.until_64 else 1 if self.seen < options.until_128 else 0
        progress = min(1.0, self.minutes / options.minutes)
        decay = float(options.final + (1 - options.final) * 0.5 * (1 + np.cos(np.pi * progress)))
        for group in self.adam.param_groups:
            group["lr"] = options.rate * decay
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
            total = total + options.feature * losses["feature"]
            warm = float(np.clip((self.feature_seen - 4000) / 8000, 0, 1))
            if options.adversarial and warm > 0:
                losses["adversarial"] = -sum(score.mean() for score in self.critic([m.float() for m in maps])) / 4
                total = total + options.adversarial * warm * losses["adversarial"]
        self.synthesis.zero_grad(set_to_none=True)
        total.backward()
        average_gradients(self.parameters)
        self.adam.step()
        self.muon.step(options.matrix_rate * decay)
        if self.oracle is not None and lod == 0 and options.adversarial:
            real = self.critic([m.detach().float() for m in wanted])
            fake = self.critic([m.detach().float() for m in maps])
            hinge = sum(F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in zip(real, fake)) / 4
            self.critic_optimiser.zero_grad(set_to_none=True)
            hinge.backward()
            average_gradients(list(self.critic.parameters()))
            self.critic_optimiser.step()
            losses["critic"] = hinge
        drawn = len(images) * workers()
        self.seen += drawn
        self.feature_seen += drawn if "critic" in losses else 0
        keep = min(0.5 ** (drawn / AVERAGED_OVER), 1 - 1 / (1 + self.seen / drawn / 10))
        with torch.no_grad():
            for name, value in self.synthesis.state_dict().items():
                self.average[name].lerp_(value, 1 - keep)
        return {name: value.item() for name, value in losses.items()} | {"rate": decay, "lod": lod}

    def sheet(self, path: Path) -> None:
        """Eight renders, the generator's drawings of the same latents, and 16 fresh faces at psi 0.7 and 1."""
        from pipeline.sheets import save_sheet

        generator = self.averaged()
        lod = 2.0 if self.seen < self.options.until_64 else 1.0 if self.seen < self.options.until_128 else 0.0
        fresh = torch.from_numpy(latents_from_seeds(list(range(16))))
        with torch.no_grad():
            same = self.map.mean + self.p[-8:] @ self.map.lift.T
            w = torch.cat([same, generator.encode(fresh, position="w")])
            w[8:16] = self.map.mean + 0.7 * (w[8:16] - self.map.mean)
            made = generator.synthesis(w[:, None].expand(-1, generator.num_layers, -1), lod)["image"]
        save_sheet(path, np.concatenate([self.images[-8:].numpy(), to_uint8(made)]), 8)

    def finish(self) -> None:
        """Writes the averaged generator (noise strengths are zero) with a discriminator that is still to be trained."""
        discriminator = Discriminator(128, channel_base=CHANNEL_BASE, channel_max=DISCRIMINATOR_MAX)
        save_checkpoint(
            self.options.out,
            half=True,
            generator=self.averaged(),
            discriminator=discriminator,
            pictures_seen=self.seen,
            with_critic=self.feature_seen,
            training_pictures=len(self.images),
            minutes=round(self.minutes, 1),
        )


def train(options: GeneratorOptions) -> None:
    if options.start:
        save_checkpoint(options.start, generator=new_generator())
        return
    join_workers()
    training = Training(options)
    log = Path(options.work) / "log.csv"
    log.parent.mkdir(parents=True, exist_ok=True)
    start, base, last_save, history = time.time(), training.minutes, training.minutes, []
    while training.minutes < options.minutes:
        history.append(training.step())
        minutes = torch.tensor(base + (time.time() - start) / 60)
        if workers() > 1:
            dist.broadcast(minutes, 0)  # one clock: all stop, save and slow down together
        training.minutes = float(minutes)
        if rank() > 0:
            continue
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
            with open(log, "a") as file:
                file.write(f"{training.seen},{training.minutes:.2f},held_out={training.held_out():.4f}\n")
    if rank() == 0 and int(provenance_of(options.out).get("pictures_seen", 0)) < training.seen:
        training.finish()  # an earlier call ended between its checkpoint and this file; one that has seen more stays
    if rank() == 0:
        print(f"{options.out}: {training.seen} pictures seen in {training.minutes:.1f} of {options.minutes:g} minutes")


if __name__ == "__main__":
    main(GeneratorOptions, train, examples=__doc__)
