"""Vector CSVs that somebody put into a run by hand: a run does not write its own over them."""

from __future__ import annotations

from pathlib import Path

from pipeline.artefacts import digest, read_json, stamp_path, write_json
from pipeline.errors import PipelineError
from pipeline.profile import shown
from vectorfind.setting import Files


def refuse_hand_made(files: Files) -> None:
    """PipelineError for vectors in the place of a setting's own that its stamp does not tell of as they are."""
    stamp = stamp_path(files.directions)
    ours = read_json(stamp).get("beside", {}) if stamp.is_file() else {}
    strangers = [path for path in _vectors(files) if path.is_file() and not _is_told(path, ours)]
    if strangers:
        raise PipelineError(
            f"{shown(strangers[0])} was put there, or changed, by hand ({len(strangers)} such files in all) and would "
            "be written over: move them to a folder of their own, which can be given by --vectors, or let them be "
            "replaced with run_vectorfind.py --force"
        )


def begin_vectors(files: Files) -> None:
    """Leave a record in the stamp's place that the vectors are being written: those of a stopped run are no strangers.

    It names no inputs, and so is no stamp.
    """
    vectors = _vectors(files)
    if vectors:
        write_json(stamp_path(files.directions), {"begun": True, "beside": {path.name: None for path in vectors}})


def _vectors(files: Files) -> list[Path]:
    return [path for path in files.direction_files() if path.suffix == ".csv" and path != files.fits]


def _is_told(path: Path, records: dict) -> bool:
    """Whether records tell of a file as it is; one that was begun tells the name only."""
    record = records.get(path.name)
    known = record["digest"] if isinstance(record, dict) else None
    return path.name in records and known in (None, digest(path))
