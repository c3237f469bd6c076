"""Stage 3 on a run folder: find, crop and parse the face of each picture, be it of a generator or of a camera."""

import json
import shutil
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artefacts import (
    atomic,
    check_whole,
    code_version,
    digest,
    is_fresh,
    read_image,
    read_json,
    remove_leftovers,
    stamp_path,
    write_stamp,
)
from pipeline.command import Summary, limit_threads, resolve_device
from pipeline.errors import PipelineError
from pipeline.images import NUMBERED
from pipeline.precision import wants_half
from pipeline.profile import Profile
from pipeline.progress import progress
from pipeline.run import Run
from pipeline.whole import is_leftover
from segmentation.photographs import (
    GROUND,
    Photograph,
    UnreadablePhotograph,
    find_face,
    list_photographs,
    listing_digest,
    shown_name,
)
from segmentation.tables import (
    KINDS,
    RESULT_NAME,
    RESULTS,
    TABLE,
    is_of_photographs,
    photograph_schema,
    result_name,
    segmentation_schema,
)

if TYPE_CHECKING:
    import numpy as np
    import torch

    from segmentation.face_crop import Detection, FaceCropper

COMMAND = "run_segmentation.py"
CODE = (
    "segmentation.stage",
    "segmentation.classes",
    "segmentation.face_crop",
    "segmentation.parser",
    "segmentation.tables",
)
PARSER_CODE = {
    "parsenet": ("segmentation.parsenet",),
    "facexformer": ("segmentation.facexformer", "segmentation.facexformer_parser"),
}
FILTERED = "stylegan/synthesize_results_filtered"
NO_BOX = (None,) * 4
LISTED = 10
UNREADABLE = "unreadable"

Record = dict[str, Any]


@dataclass
class Plan:
    """What one call of stage 3 will do, known before the networks are loaded."""

    profile: Profile
    run: Run
    sources: dict[int, Path]
    photographs: bool
    stamp: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    @property
    def results(self) -> Path:
        return self.run.path(*RESULTS.split("/"))

    @property
    def table(self) -> Path:
        return self.run.path(*TABLE.split("/"))

    @property
    def journal(self) -> Path:
        return self.results.with_name("segmentation_results.jsonl")

    def pictures(self, img_no: int) -> list[Path]:
        """Return the paths of the three pictures of an image, in the order of KINDS."""
        return [self.results / result_name(kind, img_no) for kind in KINDS]

    def shown(self, img_no: int) -> str:
        """Return the file name of an image's source."""
        return shown_name(self.sources[img_no])


def plan_filtered(profile: Profile, run: Run) -> Plan:
    """Plan to parse the faces that stage 2 let pass; PipelineError when it has not run or a file is foreign."""
    folder = run.path(*FILTERED.split("/"))
    table = run.path(*TABLE.split("/"))
    if table.is_file() and is_of_photographs(table):
        raise PipelineError(
            f"{run} holds the results of photographs; give generated faces a run folder of their own with --run"
        )
    check_whole(folder, f"run run_cnn.py --run {run} again")
    sources, notes = {}, []
    for path in sorted(folder.glob("*.jpg")):
        if is_leftover(path):
            continue
        if not NUMBERED.fullmatch(path.name):
            raise PipelineError(f"{path}: a filtered picture is named by its number, like 000004.jpg; remove the file")
        sources[int(path.stem)] = path
    if not sources:
        stamp = stamp_path(folder)
        if not stamp.is_file() or read_json(stamp).get("rows") != 0:
            raise PipelineError(
                f"{folder} holds no pictures; run run_cnn.py first, which puts the filtered faces there, or give "
                "photographs of your own with --images FOLDER"
            )
        notes.append("no face passed the filter of stage 2, so there is nothing to parse; the table is empty")
    options, inputs, code = _parser(profile)
    stamp = {"options": options, "seed": None, "inputs": {"pictures": folder, **inputs}, "code": code}
    return Plan(profile, run, sources, False, stamp, notes)


def plan_photographs(profile: Profile, run: Run, folder: Path | str) -> Plan:
    """Plan to parse the photographs of a folder, numbered in the order of their names.

    PipelineError when there is none, or the run is one of generated faces.
    """
    if run.path("stylegan").exists():
        raise PipelineError(
            f"{run} is a run of generated faces; give photographs a run folder of their own, as in --run runs/photos"
        )
    photographs, others = list_photographs(folder)
    notes = []
    if others:
        named = ", ".join(others[:LISTED]) + (", ..." if len(others) > LISTED else "")
        notes.append(f"left out {len(others)} files that are no JPEG, PNG or WebP by their ending: {named}")
    options, inputs, code = _parser(profile, "segmentation.photographs")
    options |= {"photographs": len(photographs), "listing": listing_digest(photographs)}
    stamp = {"options": options, "seed": None, "inputs": inputs, "code": code}
    return Plan(profile, run, dict(enumerate(photographs)), True, stamp, notes)


def parse_pictures(work: Plan, device: str = "auto", force: bool = False) -> None:
    """Parse what is missing or stale, and print the summary.

    A picture without a face is told and skipped. A photograph that cannot be read is, too; a generated picture that
    cannot is a PipelineError, and so are results of somebody else in the folder, unless `force` replaces them.
    """
    summary = Summary("3 parse the photographs" if work.photographs else "3 parse the filtered faces")
    for note in work.notes:
        summary.note(note)
    reasons = [is_fresh(path, **work.stamp) for path in (work.results, work.table)]
    if all(fresh for fresh, _ in reasons) and not force:
        summary.kept(work.results)
        summary.kept(work.table)
        summary.print()
        return

    own = _own_pictures(work, force)
    where = resolve_device(device)  # a device that is not there is told before anything is deleted
    origin = {
        "code": work.stamp["code"],
        "parser": work.stamp["options"]["parser"],
        "half": work.stamp["options"]["half"],
        "weights": digest(work.stamp["inputs"]["parser"]),
    }
    digests = {img_no: _digest(path) for img_no, path in work.sources.items()}
    records, moved = ({}, {}) if force else _survivors(work, origin, digests)
    if records:
        summary.note(f"{len(records)} pictures of an earlier run were parsed already and stayed")
    _write_journal(work, origin, {img_no: record for img_no, record in records.items() if img_no not in moved}, own)
    _renumber(work, records, moved)
    _clear_folder(work, records, own)
    _write_journal(work, origin, records)
    missing = [img_no for img_no in work.sources if img_no not in records]
    if missing:
        limit_threads()
        for record in _parse(work, missing, digests, where):
            records[record["img_no"]] = record
    _write_journal(work, origin, records)
    _write_table(work, records)
    for path, what in ((work.results, f"{len(KINDS)} pictures per face"), (work.table, f"{len(records)} rows")):
        write_stamp(path, command=COMMAND, rows=len(records), **work.stamp)
        summary.wrote(path, what)
    _tell(work, records, summary)
    summary.print()


def _parser(profile: Profile, *more_code: str) -> tuple[dict[str, Any], dict[str, Path], str]:
    """Options, inputs and code of a stamp, as far as the parser decides them."""
    profile.refuse_unknown("segmentation", profile.section("segmentation"), ("parser",))
    parser = str(profile.get("segmentation.parser", "parsenet"))
    if parser not in PARSER_CODE:
        raise PipelineError(
            f"profile {profile.path}: unknown face parser '{parser}' in [segmentation]; use {', '.join(PARSER_CODE)}"
        )
    code = code_version(*CODE, *more_code, *PARSER_CODE[parser])
    return {"parser": parser, "half": wants_half(profile)}, {"parser": profile.weight(parser)}, code


def _parse(work: Plan, missing: list[int], digests: dict[int, str], device: "torch.device") -> Iterator[Record]:
    """Parse pictures batch by batch; a record is in the journal once its pictures are on the disk."""
    from segmentation.face_crop import FaceCropper
    from segmentation.parser import load_parser

    cropper, parser = FaceCropper(device), load_parser(work.profile, device)
    look = _look_at_photograph if work.photographs else _look_at_picture
    batch = 16 if device.type == "cpu" else 64
    with (
        work.journal.open("a", encoding="utf-8") as journal,
        ThreadPoolExecutor(2) as pool,
        progress(len(missing), "parse") as bar,
    ):
        written: list[Future] = []
        waiting: list[Record] = []
        for start in range(0, len(missing) + batch, batch):
            part = missing[start : start + batch]
            # One at a time: of a photograph only its crop stays in memory.
            seen = [look(cropper, work.sources[img_no]) for img_no in part]
            jobs = _pictures(work, parser, {k: face for k, (_, face, _) in zip(part, seen) if face is not None})
            # The last batch is packed into files while this one is parsed.
            for future in written:
                future.result()
            journal.writelines(json.dumps(record) + "\n" for record in waiting)
            journal.flush()
            bar.update(len(waiting))
            yield from waiting
            written = [pool.submit(_save_png, *job) for job in jobs]
            waiting = [
                {
                    "img_no": k,
                    "source": digests[k],
                    "box": hit.box,
                    "reason": hit.reason,
                    "faces": hit.faces,
                    "note": note,
                }
                for k, (hit, _, note) in zip(part, seen, strict=True)
            ]


def _look_at_picture(cropper: "FaceCropper", path: Path) -> "tuple[Detection, np.ndarray | None, str]":
    """Detection, crop (None without a face) and remark for a generated picture."""
    from segmentation.face_crop import crop

    image = read_image(path)
    (hit,) = cropper.detect([image])
    return hit, None if hit.box is None else crop(image, hit.box), ""


def _look_at_photograph(cropper: "FaceCropper", path: Path) -> "tuple[Detection, np.ndarray | None, str]":
    """The same for a photograph; one that cannot be read has a reason like one without a face."""
    from segmentation.face_crop import Detection

    try:
        photograph = Photograph.open(path)
    except UnreadablePhotograph as error:
        return Detection(None, f"cannot be read: {error}"), None, ""
    hit, face = find_face(cropper, photograph)
    remarks = {
        f"the largest of {hit.faces} faces": hit.faces > 1,
        f"transparent parts shown on {GROUND}": photograph.transparent,
    }
    return hit, face, "; ".join(text for text, holds in remarks.items() if holds)


def _pictures(work: Plan, parser, crops: "dict[int, np.ndarray]") -> "list[tuple[Path, np.ndarray]]":
    """Return the files to write for the face crops of one batch: path and content."""
    import numpy as np

    from segmentation.classes import overlay
    from segmentation.parser import to_tensor

    if not crops:
        return []
    maps = parser.parse(to_tensor(np.stack(list(crops.values()))))
    return [
        job
        for (img_no, face), parsing in zip(crops.items(), maps, strict=True)
        for job in zip(work.pictures(img_no), (parsing, overlay(face, parsing), face), strict=True)
    ]


def _save_png(path: Path, image: "np.ndarray") -> None:
    from PIL import Image

    with atomic(path) as temporary:
        # Half the work of the stage would be the default compression, for files a tenth smaller.
        Image.fromarray(image).save(temporary, compress_level=1)


def _journal_of(work: Plan) -> tuple[dict[str, Any], list[Record]]:
    """Return what an earlier run noted: the heading of its journal (empty without one), and the records.

    The heading tells the origin of the records and the pictures, by name, that may lie in the folder.
    """
    try:
        lines = work.journal.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}, []
    values = []
    for line in lines:
        try:
            values.append(json.loads(line))
        except json.JSONDecodeError:
            break  # the line that a killed run was writing
    return (values[0], values[1:]) if values else ({}, [])


def _survivors(work: Plan, origin: dict[str, Any], digests: dict[int, str]) -> tuple[dict[int, Record], dict[int, int]]:
    """Return the records of an earlier run that still hold, and which of them have another number now (now -> before).

    One holds with the same content, code and weights, and its pictures there: photographs are numbered by the order of
    their names, so that one more renumbers those behind it. PipelineError when an earlier run parsed other photographs,
    whose results would be lost.
    """
    heading, records = _journal_of(work)
    if work.photographs and records and not {record["source"] for record in records} & set(digests.values()):
        raise PipelineError(
            f"{work.run} holds the results of {len(records)} other photographs; give these a run folder of their own "
            "with --run, or replace the results with --force"
        )
    if heading.get("origin") != origin:
        return {}, {}
    there = {path.name for path in work.results.glob("*.png")}
    by_number, by_source = {}, {}
    for record in records:
        if record["box"] is None or all(path.name in there for path in work.pictures(record["img_no"])):
            by_number[record["img_no"]] = by_source[record["source"]] = record
    kept, moved = {}, {}
    for img_no, source in digests.items():
        record = by_number.get(img_no)
        if record is None or record["source"] != source:
            record = by_source.get(source) if work.photographs else None
        if record is not None and source != UNREADABLE:
            kept[img_no] = {**record, "img_no": img_no}
            if record["img_no"] != img_no:
                moved[img_no] = record["img_no"]
    return kept, moved


def _renumber(work: Plan, records: dict[int, Record], moved: dict[int, int]) -> None:
    """Give the pictures of moved records their new names; a kill in between costs parsing these again, no more."""
    pairs = [
        pair
        for now, before in moved.items()
        if records[now]["box"] is not None
        for pair in zip(work.pictures(before), work.pictures(now), strict=True)
    ]
    # All are copied before the first is overwritten: 3 may become 4 while 4 becomes 5.
    with ExitStack() as copies:
        for before, now in pairs:
            shutil.copyfile(before, copies.enter_context(atomic(now)))


def _own_pictures(work: Plan, force: bool) -> set[str]:
    """Return the names of the pictures in the folder that this stage wrote; with `force` of all that are named so.

    PipelineError where others have such names: they are somebody's, and not to delete.
    """
    there = {path.name for path in work.results.glob("*.png") if RESULT_NAME.fullmatch(path.name)}
    heading, _ = _journal_of(work)
    # Journals of earlier code do not list pictures.
    own = there if force or (heading and "pictures" not in heading) else there & set(heading.get("pictures", ()))
    if strangers := sorted(there - own):
        raise PipelineError(
            f"{work.results} holds {len(strangers)} pictures that stage 3 did not write, the first is {strangers[0]}; "
            "move them away, choose another run with --run, or replace them with --force"
        )
    return own


def _clear_folder(work: Plan, records: dict[int, Record], own: set[str]) -> None:
    """Delete the stage's own pictures that belong to no surviving record."""
    remove_leftovers(work.results)
    kept = {path.name for k, record in records.items() if record["box"] is not None for path in work.pictures(k)}
    for name in own - kept:
        (work.results / name).unlink(missing_ok=True)


def _write_journal(
    work: Plan, origin: dict[str, Any], records: dict[int, Record], before: Collection[str] = ()
) -> None:
    """Write the journal anew; beside the pictures that this call makes, those of `before` may lie in the folder."""
    pictures = {path.name for img_no in work.sources for path in work.pictures(img_no)} | set(before)
    heading = {"origin": origin, "pictures": sorted(pictures)}
    lines = [heading, *(records[img_no] for img_no in sorted(records))]
    work.results.mkdir(parents=True, exist_ok=True)
    with atomic(work.journal) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _write_table(work: Plan, records: dict[int, Record]) -> None:
    import pandas as pd

    from pipeline.tables import write_table

    rows = [
        (
            img_no,
            work.shown(img_no) if work.photographs else work.run.relative(work.sources[img_no]),
            record["box"] is not None,
            record["reason"],
            *(record["box"] or NO_BOX),
            record["faces"],
            record["note"],
        )
        for img_no, record in sorted(records.items())
    ]
    schema = photograph_schema() if work.photographs else segmentation_schema()
    frame = pd.DataFrame(rows, columns=[*segmentation_schema().columns, "note"])
    write_table(work.table, frame[list(schema.columns)], schema)


def _tell(work: Plan, records: dict[int, Record], summary: Summary) -> None:
    """Note how many pictures show a face, which show several (photographs only) and which were skipped."""
    ordered = [record for _, record in sorted(records.items())]
    without = [record for record in ordered if record["box"] is None]
    several = [record for record in ordered if record["faces"] > 1 and record["box"] is not None and work.photographs]
    summary.note(f"{len(ordered) - len(without)} of {len(ordered)} pictures show a face")
    for records_of_kind, text in (
        (several, lambda record: f"{work.shown(record['img_no'])}: the largest of {record['faces']} faces was taken"),
        (without, lambda record: f"skipped {work.shown(record['img_no'])}: {record['reason']}"),
    ):
        for record in records_of_kind[:LISTED]:
            summary.note(text(record))
        if len(records_of_kind) > LISTED:
            summary.note(f"... and {len(records_of_kind) - LISTED} more of this kind, see {work.table.name}")


def _digest(path: Path) -> str:
    try:
        return digest(path)
    except OSError:
        return UNREADABLE  # a photograph then gets a row with its reason; a generated picture fails when it is read
