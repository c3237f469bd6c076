"""Measures every scorer against the truth of renders and against the others; writes reports/property_scores.md.

    python -m property_score.report
    python -m property_score.report --renders 40 --generated 60 --repeats 16 --out runs/quick/property_scores.md

Renders come from seeds that no training used (`python -m virtual_face.dataset --out work/heldout --count 2048
--first-seed 1000000` draws them), generated faces from seeds that no stage and no training uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.artefacts import read_json, stamp_path, write_json
from pipeline.command import Summary, limit_threads, main, resolve_device
from pipeline.errors import PipelineError
from pipeline.profile import Profile
from pipeline.report import Report
from pipeline.sheets import save_sheet
from property_score import report_figures as figures
from property_score import report_tables as tables
from property_score.measure import PROPERTIES
from property_score.nuisances import REPEAT, changed_pictures, changed_renders
from property_score.panel import Panel, Readings
from property_score.training_faces import persona_faces
from segmentation.parser import to_tensor
from virtual_face.oracle import Oracle, load_oracle
from virtual_face.population import ATTRIBUTES
from virtual_face.shards import read_shards

TEXTS = {
    "truth": "Pearson's r of each score with the attribute that the renderer drew. `v1` and `v2 published` are the "
    "algorithms as published, with their fixed values for what is missing (v1 has none for hair and nose); `geometric` "
    "is v2 without them and with the hairstyle from the direction of strands. The networks were trained on generated "
    "faces of the persona alone.",
    "persona": "The same on those renders that show the persona (young woman, good quality, no glasses), which is what "
    "the later stages work on. Attributes vary less here, so the same error costs more r.",
    "pose": "Correlation of `pose` with each true angle, and the standardised effect of each angle with the two others "
    "held (least squares), with the share R² that all three explain. A score of the turn would follow yaw. Yaw and "
    "roll are correlated in these heads, as turned heads tilt.",
    "agreement": "Spearman's rank correlation on generated faces of the persona. Whoever finds a direction is not the "
    "one that grades it, so the judges should agree and yet share no training face.",
    "networks": "On generated faces from seeds of their own. `reliability`: r of the geometric score with itself on a "
    "second picture of the face. `ceiling`: its root, the most that what both pictures show can correlate with the "
    "score; a network that also reads the noise of this one picture, which the score reads too, can lie above.",
    "reliability": "r of a score between a picture and a small change of it that leaves the person alone: saved as "
    "JPEG (quality 75), moved by up to 2 pixels, and taken again (moved, zoomed by up to 3 % and saved) on generated "
    "faces; drawn with other light or wall colour on renders.",
}


@dataclass
class ReportOptions:
    """Measure all scorers; about 10 minutes on one core at the default sizes."""

    profile: str = "demo"
    folder: str = "work/heldout"
    """Folder of renders that no training used."""
    renders: int = 2000
    """Renders to measure."""
    generated: int = 800
    """Faces to draw from each generator, before the persona is picked out."""
    repeats: int = 200
    """Renders, and as many generated faces, that are measured again after small changes."""
    out: str = "reports/property_scores.md"
    device: str = "auto"


@dataclass
class Sample:
    """Pictures uint8 [N, R, R, 3], their attributes (true, or read by the oracle), and what all scorers say of them."""

    images: np.ndarray
    attributes: pd.DataFrame
    readings: Readings

    @property
    def persona(self) -> np.ndarray:
        """Which pictures show the persona: bool [N]."""
        return Oracle.concept(self.attributes)


@dataclass
class Evidence:
    """All that the report rests on; what was measured again is a small part of each sample."""

    renders: Sample
    generated: Sample
    render_repeats: dict[str, Readings]
    picture_repeats: dict[str, Readings]
    changed: dict[str, np.ndarray]


def gather(options: ReportOptions, profile: Profile, panel: Panel, device) -> Evidence:
    """Read the renders, draw the faces, and have everything scored."""
    shards = read_shards(options.folder, ("images", "attributes", "factors"))
    images, factors = shards["images"][: options.renders], shards["factors"][: options.renders]
    if images.shape[1] != profile.resolution:
        raise PipelineError(
            f"{options.folder} holds renders of {images.shape[1]} pixels, {profile.name} works with "
            f"{profile.resolution}; render some: python -m virtual_face.dataset --size {profile.resolution} --out DIR"
        )
    truth = pd.DataFrame(shards["attributes"][: options.renders], columns=list(ATTRIBUTES))
    if not Oracle.concept(truth).any():
        raise PipelineError(f"no persona among the {len(images)} renders of {options.folder}: give more by --renders")
    renders = Sample(images, truth, panel.read(images, "score renders"))
    drawn = persona_faces(profile, "report", options.generated, device).images
    if not len(drawn):
        raise PipelineError(f"no persona among the faces drawn: draw more than --generated {options.generated}")
    seen = load_oracle(profile.weight("attribute_net"), device).attributes(to_tensor(drawn))
    generated = Sample(drawn, seen, panel.read(drawn, "score generated faces"))

    few = np.flatnonzero(renders.persona)[: options.repeats]
    again = changed_renders(factors[few], profile.resolution)
    some = repeated_faces(len(drawn), options.repeats)
    changed = changed_pictures(drawn[some])
    return Evidence(
        renders,
        generated,
        {name: panel.read(pictures, f"score again: {name}") for name, pictures in again.items()},
        {name: panel.read(pictures, f"score again: {name}") for name, pictures in changed.items()},
        {"as drawn": drawn[some], **changed},
    )


def repeated_faces(count: int, repeats: int) -> np.ndarray:
    """Which generated faces are scored again, bool [count]: drawn from all, as those of one generator come first."""
    return np.isin(np.arange(count), np.random.default_rng(0).permutation(count)[:repeats])


def write_report(options: ReportOptions, profile: Profile, panel: Panel, evidence: Evidence) -> list[Path]:
    """Write report, figures and the JSON of all tables; return what was written, the report first."""
    out = Path(options.out)
    folder = out.with_suffix("")
    report, kept = Report("Property scores, measured"), {}

    def table(key: str, frame: pd.DataFrame, caption: str = "", digits: int = 3) -> pd.DataFrame:
        kept[key] = frame.replace({np.nan: None}).to_dict("records")
        report.table(frame, caption, digits)
        return frame

    renders, generated = evidence.renders, evidence.generated
    report.text(
        f"{len(renders.images)} renders whose attributes are known ({int(renders.persona.sum())} show the persona) and "
        f"{len(generated.images)} generated faces of the persona. Made by `python -m property_score.report`."
    )
    for title, why in panel.absent.items():
        report.text(f"Without the {title}: {why}.")
    table("judges", panel.judge_table(), "the judges")
    report.text(panel.independence())

    report.heading("Against the truth").text(TEXTS["truth"])
    truth = table("truth", tables.truth_table(renders.readings, renders.attributes, panel.scorers), "all renders")
    short = tables.short_of_truth(truth)
    report.text(
        f"Short of what is asked: {'; '.join(short)}."
        if short
        else "The geometric scorer, of which this is asked, reaches all of it. The networks learnt faces of the "
        "persona only, and fall short on renders of all people."
    )
    persona = renders.readings.rows(renders.persona)
    persona_truth = renders.attributes[renders.persona].reset_index(drop=True)
    report.text(TEXTS["persona"])
    table("truth_persona", tables.truth_table(persona, persona_truth, panel.scorers), "renders of the persona")
    shown = ["v1 published", "v2 published", *panel.judges]
    for name in PROPERTIES:
        path = folder / f"truth_{name}.png"
        figures.draw_truth(path, name, renders.readings, renders.attributes, shown)
        report.figure(path, f"{name} over its true attribute, all renders")

    report.heading("What each score really measures").text(TEXTS["pose"])
    table("pose", tables.pose_table(renders.readings, renders.attributes, panel.scorers))
    path = folder / "pose.png"
    figures.draw_pose(path, renders.readings, renders.attributes, ["v1 published", "v2 published"])
    report.figure(path, "the published pose scores over the three angles, all renders")
    path = folder / "attributes.png"
    figures.draw_attributes(path, renders.readings, renders.attributes, panel.judges)
    report.figure(path, "what else each score follows: r with every true attribute, all renders")

    report.heading("Between scorers, on generated faces").text(TEXTS["agreement"])
    table("agreement", tables.agreement_table(generated.readings, ["v1 mended", *panel.judges]))
    if panel.networks:
        path = folder / "agreement.png"
        figures.draw_agreement(path, generated.readings, list(panel.networks), panel.normalisation)
        report.figure(path, "the networks against the geometric scorer, generated faces of the persona")

    report.heading("Beside the published figures")
    report.text("Pearson's r on generated faces of the persona; published: on 4,703 filtered faces.")
    table("algorithms", tables.algorithm_table(generated.readings))
    some = generated.readings.rows(repeated_faces(len(generated.images), options.repeats))
    reliability = tables.reliability_table(some, evidence.picture_repeats, "geometric")
    repeated = reliability.set_index("score")[REPEAT]
    report.text(TEXTS["networks"])
    for title in panel.networks:
        found = tables.network_table(
            generated.readings, title, panel.normalisation, repeated, _test_split(profile, title)
        )
        table(title, found, title)
        misses = tables.verdicts(found)
        report.text("\n".join(f"- {text}" for text in misses) if misses else "Everything asked is reached.")

    report.heading("Reliability").text(TEXTS["reliability"])
    rendered = persona.rows(np.arange(int(renders.persona.sum())) < options.repeats)
    for scorer in panel.judges:
        pictures = tables.reliability_table(some, evidence.picture_repeats, scorer)
        lights = tables.reliability_table(rendered, evidence.render_repeats, scorer)
        table(f"reliability of {scorer}", pictures.merge(lights, on="score", sort=False), scorer)
    path = folder / "changes.jpg"
    save_sheet(path, np.concatenate([pictures[:6] for pictures in evidence.changed.values()]), columns=6)
    report.figure(path, f"six generated faces, from top to bottom: {', '.join(evidence.changed)}")

    report.heading("Distribution and what is missing")
    report.text("`at the lowest`: share of faces with the very lowest value. Networks give z-scores.")
    populations = {"renders": renders.readings, "generated": generated.readings}
    for scorer in panel.judges:
        for title, readings in populations.items():
            caption = f"{scorer}, {title}"
            table(f"distribution of {caption}", tables.distribution_table(readings, scorer), caption)
        path = folder / f"distribution_{scorer.replace(' ', '_').lower()}.png"
        figures.draw_distributions(path, populations, scorer)
        report.figure(path, f"scores of the {scorer}{' scorer' if scorer == 'geometric' else ''}")
    policy = profile.get("property_score.missing", "drop")
    told = "left empty (drop)" if policy == "drop" else "set to the median (impute)"
    report.text(
        f"Share of faces in percent whose score could not be measured. By the profile such a value is {told} in the "
        "tables of stage 4, and the column `reason` says why. The published forms put a fixed value "
        "there; only where the published v1 stopped with an error (no hair, or no nose to measure) it stays empty."
    )
    table("missing", tables.missing_table(populations), digits=2)
    reasons = tables.reason_table(populations)
    if len(reasons):
        table("reasons", reasons, "reasons of the geometric scorer")
    report.write(out)
    write_json(out.with_suffix(".json"), {"options": vars(options), "tables": kept})
    return [out, out.with_suffix(".json"), folder]


def _test_split(profile: Profile, title: str) -> dict[str, float]:
    """r on the test split of a network's training, where the JSON beside its file tells."""
    path = stamp_path(profile.weight(title.replace(" ", "_").lower()))
    return ((read_json(path).get("provenance") or {}).get("test_r") or {}) if path.exists() else {}


def make(options: ReportOptions) -> None:
    """Measure and write; PipelineError where --out is no .md file, or no face of the persona is among the pictures."""
    if Path(options.out).suffix != ".md":
        raise PipelineError(f"--out {options.out}: give a name that ends in .md; figures go to the folder of that name")
    limit_threads()
    profile, device = Profile.load(options.profile), resolve_device(options.device)
    summary, panel = Summary("property scores"), Panel(profile, device)
    for path in write_report(options, profile, panel, gather(options, profile, panel, device)):
        summary.wrote(path)
    summary.print()


if __name__ == "__main__":
    main(ReportOptions, make, examples=(__doc__ or "").split("\n\n")[1])
