"""Stage 4: measure the properties of the parsed faces, or of the faces in a folder of photographs."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.artefacts import code_version, is_fresh, read_image, read_mask, write_stamp
from pipeline.command import StageOptions, Summary, main
from pipeline.errors import PipelineError
from pipeline.precision import wants_half
from pipeline.profile import Profile
from pipeline.progress import progress
from pipeline.run import Run
from segmentation.tables import RESULTS, TABLE, result_name, segmentation_schema

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

EXAMPLES = """
python compute_property_scores.py
python compute_property_scores.py --algorithm v1 --published
python compute_property_scores.py --images path/to/photographs --run runs/photos
"""
CODE = (
    "compute_property_scores",
    "property_score.facemaps",
    "property_score.hair_texture",
    "property_score.head_pose",
    "property_score.measure",
    "property_score.algorithm_v1",
    "property_score.algorithm_v2",
    "property_score.hairstyle",
    "property_score.normalisation",
    "property_score.tables",
    "segmentation.classes",
    "segmentation.photographs",
)
HEAD_POSE_CODE = {
    "oracle": ("virtual_face.oracle",),
    "facexformer": ("segmentation.facexformer", "segmentation.facexformer_parser"),
}
BATCH = 64
DECIMALS = 6  # of z-scores
POLICIES = ("drop", "impute")


@dataclass
class Options(StageOptions):
    """Stage 4: measure the properties of the parsed faces.

    Writes segmentation/property_score_results/all_scores_v2.csv (z-scores), all_scores_v2_raw.csv and
    normalisation.json. A value that cannot be measured is left empty or imputed, as the profile says ([property_score]
    missing = "drop" or "impute"). Nothing here is random: --seed changes nothing. With --images the photographs of a
    folder are parsed first (stage 3, which --device concerns); img_path in the tables is then the file's name.
    Columns yaw, pitch and roll (radians) come from the network that [property_score] head_pose names.
    """

    run: str = ""
    """Folder that the run reads and writes; runs/demo unless given, runs/photos with --images."""
    images: str = ""
    """Folder of photographs to parse and measure instead of generated faces; needs a run folder of its own."""
    algorithm: Literal["v1", "v2"] = "v2"
    """Score algorithm; v1 writes all_scores.csv, all_scores_raw.csv and normalisation_v1.json."""
    published: bool = False
    """As the published code computed it, with its fixed values for what is missing; its files end in _published."""


@dataclass
class Plan:
    """What one call of this stage will do, known before the first picture is read."""

    run: Run
    images: Path | None
    algorithm: str
    published: bool
    missing: str
    robust: bool
    hairstyle: str
    head_pose: str
    scores: Path
    raw: Path
    normalisation: Path
    stamp: dict[str, Any]


def settings_of(profile: Profile, options: Options) -> dict[str, Any]:
    """Return what options and section [property_score] ask for; PipelineError for what is unknown."""
    from property_score.head_pose import head_pose_source
    from property_score.measure import ALGORITHMS, HAIRSTYLES

    if options.algorithm not in ALGORITHMS:
        raise PipelineError(f"--algorithm {options.algorithm} is unknown; use {' or '.join(ALGORITHMS)}")
    known = ("missing", "robust", "hairstyle", "head_pose")
    profile.refuse_unknown("property_score", profile.section("property_score"), known)
    missing = profile.get("property_score.missing", "drop")
    if missing not in POLICIES:
        raise PipelineError(
            f"profile {profile.path}: [property_score] missing = '{missing}'; use {' or '.join(POLICIES)}"
        )
    robust = profile.read("property_score.robust", bool, False)
    hairstyle = profile.get("property_score.hairstyle", "texture")
    if hairstyle not in HAIRSTYLES:
        raise PipelineError(
            f"profile {profile.path}: [property_score] hairstyle = '{hairstyle}'; use {' or '.join(HAIRSTYLES)}"
        )
    return {
        "algorithm": options.algorithm,
        "published": options.published,
        "missing": missing,
        "robust": robust,
        "hairstyle": hairstyle,
        "head_pose": "" if options.published else head_pose_source(profile),
    }


def plan(options: Options) -> Plan:
    """Check what can be checked without reading pictures: profile, policy and the hand-off of stage 3."""
    from property_score.head_pose import SOURCES
    from property_score.tables import table_names
    from segmentation.tables import is_of_photographs

    profile, run = Profile.load(options.profile), _run(options)
    settings = settings_of(profile, options)
    table, pictures = run.path(*TABLE.split("/")), run.path(*RESULTS.split("/"))
    for path in (table, pictures):
        if not path.exists():
            raise PipelineError(
                f"{path} is missing; run run_segmentation.py first, which writes it, or give photographs of your own "
                "with --images FOLDER"
            )
    photographs = is_of_photographs(table)
    if photographs and not options.images and options.published and options.algorithm == "v1":
        raise PipelineError(f"{run} holds photographs, whose colours v1 takes from the files: add --images FOLDER")
    if settings["head_pose"] == "oracle" and photographs:
        settings["head_pose"] = ""  # the oracle knows the virtual world only
    head_pose = settings["head_pose"]
    # Of the measuring networks FaceXFormer alone computes in half precision.
    half = head_pose == "facexformer" and wants_half(profile)
    stamp = {
        "options": {**settings, "half": half},
        "seed": None,
        "inputs": {
            "segmentation": table,
            "pictures": pictures,
            **({"head_pose": profile.weight(SOURCES[head_pose])} if head_pose else {}),
        },
        "code": code_version(*CODE, *HEAD_POSE_CODE.get(head_pose, ())),
    }
    names = [run.path(*name.split("/")) for name in table_names(options.algorithm, options.published)]
    images = Path(options.images) if options.images else None
    return Plan(run, images, **settings, scores=names[0], raw=names[1], normalisation=names[2], stamp=stamp)


def run(options: Options) -> None:
    """Score all faces, unless the tables are fresh; parse photographs before."""
    if options.images:
        from segmentation.stage import parse_pictures, plan_photographs

        profile = Profile.load(options.profile)
        settings_of(profile, options)  # typing errors are told before the pictures are parsed, not after
        parse_pictures(plan_photographs(profile, _run(options), options.images), options.device, options.force)
    work = plan(options)
    summary = Summary("4 measure their properties")
    outputs = (work.scores, work.raw, work.normalisation)
    if all(is_fresh(path, **work.stamp)[0] for path in outputs) and not options.force:
        for path in outputs:
            summary.kept(path)
        summary.print()
        return

    from pipeline.tables import read_table, write_table
    from property_score.tables import SCORE_COLUMNS, score_schema

    segmentation = read_table(work.run.path(*TABLE.split("/")), segmentation_schema())
    found = segmentation[segmentation["found"]].sort_values("img_no", ignore_index=True)
    raw = _measure(work, found)
    if work.head_pose and not found.empty:
        raw = _with_head_pose(work, options, found, raw)
    normalisation, scores = _normalised(work, raw)
    write_table(work.raw, raw, score_schema())
    write_table(work.scores, scores, score_schema())
    normalisation.save(work.normalisation)
    for path in outputs:
        write_stamp(path, command="compute_property_scores.py", rows=len(raw), **work.stamp)
        summary.wrote(path, f"{len(raw)} rows" if path.suffix == ".csv" else f"by {normalisation.kind}")
    if len(found) < len(segmentation):
        summary.note(f"{len(segmentation) - len(found)} pictures without a face have no row (see {Path(TABLE).name})")
    if found.empty:
        summary.note("no picture shows a face, so nothing was measured: the tables are empty")
        summary.print()
        return
    if work.images:
        summary.note(f"z-scores compare these {len(found)} photographs with each other; {work.raw.name} has raw values")
    absent = {name.removesuffix("_score"): int(raw[name].isna().sum()) for name in SCORE_COLUMNS}
    told = ", ".join(f"{name} {count}" for name, count in absent.items() if count)
    policy = "left empty" if work.missing == "drop" else "set to the median"
    summary.note(f"values that could not be measured, {policy}: {told}" if told else "every value could be measured")
    summary.print()


def _measure(work: Plan, found: "pd.DataFrame") -> "pd.DataFrame":
    """Return the raw table: one row per face, empty where a value could not be measured."""
    import numpy as np
    import pandas as pd

    from property_score.measure import PROPERTIES, measure

    parts = [pd.DataFrame(columns=[*PROPERTIES, "reason"])] if found.empty else []
    for maps, faces, wholes in _pictures(work, found):
        parts.append(measure(maps, faces, work.algorithm, work.published, wholes, work.hairstyle))
    measured = pd.concat(parts, ignore_index=True)
    scores = measured[list(PROPERTIES)].replace([np.inf, -np.inf], np.nan).add_suffix("_score")
    return pd.concat([found[["img_no", "img_path"]], scores, measured["reason"]], axis=1)


def _pictures(work: Plan, found: "pd.DataFrame") -> Iterator[tuple["np.ndarray", "np.ndarray", "np.ndarray | None"]]:
    """Yield maps, face crops and (for published v1 alone) whole pictures resized to the crops' size, in batches."""
    import numpy as np

    folder = work.run.path(*RESULTS.split("/"))
    with progress(len(found), "measure") as bar:
        for start in range(0, len(found), BATCH):
            rows = found.iloc[start : start + BATCH]
            maps, faces = (
                np.stack([read(folder / result_name(kind, img_no)) for img_no in rows["img_no"]])
                for read, kind in ((_read_map, "parsing"), (_read_crop, "face"))
            )
            wholes = None
            if work.algorithm == "v1" and work.published:
                # The published code took v1's colours from the whole picture, although its map is that of the crop.
                wholes = np.stack([_whole(work, path) for path in rows["img_path"]])
            yield maps, faces, wholes
            bar.update(len(rows))


def _with_head_pose(work: Plan, options: Options, found: "pd.DataFrame", raw: "pd.DataFrame") -> "pd.DataFrame":
    """Return the raw table with the columns yaw, pitch and roll (radians) before its column reason."""
    import pandas as pd

    from pipeline.command import limit_threads, resolve_device
    from property_score.head_pose import angle_table, load_head_pose

    limit_threads()
    reader = load_head_pose(work.head_pose, Profile.load(options.profile), resolve_device(options.device))
    if reader.reads == "crop":
        folder = work.run.path(*RESULTS.split("/"))
        paths = [folder / result_name("face", img_no) for img_no in found["img_no"]]
    else:
        paths = [work.run.path(*img_path.split("/")) for img_path in found["img_path"]]
    starts = progress(range(0, len(paths), BATCH), "read head poses")
    angles = angle_table(reader, (part for start in starts for part in _stacked(paths[start : start + BATCH])))
    return pd.concat([raw.drop(columns="reason"), angles, raw["reason"]], axis=1)


def _stacked(paths: "list[Path]") -> "list[np.ndarray]":
    """Pictures uint8 [n, H, W, 3] of files; each alone where they differ in size, as pictures of somebody's own may."""
    import numpy as np

    pictures = [read_image(path) for path in paths]
    alike = len({picture.shape for picture in pictures}) == 1
    return [np.stack(pictures)] if alike else [picture[None] for picture in pictures]


def _whole(work: Plan, img_path: str) -> "np.ndarray":
    """Return a whole picture resized to the crops' size; a huge photograph is reduced before that."""
    import cv2

    from segmentation.classes import SIZE
    from segmentation.photographs import DETECTOR_PIXELS, Photograph, UnreadablePhotograph

    if work.images:
        try:
            picture, _ = Photograph.open(work.images / img_path).reduced(DETECTOR_PIXELS[-1])
        except UnreadablePhotograph as error:
            raise PipelineError(
                f"{work.images / img_path} cannot be read ({error}); run run_segmentation.py --images again, which "
                "names such files and leaves them out"
            ) from None
    else:
        picture = read_image(work.run.path(*img_path.split("/")))
    return cv2.resize(picture, (SIZE, SIZE))


def _read_map(path: Path) -> "np.ndarray":
    from segmentation.classes import CLASSES, SIZE

    parsing = read_mask(path)
    if parsing.shape != (SIZE, SIZE) or parsing.max() >= len(CLASSES):
        raise PipelineError(
            f"{path} is no parsing map ({SIZE}x{SIZE} with class ids 0..{len(CLASSES) - 1}); "
            "delete it and run run_segmentation.py again"
        )
    return parsing


def _read_crop(path: Path) -> "np.ndarray":
    from segmentation.classes import SIZE

    face = read_image(path)
    if face.shape != (SIZE, SIZE, 3):
        raise PipelineError(
            f"{path} is no face crop: {face.shape[1]}x{face.shape[0]} pixels instead of {SIZE}x{SIZE}; delete it and "
            "run run_segmentation.py again"
        )
    return face


def _normalised(work: Plan, raw: "pd.DataFrame"):
    """Return the fitted normalisation and the table of z-scores with the profile's policy for missing values."""
    from property_score.measure import PROPERTIES
    from property_score.normalisation import Normalisation
    from property_score.tables import SCORE_COLUMNS

    # Scorers apply the saved normalisation to columns without the ending of the tables.
    plain = raw.rename(columns=dict(zip(SCORE_COLUMNS, PROPERTIES, strict=True)))
    normalisation = Normalisation.fit(plain, PROPERTIES, robust=work.robust)
    scores = normalisation.apply(plain).rename(columns=dict(zip(PROPERTIES, SCORE_COLUMNS, strict=True)))
    if work.missing == "impute":
        for name in SCORE_COLUMNS:
            scores[name] = scores[name].fillna(scores[name].median())
    return normalisation, scores.round(dict.fromkeys(SCORE_COLUMNS, DECIMALS))


def _run(options: Options) -> Run:
    return Run(options.run or ("runs/photos" if options.images else StageOptions.run))


if __name__ == "__main__":
    main(Options, run, EXAMPLES)
