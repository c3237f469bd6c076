"""Stamps: the JSON beside an artefact that says what made it, and the check whether that still holds.

A stamp holds the command, resolved options, seed, the digest of every input and of the artefact itself, and the code
version. Digests are remembered with size and modification time, so that a check of an unchanged run reads no content.
"""

import hashlib
import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline.errors import PipelineError
from pipeline.whole import is_leftover, plain, read_json, write_json


def stamp_path(path: Path | str) -> Path:
    """Return where the stamp of a file or folder lies: beside it, with `.json` appended."""
    return Path(f"{path}.json")


def write_stamp(
    path: Path | str,
    *,
    command: str,
    options: dict[str, Any],
    seed: int | None,
    inputs: dict[str, Path | str],
    code: str,
    rows: int | None = None,
    beside: Iterable[Path | str] = (),
    extra: dict[str, Any] | None = None,
) -> None:
    """Write the stamp of a finished file or folder.

    inputs: name -> path of a file or folder (values belong into `options`). beside: files that were written with this
    one and count for it, in its folder or below. PipelineError if an input is missing.
    """
    for name, source in {**inputs, "artefact": path}.items():
        if not Path(source).exists():
            raise PipelineError(f"stamp of {path}: {name} {source} is missing; run the stage that writes it")
    stamp = {
        "command": command,
        "options": options,
        "seed": seed,
        "inputs": {name: {"path": _known_path(source), **_measured(Path(source))} for name, source in inputs.items()},
        "code": code,
        "rows": rows,
        "output": _measured(Path(path)),
        "beside": {Path(other).relative_to(Path(path).parent).as_posix(): _measured(Path(other)) for other in beside},
    }
    before = _read_stamp(path) or {}
    if "provenance" in before and before.get("sha256") == stamp["output"]["digest"]:
        stamp |= {"provenance": before["provenance"], "sha256": before["sha256"]}
    write_json(stamp_path(path), {**stamp, **(extra or {})})


def record_beside(path: Path | str) -> dict[str, Any]:
    """The JSON record beside a file or folder, empty where there is none; PipelineError for one that is no record."""
    if not stamp_path(path).exists():
        return {}
    record = read_json(stamp_path(path))
    if not isinstance(record, dict) or not isinstance(record.get("origin") or {}, dict):
        raise PipelineError(
            f"{stamp_path(path)} is no record of {Path(path).name}: expected an object, with an object under origin if "
            "any; restore it, or move it away"
        )
    return record


def provenance_of(path: Path | str) -> dict[str, Any]:
    """Return what the JSON beside a weight file tells of how it was made; empty where it tells nothing of this file.

    A record that holds the sha256 of another content, as after a file was replaced by hand, tells nothing.
    """
    record = record_beside(path)
    if record.get("sha256") and (not Path(path).is_file() or record["sha256"] != file_digest(Path(path))):
        return {}
    return record.get("provenance") or {}


def is_fresh(
    path: Path | str, *, options: dict[str, Any], seed: int | None, inputs: dict[str, Path | str], code: str
) -> tuple[bool, str]:
    """Tell whether an artefact exists and would come out the same again, and why not.

    Returns (True, "fresh") or (False, reason).
    """
    path = Path(path)
    if not path.exists():
        return False, "missing"
    stamp = _read_stamp(path)
    if stamp is None or "inputs" not in stamp:
        return False, "no stamp beside it"
    if stamp["code"] != code:
        return False, "code changed"
    if stamp["seed"] != seed:
        return False, f"seed changed from {stamp['seed']} to {seed}"
    reason = _options_changed(stamp["options"], json.loads(json.dumps(options, default=plain)))
    if reason:
        return False, reason
    if set(stamp["inputs"]) != set(inputs):
        return False, "other inputs"
    for name, source in inputs.items():
        if not Path(source).exists():
            return False, f"input {name} is missing"
        if not _unchanged(Path(source), stamp["inputs"][name]):
            return False, f"input {name} changed"
    if not _unchanged(path, stamp["output"]):
        return False, "changed since it was written"
    for name, measured in (stamp.get("beside") or {}).items():
        other = path.parent / name
        if not other.exists():
            return False, f"{other.name} is missing"
        if not _unchanged(other, measured):
            return False, f"{other.name} changed since it was written"
    return True, "fresh"


def refuse_stranger(path: Path | str, ours: Path | str | None = None, key: str = "") -> None:
    """PipelineError for a file that no stage wrote, as its stamp or the lack of one tells, and that is no copy of ours.

    ours: the file that would be copied over it, if it is known. key: where a profile names such a file, if it can.
    """
    path = Path(path)
    if not path.exists():
        return
    stamp = _read_stamp(path) or {}
    written = _unchanged(path, stamp["output"]) if "output" in stamp else stamp.get("sha256") == file_digest(path)
    if not written and (ours is None or file_digest(path) != file_digest(Path(ours))):
        cure = "move it away"
        if key:
            cure = f"name it as {key} in a profile of your own, {cure}" if ours else f"{cure} and name it as {key}"
        raise PipelineError(
            f"{path} was put there, or changed, by hand and would be written over; {cure}, or replace it with --force"
        )


def check_whole(folder: Path | str, cure: str) -> None:
    """PipelineError if the record beside a folder says that it was begun and not that it was finished.

    A folder without a record is somebody's own and passes.
    """
    record = _read_stamp(folder)
    if record is not None and "output" not in record:
        raise PipelineError(f"{folder} was not finished when its stage was stopped; {cure}")


def code_version(*modules: ModuleType | str) -> str:
    """Return a hash of the source text of modules; a stage names those whose change must make it stale.

    A module may be given by its dotted name (then it is not imported); a package stands for all files in its folder.
    """
    total = hashlib.sha256()
    for module in modules:
        for file in _sources(module):
            total.update(file.read_text(encoding="utf-8").encode("utf-8"))
    return total.hexdigest()[:16]


def digest(path: Path | str) -> str:
    """Return the sha256 of a file's content, or of the sorted names and sizes inside a folder."""
    path = Path(path)
    return _folder_measure(path)["digest"] if path.is_dir() else file_digest(path)


def file_digest(path: Path) -> str:
    """Return the sha256 hex digest of a file's content."""
    total = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def _sources(module: ModuleType | str) -> list[Path]:
    if isinstance(module, ModuleType):
        origin = getattr(module, "__file__", None)
    else:
        try:
            spec = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            spec = None
        origin = spec.origin if spec else None
    if not origin:
        raise PipelineError(f"code version: no source file for module {module}")
    file = Path(origin)
    return sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]


def _measured(path: Path) -> dict[str, Any]:
    if path.is_dir():
        return _folder_measure(path)
    status = path.stat()
    return {"digest": file_digest(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _folder_measure(folder: Path) -> dict[str, Any]:
    total, count = hashlib.sha256(), 0
    for path in sorted(folder.rglob("*")):
        # Stamps hold times, so they would make equal folders differ.
        is_stamp = path.suffix == ".json" and path.with_suffix("").exists()
        if path.is_file() and not is_stamp and not is_leftover(path):
            entry = f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\n"
            total.update(entry.encode("utf-8", "surrogateescape"))  # an old disk's names need not be UTF-8
            count += 1
    return {"digest": total.hexdigest(), "files": count}


def _unchanged(path: Path, before: dict[str, Any]) -> bool:
    if path.is_dir():
        return _folder_measure(path)["digest"] == before["digest"]
    status = path.stat()
    if "size" not in before or status.st_size != before["size"]:
        return False
    return status.st_mtime_ns == before["mtime_ns"] or file_digest(path) == before["digest"]


def _options_changed(before: dict[str, Any], now: dict[str, Any]) -> str:
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name) or (name in before) != (name in now):
            return f"option {name} changed from {_short(before.get(name))} to {_short(now.get(name))}"
    return ""


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _known_path(path: Path | str) -> str:
    path = Path(path)
    absolute = path.resolve()
    return absolute.relative_to(Path.cwd()).as_posix() if absolute.is_relative_to(Path.cwd()) else path.name


def _read_stamp(path: Path | str) -> dict[str, Any] | None:
    try:
        stamp = json.loads(stamp_path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    return stamp if isinstance(stamp, dict) else None
