"""A profile names the generator, parser and scorers of a run and holds every stage's preset numbers."""

import math
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
# What stands at the top of a profile: two values, the files, and a section for each stage.
SECTIONS = (
    *("resolution", "half", "weights", "weights_from", "download", "stylegan", "cnn", "segmentation", "property_score"),
    *("property_cnn", "finetune", "vectorfind"),
)
# The files of [weights]; those of the fine-tuning family are named by their version, and more of them may stand there.
WEIGHTS = (
    *("generator", "discriminator", "labels", "parsenet", "facexformer", "attribute_net", "property_cnn"),
    *("second_grader", "generator_v1", "generator_v9", "discriminator_v9"),
)
_OF_THE_FAMILY = re.compile(r"(generator|discriminator)_v[1-9](_[1-3])?(_published)?")
_REQUIRED = object()
_EXPECTED = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


class Profile:
    """Settings of one world, read from `profiles/{name}.toml`.

    A profile may start from another one with `extends = "demo"`: its own keys win, section by section.
    """

    def __init__(self, name: str, path: Path, settings: dict[str, Any]):
        self.name, self.path, self.settings = name, path, settings
        self.refuse_unknown("", settings, SECTIONS)
        files = (name for name in self.section("weights") if not _OF_THE_FAMILY.fullmatch(name))
        self.refuse_unknown("weights", files, WEIGHTS)
        self.resolution: int = self.read("resolution", int, low=1)

    @classmethod
    def load(cls, name: str | Path) -> "Profile":
        """Read a profile by name (`demo`) or by path (`my/profile.toml`); PipelineError if absent or malformed."""
        path = Path(name)
        if path.suffix != ".toml":
            path = ROOT / "profiles" / f"{name}.toml"
        return cls(path.stem, path, _read(path, parents=()))

    def section(self, name: str) -> dict[str, Any]:
        """Return a copy of one section (`[cnn]`); empty when the profile has none."""
        value = self.get(name, {})
        if not isinstance(value, dict):
            raise PipelineError(f"profile {self.path}: '{name}' must be a section [{name}], found {value!r}")
        return dict(value)

    def get(self, key: str, default: Any = _REQUIRED) -> Any:
        """Return the value at a dotted key (`cnn.batch`) or the default; PipelineError if there is neither."""
        value: Any = self.settings
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                if default is _REQUIRED:
                    raise PipelineError(f"profile {self.path}: '{key}' is missing; add it (profiles/demo.toml has one)")
                return default
            value = value[part]
        return value

    def read(
        self,
        key: str,
        kind: type,
        default: Any = _REQUIRED,
        *,
        low: float | None = None,
        high: float | None = None,
        above: float | None = None,
    ) -> Any:
        """Return the value at a dotted key as a `kind`, or the default as it is.

        kind: int, float (whole numbers count, nan and infinity do not), bool or str. Numbers must be at least `low`, at
        most `high` and larger than `above`. PipelineError names file, key and what is expected.
        """
        value = self.get(key, default)
        if value is default:
            return value
        if not _is_a(value, kind) or not _is_within(value, low, high, above):
            section, _, name = key.rpartition(".")
            bounds = ((low, "at least"), (above, "more than"), (high, "at most"))
            told = " and ".join(f"{words} {bound}" for bound, words in bounds if bound is not None)
            raise PipelineError(
                f"profile {self.path}: {f'[{section}] ' if section else ''}{name} = {value!r}; "
                f"write {_EXPECTED[kind]}{f' of {told}' if told else ''}"
            )
        return kind(value)

    def refuse_unknown(self, section: str, given: Iterable[str], known: Iterable[str]) -> None:
        """PipelineError for keys of a section ("" for the top) that nobody reads, most likely misspelt."""
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise PipelineError(
                f"profile {self.path}{f', section [{section}]' if section else ''}: unknown key {', '.join(unknown)}; "
                f"known are {', '.join(sorted(known))}"
            )

    def weight(self, name: str) -> Path:
        """Return the path of a weight file of section [weights]; PipelineError when it is not there."""
        given = self.read(f"weights.{name}", str)
        path = ROOT / given
        if not path.is_file():
            beside = self.path.parent / given
            if given and beside.is_file():
                cure = f"paths under [weights] begin at the project's root; write {beside.resolve()}"
            elif path.is_relative_to(ROOT / "weights" / "demo"):
                cure = "git checkout brings the bundled files back; see MODELS.md"
            else:
                cure = self.get(f"weights_from.{name}", "put it there, or name another by its whole path")
            raise PipelineError(
                f"weight file '{name}' of profile {self.name} is missing: {shown(path)}\n  cure: {cure}"
            )
        return path


def _is_a(value: Any, kind: type) -> bool:
    if kind is not bool and isinstance(value, bool):
        return False  # Python counts True as 1, a profile does not
    if kind is float:
        return isinstance(value, (int, float)) and math.isfinite(value)
    return isinstance(value, kind)


def _is_within(value: Any, low: float | None, high: float | None, above: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high) and (above is None or value > above)


def shown(path: Path | str) -> str:
    """Return a path as people know it: relative to the project or the working folder when it lies inside."""
    path = Path(path)
    for base in (Path.cwd(), ROOT):
        if path.is_absolute() and path.is_relative_to(base):
            return path.relative_to(base).as_posix()
    return path.as_posix()


def _read(path: Path, parents: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in parents:
        raise PipelineError(f"profile {path}: 'extends' leads back to itself")
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(other.stem for other in (ROOT / "profiles").glob("*.toml")))
        raise PipelineError(
            f"profile not found: {path}; known profiles: {known}, or give the path of a .toml"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PipelineError(f"profile {path} is not valid TOML: {error}") from None
    base = settings.pop("extends", None)
    if base is None:
        return settings
    base_path = ROOT / "profiles" / f"{base}.toml" if not str(base).endswith(".toml") else path.parent / base
    return _merged(_read(base_path, (*parents, path.resolve())), settings)


def _merged(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in own.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        result[key] = _merged(base[key], value) if both else value
    return result
