"""Published weight files of a profile: where each comes from, whether it is there, and fetching it."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artefacts import digest, read_json, read_weights, stamp_path, write_json
from pipeline.errors import PipelineError
from pipeline.profile import ROOT, Profile, shown
from pipeline.recognition import describe, refusal
from pipeline.whole import MARK

FOLDS = 5
CURE = "delete it, or put the right file there, and run this command again"


class Unavailable(Exception):
    """A file cannot be had from its source; the message says why."""


class Offline(Unavailable):
    """No file can be had now."""


Fetch = Callable[[str, str, Path], Path]
"""(repository, name in it, folder to work in) -> the fetched file, or Unavailable; a second call goes on where one
ended."""


@dataclass(frozen=True)
class Source:
    """Where files come from: a repository of the hub that can be fetched from, or a page for people."""

    what: str
    sure: str
    licence: str
    repo: str = ""
    page: str = ""

    @property
    def place(self) -> str:
        """Return where one may get the files."""
        return f"Hugging Face, {self.repo}" if self.repo else self.page


@dataclass(frozen=True)
class Published:
    """One file: name at the source, path here, what it must look like, and who reads it.

    group: "name -> path" for people, the same for the five files of an ensemble.
    """

    source: Source
    name: str
    path: Path
    group: str
    kind: str
    mb: float
    use: str
    without: str = ""
    optional: bool = False
    sha256: str = ""
    bytes: int = 0


@dataclass
class Outcome:
    """What became of a file: "checked" before, "accepted" now, "fetched", or "missing" or "wrong" with the reason."""

    file: Published
    state: str
    reason: str = ""

    @property
    def is_good(self) -> bool:
        return self.state in ("checked", "accepted", "fetched")


def published_files(profile: Profile) -> list[Published]:
    """Read section [download] of a profile; PipelineError for an entry that does not fit."""
    files = []
    for name, table in profile.section("download").items():
        try:
            source = Source(**{key: value for key, value in table.items() if key != "files"})
            for entry in table["files"]:
                for one in _folds(entry):
                    files.append(Published(source=source, path=ROOT / one.pop("to"), **one))
        except (TypeError, KeyError, AttributeError) as error:
            cure = "profiles/celeba256.toml shows what an entry holds"
            raise PipelineError(f"profile {profile.path}, [download.{name}]: {error}; {cure}") from None
    return files


def obtain(file: Published, fetch: Fetch, check: Callable[[Path, str], None]) -> Outcome:
    """Check a file that is there, else fetch it; only what passed the check is put in its place.

    check: (path, kind), loads the file as the stages do; PipelineError when they could not.
    """
    if file.path.is_file():
        before, found = _recorded(file), digest(file.path)
        if before == found and file.sha256 in ("", found):
            return Outcome(file, "checked")
        try:
            _examine(file, file.path, found, check)
        except PipelineError as error:
            return Outcome(file, "wrong", str(error))
        return Outcome(file, "accepted", "another content than when it was last checked" if before else "")
    if not file.source.repo:
        return Outcome(file, "missing", "cannot be fetched by this command")
    try:
        fetched = fetch(file.source.repo, file.name, working_folder(file))
    except Unavailable as error:
        return Outcome(file, "missing", str(error))
    try:
        _examine(file, fetched, digest(fetched), check)
    except PipelineError as error:
        fetched.unlink()
        return Outcome(file, "wrong", f"what was fetched is not it: {error}")
    shutil.move(fetched, file.path)
    return Outcome(file, "fetched")


def working_folder(file: Published) -> Path:
    """Where the unfinished part of a file waits for the next call."""
    return file.path.parent / f"{MARK}download"


def _examine(file: Published, path: Path, found: str, check: Callable[[Path, str], None]) -> None:
    """Compare size, sha256 and kind, load the file, and record its sha256 beside its place."""
    size = path.stat().st_size
    if file.bytes and size != file.bytes:
        raise PipelineError(f"{shown(path)} has {size:,} bytes, expected {file.bytes:,}; {CURE}")
    if file.sha256 and found != file.sha256:
        raise PipelineError(f"{shown(path)} has sha256 {found}, expected {file.sha256}: another version; {CURE}")
    content = read_weights(path)
    if not describe(content).startswith(file.kind):
        raise refusal(f"{shown(path)} is not the file that belongs here ({file.kind})", content, CURE)
    del content
    check(path, file.kind)
    record = {"source": file.source.place, "name": file.name, "kind": file.kind, "licence": file.source.licence}
    write_json(stamp_path(file.path), {"provenance": record, "sha256": found})


def _recorded(file: Published) -> str:
    if not stamp_path(file.path).is_file():
        return ""
    content = read_json(stamp_path(file.path))
    return str(content.get("sha256", "")) if isinstance(content, dict) else ""


def _folds(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """An entry for each value of {fold} in its name, or one."""
    filled = []
    for fold in range(FOLDS if "{fold}" in entry["name"] else 1):
        places = {key: entry[key].replace("{fold}", str(fold)) for key in ("name", "to")}
        group = f"{entry['name']} -> {entry['to']}".replace("{fold}", f"{{0..{FOLDS - 1}}}")
        filled.append({**entry, **places, "group": group})
    return filled
