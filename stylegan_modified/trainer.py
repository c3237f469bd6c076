"""Adversarial fine-tuning of one version: logistic loss with lazy R1, repeat rules, running average, exact resume.

Everything random of a step is drawn after seeding with (seed, version, step), and the faces depend on the draw number.
So a run that was killed and started again from its state repeats the same steps to the last bit.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from pipeline.artefacts import load_into
from pipeline.errors import PipelineError
from stylegan.discriminator import Discriminator
from stylegan.generator import Generator
from stylegan.mapping import LR_MUL
from stylegan_modified.augment import Augment
from stylegan_modified.faces import Faces
from stylegan_modified.settings import Rates
from stylegan_modified.versions import Version, train_discriminator, train_generator


@dataclass
class Tally:
    """Sums since the last row of the log."""

    d_steps: int = 0
    g_steps: int = 0
    d_loss: float = 0.0
    g_loss: float = 0.0
    d_count: int = 0
    g_count: int = 0
    real: list[float] = field(default_factory=list)
    fake: list[float] = field(default_factory=list)


class Trainer:
    """Trains a generator against a discriminator toward faces; `average` is the net to use afterwards."""

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        version: Version,
        faces: Faces,
        rates: Rates,
        seed: int = 0,
        device: torch.device | str = "cpu",
        augment: Augment | None = None,
        guide: Callable[[torch.Tensor, int], torch.Tensor] | None = None,
    ):
        if version.split and not generator.split:
            raise PipelineError(f"version {version.name} trains a generator with a split mapping")
        self.version, self.faces, self.rates, self.seed = version, faces, rates, seed
        self.device = torch.device(device)
        self.augment = augment or Augment()
        self.guide = guide if rates.guidance else None
        self.begin = copy.deepcopy(generator.mapping).to(device).eval().requires_grad_(False) if rates.anchor else None
        self.generator = generator.to(self.device).train()
        self.discriminator = discriminator.to(self.device).train()
        self.average = copy.deepcopy(self.generator).eval().requires_grad_(False)
        train_generator(self.generator, version.generator_up_to)
        self.generator_optimizer = torch.optim.Adam(self._groups(), betas=(0.0, 0.99))
        # All of D, since the warm-up trains all of it; what is frozen has no gradient and is passed over.
        self.discriminator_optimizer = torch.optim.Adam(
            self.discriminator.parameters(), lr=rates.discriminator, betas=(0.0, 0.99)
        )
        self.counters = {"step": 0, "draws": 0, "d_updates": 0, "g_updates": 0, "g_loss": 0.0, "penalty": 0.0}
        self.tally = Tally()

    @property
    def step_number(self) -> int:
        return int(self.counters["step"])

    @property
    def warming(self) -> bool:
        """Whether the next step trains D alone."""
        return self.step_number < self.rates.warm_steps

    def step(self) -> None:
        """One step: up to d_most updates of D, up to g_most of G, by the version's rules; one of D while warming."""
        version, warming = self.version, self.warming
        torch.manual_seed(step_seed(self.seed, version.name, self.step_number))
        self._choose_discriminator_blocks()
        first = self.step_number == self.rates.warm_steps
        for _ in range(1 if warming else version.d_most):
            d_loss = self._update_discriminator()
            if first or d_loss < version.d_factor * self.counters["g_loss"]:
                break
        self.tally.d_steps += 1
        self.tally.d_loss += d_loss
        if not warming:
            for _ in range(version.g_most):
                g_loss = self._update_generator()
                if g_loss < version.g_factor * d_loss:
                    break
            self.counters["g_loss"] = g_loss
            self.tally.g_steps += 1
            self.tally.g_loss += g_loss
        self.counters["step"] += 1

    def row(self) -> dict[str, Any]:
        """Means since the last call: losses, updates per step, scores and their AUROC (real against fake)."""
        tally, nan = self.tally, float("nan")
        self.tally = Tally()
        return {
            "d_loss": tally.d_loss / tally.d_steps if tally.d_steps else nan,
            "g_loss": tally.g_loss / tally.g_steps if tally.g_steps else nan,
            "r1_penalty": self.counters["penalty"],
            "d_train_count": tally.d_count / max(tally.d_steps, 1),
            "g_train_count": tally.g_count / max(tally.d_steps, 1),
            "real_scores_mean": float(np.mean(tally.real)) if tally.real else nan,
            "fake_scores_mean": float(np.mean(tally.fake)) if tally.fake else nan,
            "real_fake_auroc": auroc(tally.real, tally.fake),
        }

    def state(self) -> dict[str, Any]:
        """Everything that the next step needs, as tensors and plain values; take it where `row` was just called."""
        return {
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "generator_smooth": self.average.state_dict(),
            "generator_optimizer": self.generator_optimizer.state_dict(),
            "discriminator_optimizer": self.discriminator_optimizer.state_dict(),
            "counters": dict(self.counters),
        }

    def restore(self, state: dict[str, Any], source: Path | str) -> None:
        """Go on from a state; PipelineError naming `source` when it belongs to another net."""
        try:
            load_into(self.generator, state["generator"], source)
            load_into(self.discriminator, state["discriminator"], source)
            load_into(self.average, state["generator_smooth"], source)
            self.generator_optimizer.load_state_dict(state["generator_optimizer"])
            self.discriminator_optimizer.load_state_dict(state["discriminator_optimizer"])
            self.counters = dict(state["counters"])
        except (KeyError, ValueError) as error:
            raise PipelineError(f"{source} is no state of this training ({error}); delete it to start anew") from None
        self.tally = Tally()

    def _groups(self) -> list[dict[str, Any]]:
        """Mapping and synthesis apart: mapping weights are stored 100-fold, so their rate has to be 100-fold too."""
        mapping, synthesis = [], []
        for name, parameter in self.generator.named_parameters():
            if parameter.requires_grad:
                # The label matrix lies in the mapping, but is stored at its effective scale.
                dense = name.startswith("mapping.dense")
                (mapping if dense else synthesis).append(parameter)
        groups = [{"params": mapping, "lr": self.rates.mapping / LR_MUL}]
        return groups + ([{"params": synthesis, "lr": self.rates.synthesis}] if synthesis else [])

    def _choose_discriminator_blocks(self) -> None:
        version = self.version
        if self.warming:
            self.discriminator.requires_grad_(True)
        else:
            train_discriminator(self.discriminator, version.discriminator_up_to, version.inputs_up_to)

    def _reduced(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.rates.reduced)

    def _fakes(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Latents z, their w, images: a batch with zero labels, random noise, no truncation, no style mixing."""
        z = torch.randn(self.faces.batch, self.generator.z_dim).to(self.device)
        with self._reduced():
            made = self.generator(z, lod=0.0, randomize_noise=True)
        return z, made["w"].float(), made["image"].float()

    def _scores(self, images: torch.Tensor) -> torch.Tensor:
        with self._reduced():
            return self.discriminator(images, lod=0.0).float()

    def _update_discriminator(self) -> float:
        real = self.augment(self.faces.draw(self.counters["draws"]).to(self.device))
        self.counters["draws"] += 1
        with torch.no_grad():
            fake = self.augment(self._fakes()[2])
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        if self.counters["d_updates"] % self.rates.r1_every == 0:
            self._penalise(real)
        real_scores, fake_scores = self._scores(real), self._scores(fake)
        loss = F.softplus(fake_scores).mean() + F.softplus(-real_scores).mean()
        loss.backward()
        self.discriminator_optimizer.step()
        self.counters["d_updates"] += 1
        self.tally.d_count += 1
        self.tally.real += real_scores.detach().flatten().tolist()
        self.tally.fake += fake_scores.detach().flatten().tolist()
        # The published loss holds R1 at every update; here the last one measured stands in between (lazily: StyleGAN2).
        return float(loss.detach()) + self.counters["penalty"]

    def _penalise(self, real: torch.Tensor) -> None:
        """Add the gradient of gamma / 2 |dD/dx|^2 on real faces (R1, Mescheder et al. 2018), for r1_every updates."""
        real = real.detach().requires_grad_(True)
        slope = torch.autograd.grad(self.discriminator(real, lod=0.0).sum(), real, create_graph=True)[0]
        penalty = slope.square().sum((1, 2, 3)).mean() * (self.rates.r1_gamma / 2.0)
        (penalty * self.rates.r1_every).backward()
        self.counters["penalty"] = float(penalty.detach())

    def _update_generator(self) -> float:
        self.discriminator.requires_grad_(False)
        z, w, fakes = self._fakes()
        loss = F.softplus(-self._scores(self.augment(fakes))).mean()
        pull = self.rates.guidance * self.guide(fakes, self.counters["g_updates"]) if self.guide else 0.0
        if self.begin is not None:
            begun = self.begin(z)
            pull = pull + self.rates.anchor * (w - begun).square().mean() / begun.var(0).mean()
        self.generator_optimizer.zero_grad(set_to_none=True)
        (loss + pull).backward()
        self.generator_optimizer.step()
        self._choose_discriminator_blocks()
        self._update_average()
        self.counters["g_updates"] += 1
        self.tally.g_count += 1
        return float(loss.detach())

    @torch.no_grad()
    def _update_average(self) -> None:
        # Early on the average follows closely, as its start is the net that is to be left behind.
        done = self.counters["g_updates"]
        beta = min(0.5 ** (self.faces.batch / self.rates.average_images), (1 + done) / (10 + done))
        for mean, own in zip(self.average.parameters(), self.generator.parameters(), strict=True):
            if own.requires_grad:
                mean.lerp_(own, 1.0 - beta)
        for mean, own in zip(self.average.buffers(), self.generator.buffers(), strict=True):
            mean.copy_(own)


def step_seed(seed: int, version: str, step: int) -> int:
    """The seed of everything random in one step."""
    return zlib.crc32(f"{seed} {version} {step}".encode())


def auroc(positive: list[float] | np.ndarray, negative: list[float] | np.ndarray) -> float:
    """Share of (positive, negative) pairs in right order, ties half; nan when one side is empty."""
    if not len(positive) or not len(negative):
        return float("nan")
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([positive, negative]))
    n, m = len(positive), len(negative)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def has_fast_bfloat16(device: torch.device | str) -> bool:
    """Tell whether convolutions in bfloat16 are faster than in float32 here."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported()
    probes = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(probe() for probe in probes if probe)
