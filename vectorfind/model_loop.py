"""The closed loop led by a model of the scores: the model plans a whole edit, the scorer says what came of it.

The true gradient of a scorer points at what moves the scorer here and now, and half a deviation further at something
else. The model knows the scores over the whole pool, so its slopes carry whole edits, and a walk through it costs no
image. What it gets wrong is measured at the end of the walk and asked for again; but the scorer errs too, and a loop
that follows it to the letter puts its errors into the face. Where the two disagree the truth is taken to lie between,
unless the scorer saw the opposite of the wish: then the model has nothing to say about this face.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from pipeline.errors import PipelineError
from vectorfind.bench import Bench
from vectorfind.closed_loop import (
    EDITED_COLUMNS,
    OTHER_VERSION,
    OUT_OF_STEPS,
    REACHED,
    TOO_FAR,
    ClosedLoop,
    Walk,
    read_loop,
    save_loop,
)
from vectorfind.names import PROPERTIES
from vectorfind.score_model import FLOOR_WIDTH, EditModel, ScoreModel

# As in the closed loop: next to nothing, so that a score at its floor cannot call for leaps.
FIRM = 0.02
# How far below a floor the model is to tell, where the floor is asked for.
WELL_BELOW = 0.05
SCORES = len(PROPERTIES)
ENDED = "end of the score"


@dataclass(frozen=True)
class ModelLoopOptions:
    """How the loop walks.

    rounds: plans, each followed by a measurement. steps: of a plan. step: most score deviations that a step asks of an
    edited score; led_back: of a kept one. tolerance: deviations within which a value counts as reached. furthest:
    longest whole edit in deviations of the pool's codes, stride: longest step. softness: Tikhonov term of what is kept,
    as a share of its slope's square. trust: how far the scorer is believed against the model about what an edit has
    changed; 1: its reading is the truth, 0: the model's word is (the gain of a Kalman filter, held fixed). A score that
    moved the other way than wished is believed whatever the trust. backtrack: further rounds after those, each from
    the best plan so far, that ask for half of what is missing, and after each that brought nothing for half of that:
    where the model learnt from a few thousand samples, they bring what the rounds before overshot.
    """

    rounds: int = 6
    steps: int = 16
    step: float = 0.4
    led_back: float = 0.1
    tolerance: float = 0.05
    furthest: float = 8.0
    stride: float = 1.0
    softness: float = 0.05
    trust: float = 0.5
    backtrack: int = 3


@dataclass
class ModelLoop(ClosedLoop):
    """An Editor that walks through `model`; see ClosedLoop for the rest.

    ends [8, 2]: between which values scores lie in the pool, in deviations; no more is asked of one.
    """

    model: ScoreModel | None = None
    ends: np.ndarray | None = None
    options: ModelLoopOptions = ModelLoopOptions()

    def walk(self, codes: np.ndarray, amounts: np.ndarray) -> Walk:
        """Move codes [N, D] until each edited score has changed by its amount [N, 3] (score deviations).

        A wish beyond the end of a score is a wish for its end (`why` says so). Of the plans the one counts whose
        outcome, as far as scorer and model are trusted, was nearest to the wish, by the sum of the three misses; the
        scores of the Walk are what the scorer read.
        """
        codes, options = np.asarray(codes, np.float32), self.options
        starts, origin = np.unique(codes, axis=0, return_inverse=True)
        origin = origin.reshape(-1)
        begin, now = self.model.tell(starts)[origin], self._readings(starts, None)[origin]
        target = now.copy()
        target[:, EDITED_COLUMNS] += np.asarray(amounts, np.float32)
        floors = self.model.floors[:SCORES]

        def above(readings: np.ndarray) -> np.ndarray:
            return np.maximum(readings[:, :SCORES], floors)

        # The end of a heap at a floor is its middle: what lies below is no more closed, only measured so.
        low = np.where(floors > self.ends[:, 0], floors - FLOOR_WIDTH / 2, self.ends[:, 0])
        wished, target = target, np.clip(target, np.minimum(low, now), np.maximum(self.ends[:, 1], now))
        moved, told, steps = np.zeros_like(codes), begin.copy(), np.zeros(len(codes), int)
        known = above(now)
        believed = known.copy()
        best, best_moved, best_now = _misses(target, believed, floors), moved.copy(), now.copy()
        best_told, best_believed, gain = told.copy(), believed.copy(), np.ones((len(codes), 1), np.float32)
        for number in range(options.rounds + options.backtrack):
            rows = np.flatnonzero(best.max(1) > options.tolerance)
            if not len(rows):
                break
            if number >= options.rounds:
                moved[rows], told[rows], believed[rows] = best_moved[rows], best_told[rows], best_believed[rows]
            if number == options.rounds:
                gain[:] = 0.5
            goal = begin[rows].copy()
            goal[:, :SCORES] = above(told[rows]) + gain[rows] * (above(target[rows]) - believed[rows])
            ended = target[rows] <= floors
            goal[:, :SCORES][ended] = np.minimum(told[rows, :SCORES], floors - WELL_BELOW)[ended]
            moved[rows] = self._plan(codes[rows], moved[rows], goal)
            there = codes[rows] + moved[rows] @ self.factor.T
            told[rows], now[rows] = self.model.tell(there), self._readings(there, None)
            steps[rows] += options.steps
            by_model = above(known[rows] + above(told[rows]) - above(begin[rows]))
            read = above(now[rows])
            opposite = (read - known[rows]) * (above(target[rows]) - known[rows]) < 0
            believed[rows] = np.where(opposite, read, by_model + options.trust * (read - by_model))
            misses = _misses(target[rows], believed[rows], floors)
            better = misses.sum(1) < best[rows].sum(1)
            kept = rows[better]
            best[kept], best_moved[kept], best_now[kept] = misses[better], moved[kept], now[kept]
            best_told[kept], best_believed[kept] = told[kept], believed[kept]
            if number >= options.rounds:
                gain[rows[~better]] *= 0.5
        lengths = np.linalg.norm(best_moved, axis=1)
        why = np.where(lengths > 0.99 * options.furthest, TOO_FAR, OUT_OF_STEPS).astype(object)
        met = best.max(1) <= options.tolerance
        beyond = np.abs(wished - target)[:, EDITED_COLUMNS].max(1)
        why[met] = np.where(beyond <= options.tolerance, REACHED, ENDED)[met]
        ends = (codes + best_moved @ self.factor.T).astype(np.float32)
        return Walk(ends, best_now * self.all_sds, lengths, steps, why)

    def _plan(self, codes: np.ndarray, moved: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """Where a walk through the model ends that begins `moved` [N, D] (pool deviations) from codes [N, D].

        goal [N, R]: what the model should tell there.
        """
        options, edits = self.options, self._edits
        edited = torch.from_numpy(np.isin(np.arange(goal.shape[1]), EDITED_COLUMNS)).to(edits.device)
        most = edits.tensor(np.where(edited.cpu(), options.step, options.led_back))
        with torch.inference_mode():
            start, wanted, place = edits.start(codes), edits.tensor(goal), edits.tensor(moved)
            for _ in range(options.steps):
                told, through = edits.read(start, place)
                gram = edits.gram(through).double()
                squares = gram.diagonal(dim1=1, dim2=2)
                damping = torch.where(edited, FIRM, options.softness * squares + 1e-3)
                wish = torch.maximum(torch.minimum(wanted - told, most), -most)
                amounts = torch.linalg.solve(gram + torch.diag_embed(damping), wish.double())
                change = _within(edits.along(through, amounts.float()), options.stride)
                place = _within(place + change, options.furthest)
        return place.cpu().numpy()

    @cached_property
    def _edits(self) -> EditModel:
        return EditModel(self.model, self.factor, self.bench.device)

    def save(self, path) -> None:
        """Write the model and what the pool taught as one .npz."""
        save_loop(path, self, "model_loop", ends=self.ends, **self.model.arrays())

    @classmethod
    def load(cls, path, bench: Bench, identity=None) -> ModelLoop:
        """Read one; PipelineError if it is unreadable, or of another generator or scorer."""
        known, arrays = read_loop(Path(path), bench, "model_loop", ModelLoopOptions, ("ends", "model_mean"))
        named = {name: value for name, value in arrays.items() if name.startswith("model_")}
        try:
            model = ScoreModel.from_arrays(named)
        except (KeyError, ValueError, RuntimeError) as error:
            raise PipelineError(f"{path} {OTHER_VERSION} ({error})") from error
        return cls(**known, ends=arrays["ends"], model=model)


def _misses(target: np.ndarray, now: np.ndarray, floors: np.ndarray) -> np.ndarray:
    """Misses [N, 3] of the edited scores in deviations; below its floor a score misses nothing."""
    return np.abs(np.maximum(target, floors) - np.maximum(now, floors))[:, EDITED_COLUMNS]


def _within(steps: torch.Tensor, longest: float) -> torch.Tensor:
    """Steps [N, D] shortened to at most `longest`."""
    return steps * (longest / steps.norm(dim=1, keepdim=True).clamp(min=1e-9)).clamp(max=1)
