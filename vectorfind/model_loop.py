"""The closed loop led by a model of the scores: its slopes say where to step, the scorer says what came of it.

The true gradient of a scorer points at what moves the scorer here and now, and half a deviation further at something
else. The model knows the scores over the whole pool, so its slopes carry whole edits; only their lengths are a little
off, which measuring after each step puts right.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pipeline.artefacts import read_arrays, save_arrays
from pipeline.errors import PipelineError
from pipeline.whole import plain
from vectorfind.bench import Bench
from vectorfind.closed_loop import (
    EDITED_COLUMNS,
    OUT_OF_STEPS,
    REACHED,
    TOO_FAR,
    ClosedLoop,
    Walk,
    check_generator,
    shortest_steps,
)
from vectorfind.names import PROPERTIES
from vectorfind.score_model import FLOOR_WIDTH, ScoreModel

# As in the closed loop: next to nothing, so that a score at its floor cannot call for leaps.
FIRM = 0.02


@dataclass(frozen=True)
class ModelLoopOptions:
    """How the loop walks.

    step: most score deviations that one step asks of an edited score; led_back: of a kept one. shares: how much of
    each step is taken, one after the other; their number is that of the steps. tolerance: deviations within which a
    value counts as reached. furthest: longest whole edit in deviations of the pool's codes, stride: longest step.
    softness: Tikhonov term of the kept scores, as a share of their slope's square.
    """

    step: float = 1.0
    led_back: float = 0.1
    shares: tuple[float, ...] = (1.0, 1.0, 0.8, 0.7, 0.6, 0.5, 0.5, 0.5)
    tolerance: float = 0.05
    furthest: float = 8.0
    stride: float = 2.0
    softness: float = 0.05


@dataclass
class ModelLoop(ClosedLoop):
    """An Editor that walks by the slopes of `model`; see ClosedLoop for the rest. Identity is held by short steps."""

    model: ScoreModel | None = None
    options: ModelLoopOptions = ModelLoopOptions()

    @property
    def lowest(self) -> np.ndarray:
        """Least value [8] that is asked of a score: the middle of the heap at its floor, if it has one."""
        return self.model.floors[: len(PROPERTIES)] - FLOOR_WIDTH / 2

    def walk(self, codes: np.ndarray, amounts: np.ndarray) -> Walk:
        """Move codes [N, D] until each edited score has changed by its amount [N, 3] (score deviations).

        Of all points on the way the one nearest to the wish counts, by the largest miss of the three.
        """
        codes, options = np.asarray(codes, np.float32), self.options
        starts, origin = np.unique(codes, axis=0, return_inverse=True)
        origin = origin.reshape(-1)
        told = self.model.tell(starts)[origin]
        measured = len(PROPERTIES)
        # Beside the scores, which are measured after each step, the rest that should stay is what the model tells.
        now = np.concatenate([self._readings(starts, None)[origin], told[:, measured:]], 1)
        target = now.copy()
        target[:, EDITED_COLUMNS] += np.asarray(amounts, np.float32)
        target[:, :measured] = np.maximum(target[:, :measured], np.minimum(self.lowest, now[:, :measured]))
        moved, lengths = np.zeros_like(codes), np.zeros(len(codes), np.float32)
        steps = np.zeros(len(codes), int)
        best, best_moved, best_scores = _miss(target, now), moved.copy(), now.copy()
        edited = np.isin(np.arange(now.shape[1]), EDITED_COLUMNS)
        most = np.where(edited, options.step, options.led_back)
        for share in options.shares:
            rows = np.flatnonzero(best > options.tolerance)
            if not len(rows):
                break
            slopes = self.model.jacobian(codes[rows] + moved[rows] @ self.factor.T) @ self.factor
            wish = np.clip(target[rows] - now[rows], -most, most)
            damping = np.where(edited, FIRM, options.softness * (slopes**2).sum(2) + 1e-3)
            change = share * shortest_steps(slopes, wish, damping)
            moved[rows] = _within(moved[rows] + _within(change, options.stride), options.furthest)
            there = codes[rows] + moved[rows] @ self.factor.T
            now[rows, :measured] = self._readings(there, None)
            now[rows, measured:] = self.model.tell(there)[:, measured:]
            steps[rows] += 1
            miss = _miss(target, now)
            better = miss < best
            best[better], best_moved[better], best_scores[better] = miss[better], moved[better], now[better]
        lengths = np.linalg.norm(best_moved, axis=1)
        why = np.where(lengths > 0.99 * options.furthest, TOO_FAR, OUT_OF_STEPS).astype(object)
        why[best <= options.tolerance] = REACHED
        ends = (codes + best_moved @ self.factor.T).astype(np.float32)
        return Walk(ends, best_scores[:, :measured] * self.all_sds, np.full(len(codes), np.nan), lengths, steps, why)

    def save(self, path) -> None:
        """Write the model and what the pool taught as one .npz."""
        about = {
            "kind": "model_loop",
            "position": self.position,
            "grouping": self.grouping,
            "cuts": self.cuts,
            "options": asdict(self.options),
            "provenance": self.provenance,
        }
        text = np.array(json.dumps(about, default=plain))
        save_arrays(path, factor=self.factor, all_sds=self.all_sds, about=text, **self.model.arrays())

    @classmethod
    def load(cls, path, bench: Bench, identity=None) -> ModelLoop:
        """Read one; PipelineError if it is unreadable, or of another generator or scorer."""
        path = Path(path)
        if not path.is_file():
            raise PipelineError(f"{path} does not exist: run `python run_vectorfind.py --method model_loop` first")
        arrays = read_arrays(path, ("factor", "all_sds", "about", "model_mean"))
        about = json.loads(str(arrays["about"]))
        check_generator(path, about["provenance"], bench.generator_hash)
        if about["provenance"]["scorer_hash"] != bench.scorer_hash:
            raise PipelineError(f"{path} was made with another scorer: run `run_vectorfind.py directions` again")
        options = about["options"] | {"shares": tuple(about["options"]["shares"])}
        return cls(
            bench,
            about["position"],
            arrays["factor"],
            arrays["all_sds"],
            about["grouping"],
            tuple(about["cuts"]),
            ModelLoopOptions(**options),
            provenance=about["provenance"],
            model=ScoreModel.from_arrays({name: value for name, value in arrays.items() if name.startswith("model_")}),
        )


def _miss(target: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Largest miss [N] of the edited scores, in deviations."""
    return np.abs(target - now)[:, EDITED_COLUMNS].max(1)


def _within(steps: np.ndarray, longest: float) -> np.ndarray:
    """Steps [N, D] shortened to at most `longest`."""
    length = np.linalg.norm(steps, axis=1, keepdims=True)
    return steps * np.minimum(1, longest / np.maximum(length, 1e-9))
