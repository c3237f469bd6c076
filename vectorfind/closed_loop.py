"""The closed loop: no fitted direction, but gradients through generator and scorer, until the score is as wished.

Each step is the shortest one (in deviations of the pool's codes) that moves the edited scores as wished and holds what
should stay: hair, background, hairstyle and an identity distance. Shortest steps keep the code where codes lie. After
each step the scores are measured, and the slopes of the edited ones corrected by what it did (Broyden 1965).

The gradient at a single point tells little of the next half deviation: it is steeper than any edit turns out to be, and
points at what moves this scorer here. An edit is carried by the mean of many (as SmoothGrad averages over noise,
Smilkov et al. 2017): over faces of the pool first, and where that walk gets stuck, over the surroundings of the face.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
import torch

from pipeline.artefacts import read_arrays, save_arrays
from pipeline.errors import PipelineError
from pipeline.whole import plain
from vectorfind.bench import Bench, evenly_spaced
from vectorfind.directions import check_belongs
from vectorfind.names import EDITED, PROPERTIES

ALL_COLUMNS = list(range(len(PROPERTIES)))
EDITED_COLUMNS = [PROPERTIES.index(name) for name in EDITED]
# Tikhonov term of the edited rows: next to nothing for a score that moves with the code (its gradient is near 1 per
# pool deviation), but a score that has run into its floor cannot call for leaps that spoil the others.
FIRM = 0.02
# Most deviations per step by which a kept reading is led back: the intended change comes first.
LED_BACK = 0.1
COVARIANCE_ROWS = 10_000
# Of so many faces the slopes around them are kept.
MOST_KNOWN = 1000
REACHED, TOO_FAR, STUCK, OUT_OF_STEPS = "reached", "too far", "stuck", "out of steps"
OTHER_VERSION = "was written by another version of this project: run `run_vectorfind.py directions` again"


@dataclass(frozen=True)
class LoopOptions:
    """How the loop walks.

    step: most score deviations per step: half of it after one that brought nothing, twice as much again after one that
    did. tolerance: deviations within which a value counts as reached. furthest: longest whole edit, in deviations of
    the pool's codes. softness: Tikhonov term of the kept readings, as a share of their own slope's square; 0 would hold
    them at any price. looks: gradients drawn around a face, in pairs, for edits on which the pool's mean slopes got
    stuck; 0 for none. around: how far from it they are drawn, in deviations of the pool's codes in every dimension.
    gain: the second walk, along these, counts instead where it ends nearer by more, in deviations, the misses of the
    three edited scores summed: it follows the scorer more, the face less.
    """

    step: float = 1.2
    tolerance: float = 0.05
    most_steps: int = 20
    furthest: float = 8.0
    softness: float = 0.05
    looks: int = 16
    around: float = 0.7
    gain: float = 0.1


class PerEdit:
    """A dataclass whose fields each hold a row per edit, or None."""

    def rows(self, rows: np.ndarray):
        """A copy of some edits."""
        values = (getattr(self, each.name) for each in fields(self))
        return type(self)(*(None if value is None else value[rows] for value in values))

    def put(self, rows: np.ndarray, other: PerEdit) -> None:
        """Take some edits from another, all of whose rows are theirs."""
        for each in fields(self):
            getattr(self, each.name)[rows] = getattr(other, each.name)


@dataclass
class Walk(PerEdit):
    """Where the loop ended.

    codes float32 [N, D]. scores float32 [N, 8]: as the scorer tells them, not in deviations. length float32 [N] of the
    edits in deviations of the pool's codes. steps int [N] taken. why [N]: REACHED, TOO_FAR, STUCK,
    OUT_OF_STEPS; of a ModelLoop also ENDED.
    """

    codes: np.ndarray
    scores: np.ndarray
    length: np.ndarray
    steps: np.ndarray
    why: np.ndarray


@dataclass
class _Wishes(PerEdit):
    """Where N edits begin and should end.

    codes float32 [N, D]. now, target [N, R]: readings there, in deviations; of target the edited ones are wishes.
    features [N, F]: who the faces are, or None.
    """

    codes: np.ndarray
    now: np.ndarray
    target: np.ndarray
    features: torch.Tensor | None

    def misses(self, readings: np.ndarray) -> np.ndarray:
        """Misses [N, 3] of the edited scores of readings [N, R or 8], in deviations."""
        return np.abs(self.target[:, EDITED_COLUMNS] - readings[:, EDITED_COLUMNS])


@dataclass
class ClosedLoop:
    """An Editor that walks; `factor` [D, D] turns pool deviations into codes (Cholesky factor of their covariance).

    all_sds [8]: deviations of all scores in the pool. identity: a function of images to features [N, F], or None.
    slopes float32 [8, D]: of the scores by `factor`, both in deviations, in the mean over the pool (`slopes_at`).
    """

    bench: Bench
    position: str
    factor: np.ndarray
    all_sds: np.ndarray
    grouping: str = "none"
    cuts: tuple[float, ...] = ()
    options: LoopOptions = field(default_factory=LoopOptions)
    identity: object = None
    identity_spread: float = 1.0
    provenance: dict = field(default_factory=dict)
    slopes: np.ndarray | None = None
    _around: dict[bytes, np.ndarray] = field(default_factory=dict, init=False, repr=False)

    @property
    def score_sds(self) -> np.ndarray:
        return self.all_sds[EDITED_COLUMNS]

    def edit(self, codes: np.ndarray, groups, amounts: np.ndarray, raw: bool = False) -> np.ndarray:
        """See Editor; groups do not matter here. PipelineError for raw amounts: there is no vector to measure along."""
        if raw:
            raise PipelineError(
                "the closed loop has no unit vectors to measure raw amounts along: use --grid deviations"
            )
        return self.walk(codes, amounts).codes

    def walk(self, codes: np.ndarray, amounts: np.ndarray) -> Walk:
        """Move codes [N, D] until each edited score has changed by its amount [N, 3] (score deviations).

        An edit that gets stuck is walked a second time (`LoopOptions.gain`); `steps` are those of the walk that counts.
        """
        codes, options = np.asarray(codes, np.float32), self.options
        # Many edits of one face start at the same point.
        starts, origin = np.unique(codes, axis=0, return_inverse=True)
        origin = origin.reshape(-1)
        features = self._features(starts)
        now = self._readings(starts, features)[origin]
        target = now.copy()
        target[:, EDITED_COLUMNS] += np.asarray(amounts, np.float32)
        wishes = _Wishes(codes, now, target, None if features is None else features[origin])
        walk = self._walk(wishes, np.broadcast_to(self.slopes, (len(codes), *self.slopes.shape)))
        misses = wishes.misses(walk.scores / self.all_sds).sum(1)
        # A miss that the second walk cannot better by the gain is not worth its gradients.
        stuck = np.flatnonzero(np.isin(walk.why, (STUCK, OUT_OF_STEPS)) & (misses > options.gain))
        if len(stuck) and options.looks:
            faces, face = np.unique(origin[stuck], return_inverse=True)
            slopes, again = np.repeat(self.slopes[None], len(faces), axis=0), wishes.rows(stuck)
            around = np.stack([self._slopes_around(starts[row]) for row in faces])
            slopes[:, EDITED_COLUMNS] = (slopes[:, EDITED_COLUMNS] + around) / 2
            other = self._walk(again, slopes[face])
            nearer = again.misses(other.scores / self.all_sds).sum(1) < misses[stuck] - options.gain
            walk.put(stuck[nearer], other.rows(nearer))
        return walk

    def _walk(self, wishes: _Wishes, slopes: np.ndarray) -> Walk:
        """Walk along slopes [N, 8, D] that each step corrects."""
        options, codes, count = self.options, wishes.codes, len(wishes.codes)
        now, moved = wishes.now.copy(), np.zeros_like(codes)
        readings = np.arange(now.shape[1])
        edited = np.isin(readings, EDITED_COLUMNS)
        # Nothing has drifted yet: identity has no slope but what steps teach. Those of the kept scores stay.
        learning = edited | (readings >= len(PROPERTIES))
        jacobian = np.zeros((count, len(readings), codes.shape[1]), np.float32)
        jacobian[:, : len(PROPERTIES)] = slopes
        reach = np.full(count, options.step, np.float32)
        steps, why = np.zeros(count, int), np.full(count, OUT_OF_STEPS, dtype=object)
        walking = np.ones(count, bool)
        for _ in range(options.most_steps):
            done = walking & (wishes.misses(now).max(1) <= options.tolerance)
            why[done], walking = REACHED, walking & ~done
            rows = np.flatnonzero(walking)
            if not len(rows):
                break
            here = wishes.rows(rows)
            most = reach[rows, None] * np.where(edited, 1, LED_BACK / options.step)
            wish = np.clip(here.target - now[rows], -most, most)
            damping = np.where(edited, FIRM, options.softness * (jacobian[rows] ** 2).sum(2) + 1e-3)
            change = shortest_steps(jacobian[rows], wish, damping)
            stride = np.linalg.norm(change, axis=1, keepdims=True)
            # A slope near zero asks for a leap, where it says nothing any more.
            change *= np.minimum(1, options.furthest / 4 / np.maximum(stride, 1e-9))
            goal = moved[rows] + change
            length = np.linalg.norm(goal, axis=1)
            outside = length > options.furthest
            goal[outside] *= (options.furthest / length[outside])[:, None]
            change = goal - moved[rows]
            there = self._readings(here.codes + goal @ self.factor.T, here.features)
            steps[rows] += 1
            surprise = there - now[rows] - np.einsum("nrd,nd->nr", jacobian[rows], change)
            lesson = np.where(learning, surprise, 0) / np.maximum((change**2).sum(1), 1e-12)[:, None]
            jacobian[rows] += lesson[:, :, None] * change[:, None, :]
            before, after = here.misses(now[rows]).sum(1), here.misses(there).sum(1)
            better = after < before
            kept = rows[better]
            moved[kept], now[kept] = goal[better], there[better]
            reach[rows] = np.where(better, np.minimum(2 * reach[rows], options.step), reach[rows] / 2)
            ended = np.where(outside & (after > 0.98 * before), TOO_FAR, "")
            ended[(reach[rows] < options.step / 8) & ~better] = STUCK
            why[rows[ended != ""]] = ended[ended != ""]
            walking[rows[ended != ""]] = False
        why[wishes.misses(now).max(1) <= options.tolerance] = REACHED
        ends = (codes + moved @ self.factor.T).astype(np.float32)
        return Walk(ends, now[:, : len(PROPERTIES)] * self.all_sds, np.linalg.norm(moved, axis=1), steps, why)

    def _slopes_around(self, code: np.ndarray) -> np.ndarray:
        """Mean slopes float32 [3, D] of the edited scores over `looks` codes around one [D], kept for its next edit."""
        known, key = self._around, code.tobytes()
        if key not in known:
            if len(known) >= MOST_KNOWN:
                known.clear()
            places = code + ways_around(self.factor, self.options.looks, self.options.around)
            sds = self.all_sds[EDITED_COLUMNS]
            slopes = slopes_at(self.bench, places, self.position, self.factor, sds, EDITED_COLUMNS)
            known[key] = slopes.mean(0)
        return known[key]

    def reach(self, codes: np.ndarray, wish: float) -> tuple[np.ndarray, np.ndarray]:
        """How far each property of each face can be taken alone, the others held.

        wish: deviations asked for at most. Returns (changes [N, 3, 2] down and up in deviations, why [N, 3, 2]).
        """
        amounts = np.zeros((len(EDITED), 2, len(EDITED)), np.float32)
        for i in range(len(EDITED)):
            amounts[i, :, i] = (-wish, wish)
        flat = amounts.reshape(-1, len(EDITED))
        repeated = np.repeat(np.asarray(codes, np.float32), len(flat), axis=0)
        walk = self.walk(repeated, np.tile(flat, (len(codes), 1)))
        start = self.bench.measure(np.asarray(codes, np.float32), self.position)
        change = (walk.scores.reshape(len(codes), len(EDITED), 2, -1) - start[:, None, None]) / self.all_sds
        change = np.stack([change[:, i, :, column] for i, column in enumerate(EDITED_COLUMNS)], 1)
        return change, walk.why.reshape(len(codes), len(EDITED), 2)

    def save(self, path) -> None:
        """Write what the pool taught as one .npz; networks stay where they are, known by the stamp beside the file."""
        save_loop(path, self, "closed_loop", slopes=self.slopes, identity_spread=np.array(self.identity_spread))

    @classmethod
    def load(cls, path, bench: Bench, identity=None) -> ClosedLoop:
        """Read one; PipelineError if it is unreadable, of another generator, or needs an identity network."""
        known, arrays = read_loop(Path(path), bench, "closed_loop", LoopOptions, ("slopes", "identity_spread"))
        held = known["provenance"]["identity"]
        if held and identity is None:
            raise PipelineError(f"{path} holds identity by the filter CNNs, which this profile lacks ([cnn] bundled)")
        spread = float(arrays["identity_spread"])
        return cls(**known, identity=identity if held else None, identity_spread=spread, slopes=arrays["slopes"])

    def _features(self, codes: np.ndarray) -> torch.Tensor | None:
        if self.identity is None:
            return None
        return features_of(self.bench, codes, self.position, self.identity)

    def _readings(self, codes: np.ndarray, features) -> np.ndarray:
        """Scores, and how far a face drifted from its features [N, F], in deviations: float32 [N, 8 or 9]."""
        parts = []
        with torch.no_grad():
            for rows, images in self.bench.draw(codes, self.position):
                read = [self.bench.differentiable_scores(images) / torch.from_numpy(self.all_sds).to(images)]
                if features is not None:
                    drift = (self.identity(images) - features[rows]).norm(dim=1, keepdim=True)
                    read.append(drift / self.identity_spread)
                parts.append(torch.cat(read, 1).float().cpu().numpy())
        return np.concatenate(parts)


def save_loop(path, loop: ClosedLoop, kind: str, **arrays: np.ndarray) -> None:
    """Write a loop, and what else its kind needs, as one .npz."""
    about = {
        "kind": kind,
        "position": loop.position,
        "grouping": loop.grouping,
        "cuts": loop.cuts,
        "options": asdict(loop.options),
        "provenance": loop.provenance,
    }
    text = np.array(json.dumps(about, default=plain))
    save_arrays(path, factor=loop.factor, all_sds=loop.all_sds, about=text, **arrays)


def read_loop(path: Path, bench: Bench, kind: str, options: type, needed: tuple[str, ...]) -> tuple[dict, dict]:
    """(arguments of a loop, all arrays) of what `save_loop` wrote; PipelineError if it does not belong to the bench."""
    if not path.is_file():
        raise PipelineError(f"{path} does not exist: run `python run_vectorfind.py --method {kind}` first")
    arrays = read_arrays(path, ("factor", "all_sds", "about", *needed))
    about = json.loads(str(arrays["about"]))
    check_belongs(path, about["provenance"], bench)
    try:
        known = {name: about[name] for name in ("position", "grouping", "provenance")}
        known |= {"cuts": tuple(about["cuts"]), "options": options(**about["options"])}
    except (KeyError, TypeError) as error:
        raise PipelineError(f"{path} {OTHER_VERSION} ({error})") from error
    return known | {"bench": bench, "factor": arrays["factor"], "all_sds": arrays["all_sds"]}, arrays


def slopes_at(
    bench: Bench, codes: np.ndarray, position: str, factor: np.ndarray, sds: np.ndarray, columns=ALL_COLUMNS
) -> np.ndarray:
    """Slopes float32 [N, C, D] of C scores at codes [N, D], in deviations sds [C] per deviation along `factor`."""
    return bench.slopes(codes, position, columns) @ factor / sds[:, None]


def shortest_steps(jacobian: np.ndarray, wish: np.ndarray, damping: np.ndarray) -> np.ndarray:
    """Shortest steps [N, D] with jacobian [N, R, D] @ step = wish [N, R], softly where `damping` [N, R] is large."""
    gram = jacobian @ jacobian.transpose(0, 2, 1) + damping[:, :, None] * np.eye(damping.shape[1])
    return np.einsum("nrd,nr->nd", jacobian, np.linalg.solve(gram, wish[:, :, None])[:, :, 0])


def ways_around(factor: np.ndarray, looks: int, around: float) -> np.ndarray:
    """Ways float32 [looks, D] from a code to its surroundings, always the same, in pairs of opposites.

    around: their length in every dimension, in deviations of codes of covariance factor @ factor.T.
    """
    away = np.random.default_rng(0).standard_normal((max(1, looks // 2), len(factor))) @ factor.T
    # What bends the same way on both sides cancels.
    return around * np.concatenate([away, -away]).astype(np.float32)


def code_factor(codes, position: str) -> np.ndarray:
    """Cholesky factor float32 [D, D] of the codes' covariance, shrunk (Ledoit, Wolf 2004).

    codes: [n, D] array or ShardedArray; at most COVARIANCE_ROWS evenly spaced rows are read. z is white by
    construction; the label beside it never varies and so never moves.
    """
    rows = evenly_spaced(len(codes), COVARIANCE_ROWS)
    if position == "z":
        return np.diag(codes[rows].std(0) > 1e-6).astype(np.float32)
    from sklearn.covariance import ledoit_wolf

    covariance, _ = ledoit_wolf(codes[rows])
    # Dead dimensions have no spread at all; the tiny ridge keeps the factor defined and still leaves them in place.
    ridge = 1e-6 * np.trace(covariance) / len(covariance)
    return np.linalg.cholesky(covariance + ridge * np.eye(len(covariance))).astype(np.float32)


def features_of(bench: Bench, codes: np.ndarray, position: str, identity) -> torch.Tensor:
    """Features [N, F] of codes [N, D] by a network that knows a face."""
    with torch.no_grad():
        return torch.cat([identity(images) for _, images in bench.draw(codes, position)])


def identity_scale(bench: Bench, codes: np.ndarray, position: str, identity) -> float:
    """Mean feature distance between neighbouring rows of codes [n, D], different people: the unit of drift."""
    features = features_of(bench, codes, position, identity)
    return float((features[1:] - features[:-1]).norm(dim=1).mean())
