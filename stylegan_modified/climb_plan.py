"""What one call of run_stylegan_finetune.py will do, decided from options and profile before any net is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.artefacts import code_version, refuse_stranger
from pipeline.command import StageOptions
from pipeline.errors import PipelineError
from pipeline.profile import Profile, shown
from pipeline.run import Run
from property_score.graders import property_cnn_file
from stylegan_modified.plan import SHARED_CODE, Call, stage_2_results
from stylegan_modified.settings import settings_of
from stylegan_modified.versions import Version

CODE = ("run_stylegan_finetune", *SHARED_CODE, "property_score.property_cnn")


@dataclass
class ClimbPlan(Call):
    """One rung: which version, and its outputs."""

    version: Version

    def path(self, name: str) -> Path:
        """Return the path of something in stylegan_modified/ of the run; {tag} is filled in."""
        return self.run.path("stylegan_modified", name.format(tag=self.version.tag))

    @property
    def generator(self) -> Path:
        return generator_path(self.run, self.version.tag)

    @property
    def discriminator(self) -> Path:
        return self.path("stylegan_dis_fine_tuned_{tag}.pth")

    @property
    def report(self) -> Path:
        return self.run.path("reports", f"finetune_{self.version.tag}.md")

    @property
    def result(self) -> Path:
        """Figures of this rung, for the table of all."""
        return self.path("finetune_{tag}.json")

    def artefacts(self) -> dict[Path, str]:
        """Return what this command writes, with a few words each."""
        files = {
            self.generator: "generator" if self.version.published else "generator, running average",
            self.path("train_log_{tag}.csv"): "",
            self.path("labels_50_{tag}.csv"): "every label of the v3 and v4 grid on fixed latents",
            self.path("labels_8_{tag}.csv"): "the same for the v5 grid",
            self.result: "figures for the table of all versions",
            self.report: "report",
        }
        if self.version.critic:
            files[self.discriminator] = "discriminator"
        if self.version.encoder:
            files[self.other("encoder")] = "encoder of real faces"
        if self.version.scorer_trains:
            files[self.other("scorer")] = "property CNN that trained along"
        return files

    def other(self, name: str) -> Path:
        """Return the path of a net that trains beside G and D: "encoder" or "scorer"."""
        return self.path(f"stylegan_{name}_fine_tuned_{{tag}}.pth")


def generator_path(run: Run, tag: str) -> Path:
    """Where a run keeps the generator of a rung."""
    return run.path("stylegan_modified", f"stylegan_gen_fine_tuned_{tag}.pth")


def make_climb(options: StageOptions, version: Version, steps: int | None = None) -> ClimbPlan:
    """Resolve options against the profile; PipelineError names what is missing."""
    profile, run, notes = Profile.load(options.profile), Run(options.run), []
    if not profile.get("weights.attribute_net", None):
        raise PipelineError(
            f"profile {profile.name} has no oracle (attribute_net in [weights]), which measures the rungs of the "
            "family; take a world that has one (--profile demo). Stage 5, run_stylegan_finetune_v9.py, needs none: "
            "there the filter CNNs judge"
        )
    if not options.force:
        refuse_stranger(generator_path(run, version.tag))
    family = version.name.split("_")[0]
    sections = ["finetune", "finetune.climb", f"finetune.{family}"]
    if version.published:
        sections.append(f"finetune.{family}_published")
    settings = settings_of(profile, *sections)
    if steps is not None:
        settings["steps"] = steps
    if settings["steps"] < 1:
        raise PipelineError(f"steps {settings['steps']}: at least 1; give --steps or set it in [finetune.{family}]")
    weights = {
        "base": profile.weight("generator"),
        "oracle": profile.weight("attribute_net"),
        "property_cnn": property_cnn_file(profile, run),
        **_start(profile, run, version, notes),
    }
    from property_score.tables import table_names

    table = run.path(table_names("v1", published=True)[0])
    if version.tag == "v1_published":  # which learnt from these labels
        if table.is_file():
            weights["labels"] = table
        else:
            notes.append(
                f"{shown(table)} is missing, so the property CNN labels the faces; as published would be "
                "compute_property_scores.py --algorithm v1 --published first"
            )
    filters = bool(settings["guidance"] and not version.published) or version.encoder
    folder, faces, models = stage_2_results(run, int(settings["batch"]), filters)
    weights |= models
    stamp = {
        "options": {**settings, "version": version.tag, "resolution": profile.resolution},
        "seed": options.seed,
        "inputs": {**weights, "faces": folder},
        "code": code_version(*CODE),
    }
    return ClimbPlan(
        profile=profile,
        run=run,
        seed=options.seed,
        device=options.device,
        force=options.force,
        settings=settings,
        weights=weights,
        faces=faces,
        stamp=stamp,
        notes=notes,
        version=version,
    )


def find_generator(profile: Profile, run: Run, tag: str) -> Path:
    """The generator of a rung: this run's, else the bundled one; PipelineError says how to make it."""
    path = generator_path(run, tag)
    if path.is_file():
        return path
    try:
        return profile.weight(f"generator_{tag}")
    except PipelineError as error:
        name, _, published = tag.partition("_published")
        number = name.partition("_")[2]
        flags = (f" --experiment {number}" if number else "") + (" --published" if tag.endswith("_published") else "")
        cures = [f"name its file as generator_{tag} in [weights] of a profile of your own"]
        # Without an oracle stage 5 alone trains.
        if profile.get("weights.attribute_net", None) is not None or tag == "v9":
            cures.insert(0, f"make it with python run_stylegan_finetune.py --version {name.partition('_')[0]}{flags}")
        if profile.get(f"weights.generator_{tag}", None) is not None:
            cures.append(str(error))
        raise PipelineError(f"there is no generator of version {tag} in {run}: {', or '.join(cures)}") from None


def _start(profile: Profile, run: Run, version: Version, notes: list[str]) -> dict[str, Path]:
    """The files that a rung starts from: those of the previous one."""
    if version.start == "base":
        return {"start": profile.weight("generator")}
    tag = f"{version.start}_published" if version.published else version.start
    try:
        start = find_generator(profile, run, tag)
    except PipelineError:
        if not version.published:
            raise
        tag = version.start
        start = find_generator(profile, run, tag)
        notes.append(f"there is no published {tag} in this run, so this rung starts from the mended one")
    critic = run.path("stylegan_modified", f"stylegan_dis_fine_tuned_{tag}.pth")
    return {"start": start} | ({"start_critic": critic} if critic.is_file() and version.critic else {})
