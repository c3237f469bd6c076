"""Climbing the ladder base -> v1 -> v9 with one set of faces and one judge, then measuring what came of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch

from pipeline.artefacts import code_version, digest, provenance_of, read_json, read_weights, save_weights, write_json
from pipeline.command import resolve_device
from pipeline.errors import PipelineError
from pipeline.precision import has_fast_bfloat16
from pipeline.profile import shown
from pipeline.tables import read_table, write_table
from stylegan.checkpoint import generator_hash, load_discriminator, load_generator, read_models
from stylegan.discriminator import Discriminator
from stylegan.generator import Generator
from stylegan_modified import figures, network_diagram
from stylegan_modified.augment import Augment
from stylegan_modified.carry import conditional_generator, fresh_discriminator, labelled_discriminator, split_generator
from stylegan_modified.faces import Faces
from stylegan_modified.guidance import FilterGuidance
from stylegan_modified.judge import BY_FILTERS, BY_ORACLE, judge_digest, load_judge
from stylegan_modified.monitor import Measured, Monitor, measure
from stylegan_modified.plan import Plan
from stylegan_modified.processes import Processes
from stylegan_modified.report import Side, write_report
from stylegan_modified.rung import (
    FREE,
    LOG,
    MEASURING_CODE,
    SAMPLES,
    Files,
    Rhythm,
    fingerprint_of,
    joined,
    train_rung,
)
from stylegan_modified.settings import Rates
from stylegan_modified.spread import kernel_distance, recall
from stylegan_modified.trainer import Trainer
from stylegan_modified.versions import VERSIONS, trained_of_generator

# The cure where a profile has a generator of its own and the v9 net of another profile.
OTHER_BASE = (
    'in the profile name its own v9 net as generator_v9 under [weights], or none (generator_v9 = ""); or train it anew '
    "(run_stylegan_finetune_v9.py --train)"
)
# Latents of this stage alone: not those of stage 1, whose filtered images are the training faces.
MEASURED_FROM, WATCHED_FROM = 5_000_000, 5_500_000


class Ladder:
    """The nets, faces and judge of one call of stage 5."""

    def __init__(self, plan: Plan, say: Callable[[str], None]):
        self.plan, self.say, self.settings = plan, say, plan.settings
        self.device = resolve_device(plan.device)
        self.base = load_generator(plan.weights["generator"], self.device, resolution=plan.resolution)
        self.processes = Processes.start(self.device, int(self.settings["accumulate"]))
        self.judge = load_judge(plan, self.device)
        self.faces = Faces.read(plan.faces, plan.resolution, int(self.settings["batch"]), plan.seed)
        watched = range(WATCHED_FROM, WATCHED_FROM + int(self.settings["watched"]))
        batch = int(self.settings["sample_batch"])
        self.monitor = Monitor(self.judge, self.faces, watched, batch, self.device, origin=self.base)
        self.provenance = {"v1_steps": int(self.settings["v1_steps"]), "steps": 0, "base": generator_hash(self.base)}
        self.logs: list[pd.DataFrame] = []
        self.real: torch.Tensor | None = None

    def train(self) -> None:
        """Bring the v9 net to its last step; `trainer` and `log` then hold the result."""
        generator, discriminator = self._bundle() if self.plan.start == "bundle" else self._from_base()
        self.trainer, self.log = self._rung("v9", generator, discriminator)
        self.provenance["steps"] += int(self.settings["steps"])

    def finish(self) -> None:
        """Measure before and after, draw, report, and write the weights."""
        plan, average = self.plan, self.trainer.average
        whole = joined(self.logs)
        write_table(plan.history, whole, LOG)
        self.before, self.after = self._side("before", self.base), self._side("after", average)
        losses, concept = plan.path("loss_curves_v9.png"), plan.path("concept_curve_v9.png")
        strip, diagram = plan.path("before_after_v9.jpg"), plan.path("network_v9.png")
        nets = {"generator": self.trainer.generator, "discriminator": self.trainer.discriminator}
        network_diagram.draw(nets, diagram, "v9")
        figures.draw_losses(whole, losses)
        figures.draw_concept(whole, concept, self.before.share())
        figures.draw_before_after(self.monitor.pictures(self.base), self.monitor.pictures(average), strip)
        pictures = {
            "The same latents before (above) and after (below)": strip,
            "Concept share and diversity while training, from the base generator on; of latents of the monitor's own, "
            "so that it does not begin at the grey line; measured anew where a training begins": concept,
            "Losses and discriminator while training": losses,
            "The networks, drawn from the modules": diagram,
        }
        report = plan.run.path("reports", "finetune_v9.md")
        judged = BY_ORACLE if "oracle" in plan.weights else BY_FILTERS
        write_report(report, self.before, self.after, self.log, self._facts(), pictures, plan.notes, judged)
        self.provenance["training_code"] = self.trainer.code
        # Last, since they take the place of the stamp that says which training the run's net is from.
        save_weights(plan.generator, average.state_dict(), version="v9", **self.provenance)
        save_weights(plan.discriminator, self.trainer.discriminator.state_dict(), version="v9", **self.provenance)

    def headline(self) -> str:
        """Return the result in one line."""
        old, new = self.before.share(), self.after.share()
        kept = self.after.measured.diversity / self.before.measured.diversity
        return (
            f"concept share {old[0]:.3f} [{old[1]:.3f}, {old[2]:.3f}] before, {new[0]:.3f} [{new[1]:.3f}, "
            f"{new[2]:.3f}] after; diversity {kept:.0%} of before"
        )

    def _bundle(self) -> tuple[Generator, Discriminator]:
        """The v9 nets that ship; PipelineError where they do not belong to the base or to each other."""
        path, base = self.plan.weights["start"], self.plan.weights["generator"]
        beside = self.plan.weights.get("start_discriminator", path)
        generator = load_generator(path, self.device)
        if not generator.split or (generator.resolution, generator.z_dim) != (self.base.resolution, self.base.z_dim):
            raise PipelineError(
                f"{shown(path)} is no v9 generator of {self.base.resolution} px and {self.base.z_dim} numbers z, as "
                f"{shown(base)} wants it; {OTHER_BASE}"
            )
        critic = load_discriminator(beside, self.device)
        wanted = (generator.resolution, generator.label_size, True)
        if (critic.resolution, critic.label_size, critic.label_concat) != wanted:
            raise PipelineError(
                f"{shown(beside)} is no discriminator of {generator.resolution} px with {generator.label_size} labels "
                f"appended, as {shown(path)} wants it; name its own as discriminator_v9 under [weights]"
            )
        known = provenance_of(path)
        if base == path:  # its base is not here
            self.provenance["base"] = known.get("base")
        elif (known.get("base") or self.provenance["base"]) != self.provenance["base"]:
            raise PipelineError(
                f"{shown(path)} was fine-tuned from another generator than {shown(base)}, so it is no start for it; "
                + OTHER_BASE
            )
        self.provenance |= {name: int(known.get(name, 0)) for name in ("v1_steps", "steps")}
        if "history" in self.plan.weights:
            self.logs.append(read_table(self.plan.weights["history"], LOG))
        return generator, critic

    def _from_base(self) -> tuple[Generator, Discriminator]:
        """The start of v9: the base generator, over v1 when that has steps."""
        path = self.plan.weights["generator"]
        if "discriminator" not in read_models(path):
            self.say(f"{shown(path)} holds no discriminator: an untrained one takes its place")
            critic = fresh_discriminator(self.base, self.plan.seed)
        else:
            critic = load_discriminator(path).train()
        generator = conditional_generator(self.base, seed=self.plan.seed)
        critic = labelled_discriminator(critic)
        if int(self.settings["v1_steps"]):
            first, log = self._rung("v1", generator, critic)
            generator, critic = first.average, first.discriminator
            self.logs.append(log)
        return split_generator(generator, seed=self.plan.seed), critic

    def _rung(self, name: str, generator: Generator, discriminator: Discriminator) -> tuple[Trainer, pd.DataFrame]:
        plan, settings = self.plan, self.settings
        # On the way to v9 the first rung knows no labels: v9 is fed zeros.
        version = dataclasses.replace(VERSIONS[name], labels="zeros", critic="concat", mismatched=0.0)
        if "discriminator_up_to" in settings:
            version = dataclasses.replace(version, discriminator_up_to=int(settings["discriminator_up_to"]))
        # The warm-up belongs to the first rung that trains: later ones get a discriminator that knows the faces.
        warm = int(settings["warm_steps"]) if name == "v1" or not int(settings["v1_steps"]) else 0
        steps = warm + int(settings["v1_steps" if name == "v1" else "steps"])
        known = {field.name for field in dataclasses.fields(Rates)} - {"reduced"}
        rates = {key: value for key, value in settings.items() if key in known}
        rates = Rates(**{**rates, "warm_steps": warm}, reduced=has_fast_bfloat16(self.device))
        guide = FilterGuidance.load(plan.profile, plan.run, rates.margin, self.device) if rates.guidance else None
        augment = Augment()
        trainer = Trainer(
            *(generator, discriminator, version, self.faces, rates, plan.seed, self.device, augment, guide),
            processes=self.processes,
        )
        # A state of the other start may have taken hours, so each start keeps its own.
        ending = f"{'v9' if name == 'v9' else 'v9_begin'}_from_{plan.start}"
        files = Files(
            plan.path(f"state_{ending}.pth"),
            plan.path("train_log_v9.csv" if name == "v9" else "train_log_v9_begin.csv"),
            plan.path(f"samples_{ending}"),
            plan.path(f"tensorboard_{ending}"),
        )
        rhythm = Rhythm(*(int(settings[f"{kind}_every"]) for kind in ("log", "monitor", "save")))
        fingerprint = fingerprint_of(plan, trainer, FREE | ({"v1_steps"} if name == "v1" else set()))
        if plan.force and self.processes.first:
            files.forget()
        self.processes.wait()
        log = train_rung(trainer, steps, self.monitor, files, rhythm, fingerprint, self.say)
        if name == "v9":
            self.logs.append(log)
        return trainer, log

    def _side(self, name: str, generator: Generator) -> Side:
        """Measure one generator, or read what an earlier call measured of the same net."""
        path, samples = self.plan.path(f"concept_{name}_v9.csv"), int(self.settings["samples"])
        record, batch = path.with_suffix(".measured.json"), int(self.settings["sample_batch"])
        origin = {
            "generator": generator_hash(generator),
            "oracle": judge_digest(self.plan),
            "faces": digest(self.plan.stamp["inputs"]["faces"]),
            "samples": samples,
            "code": code_version(*MEASURING_CODE),
        }
        seen = read_json(record) if record.is_file() and path.is_file() else {}
        if {key: seen.get(key) for key in origin} != origin:
            seeds = range(MEASURED_FROM, MEASURED_FROM + samples)
            measured = measure(generator, self.judge, seeds, batch, self.device, f"measure {name}")
            record.unlink(missing_ok=True)
            write_table(path, measured.frame, SAMPLES)
            spread = {
                "diversity": measured.diversity,
                "concept_diversity": measured.concept_diversity,
                "kid": kernel_distance(self._real(), measured.features),
                "recall": recall(self._real(), measured.features),
            }
            seen = {**origin, **spread}
            write_json(record, seen)
        separation = self.monitor.separation(generator, self.trainer.discriminator)
        measured = Measured(read_table(path, SAMPLES), float(seen["diversity"]), float(seen["concept_diversity"]))
        return Side(measured, separation, float(seen["kid"]), float(seen["recall"]))

    def _real(self) -> torch.Tensor:
        """The judge's features of the filtered faces, as many as samples are measured at most; read once."""
        if self.real is None:
            self.real = self.monitor.features_of_faces(int(self.settings["samples"]))
        return self.real

    def _facts(self) -> dict[str, Any]:
        version, rates, known, faces = self.trainer.version, self.trainer.rates, self.provenance, self.faces
        return {
            "start": "the bundled v9 net" if self.plan.start == "bundle" else "the base generator",
            "steps since the base": f"{known['v1_steps']} of v1, {known['steps']} of v9",
            "steps of this run": " and ".join(
                f"{self.settings[name]} {what}"
                for name, what in (("warm_steps", "of D alone"), ("v1_steps", "of v1"), ("steps", "of v9"))
                if int(self.settings[name])
            ),
            "faces": f"{len(self.plan.faces)}, batch {faces.batch}, {faces.per_epoch} batches an epoch",
            "trained of G": trained_of_generator(version, self.base.resolution),
            "trained of D": f"blocks up to {version.discriminator_up_to} px (all of them while D trains alone)",
            "repeat rule": f"D up to {version.d_most} until d_loss < {version.d_factor} g_loss, "
            f"G up to {version.g_most} until g_loss < {version.g_factor} d_loss",
            "rates (effective weights)": f"mapping {rates.mapping:g}, synthesis {rates.synthesis:g}, "
            f"D {rates.discriminator:g}; Adam (0, .99)",
            "R1": f"gamma {rates.r1_gamma:g}, every {rates.r1_every} updates of D",
            "guidance": f"filter CNNs of stage 2, weight {rates.guidance:g}, hinge at log-odds {rates.margin:g}"
            if rates.guidance
            else "none",
            "anchor": f"w stays near where it was, weight {rates.anchor:g}" if rates.anchor else "none",
            "labels": "zeros",
        }


def write_bundle(plan: Plan, path) -> None:
    """Write the file that ships from what a run trained: generator, discriminator, and beside it the whole log."""
    nets = {"generator": read_weights(plan.generator), "discriminator": read_weights(plan.discriminator)}
    measured = read_table(plan.path("concept_after_v9.csv"), SAMPLES)
    provenance = provenance_of(plan.generator)
    extra = {"faces": len(plan.faces), "concept_share": float(measured["concept"].mean()), "seed": plan.seed}
    save_weights(path, nets, half=True, **provenance, **extra)
    write_table(path.with_suffix(".csv"), read_table(plan.history, LOG), LOG)
