"""Fine-tuning of one version: logistic loss with lazy R1, repeat rules, running average, exact resume.

Everything random of a step is drawn after seeding with (seed, version, step), for the whole batch, and the faces depend
on the draw number. So a run that was killed and started again from its state repeats the same steps to the last bit,
and several processes do what one does with the same batch, as far as the batch can be cut between the groups of the
discriminator's minibatch deviation (`Trainer.splits_groups`); the published v5_3 draws its centres part by part.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Sequence
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
from stylegan_modified.augment import Augment, Changes
from stylegan_modified.draws import Draw, draw, given_noise
from stylegan_modified.faces import Faces
from stylegan_modified.latents import Latents
from stylegan_modified.processes import Processes
from stylegan_modified.settings import Rates
from stylegan_modified.terms import Term
from stylegan_modified.truncation import ConditionalTruncation
from stylegan_modified.versions import Version, train_critic, train_generator

W_DECAY = 0.995
PROBES = 1024


@dataclass
class Tally:
    """Sums since the last row of the log."""

    d_steps: int = 0
    g_steps: int = 0
    d_loss: float = 0.0
    g_loss: float = 0.0
    d_count: int = 0
    g_count: int = 0
    term_loss: float = 0.0
    real: list[float] = field(default_factory=list)
    fake: list[float] = field(default_factory=list)


class Trainer:
    """Trains a generator toward faces, against a discriminator and by further terms; `average` is the net to use.

    discriminator: None for versions without one. guide: pull of the filter CNNs. terms: further losses of generated
    faces. latents: where latents and labels of generated faces come from; plain noise and zero labels unless given.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator | None,
        version: Version,
        faces: Faces,
        rates: Rates,
        seed: int = 0,
        device: torch.device | str = "cpu",
        augment: Augment | None = None,
        guide: Callable[[torch.Tensor, int], torch.Tensor] | None = None,
        terms: Sequence[Term] = (),
        latents: Latents | None = None,
        processes: Processes | None = None,
    ):
        if version.split and not generator.split:
            raise PipelineError(f"version {version.name} trains a generator with a split mapping")
        if (discriminator is None) != (version.d_most == 0):
            raise PipelineError(f"version {version.name} trains {'no' if discriminator else 'a'} discriminator")
        self.version, self.faces, self.rates, self.seed = version, faces, rates, seed
        self.device = torch.device(device)
        self.processes = processes or Processes()
        self.parts = list(self.processes.own(faces.batch))
        self.augment = augment or Augment()
        self.guide = guide if rates.guidance else None
        self.terms = list(terms)
        self.paired = any(getattr(term, "paired", False) for term in self.terms)
        if self.paired and faces.batch % (2 * self.processes.parts):
            raise PipelineError(
                f"{self.processes.parts} parts of a batch of {faces.batch} split pairs of faces that share a latent; "
                f"let batch in [finetune] be a multiple of {2 * self.processes.parts}"
            )
        self.latents = latents or Latents()
        self.begin = copy.deepcopy(generator.mapping).to(device).eval().requires_grad_(False) if rates.anchor else None
        self.w_variance = _variance(self.begin) if self.begin else 1.0
        self.generator = generator.to(self.device).train()
        self.discriminator = discriminator.to(self.device).train() if discriminator else None
        self.average = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.truncation = None
        if version.psi is not None:
            self.truncation = ConditionalTruncation(generator.mapping, version.psi, gradient=version.centre_gradient)
        train_generator(self.generator, version.generator_up_to)
        # What trains beside the generator: the encoder of v3, the scorer of the published v2.
        self.others = {name: net.to(self.device) for name, net in self.latents.trained().items()}
        self.others |= {name: net.to(self.device) for name, net in self._scorers().items()}
        self.generator_optimizer = self._optimizer(self._groups(), rates.momentum)
        # All of D, since the warm-up trains all of it; what is frozen has no gradient and is passed over.
        self.discriminator_optimizer = (
            self._optimizer([{"params": list(self.discriminator.parameters()), "lr": self._discriminator_rate()}])
            if self.discriminator
            else None
        )
        self.counters = {"step": 0, "draws": 0, "d_updates": 0, "g_updates": 0, "g_loss": 0.0, "penalty": 0.0}
        self.tally = Tally()
        self.code = ""  # version of the code that the training began with, once it has begun
        if self.discriminator:
            self._check_groups()
            self._choose_discriminator_blocks()

    @property
    def step_number(self) -> int:
        return int(self.counters["step"])

    @property
    def splits_groups(self) -> bool:
        """Whether a part of a batch holds a piece of a group of D's minibatch deviation, which changes D's scores."""
        group = self._minibatch_group()
        return bool(group) and (self.faces.batch // group) % self.processes.parts != 0

    @property
    def warming(self) -> bool:
        """Whether the next step trains D alone."""
        return self.step_number < self.rates.warm_steps

    def step(self) -> None:
        """One step: up to d_most updates of D, up to g_most of G, by the version's rules; one of D while warming."""
        version, warming = self.version, self.warming
        torch.manual_seed(step_seed(self.seed, version.name, self.step_number))
        first, d_loss = self.step_number == self.rates.warm_steps, 0.0
        if self.discriminator:
            self._choose_discriminator_blocks()
            for _ in range(1 if warming else version.d_most):
                d_loss = self._update_discriminator()
                if first or d_loss < version.d_factor * self.counters["g_loss"]:
                    break
            self.tally.d_loss += d_loss
        self.tally.d_steps += 1
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
            "d_loss": tally.d_loss / tally.d_steps if tally.d_steps and self.discriminator else nan,
            "g_loss": tally.g_loss / tally.g_steps if tally.g_steps else nan,
            "r1_penalty": self.counters["penalty"],
            "d_train_count": tally.d_count / max(tally.d_steps, 1),
            "g_train_count": tally.g_count / max(tally.d_steps, 1),
            "real_scores_mean": float(np.mean(tally.real)) if tally.real else nan,
            "fake_scores_mean": float(np.mean(tally.fake)) if tally.fake else nan,
            "real_fake_auroc": auroc(tally.real, tally.fake),
            "term_loss": tally.term_loss / tally.g_count if tally.g_count else nan,
        }

    def state(self) -> dict[str, Any]:
        """Everything that the next step needs, as tensors and plain values; take it where `row` was just called."""
        state = {
            "generator": self.generator.state_dict(),
            "generator_smooth": self.average.state_dict(),
            "generator_optimizer": self.generator_optimizer.state_dict(),
            "others": {name: net.state_dict() for name, net in self.others.items()},
            "counters": dict(self.counters),
        }
        if self.discriminator:
            state["discriminator"] = self.discriminator.state_dict()
            state["discriminator_optimizer"] = self.discriminator_optimizer.state_dict()
        return state

    def restore(self, state: dict[str, Any], source: Path | str) -> None:
        """Go on from a state; PipelineError naming `source` when it belongs to another net."""
        try:
            load_into(self.generator, state["generator"], source)
            load_into(self.average, state["generator_smooth"], source)
            self.generator_optimizer.load_state_dict(state["generator_optimizer"])
            for name, net in self.others.items():
                load_into(net, state["others"][name], source)
            if self.discriminator:
                load_into(self.discriminator, state["discriminator"], source)
                self.discriminator_optimizer.load_state_dict(state["discriminator_optimizer"])
            self.counters = dict(state["counters"])
            if self.discriminator:
                self._choose_discriminator_blocks()
            if self.truncation:
                self.truncation.forget()
        except (KeyError, ValueError) as error:
            raise PipelineError(f"{source} is no state of this training ({error}); delete it to start anew") from None
        self.tally = Tally()

    def _discriminator_rate(self) -> float:
        # The published form has one rate for the stored weights of both nets.
        return self.version.rate if self.version.published else self.rates.discriminator

    def _minibatch_group(self) -> int:
        return min(getattr(self.discriminator, "minibatch_std_group", 0), self.faces.batch)

    def _check_groups(self) -> None:
        for size in (self.faces.batch, self.faces.batch // self.processes.parts):
            group = min(getattr(self.discriminator, "minibatch_std_group", 0), size)
            if group and size % group:
                raise PipelineError(
                    f"{size} faces (batch {self.faces.batch} in {self.processes.parts} parts) cannot be split into "
                    f"groups of {group}, over which the discriminator measures deviations; change batch or accumulate "
                    "in [finetune], or the number of processes"
                )

    def _optimizer(self, groups: list[dict[str, Any]], momentum: float = 0.0) -> torch.optim.Optimizer:
        if self.version.published:
            return torch.optim.AdamW(groups, fused=True)
        # Fused: one pass over memory instead of six, a third of the time on a CPU.
        return torch.optim.Adam(groups, betas=(momentum, 0.99), fused=True)

    def _groups(self) -> list[dict[str, Any]]:
        """Mapping and synthesis apart: mapping weights are stored 100-fold, so their rate has to be 100-fold too.

        The published form has one rate for stored weights: its mapping hardly moves.
        """
        rates, kinds = self.rates, {"mapping": [], "label": [], "synthesis": [], "encoder": [], "scorer": []}
        for name, parameter in self.generator.named_parameters():
            # The label matrix lies in the mapping, but is stored at its effective scale.
            kind = "mapping" if name.startswith("mapping.dense") else name.split(".")[0]
            kinds["label" if name == "mapping.label_weight" else kind].append(parameter)
        for kind, nets in (("encoder", self.latents.trained()), ("scorer", self._scorers())):
            kinds[kind] += [parameter for net in nets.values() for parameter in net.parameters()]
        if self.version.published:
            rate = self.version.rate
            speeds = {"encoder": rate / 10}  # cut tenfold, to make the useful phase longer
        else:
            rate = rates.synthesis
            speeds = {"mapping": rates.mapping / LR_MUL, "label": rates.label, "encoder": rates.encoder}
        groups = []
        for kind, parameters in kinds.items():
            trained = [parameter for parameter in parameters if parameter.requires_grad]
            if trained:
                groups.append({"params": trained, "lr": speeds.get(kind, rate)})
        return groups

    def _scorers(self) -> dict[str, torch.nn.Module]:
        return {name: net for term in self.terms for name, net in term.trained().items()}

    def _choose_discriminator_blocks(self) -> None:
        if self.warming and self.version.critic != "property":
            self.discriminator.requires_grad_(True)
        else:
            train_critic(self.version, self.discriminator)

    def _reduced(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.rates.reduced)

    def _draw(self, number: int, seen: bool) -> Draw:
        """What the fakes of one update need; number: of the batch of faces. seen: whether D will judge them."""
        version = self.version
        label = self.latents.labels(self.faces, number, version, judged=seen)
        made = draw(self.generator, self.faces.batch, label, self.device, version.random_noise, version.style_mixing)
        if self.paired and not seen:
            half = self.faces.batch // 2
            for values in (made.z, *made.noise):
                values[half:] = values[:half]
        return self.latents.batch(made, self.step_number)

    def _fakes(self, made: Draw, real: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """z, w, images of one part; the loss of z itself rides along (encoder)."""
        net = self.generator
        z, extra = self.latents.part(made, real)
        # The mapping net is cheap and its weights are large: reduced precision would cost accuracy and save nothing.
        with torch.autocast(self.device.type, enabled=False):
            w = net.mapping(z, made.label)
            used = self.truncation(w, made.label) if self.truncation else w
            wp = used.unsqueeze(1).expand(-1, net.num_layers, -1)
            if made.other is not None:
                other = net.mapping(made.other, made.label).unsqueeze(1).expand_as(wp)
                wp = torch.cat([wp[:, : made.mixed_from], other[:, made.mixed_from :]], dim=1)
        with self._reduced(), given_noise(net.synthesis, made.noise):
            images = net.synthesis(wp, lod=0.0)["image"].float()
        return w, images, (z, extra)

    def _scores(self, images: torch.Tensor, label: torch.Tensor | None) -> torch.Tensor:
        if self.rates.reduced and self.device.type == "cpu":
            # All layers of D keep this order, in which bfloat16 convolutions over few channels are up to twice as fast.
            images = images.contiguous(memory_format=torch.channels_last)
        with self._reduced():
            return self.discriminator(images, label, lod=0.0).float()

    def _real_labels(self, number: int) -> torch.Tensor | None:
        if not self.version.conditional:
            return None
        return self.latents.own(self.faces.draw_labels(number), self.version).to(self.device)

    def _update_discriminator(self) -> float:
        number, rates, side = self.counters["draws"], self.rates, self.generator.resolution
        self.counters["draws"] += 1
        whole, labels, size = self.faces.draw(number), self._real_labels(number), self.faces.batch
        made = self._draw(number, seen=True)
        for_real, for_fake = (self.augment.draw(size, side, self.device) for _ in range(2))
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        penalise, share = self.counters["d_updates"] % rates.r1_every == 0, 1.0 / self.processes.parts
        sums, w_mean, real_scores, fake_scores = torch.zeros(2, device=self.device), 0.0, [], []
        for rows in self.parts:
            label, part = None if labels is None else labels[rows], made.part(rows)
            real = self.augment.apply(whole[rows].to(self.device), for_real.part(rows))
            with torch.no_grad():
                w, images, _ = self._fakes(part, None)
                fake = self._as_fake(images, for_fake.part(rows))
            w_mean = w_mean + w.mean(0) * share
            if penalise:
                penalty = self._penalty(real, label)
                (penalty * (rates.r1_every * share)).backward()
                sums[1] += penalty.detach() * share
            on_real, on_fake = self._scores(real, label), self._scores(fake, part.label)
            loss = F.softplus(on_fake).mean() + F.softplus(-on_real).mean()
            if self.version.mismatched and labels is not None:
                # A real face with another's label: without such pairs nothing makes D compare the two (Reed et al.
                # 2016).
                wrong = F.softplus(self._scores(real, labels.roll(1, 0)[rows])).mean()
                loss = loss + self.version.mismatched * wrong
            (loss * share).backward()
            sums[0] += loss.detach() * share
            real_scores.append(on_real.detach().flatten())
            fake_scores.append(on_fake.detach().flatten())
        self.processes.sum_gradients(self.discriminator.parameters())
        self.discriminator_optimizer.step()
        self._follow(w_mean)
        loss, penalty = self.processes.sum(sums).tolist()
        if penalise:
            self.counters["penalty"] = penalty
        self.counters["d_updates"] += 1
        self.tally.d_count += 1
        self.tally.real += self.processes.joined(torch.cat(real_scores)).tolist()
        self.tally.fake += self.processes.joined(torch.cat(fake_scores)).tolist()
        # The published loss holds R1 at every update; here the last one measured stands in between (lazily: StyleGAN2).
        return loss + self.counters["penalty"]

    def _as_fake(self, images: torch.Tensor, changes: Changes) -> torch.Tensor:
        return self.augment.apply(images, changes) if self.augment.fakes else images

    def _penalty(self, real: torch.Tensor, label: torch.Tensor | None) -> torch.Tensor:
        """gamma / 2 |dD/dx|^2 on real faces (R1, Mescheder et al. 2018).

        In bfloat16 its gradient has a cosine of .9997 with the one in float32 (measured on the bundled net).
        """
        real = real.detach().requires_grad_(True)
        slope = torch.autograd.grad(self._scores(real, label).sum(), real, create_graph=True)[0]
        return slope.square().sum((1, 2, 3)).mean() * (self.rates.r1_gamma / 2.0)

    def _update_generator(self) -> float:
        critic, rates, share = self.discriminator, self.rates, 1.0 / self.processes.parts
        if critic:
            critic.requires_grad_(False)
            number = self.counters["draws"] - 1
        else:
            number = self.counters["draws"]
            self.counters["draws"] += 1
        made = self._draw(number, seen=False)
        whole = self.faces.draw(number) if self.version.encoder else None
        changes = self.augment.draw(self.faces.batch, self.generator.resolution, self.device) if critic else None
        self.generator_optimizer.zero_grad(set_to_none=True)
        sums, w_mean = torch.zeros(2, device=self.device), 0.0
        for rows in self.parts:
            part = made.part(rows)
            w, images, (z, pull) = self._fakes(part, None if whole is None else whole[rows].to(self.device))
            loss = images.new_zeros(())
            if critic:
                loss = F.softplus(-self._scores(self._as_fake(images, changes.part(rows)), part.label)).mean()
            if self.guide:
                pull = pull + rates.guidance * self.guide(images, self.counters["g_updates"])
            for term in self.terms:
                pull = pull + term(images, part.label)
            if self.begin is not None:
                pull = pull + rates.anchor * (w - self.begin(z.detach())).square().mean() / self.w_variance
            ((loss + pull) * share).backward()
            w_mean = w_mean + w.detach().mean(0) * share
            sums[0] += loss.detach() * share
            sums[1] += torch.as_tensor(pull).detach() * share
        trained = [parameter for group in self.generator_optimizer.param_groups for parameter in group["params"]]
        self.processes.sum_gradients(trained)
        self.generator_optimizer.step()
        if self.truncation:
            self.truncation.forget()
        self._follow(w_mean)
        if critic:
            self._choose_discriminator_blocks()
        self._update_average()
        loss, pull = self.processes.sum(sums).tolist()
        self.counters["g_updates"] += 1
        self.tally.g_count += 1
        self.tally.term_loss += pull
        return loss if critic else pull

    def _follow(self, w_mean: torch.Tensor) -> None:
        """Let the running mean of w follow the mean of one update."""
        self.generator.truncation.update(self.processes.sum(w_mean.detach())[None], W_DECAY)

    @torch.no_grad()
    def _update_average(self) -> None:
        # Early on the average follows closely, as its start is the net that is to be left behind.
        done, half_life = self.counters["g_updates"], self.rates.average_images
        beta = min(0.5 ** (self.faces.batch / half_life), (1 + done) / (10 + done)) if half_life else 0.0
        for mean, own in zip(self.average.parameters(), self.generator.parameters(), strict=True):
            if own.requires_grad:
                mean.lerp_(own, 1.0 - beta)
        for mean, own in zip(self.average.buffers(), self.generator.buffers(), strict=True):
            mean.copy_(own)


@torch.no_grad()
def _variance(mapping: torch.nn.Module) -> float:
    """Mean variance of w over fixed latents, the unit of the anchor."""
    z = torch.randn(PROBES, mapping.z_dim, generator=torch.Generator().manual_seed(20250408))
    return float(mapping(z.to(next(mapping.parameters()).device), None).var(0).mean())


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
