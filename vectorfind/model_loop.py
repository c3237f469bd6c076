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
    FIRM,
    OTHER_VERSION,
    OUT_OF_STEPS,
    REACHED,
    TOO_FAR,
    ClosedLoop,
    PerEdit,
    Walk,
    read_loop,
    save_loop,
)
from vectorfind.names import PROPERTIES
from vectorfind.score_model import FLOOR_WIDTH, EditModel, ScoreModel

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
class _Plans(PerEdit):
    """One plan for each of N edits, and what came of it.

    moved float32 [N, D]: its end in pool deviations. told [N, R]: what the model says there, now [N, 8]: what the
    scorer reads. believed [N, 8]: the scores as far as scorer and model are trusted. misses [N, 3]: of the edited ones.
    """

    moved: np.ndarray
    told: np.ndarray
    now: np.ndarray
    believed: np.ndarray
    misses: np.ndarray


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
        floors, known = self.model.floors[:SCORES], self._above_floors(now)
        # The end of a heap at a floor is its middle: what lies below is no more closed, only measured so.
        low = np.where(floors > self.ends[:, 0], floors - FLOOR_WIDTH / 2, self.ends[:, 0])
        wished, target = target, np.clip(target, np.minimum(low, now), np.maximum(self.ends[:, 1], now))
        best = _Plans(np.zeros_like(codes), begin.copy(), now.copy(), known.copy(), _misses(target, known, floors))
        last, steps = best.rows(np.arange(len(codes))), np.zeros(len(codes), int)
        gain = np.ones((len(codes), 1), np.float32)
        for number in range(options.rounds + options.backtrack):
            rows = np.flatnonzero(best.misses.max(1) > options.tolerance)
            if not len(rows):
                break
            backtracks = number >= options.rounds
            if number == options.rounds:
                gain[:] = 0.5
            plan = (best if backtracks else last).rows(rows)
            goal = self._goal(begin[rows], target[rows], plan, gain[rows])
            plan.moved = self._plan(codes[rows], plan.moved, goal)
            there = codes[rows] + plan.moved @ self.factor.T
            plan.told, plan.now = self.model.tell(there), self._readings(there, None)
            plan.believed = self._believed(begin[rows], known[rows], target[rows], plan)
            plan.misses = _misses(target[rows], plan.believed, floors)
            steps[rows] += options.steps
            better = plan.misses.sum(1) < best.misses[rows].sum(1)
            last.put(rows, plan)
            best.put(rows[better], plan.rows(better))
            if backtracks:
                gain[rows[~better]] *= 0.5
        lengths = np.linalg.norm(best.moved, axis=1)
        why = np.where(lengths > 0.99 * options.furthest, TOO_FAR, OUT_OF_STEPS).astype(object)
        met = best.misses.max(1) <= options.tolerance
        beyond = np.abs(wished - target)[:, EDITED_COLUMNS].max(1)
        why[met] = np.where(beyond <= options.tolerance, REACHED, ENDED)[met]
        ends = (codes + best.moved @ self.factor.T).astype(np.float32)
        return Walk(ends, best.now * self.all_sds, lengths, steps, why)

    def _above_floors(self, readings: np.ndarray) -> np.ndarray:
        """The eight scores of readings [N, R], raised to their floors."""
        return np.maximum(readings[:, :SCORES], self.model.floors[:SCORES])

    def _goal(self, begin: np.ndarray, target: np.ndarray, plan: _Plans, gain: np.ndarray) -> np.ndarray:
        """What the model should tell [N, R] at the end of the next plan: what it told, and what is missing yet.

        begin [N, R]: what it told of the unedited faces, where other readings stay. gain [N, 1]: share of what is
        missing that is asked for.
        """
        floors, goal = self.model.floors[:SCORES], begin.copy()
        missing = gain * (self._above_floors(target) - plan.believed)
        goal[:, :SCORES] = self._above_floors(plan.told) + missing
        # What the model tells below a floor counts here: where the scorer reads more, it is to go deeper yet.
        ended = target <= floors
        goal[:, :SCORES][ended] = np.minimum(plan.told[:, :SCORES] + missing, floors - WELL_BELOW)[ended]
        return goal

    def _believed(self, begin: np.ndarray, known: np.ndarray, target: np.ndarray, plan: _Plans) -> np.ndarray:
        """The scores [N, 8] at the end of a plan: between what the model says has changed and what the scorer reads.

        known [N, 8]: what the scorer read of the unedited faces.
        """
        by_model = self._above_floors(known + self._above_floors(plan.told) - self._above_floors(begin))
        read = self._above_floors(plan.now)
        opposite = (read - known) * (self._above_floors(target) - known) < 0
        return np.where(opposite, read, by_model + self.options.trust * (read - by_model))

    def _plan(self, codes: np.ndarray, moved: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """Where a walk through the model ends that begins `moved` [N, D] (pool deviations) from codes [N, D].

        goal [N, R]: what the model should tell there. A walk that the slopes of its place lead astray, as those around
        shut eyes may, is walked again from where the model's mean slopes lead, and counts if it comes nearer to its
        goal.
        """
        options, edits = self.options, self._edits
        with torch.inference_mode():
            start, wanted = edits.start(codes), edits.tensor(goal)
            place, missed = self._through_model(start, edits.tensor(moved), wanted)
            astray = torch.nonzero(missed > options.tolerance).flatten()
            if len(astray):
                start, wanted = (start[0][astray], start[1][astray]), wanted[astray]
                told, _ = edits.read(start, torch.zeros_like(place[astray]))
                leap = self._shortest(self._mean_through.expand(len(astray), -1, -1), wanted - told)
                other, still = self._through_model(start, _within(leap, options.furthest), wanted)
                nearer = still < missed[astray]
                place[astray[nearer]] = other[nearer]
        return place.cpu().numpy()

    def _through_model(self, start, place: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The end [N, D] of a walk from place [N, D], and by how much the worst edited score misses there [N].

        start: see EditModel. wanted [N, R]: what the model should tell.
        """
        options, edits = self.options, self._edits
        most = torch.where(self._edited, options.step, options.led_back)
        for _ in range(options.steps):
            told, through = edits.read(start, place)
            change = self._shortest(through, torch.maximum(torch.minimum(wanted - told, most), -most))
            place = _within(place + _within(change, options.stride), options.furthest)
        told, _ = edits.read(start, place)
        floors = edits.tensor(self.model.floors[EDITED_COLUMNS])
        told, wanted = (torch.maximum(values[:, EDITED_COLUMNS], floors) for values in (told, wanted))
        return place, (wanted - told).abs().amax(1)

    def _shortest(self, through: torch.Tensor, wish: torch.Tensor) -> torch.Tensor:
        """Shortest steps [N, D] along the slopes of `through` [N, R, H] that change readings by wish [N, R]."""
        gram = self._edits.gram(through).double()
        kept = self.options.softness * gram.diagonal(dim1=1, dim2=2) + 1e-3
        damping = torch.where(self._edited, FIRM, kept)
        amounts = torch.linalg.solve(gram + torch.diag_embed(damping), wish.double())
        return self._edits.along(through, amounts.float())

    @cached_property
    def _edited(self) -> torch.Tensor:
        edited = np.isin(np.arange(len(self.model.held_r)), EDITED_COLUMNS)
        return torch.from_numpy(edited).to(self._edits.device)

    @cached_property
    def _mean_through(self) -> torch.Tensor:
        return self._edits.mean_through()

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
