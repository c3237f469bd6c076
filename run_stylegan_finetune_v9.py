"""Stage 5: fine-tune the generator toward the filtered faces, to version 9 with its split mapping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artefacts import code_version, digest, is_fresh, stamp_path, write_json, write_stamp
from pipeline.command import StageOptions, Summary, limit_threads, main, resolve_device
from pipeline.errors import PipelineError
from pipeline.profile import Profile, shown
from pipeline.run import Run
from pipeline.whole import read_json

EXAMPLES = """
python run_stylegan_finetune_v9.py
python run_stylegan_finetune_v9.py --steps 40 --run runs/short
python run_stylegan_finetune_v9.py --train --steps 2000
"""
CODE = ("run_stylegan_finetune_v9", "stylegan", "stylegan_modified", "pipeline.seeds", "pipeline.report")
COMMAND = "run_stylegan_finetune_v9.py"
# Latents of this stage alone: not those of stage 1, whose filtered images are the training faces.
MEASURED_FROM, WATCHED_FROM = 5_000_000, 5_500_000


@dataclass
class Options(StageOptions):
    """Stage 5: fine-tune the generator toward stylegan/synthesize_results_filtered, to version 9 (split mapping).

    Unless told otherwise, training goes on for some steps from the bundled v9 net; --train starts anew from the base
    generator, over a conditional v1. Writes stylegan_modified/stylegan_{gen,dis}_fine_tuned_v9.pth, its logs and
    reports/finetune_v9.md in the run. Killed and started again, or with more --steps, it goes on where it was.
    """

    train: bool = False
    """Start anew from the base generator instead of from the bundled v9 net."""
    steps: int | None = None
    """Steps of version 9; those of the profile unless given."""
    v1_steps: int | None = None
    """Steps of version 1 before it, with --train; those of the profile unless given."""
    bundle: str = ""
    """Also write generator, discriminator and step there, as half floats: the file that ships as generator_v9."""


@dataclass
class Plan:
    """What one call of this stage will do, known before anything is loaded."""

    run: Run
    resolution: int
    options: Options
    settings: dict[str, Any]
    weights: dict[str, Path]
    faces: list[Path]
    stamp: dict[str, Any]

    def path(self, name: str) -> Path:
        """Return the path of something in stylegan_modified/ of the run."""
        return self.run.path("stylegan_modified", name)

    def artefacts(self) -> dict[Path, str]:
        """Return what this stage writes, with a few words each."""
        return {
            self.path("stylegan_gen_fine_tuned_v9.pth"): "generator, running average",
            self.path("stylegan_dis_fine_tuned_v9.pth"): "discriminator",
            self.path("train_log_v9.csv"): "",
            self.path("concept_before_v9.csv"): "oracle on samples before",
            self.path("concept_after_v9.csv"): "oracle on the same latents after",
            self.run.path("reports", "finetune_v9.md"): "report",
        }


def plan(options: Options) -> Plan:
    """Resolve the options against the profile and check what can be checked without loading a net."""
    profile, run = Profile.load(options.profile), Run(options.run)
    section = "finetune.train" if options.train else "finetune.demo"
    settings = {
        "batch": 8,
        "samples": 2000,
        "watched": 256,
        "log_every": 10,
        "monitor_every": 50,
        "save_every": 50,
        "v1_steps": 0,
        **{name: value for name, value in profile.section("finetune").items() if not isinstance(value, dict)},
        **profile.get(section, {}),
    }
    if options.steps is not None:
        settings["steps"] = options.steps
    if options.v1_steps is not None:
        settings["v1_steps"] = options.v1_steps
    if int(settings.get("steps", 0)) < 1:
        raise PipelineError(f"steps {settings.get('steps')}: at least 1; give --steps or set it in [{section}]")
    weights = {"generator": profile.weight("generator"), "oracle": profile.weight("attribute_net")}
    if not options.train:
        weights["start"] = profile.weight("generator_v9")
    folder = run.path("stylegan", "synthesize_results_filtered")
    faces = sorted(folder.glob("*.jpg"))
    if len(faces) < int(settings["batch"]):
        raise PipelineError(
            f"{folder} holds {len(faces)} faces, one batch needs {settings['batch']}; run stages 1 and 2 first "
            "(python run_pipeline.py --to 2), or loosen the cutoffs of stage 2"
        )
    stamp = {
        "options": {**settings, "train": options.train, "resolution": profile.resolution},
        "seed": options.seed,
        "inputs": {**weights, "faces": folder},
        "code": code_version(*CODE),
    }
    return Plan(run, profile.resolution, options, settings, weights, faces, stamp)


def run(options: Options) -> None:
    """Train, measure and report what is missing or stale."""
    work = plan(options)
    summary = Summary("5 fine-tune v9")
    artefacts = work.artefacts()
    if all(is_fresh(path, **work.stamp)[0] for path in artefacts) and not options.force and not options.bundle:
        for path in artefacts:
            summary.kept(path)
        summary.print()
        return
    limit_threads()
    stage = Stage(work, say=lambda text: print(f"  {text}", flush=True))
    stage.train()
    stage.finish()
    for path, what in artefacts.items():
        write_stamp(path, command=COMMAND, **work.stamp)
        summary.wrote(path, what)
    if options.bundle:
        stage.write_bundle(Path(options.bundle))
        summary.wrote(Path(options.bundle), "the file to ship")
    summary.note(stage.headline())
    summary.print()


class Stage:
    """One call of this stage with its nets, faces and judge in memory."""

    def __init__(self, work: Plan, say: Callable[[str], None]):
        from stylegan.checkpoint import load_generator
        from stylegan_modified.faces import Faces
        from stylegan_modified.monitor import Monitor
        from virtual_face.oracle import load_oracle

        self.work, self.say, self.seed = work, say, work.options.seed
        self.device = resolve_device(work.options.device)
        self.settings = work.settings
        self.base = load_generator(work.weights["generator"], self.device)
        if self.base.resolution != work.resolution:
            raise PipelineError(
                f"{shown(work.weights['generator'])} makes {self.base.resolution} px images, the profile says "
                f"{work.resolution}; name the right file in [weights] or mend the resolution"
            )
        self.judge = load_oracle(work.weights["oracle"], self.device)
        self.faces = Faces.read(work.faces, work.resolution, int(self.settings["batch"]), self.seed)
        watched = range(WATCHED_FROM, WATCHED_FROM + int(self.settings["watched"]))
        self.monitor = Monitor(self.judge, self.faces, watched, int(self.settings.get("sample_batch", 32)), self.device)
        self.start_step = 0

    def train(self) -> None:
        """Bring the v9 net to its last step; `self.trainer` and `self.log` hold the result."""
        if self.work.options.train:
            generator, discriminator = self._from_base()
        else:
            generator, discriminator = self._from_bundle()
        self.trainer, self.log = self._rung("v9", generator, discriminator, int(self.settings["steps"]))

    def finish(self) -> None:
        """Measure before and after, write weights, figures and the report."""
        from pipeline.artefacts import save_weights
        from stylegan_modified import figures
        from stylegan_modified.report import write_report

        work, average, critic = self.work, self.trainer.average, self.trainer.discriminator
        gen, dis, *_ = work.artefacts()
        save_weights(gen, average.state_dict(), version="v9", steps=self.total_steps())
        save_weights(dis, critic.state_dict(), version="v9", steps=self.total_steps())
        self.before = self._side("before", self.base)
        self.after = self._side("after", average)
        losses, concept = work.path("loss_curves_v9.png"), work.path("concept_curve_v9.png")
        strip = work.path("before_after_v9.png")
        figures.draw_losses(self.log, losses)
        figures.draw_concept(self.log, concept, self.before.share())
        figures.draw_before_after(self.monitor.pictures(self.base), self.monitor.pictures(average), strip)
        pictures = {
            "The same latents before (above) and after (below)": strip,
            "Concept share and diversity while training": concept,
            "Losses and discriminator while training": losses,
        }
        report = work.run.path("reports", "finetune_v9.md")
        write_report(report, self.before, self.after, self.log, self._facts(), pictures)

    def write_bundle(self, path: Path) -> None:
        """Write the file that ships: running average, discriminator and step."""
        import torch

        from pipeline.artefacts import save_weights

        content = {
            "generator": self.trainer.average.state_dict(),
            "discriminator": self.trainer.discriminator.state_dict(),
            "step": torch.tensor(self.total_steps()),
        }
        share = self.after.share()
        save_weights(path, content, half=True, steps=self.total_steps(), faces=len(self.work.faces), concept=share)

    def total_steps(self) -> int:
        """Return the steps of v9 in all, those of the bundled net included."""
        return self.start_step + self.trainer.step_number

    def headline(self) -> str:
        """Return the result in one line."""
        old, new = self.before.share(), self.after.share()
        return (
            f"concept share {old[0]:.3f} [{old[1]:.3f}, {old[2]:.3f}] before, {new[0]:.3f} [{new[1]:.3f}, "
            f"{new[2]:.3f}] after; diversity {self.after.diversity / self.before.diversity:.0%} of before"
        )

    def _from_base(self):
        """Base -> v1 (trained for v1_steps) -> the start of v9."""
        from stylegan.checkpoint import discriminator_settings, read_models
        from stylegan.discriminator import Discriminator
        from stylegan_modified.carry import conditional_generator, labelled_discriminator, split_generator

        path = self.work.weights["generator"]
        table = read_models(path)
        if "discriminator" in table:
            critic = Discriminator(**discriminator_settings(table["discriminator"], path))
            critic.load_state_dict(table["discriminator"])
        else:
            raise PipelineError(f"{shown(path)} holds no discriminator; fine-tuning starts from both nets")
        generator = conditional_generator(self.base, seed=self.seed)
        critic = labelled_discriminator(critic)
        steps = int(self.settings["v1_steps"])
        if steps:
            first, _ = self._rung("v1", generator, critic, steps)
            generator, critic = first.average, first.discriminator
        return split_generator(generator, seed=self.seed), critic

    def _from_bundle(self):
        from stylegan.checkpoint import load_discriminator, load_generator

        path = self.work.weights["start"]
        generator = load_generator(path, self.device)
        if not generator.split or generator.resolution != self.work.resolution:
            raise PipelineError(f"{shown(path)} is no v9 generator of {self.work.resolution} px; see MODELS.md")
        record = stamp_path(path)
        self.start_step = int(read_json(record)["provenance"]["steps"]) if record.is_file() else 0
        return generator, load_discriminator(path, self.device)

    def _rung(self, name: str, generator, discriminator, steps: int):
        import dataclasses

        from stylegan_modified.augment import Augment
        from stylegan_modified.rung import Files, Rhythm, train_rung
        from stylegan_modified.trainer import Rates, Trainer, has_fast_bfloat16
        from stylegan_modified.versions import VERSIONS

        settings, version = self.settings, VERSIONS[name]
        if "discriminator_up_to" in settings:
            version = dataclasses.replace(version, discriminator_up_to=int(settings["discriminator_up_to"]))
        known = {field.name for field in dataclasses.fields(Rates)} - {"reduced"}
        rates = Rates(
            **{key: value for key, value in settings.items() if key in known}, reduced=has_fast_bfloat16(self.device)
        )
        trainer = Trainer(generator, discriminator, version, self.faces, rates, self.seed, self.device, Augment())
        files = Files(self.work.path(f"state_{name}.pth"), self.work.path(f"train_log_{name}.csv"),
                      self.work.path(f"samples_{name}"))  # fmt: skip
        rhythm = Rhythm(*(int(settings[f"{kind}_every"]) for kind in ("log", "monitor", "save")))
        changing = ("steps", "samples") if name == "v9" else ("steps", "samples", "v1_steps")
        fingerprint = {key: value for key, value in settings.items() if key not in changing} | {
            "seed": self.seed,
            "rates": rates,
            "version": version,
            "start": "base" if self.work.options.train else "bundle",
            **{key: digest(path) for key, path in self.work.stamp["inputs"].items()},
        }
        log = train_rung(trainer, steps, self.monitor, files, rhythm, fingerprint, self.say)
        return trainer, log

    def _side(self, name: str, generator):
        """Measure one generator, or read what an earlier call measured of the same net."""
        from pandera.pandas import Column, DataFrameSchema

        from pipeline.tables import read_table, write_table
        from stylegan.checkpoint import generator_hash
        from stylegan_modified.monitor import measure
        from stylegan_modified.report import Side

        path, samples = self.work.path(f"concept_{name}_v9.csv"), int(self.settings["samples"])
        schema = DataFrameSchema({"img_no": Column(int), "seed": Column(int), "concept": Column(bool)})
        record = path.with_suffix(".measured.json")
        oracle = digest(self.work.weights["oracle"])
        origin = {"generator": generator_hash(generator), "samples": samples, "oracle": oracle}
        before = read_json(record) if record.is_file() and path.is_file() else {}
        if {key: before.get(key) for key in origin} != origin:
            seeds = range(MEASURED_FROM, MEASURED_FROM + samples)
            batch = int(self.settings.get("sample_batch", 32))
            frame, diversity = measure(generator, self.judge, seeds, batch, self.device, f"measure {name}")
            record.unlink(missing_ok=True)
            write_table(path, frame, schema)
            before = {**origin, "diversity": diversity}
            write_json(record, before)
        separation = self.monitor.separation(generator, self.trainer.discriminator)
        return Side(read_table(path, schema), before["diversity"], separation)

    def _facts(self) -> dict[str, Any]:
        trainer, rates = self.trainer, self.trainer.rates
        start = "the bundled v9 net" if not self.work.options.train else "the base generator, over v1"
        return {
            "start": start,
            "steps before": self.start_step if not self.work.options.train else f"{self.settings['v1_steps']} of v1",
            "steps of this run": trainer.step_number,
            "faces": f"{len(self.work.faces)}, batch {self.faces.batch}, {self.faces.per_epoch} batches an epoch",
            "trained of G": f"mapping and blocks up to {trainer.version.generator_up_to} px",
            "trained of D": f"blocks up to {trainer.version.discriminator_up_to} px",
            "repeat rule": f"D up to {trainer.version.d_most} until d_loss < {trainer.version.d_factor} g_loss, "
            f"G up to {trainer.version.g_most} until g_loss < {trainer.version.g_factor} d_loss",
            "rates (effective weights)": f"mapping {rates.mapping:g}, synthesis {rates.synthesis:g}, "
            f"D {rates.discriminator:g}; Adam (0, .99)",
            "R1": f"gamma {rates.r1_gamma:g}, every {rates.r1_every} updates of D",
            "labels": "zeros",
        }


if __name__ == "__main__":
    main(Options, run, EXAMPLES)
