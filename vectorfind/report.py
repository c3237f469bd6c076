"""`reports/vectorfind_{method}_{position}.md`: the verdict first, then what it rests on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.report import Report
from vectorfind.directions import DirectionSet
from vectorfind.figures import DRAWN_FACES
from vectorfind.finding import accuracy_table
from vectorfind.groups import LETTERS
from vectorfind.methods import RANDOM_STATE, svm_rows
from vectorfind.names import EDITED
from vectorfind.pool import Pool
from vectorfind.setting import Files, Setting

# Oh-LoRA's own figures with LinearSVC on w, 16 groups, k 20 %, mean correlation over 100 latents, sign dropped.
PUBLISHED = pd.DataFrame(
    [
        ("v8, w", 8_000, 0.8662, 0.8205, 0.8803),
        ("v8, w", 80_000, 0.8663, 0.8309, 0.8737),
        ("v9, w", 8_000, 0.8451, 0.8216, 0.9018),
        ("v9, w", 40_000, 0.8630, 0.8361, 0.8973),
    ],
    columns=["published", "samples", "eyes", "mouth", "pose"],
)
POSE_NOTE = (
    "`pose` is the published score: the slope of the line between the eye centroids, "
    "so it rises as the head tilts (roll); that it also turns (yaw) is a side effect."
)
LEGEND = """
`corr` is the signed Pearson correlation between the intended weight and the score over the 50 edits of a face,
all three properties moved at once; mean over the faces with its 95 % interval. `pass` is the share of faces at
or above the bar, with its Wilson interval. `slope`: score deviations per deviation asked for (1 is what
the calibration aims at). `range`: deviations between the lowest and the highest weight. `monotone`: share of steps
between neighbouring weights that raise the score. `reversed`: share of faces whose correlation is negative.
"""
FIT_LEGEND = """
`accuracy`, pooled over the groups: {accuracy}. Accuracies of different methods are no measure of one another. Of a
conditional method it is that of the fit before what it shares with the other properties was taken out.
`held_out`: samples that it is of; 0: those that trained.
`unconverged`: the solver stopped at its iteration limit. `flipped`: the measured sign contradicts the samples.
`capped`: one deviation would have been too far a step. `pooled_groups`: too few faces for a direction of their
own.
"""
DOTTED = "; dotted: where the extremes of the whole pool begin (each group has its own)"
# What the numbers of a test are of, by its grid.
WEIGHTS_MEAN = {
    "deviations": "Weights are deviations of the score in the pool: eyes by -1.2 and 1.2, mouth by five from -1.8 to "
    "1.8, pose by five from -1.2 to 1.2, each with each.",
    "reachable": "Weights are deviations, slid for each face into what its scores can reach (`--grid reachable`).",
    "published": "Weights are the published ones, in units of the latent space along each direction (`--grid "
    "published`); `slope` is deviations per such unit.",
}
SPACE_LEGEND = """
A space in which every score were an axis of w would make any method look perfect: R² from w near 1, cosines
near 0, correlations above .95. The more a score depends on w in a curved way, and the more the gradients share,
the harder the task.
"""


@dataclass
class Findings:
    """All that the report shows; tables as the stage wrote them."""

    pool: Pool
    directions: DirectionSet
    fits: pd.DataFrame | None
    result: pd.DataFrame
    summary: pd.DataFrame
    space: pd.DataFrame
    cosines: pd.DataFrame
    notes: list[str]
    passes: dict[str, float]
    strip_faces: int


def write_report(files: Files, found: Findings) -> None:
    """Write the report; its figures must already lie at `files.figure(...)`."""
    setting = files.setting
    report = Report(f"VectorFind: {setting.name}")
    for note in found.notes:
        report.text(f"> **Note.** {note}")
    report.text(_verdict(found))
    report.table(_readable(found.summary)).text(LEGEND).text(WEIGHTS_MEAN[setting.grid])
    report.table(PUBLISHED, "For comparison, the published project on photographic faces (absolute correlation)")
    report.heading("Faces of the test")
    report.text(
        f"The first {found.strip_faces} faces of the test, not chosen. Each row is one face, moved along one direction "
        "alone by -2 to +2 score deviations; under each picture the weight and by how many deviations the score really "
        "moved. " + POSE_NOTE
    )
    captions = ("Opening the eyes", "Opening the mouth", "Tilting the head")
    for path, caption in zip(files.strips(), captions, strict=True):
        report.figure(path, caption)
    report.heading("How the test went")
    curves = f"Score against weight; thin lines: the first {DRAWN_FACES} faces, thick: median of all, bars: 10-90 %"
    if setting.grid == "deviations":
        curves += ", dotted: perfect calibration"
    report.figure(files.figure("curves.png"), curves)
    report.figure(files.figure("corr.png"), "Signed correlations of the faces; line: the bar to pass")
    report.heading("The directions").text(_how(files, found))
    if found.fits is not None:
        legend = FIT_LEGEND.format(accuracy=_accuracy_of(setting))
        report.table(accuracy_table(found.fits), "Fit and calibration").text(legend)
    if setting.is_vector and found.fits is not None:
        report.table(_by_group(found), _group_caption(setting))
    report.heading("The pool")
    report.figure(
        files.figure("scores.png"),
        f"Scores of the pool{DOTTED * (setting.method == 'svm')}",
    )
    report.heading("Is the latent space honest?")
    corr = found.summary.set_index("property")["corr"]
    space = found.space.copy()
    space[f"{setting.method}_corr"] = [corr.get(name, np.nan) for name in space["property"]]
    report.table(space, "Held-out R² of a ridge from z and from w, and the correlation of the test above")
    report.table(
        found.cosines.rename_axis("gradient of"),
        "Cosines between the gradients of the scores in w",
        digits=2,
        index=True,
    )
    report.text(SPACE_LEGEND).text(_honesty(found))
    report.write(files.report)


def _accuracy_of(setting: Setting) -> str:
    """What the column `accuracy` tells of a method."""
    network = "the correlation on the held-out tenth"
    svm = (
        "the rank correlation of held-out samples"
        if setting.mended
        else "the share right on the held-out fifth of the extremes"
    )
    return {
        "svm": svm,
        "ridge": "R² on the samples it was fitted to",
        "gradient": network,
        "mixed": f"{network} (eyes), {svm} (mouth, pose)",
    }[setting.method]


def _honesty(found: Findings) -> str:
    """Where between easy and hard this generator's space lies, by the scores that are edited."""
    known = found.space.set_index("property")
    straight = known.loc[list(EDITED), "r2_w"]
    shared = found.cosines.loc[list(EDITED)].copy()
    for name in EDITED:
        shared.loc[name, name] = np.nan
    partner = shared.abs().stack().idxmax()
    return (
        f"Here R² of the edited scores from w is {straight.min():.2f} to {straight.max():.2f}, and the largest cosine "
        f"of theirs is {shared.loc[partner]:+.2f}, of {' and '.join(partner)}. What no score reads (the turn of a "
        "head, age, gender) is not in this table."
    )


def _verdict(found: Findings) -> str:
    rows = found.summary.set_index("property")
    corr = ", ".join(f"{name} {rows.loc[name, 'corr']:.3f}" for name in EDITED)
    bars = " / ".join(f"{found.passes[name]:g}" for name in EDITED)
    everyone = rows.loc["all three"]
    worst = rows.loc[list(EDITED), "reversed"].max()
    reversal = "No face is reversed." if worst == 0 else f"Up to {worst:.0%} of the faces are reversed in one property."
    return (
        f"On {len(found.result)} faces that trained nothing, edited 50 ways each, the scores follow the intention with "
        f"a mean signed correlation of **{corr}**. **{everyone['pass_share']:.0%}** of the faces pass all three bars "
        f"({bars}; 95 % interval {everyone['pass_low']:.0%} to {everyone['pass_high']:.0%}). {reversal} All graded by "
        f"the scorer that {'calibrated' if found.directions.provenance['method'] == 'imported' else 'found'} the "
        "directions; the step `judge` of `run_vectorfind.py` also asks graders that did not."
    )


def _readable(summary: pd.DataFrame) -> pd.DataFrame:
    def interval(row, low, high):
        return "-" if pd.isna(row[low]) else f"{row[low]:.3f} to {row[high]:.3f}"

    return pd.DataFrame(
        {
            "property": summary["property"],
            "corr": summary["corr"],
            "corr 95 %": [interval(row, "corr_low", "corr_high") for _, row in summary.iterrows()],
            "bar": summary["bar"],
            "pass": summary["pass_share"],
            "pass 95 %": [interval(row, "pass_low", "pass_high") for _, row in summary.iterrows()],
            "slope": summary["slope"],
            "range": summary["range"],
            "monotone": summary["monotone"],
            "reversed": summary["reversed"],
        }
    )


def _group_caption(setting: Setting) -> str:
    letters = ", ".join(name.replace("_", " ") for name in LETTERS[setting.groups])
    cut = "the median" if setting.cuts == "medians" else f"the cut of {setting.cuts}"
    return f"Groups (letters: {letters}; h at or above {cut}, l below)" if letters else "All faces in one group"


def _how(files: Files, found: Findings) -> str:
    setting, about = files.setting, found.directions.provenance
    options = about.get("options", {})
    where = f"Pool: {about['pool_rows']} samples from seed {about['pool_seed_start']}, groups: {setting.groups}."
    hashes = f"Generator `{about['generator_hash'][:16]}`, scorer `{about['scorer_hash'][:16]}`."
    if setting.method == "imported":
        turned = f"{about['turned']} of them lowered their property and were turned"
        return f"Vectors read from files; {turned}. {where} {hashes}"
    if setting.method == "closed_loop":
        return (
            "No direction is fitted: each edit follows gradients through generator and scorer, in the mean over faces "
            f"of the pool, in steps of at most {options['step']:g} score deviations, until the score is within "
            f"{options['tolerance']:g} of the intended value; what a step did corrects the slopes of the edited "
            "scores. An edit that gets stuck is made again along slopes of which half is the mean over "
            f"{options['looks']} codes around the face; that counts where the three misses are less by more than "
            f"{options['gain']:g} deviations, summed. Each step is the shortest in deviations of the pool's codes that "
            "also holds hair, background, hairstyle"
            + (" and the features of a gender and an age CNN" if about["identity"] else "")
            + f"; an edit is at most {options['furthest']:g} such deviations long. {where} {hashes}"
        )
    if setting.method == "model_loop":
        told = ", ".join(f"{name} {r:.2f}" for name, r in about["model_r"].items())
        plans = options["rounds"] + options["backtrack"]
        return (
            "No direction is fitted: a network learns all eight scores from the code (r on the held-out tenth of the "
            f"pool: {told}), and each edit is planned through it, {options['steps']} steps at a time, at most "
            f"{plans} times: after each plan generator and scorer tell what is still missing. A plan that ends away "
            "from its goal is made again from where the network's mean slopes lead. "
            f"An edit is taken to have changed what lies {options['trust']:.0%} of the way from network to "
            "scorer. "
            "Steps are the shortest in deviations of the pool's codes that also hold hair, background and hairstyle"
            + (", and how the parsed face looks" if about["person_r"] else "")
            + f"; an edit is at most {options['furthest']:g} such deviations long. {where} {hashes}"
        )
    network = {
        False: "A network of two tanh layers per property learns the score from the raw code; its normalised gradient "
        "at the unedited face is the direction (VectorFind v9)",
        True: "A network of two tanh layers per property learns the score from the standardised code; its gradient, "
        "mapped back to codes, is taken anew along the path",
    }[setting.mended]
    svm = (
        "Linear SVM between the top and the bottom "
        f"{options['k_percent']:g} % on standardised codes, primal and run to convergence, C by the rank correlation "
        "of held-out samples, each group's direction mixed with the pool's"
        if setting.mended
        else f"LinearSVC (C {options['c']:g}, at most {options['max_iter']} iterations, unscaled codes, random state "
        f"{RANDOM_STATE}) between the top and the bottom {options['k_percent']:g} % of each group"
    )
    most = svm_rows(found.pool.plan.positions[setting.position])
    fits = None if found.fits is None else found.fits[found.fits["source"] != "network"]
    if fits is not None and fits["samples"].max() >= 2 * int(most // 2 * 0.8):
        svm += f" (of more than {most} samples a part was taken)"
    how = {
        "svm": svm,
        "ridge": f"Ridge on {'the ranks of ' * options['ranks']}every sample, centred within the groups, each group "
        "shrunk toward the common solution, both penalties by generalised cross-validation",
        "gradient": network,
        "mixed": f"Eyes: {network}. Mouth and pose: {svm}",
    }[setting.method]
    moves = "; each direction leaves the other properties, hair and background alone" * setting.conditional
    moves += ", and how the parsed face looks" * setting.looks
    if setting.mended:
        moves += "; edits go where codes vary (their covariance times what was fitted)"
    calibration = f" ({about['calibration']})" if "calibration" in about else ""
    return (
        f"{how}{moves}. {where} Directions are unit vectors, + raises the property. Sign and step length are "
        f"measured, not read off the samples{calibration}. {hashes} "
        f"The files lie in `{files.run.relative(files.vectors)}/`."
    )


def _by_group(found: Findings) -> pd.DataFrame:
    tested = found.result.groupby("group_name")
    rows = []
    for group, part in found.fits.groupby("group_name", sort=False):
        part = part.set_index("property")
        row = {"group": group, "faces": int(part["faces"].iloc[0])}
        row |= {f"accuracy {name}": part.loc[name, "accuracy"] for name in EDITED}
        here = tested.get_group(group) if group in tested.groups else None
        row["tested"] = 0 if here is None else len(here)
        row |= {f"corr {name}": np.nan if here is None else here[f"{name}_corr"].mean() for name in EDITED}
        rows.append(row)
    return pd.DataFrame(rows)
