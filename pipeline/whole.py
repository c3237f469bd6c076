"""Files written whole: under a temporary name first, then renamed, so that a killed run leaves no half file."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError

MARK = ".part-"


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; renamed to it on success, removed on error. Parents are created."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last because image and array writers choose the format by it.
    temporary = path.with_name(f"{MARK}{os.getpid()}-{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def is_leftover(path: Path) -> bool:
    """Tell whether a file is an unfinished one of `atomic`."""
    return path.name.startswith(MARK)


def remove_leftovers(folder: Path | str) -> int:
    """Delete what killed runs left unfinished directly in a folder; return how many files that were."""
    leftovers = [path for path in Path(folder).glob(f"{MARK}*") if path.is_file()]
    for path in leftovers:
        path.unlink(missing_ok=True)
    return len(leftovers)


def write_json(path: Path | str, value: Any) -> None:
    """Write a value as readable UTF-8 JSON; paths and numpy numbers are written as plain ones."""
    text = json.dumps(value, indent=1, ensure_ascii=False, default=plain)
    with atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path | str) -> Any:
    """Read a JSON file; PipelineError names the file when it is missing or damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PipelineError(f"{path} is missing; run the stage that writes it") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PipelineError(f"{path} is not valid JSON ({error}); delete it and run its stage again") from None


def plain(value: Any) -> Any:
    """Turn what JSON does not know (paths, sets, numpy numbers and arrays) into what it knows."""
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"cannot write {type(value).__name__} as JSON: {value!r}")
