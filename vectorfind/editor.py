"""What every way to edit has in common: the same call for vectors, for gradients and for the closed loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from vectorfind.bench import Bench


class Editor(Protocol):
    """Moves codes so that properties change by wished amounts; made and calibrated on one generator.

    position: where its codes live. score_sds [3]: the deviation of each edited score by the scorer that found it.
    grouping, cuts: the groups of faces it tells apart. provenance: generator_hash and all it was made of.
    """

    position: str
    score_sds: np.ndarray
    grouping: str
    cuts: tuple[float, ...]
    provenance: dict

    def edit(self, codes: np.ndarray, groups, amounts: np.ndarray, raw: bool = False) -> np.ndarray:
        """Codes float32 [N, D] of faces in `groups` [N], moved by amounts [N, 3] in the order of EDITED.

        Amounts are score deviations, or plain latent units when `raw` (the published way). Returns float32 [N, D].
        """
        ...


def load_editor(path: Path, method: str, bench: Bench, identity: Callable[[], object]) -> Editor:
    """The editor that a run saved; PipelineError if it is missing, damaged or of another generator.

    identity: called for the networks that hold identity, when the method is the closed loop.
    """
    if method == "closed_loop":
        from vectorfind.closed_loop import ClosedLoop

        return ClosedLoop.load(path, bench, identity())
    if method == "model_loop":
        from vectorfind.model_loop import ModelLoop

        return ModelLoop.load(path, bench)
    if method in ("gradient", "mixed"):
        from vectorfind.network_editor import NetworkEditor

        return NetworkEditor.load(path, bench)
    from vectorfind.directions import DirectionSet

    return DirectionSet.load(path, bench)
