"""Stage 3: find, crop and parse the face of each filtered picture."""

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artefacts import (
    atomic,
    code_version,
    digest,
    is_fresh,
    read_image,
    remove_leftovers,
    write_stamp,
)
from pipeline.command import StageOptions, Summary, limit_threads, main, resolve_device
from pipeline.errors import PipelineError
from pipeline.profile import Profile
from pipeline.progress import progress
from pipeline.run import Run
from pipeline.whole import is_leftover
from segmentation.tables import KINDS, RESULTS, TABLE, result_name, segmentation_schema

if TYPE_CHECKING:
    import numpy as np

EXAMPLES = """
python run_segmentation.py
python run_segmentation.py --run runs/small --device cpu
"""
CODE = (
    "run_segmentation",
    "segmentation.classes",
    "segmentation.face_crop",
    "segmentation.parser",
    "segmentation.parsenet",
    "segmentation.tables",
)
FILTERED = "stylegan/synthesize_results_filtered"
BATCH = 16
NO_BOX = (None,) * 4

Record = dict[str, Any]


@dataclass
class Options(StageOptions):
    """Stage 3: find, crop and parse the face of each filtered picture.

    Writes segmentation/segmentation.csv and, per face, parsing_*.png (class ids 0..10), parsing_visualization_*.png
    and face_*.png (the crop) in segmentation/segmentation_results/. A picture without a face is reported and skipped.
    Nothing here is random: --seed changes nothing.
    """


@dataclass
class Plan:
    """What one call of this stage will do, known before the networks are loaded."""

    profile: Profile
    run: Run
    sources: dict[int, Path]
    results: Path
    table: Path
    journal: Path
    stamp: dict[str, Any]

    def pictures(self, img_no: int) -> list[Path]:
        """Return the paths of the three pictures of an image, in the order of KINDS."""
        return [self.results / result_name(kind, img_no) for kind in KINDS]


def plan(options: Options) -> Plan:
    """Check what can be checked without the networks: profile, weight file and filtered pictures."""
    profile, run = Profile.load(options.profile), Run(options.run)
    parser = str(profile.get("segmentation.parser", "parsenet"))
    folder = run.path(*FILTERED.split("/"))
    sources = {}
    for path in sorted(folder.glob("*.jpg")):
        if is_leftover(path):
            continue
        if not path.stem.isdigit():
            raise PipelineError(f"{path}: a filtered picture is named by its number, like 000004.jpg; remove the file")
        sources[int(path.stem)] = path
    if not sources:
        raise PipelineError(f"{folder} holds no pictures; run run_cnn.py first, which puts the filtered faces there")
    stamp = {
        "options": {"parser": parser},
        "seed": None,
        "inputs": {"pictures": folder, "parser": profile.weight(parser)},
        "code": code_version(*CODE),
    }
    results, table = run.path(*RESULTS.split("/")), run.path(*TABLE.split("/"))
    return Plan(profile, run, sources, results, table, results.with_name("segmentation_results.jsonl"), stamp)


def run(options: Options) -> None:
    """Parse what is missing or stale."""
    work = plan(options)
    summary = Summary("3 parse the filtered faces")
    reasons = [is_fresh(path, **work.stamp) for path in (work.results, work.table)]
    if all(fresh for fresh, _ in reasons) and not options.force:
        summary.kept(work.results)
        summary.kept(work.table)
        summary.print()
        return

    origin = {"code": work.stamp["code"], **work.stamp["options"], "weights": digest(work.stamp["inputs"]["parser"])}
    digests = {img_no: _digest(path) for img_no, path in work.sources.items()}
    records = {} if options.force else _survivors(work, origin, digests)
    if records:
        summary.note(f"{len(records)} pictures of an earlier run were parsed already and stayed")
    _clear_folder(work, records)
    _write_journal(work, origin, records)
    missing = [img_no for img_no in work.sources if img_no not in records]
    if missing:
        limit_threads()
        for record in _parse(work, missing, digests, resolve_device(options.device)):
            records[record["img_no"]] = record
    _write_journal(work, origin, records)
    _write_table(work, records)
    for path, what in ((work.results, f"{len(KINDS)} pictures per face"), (work.table, f"{len(records)} rows")):
        write_stamp(path, command="run_segmentation.py", rows=len(records), **work.stamp)
        summary.wrote(path, what)
    without = [record for _, record in sorted(records.items()) if record["box"] is None]
    summary.note(f"{len(records) - len(without)} of {len(records)} pictures show a face")
    for record in without[:10]:
        summary.note(f"skipped {work.sources[record['img_no']].name}: {record['reason']}")
    if len(without) > 10:
        summary.note(f"skipped {len(without) - 10} more, see {work.table.name}")
    summary.print()


def _parse(work: Plan, missing: list[int], digests: dict[int, str], device) -> Iterator[Record]:
    """Parse pictures batch by batch; a record is in the journal once its pictures are on the disk."""
    from segmentation.face_crop import FaceCropper
    from segmentation.parser import load_parser

    cropper, parser = FaceCropper(device), load_parser(work.profile, device)
    with (
        work.journal.open("a", encoding="utf-8") as journal,
        ThreadPoolExecutor(2) as pool,
        progress(len(missing), "parse") as bar,
    ):
        written: list[Future] = []
        waiting: list[Record] = []
        for start in range(0, len(missing) + BATCH, BATCH):
            part = missing[start : start + BATCH]
            images = [read_image(work.sources[img_no]) for img_no in part]
            found = cropper.detect(images)
            jobs = _pictures(work, parser, part, images, found)
            # The last batch is packed into files while this one is parsed.
            for future in written:
                future.result()
            journal.writelines(json.dumps(record) + "\n" for record in waiting)
            journal.flush()
            bar.update(len(waiting))
            yield from waiting
            written = [pool.submit(_save_png, *job) for job in jobs]
            waiting = [
                {"img_no": k, "source": digests[k], "box": hit.box, "reason": hit.reason, "faces": hit.faces}
                for k, hit in zip(part, found, strict=True)
            ]


def _pictures(work: Plan, parser, part: list[int], images: list, found: list) -> list[tuple[Path, "np.ndarray"]]:
    """Return the files to write for one batch: path and content."""
    import numpy as np

    from segmentation.classes import overlay
    from segmentation.face_crop import crop
    from segmentation.parser import to_tensor

    with_face = [k for k, hit in enumerate(found) if hit.box is not None]
    if not with_face:
        return []
    faces = np.stack([crop(images[k], found[k].box) for k in with_face])
    maps = parser.parse(to_tensor(faces))
    return [
        job
        for k, face, parsing in zip(with_face, faces, maps, strict=True)
        for job in zip(work.pictures(part[k]), (parsing, overlay(face, parsing), face), strict=True)
    ]


def _save_png(path: Path, image: "np.ndarray") -> None:
    from PIL import Image

    with atomic(path) as temporary:
        # Half the work of the stage would be the default compression, for files a tenth smaller.
        Image.fromarray(image).save(temporary, compress_level=1)


def _survivors(work: Plan, origin: dict[str, Any], digests: dict[int, str]) -> dict[int, Record]:
    """Return the records of an earlier run that still hold: same picture, same code and weights, pictures there."""
    try:
        lines = work.journal.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    records: dict[int, Record] = {}
    for number, line in enumerate(lines):
        try:
            value = json.loads(line)
        except json.JSONDecodeError:
            break  # the line that a killed run was writing
        if number == 0 and value != {"origin": origin}:
            return {}
        if number > 0 and digests.get(value["img_no"]) == value["source"]:
            records[value["img_no"]] = value
    there = {path.name for path in work.results.glob("*.png")}
    return {
        img_no: record
        for img_no, record in records.items()
        if record["box"] is None or all(path.name in there for path in work.pictures(img_no))
    }


def _clear_folder(work: Plan, records: dict[int, Record]) -> None:
    """Delete pictures that belong to no surviving record."""
    remove_leftovers(work.results)
    kept = {path for img_no, record in records.items() if record["box"] is not None for path in work.pictures(img_no)}
    for path in work.results.glob("*.png"):
        if path not in kept:
            path.unlink()


def _write_journal(work: Plan, origin: dict[str, Any], records: dict[int, Record]) -> None:
    lines = [{"origin": origin}, *(records[img_no] for img_no in sorted(records))]
    work.results.mkdir(parents=True, exist_ok=True)
    with atomic(work.journal) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _write_table(work: Plan, records: dict[int, Record]) -> None:
    import pandas as pd

    from pipeline.tables import write_table

    rows = [
        (img_no, work.run.relative(work.sources[img_no]), record["box"] is not None, record["reason"])
        + tuple(record["box"] or NO_BOX)
        + (record["faces"],)
        for img_no, record in sorted(records.items())
    ]
    schema = segmentation_schema()
    write_table(work.table, pd.DataFrame(rows, columns=list(schema.columns)), schema)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main(Options, run, EXAMPLES)
