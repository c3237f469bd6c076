"""What a weight file looks like, and refusals that say so.

This folder knows no networks. A folder that has weight files of its own lists them in its `weight_kinds.py`, as one
function `kind(content: dict[str, Any]) -> str` that returns "" for what it does not know; it is found by that name.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.profile import ROOT

SHOWN = 4


def describe(content: Mapping[str, Any]) -> str:
    """Say in a few words what kind of weight file a dict of tensors comes from; "" when no folder knows it."""
    texts = {key: value for key, value in content.items() if isinstance(key, str)}
    return next((found for kind in _kinds() if (found := kind(texts))), "")


def refusal(headline: str, content: Mapping[str, Any], cure: str, problems: Iterable[str] = ()) -> PipelineError:
    """The error for a dict of tensors that a loader does not want: headline, what it looks like, its keys, the cure.

    headline: which file is not what ("x.pth is not a property CNN"). problems: more lines, for instance missing keys.
    """
    keys = ", ".join(str(key) for key in list(content)[:SHOWN]) or "none"
    more = f" and {len(content) - SHOWN} more" if len(content) > SHOWN else ""
    lines = [
        headline,
        f"looks like: {describe(content) or 'no weight file that this project knows'}",
        f"its keys: {keys}{more}",
        *problems,
        f"cure: {cure}",
    ]
    return PipelineError("\n  ".join(lines))


def shape(content: Mapping[str, Any], key: str, dimensions: int = 0) -> tuple[int, ...]:
    """Shape of an entry; () when it is absent, no tensor, or of another number of dimensions than asked for."""
    found = tuple(getattr(content.get(key), "shape", ()))
    return found if not dimensions or len(found) == dimensions else ()


@lru_cache(maxsize=1)
def _kinds() -> list[Callable[[Mapping[str, Any]], str]]:
    files: list[Path] = sorted(ROOT.glob("*/weight_kinds.py"))
    return [import_module(f"{file.parent.name}.weight_kinds").kind for file in files]
