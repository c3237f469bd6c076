"""One rung of the family from the previous one: nets, training, measurements, report."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch

from cnn.filter_cnn import FilterEnsemble
from cnn.models import model_paths
from cnn.settings import FilterSettings
from pipeline.artefacts import provenance_of, save_weights, write_json
from pipeline.command import resolve_device
from pipeline.errors import PipelineError
from pipeline.precision import has_fast_bfloat16
from pipeline.profile import shown
from pipeline.report import wilson_interval
from pipeline.tables import write_table
from property_score.property_cnn import load_property_cnn
from stylegan.checkpoint import generator_hash, load_discriminator, load_generator, read_models
from stylegan.generator import Generator
from stylegan_modified import climb_figures, figures, network_diagram
from stylegan_modified.aim import aim_labels, calibrate_labels, mean_slopes
from stylegan_modified.augment import PLAIN, Augment
from stylegan_modified.carry import fresh_discriminator, relabelled_generator, split_generator
from stylegan_modified.climb_plan import ClimbPlan
from stylegan_modified.climb_report import PUBLISHED_BATCHES, write_climb_report
from stylegan_modified.critics import critic_for, load_critic, save_critic
from stylegan_modified.faces import Faces
from stylegan_modified.guidance import FilterGuidance
from stylegan_modified.labels import label_faces
from stylegan_modified.latents import Curriculum, Encoded, Latents
from stylegan_modified.monitor import Measured, Monitor, measure
from stylegan_modified.obedience import GRID_8, GRID_50, TABLE, summarise, try_labels
from stylegan_modified.processes import Processes
from stylegan_modified.rung import Files, Rhythm, fingerprint_of, train_rung
from stylegan_modified.sampler import Sampler
from stylegan_modified.settings import Rates
from stylegan_modified.spread import kernel_distance, recall
from stylegan_modified.terms import OUTPUTS, GenderTerm, LabelTerm, Term
from stylegan_modified.trainer import Trainer
from stylegan_modified.versions import LABEL_MATRIX, Version, trained_of_generator
from virtual_face.oracle import load_oracle

# Latents of the family alone: not those of stage 1, nor those of the v9 ladder.
MEASURED_FROM, WATCHED_FROM, TRIED_FROM = 5_000_000, 5_500_000, 5_600_000
MONITOR_CASES = 4
V5_JITTER = dataclasses.replace(PLAIN, brightness=0.1, contrast=0.1, fakes=False)


class Climb:
    """The nets, faces and judges of one call."""

    def __init__(self, plan: ClimbPlan, say: Callable[[str], None]):
        self.plan, self.say, self.settings, version = plan, say, plan.settings, plan.version
        self.device = resolve_device(plan.device)
        self.processes = Processes.start(self.device, int(self.settings["accumulate"]))
        self.origin = load_generator(plan.weights["start"], self.device)
        if self.origin.resolution != plan.profile.resolution:
            raise PipelineError(
                f"{shown(plan.weights['start'])} makes {self.origin.resolution} px images, the profile says "
                f"{plan.profile.resolution}; name the right file in [weights] or mend the resolution"
            )
        self.judge = load_oracle(plan.weights["oracle"], self.device)
        network = load_property_cnn(plan.weights["property_cnn"], self.device)
        batch = int(self.settings["batch"])
        plain = Faces.read(plan.faces, plan.profile.resolution, batch, plan.seed)
        numbers = [int(path.stem) for path in plan.faces]
        self.labels = label_faces(plain.images, network, version, plan.weights.get("labels"), numbers, self.device)
        self.faces = Faces(plain.images, batch, plan.seed, self.labels.values if version.conditional else None)
        self.network = network
        watched = range(WATCHED_FROM, WATCHED_FROM + int(self.settings["watched"]))
        self.spread: pd.Series | None = None
        self.real: torch.Tensor | None = None
        self.monitor = Monitor(
            *(self.judge, self.faces, watched, int(self.settings["sample_batch"]), self.device),
            origin=self.origin,
            obey=self._watch_labels,
            psi=version.psi,
        )

    def train(self) -> None:
        """Bring the rung to its last step; `trainer` and `log` then hold the result."""
        plan, version, settings = self.plan, self.plan.version, self.settings
        torch.manual_seed(plan.seed)  # fresh encoders and heads
        rates = self._rates()
        guide = None
        if rates.guidance:
            guide = FilterGuidance.load(plan.profile, plan.run, rates.margin, self.device)
        self.trainer = Trainer(
            *(self._generator(), self._critic(), version, self.faces, rates, plan.seed, self.device),
            augment=self._augment(),
            guide=guide,
            terms=self._terms(rates),
            latents=self._latents(),
            processes=self.processes,
        )
        names = ("state_{tag}.pth", "train_log_{tag}.csv", "samples_{tag}", "tensorboard_{tag}")
        files = Files(*(plan.path(name) for name in names))
        rhythm = Rhythm(*(int(settings[f"{kind}_every"]) for kind in ("log", "monitor", "save")))
        fingerprint = fingerprint_of(plan, self.trainer)
        if plan.force and self.processes.first:
            files.forget()
        self.processes.wait()
        steps = rates.warm_steps + int(settings["steps"])
        self.log = train_rung(self.trainer, steps, self.monitor, files, rhythm, fingerprint, self.say)

    def finish(self) -> dict[str, Any]:
        """Write weights, measure before and after, draw and report; returns the figures of this rung."""
        plan, version, net = self.plan, self.plan.version, self.trainer.average
        facts = {"version": version.tag, "steps": int(self.settings["steps"]), "psi": version.psi}
        facts |= {"start": generator_hash(self.origin), "training_code": self.trainer.code}
        save_weights(plan.generator, net.state_dict(), **facts)
        if self.trainer.discriminator:
            save_critic(plan.discriminator, self.trainer.discriminator, **facts)
        for name, other in self.trainer.others.items():
            save_weights(plan.other(name), other.state_dict(), **facts)
        before, after = self._measured(self.origin, None), self._measured(net, version.psi)
        self.spread = before.frame.select_dtypes("number").std()
        tables = {"50": self._try(net, GRID_50), "8": self._try(net, GRID_8)}
        for name, frame in tables.items():
            write_table(plan.path(f"labels_{name}_{{tag}}.csv"), frame, TABLE)
        result = {
            "version": version.tag,
            "start": provenance_of(plan.weights["start"]).get("version", "base"),
            "steps": int(self.settings["steps"]),
            "samples": len(after.frame),
            "faces": len(self._real(len(after.frame))),
            "before": self._figures(before),
            "after": self._figures(after) | {"identity_change": self.monitor.identity_change(net)},
            "labels_50": summarise(tables["50"]),
            "labels_8": summarise(tables["8"]),
        }
        write_json(plan.result, result)
        pictures = self._draw(tables)
        write_climb_report(plan, self.log, result, self._facts(), pictures)
        return result

    def headline(self, result: dict[str, Any]) -> str:
        """Return the result in one line."""
        obeyed = result["labels_50"]
        corr = ", ".join(f"{name} {obeyed[f'{name}_corr']:.2f}" for name in OUTPUTS)
        old, new = result["before"]["concept"], result["after"]["concept"]
        return (
            f"label and face correlate by {corr}; concept share {old[0]:.3f} before, {new[0]:.3f} [{new[1]:.3f}, "
            f"{new[2]:.3f}] after; identity moved by {result['after']['identity_change']:.2f} (1: another person)"
        )

    def _generator(self) -> Generator:
        version, source, seed = self.plan.version, self.origin, self.plan.seed
        if version.split:
            return split_generator(source, seed=seed, stored=version.stored_init)
        if not version.conditional:
            return load_generator(self.plan.weights["start"], self.device)
        generator = relabelled_generator(source, version, seed)
        if not version.published and not source.label_size:
            self.say("looking for the directions of the labels")
            aim_labels(generator, version, mean_slopes(source, self.labels.scorer))
            calibrate_labels(generator, version, self.labels.scorer)
        return generator

    def _critic(self) -> torch.nn.Module | None:
        plan, version = self.plan, self.plan.version
        if not version.critic:
            return None
        if "start_critic" in plan.weights:
            source = load_critic(plan.weights["start_critic"])
        elif "discriminator" in read_models(plan.weights["start"]):
            source = load_discriminator(plan.weights["start"])
        elif "discriminator" in read_models(plan.weights["base"]):
            source = load_discriminator(plan.weights["base"])
        else:
            self.say(f"{shown(plan.weights['base'])} holds no discriminator: an untrained one takes its place")
            source = fresh_discriminator(self.origin, plan.seed)
        return critic_for(version, source, self.network, plan.seed).train()

    def _rates(self) -> Rates:
        version, settings = self.plan.version, self.settings
        if version.published:
            # Warm-up, average, guidance and anchor are of the mended form.
            return Rates(r1_gamma=10.0, r1_every=1, average_images=0.0, obey=1.0)
        known = {field.name for field in dataclasses.fields(Rates)} - {"reduced"}
        rates = {key: value for key, value in settings.items() if key in known}
        if not version.critic:
            rates["warm_steps"] = 0
        return Rates(**rates, reduced=has_fast_bfloat16(self.device))

    def _augment(self) -> Augment:
        version = self.plan.version
        if not version.published:
            return Augment()
        return V5_JITTER if version.critic == "property" else PLAIN

    def _terms(self, rates: Rates) -> list[Term]:
        version, terms = self.plan.version, []
        adversarial_only = version.published and version.critic
        if version.conditional and not adversarial_only:
            outputs, columns = list(OUTPUTS.values()), version.obeyed
            if version.curriculum:
                outputs = columns = range(6)  # all but the spread of the background
            scorer = self.labels.scorer
            if version.scorer_trains:
                scorer = load_property_cnn(self.plan.weights["property_cnn"], self.device)
            # An encoder's latents belong to their faces, and a curriculum has its own: no pairs there.
            paired = not (version.published or version.encoder or version.curriculum)
            terms.append(LabelTerm(scorer, outputs, columns, rates.obey, version.scorer_trains, paired))
        if version.encoder:
            architecture = FilterSettings.of(self.plan.profile).architectures["gender"]
            paths = model_paths(self.plan.run)["gender"]
            ensemble = FilterEnsemble.load("gender", paths, architecture, self.device)
            terms.append(GenderTerm(ensemble.models, 1.0, version.published))
        return terms

    def _latents(self) -> Latents:
        version = self.plan.version
        if version.encoder:
            from stylegan_modified.cvae import CVAEEncoder

            encoder = CVAEEncoder(self.origin.resolution, version.label_size, self.origin.z_dim)
            return Encoded(encoder, version.published)
        if version.curriculum:
            return Curriculum(self.faces.batch, self.origin.z_dim, version.label_size, self.plan.seed)
        return Latents()

    def _watch_labels(self, generator: Generator) -> dict[str, float]:
        if self.spread is None:
            seeds = range(WATCHED_FROM, WATCHED_FROM + int(self.settings["watched"]))
            before = measure(self.origin, self.judge, seeds, int(self.settings["sample_batch"]), self.device, "before")
            self.spread = before.frame.select_dtypes("number").std()
        return summarise(self._try(generator, GRID_8, MONITOR_CASES))

    def _try(self, generator: Generator, grid, cases: int | None = None) -> pd.DataFrame:
        sampler = Sampler(generator, self.plan.version.psi, int(self.settings["sample_batch"]), self.device)
        seeds = range(TRIED_FROM, TRIED_FROM + (cases or int(self.settings["cases"])))
        score = self.labels.scorer.score
        return try_labels(sampler, score, self.judge, self.plan.version, seeds, grid, self.spread)

    def _measured(self, generator: Generator, psi: float | None) -> Measured:
        seeds = range(MEASURED_FROM, MEASURED_FROM + int(self.settings["samples"]))
        labels = None
        if self.plan.version.conditional and generator.label_size == self.plan.version.label_size:
            labels = self.trainer.latents.own(torch.from_numpy(self.labels.values), self.plan.version)
        batch = int(self.settings["sample_batch"])
        return measure(generator, self.judge, seeds, batch, self.device, "measure", labels, psi)

    def _figures(self, measured: Measured) -> dict[str, Any]:
        hits, count = int(measured.frame["concept"].sum()), len(measured.frame)
        real = self._real(count)
        women = int((measured.frame["gender"] >= 0.5).sum())
        return {
            "concept": [hits / count, *wilson_interval(hits, count)],
            "women": [women / count, *wilson_interval(women, count)],
            "diversity": measured.diversity,
            "kid": kernel_distance(real, measured.features),
            "recall": recall(real, measured.features),
        }

    def _real(self, count: int) -> torch.Tensor:
        """The judge's features of the filtered faces, as many as samples are measured at most; read once."""
        if self.real is None:
            self.real = self.monitor.features_of_faces(count)
        return self.real

    def _draw(self, tables: dict[str, pd.DataFrame]) -> dict[str, Any]:
        plan, version, trainer = self.plan, self.plan.version, self.trainer
        files = {
            **{kind: plan.path(f"{kind}_{{tag}}.png") for kind in ("network", "losses", "obedience")},
            **{kind: plan.path(f"{kind}_{{tag}}.jpg") for kind in ("faces", "labels")},
        }
        nets = {"generator": trainer.generator, "discriminator": trainer.discriminator, **trainer.others}
        network_diagram.draw({name: net for name, net in nets.items() if net}, files["network"], version.tag)
        climb_figures.draw_losses(self.log, files["losses"])
        climb_figures.draw_obedience(self.log, files["obedience"])
        figures.draw_before_after(
            self.monitor.pictures(self.origin), self.monitor.pictures(trainer.average), files["faces"]
        )
        sampler = Sampler(trainer.average, version.psi, int(self.settings["sample_batch"]), self.device)
        climb_figures.draw_labels(sampler, version, range(TRIED_FROM, TRIED_FROM + 6), files["labels"])
        return files

    def _facts(self) -> dict[str, str]:
        version, rates, faces = self.plan.version, self.trainer.rates, self.faces
        start = self.plan.weights["start"]
        known = provenance_of(start)
        shares = {"": "none", "concat": "label appended before the last layer", "projection": "label projected",
                  "property": "eyes, mouth and pose sub-nets of the property CNN, then 64 units"}  # fmt: skip
        steps = int(self.settings["steps"])
        rows = {
            "start": f"{shown(start)}" + (f" ({known['version']})" if "version" in known else ""),
            "steps": f"{rates.warm_steps} of D alone, {steps} of both" if version.critic else f"{steps} of G",
            "faces": f"{len(self.plan.faces)}, batch {faces.batch}, {faces.per_epoch} batches an epoch",
            "published batch": str(PUBLISHED_BATCHES.get(version.name, 8)),
            "labels of faces": self.labels.source if version.conditional else "zeros",
            "labels of generated faces": "standard normal, leaving one fixed batch" if version.curriculum else
            version.labels,
            "latents": "an encoder's, of the faces" if version.encoder else "normal",
            "discriminator": shares[version.critic],
            "trained of G": trained_of_generator(version, self.origin.resolution),
            "style mixing": f"{version.style_mixing:g}",
            "truncation by label": "none" if version.psi is None else f"psi {version.psi:g}",
            "optimiser": f"AdamW, {version.rate:g} for stored weights" if version.published else
            f"Adam (0, .99): mapping {rates.mapping:g}, labels {rates.label:g}, synthesis {rates.synthesis:g}, "
            f"D {rates.discriminator:g} for effective weights",
            "R1": f"gamma {rates.r1_gamma:g}, every {rates.r1_every} updates of D" if version.critic else "none",
            "label regression": f"weight {rates.obey:g}" if self.trainer.terms else "none",
            "gender CNN": "weight 1, " + ("one fold, fed [-1, 1]" if version.published else "five folds")
            if version.encoder else "none",
            "anchor of w": f"weight {rates.anchor:g}" if rates.anchor else "none",
            "guidance by the filter CNNs": f"weight {rates.guidance:g}" if rates.guidance else "none",
            "dense0 and label matrix": _carried(version, self.origin),
        }  # fmt: skip
        if version.critic:
            rows["repeat rule"] = (
                f"D up to {version.d_most} until d_loss < {version.d_factor} g_loss, G up to {version.g_most} until "
                f"g_loss < {version.g_factor} d_loss"
            )
        return rows


def _carried(version: Version, start: Generator) -> str:
    if LABEL_MATRIX in version.dropped:
        return "thrown away, random"
    if version.dropped:
        return "dense0 thrown away, random; label matrix carried over"
    if version.published or start.label_size or not version.conditional:
        return "carried over"
    return "dense0 carried over, label columns aimed along the mean slope of each score in z"
