"""The closed loop: no direction at all, but gradients through generator and scorer, until the score is as wished.

Each step is the shortest one (in deviations of the pool's codes) that moves the edited scores as wished and holds what
should stay: hair, background, hairstyle and an identity distance. Shortest steps keep the code where codes lie. After
each step the scores are measured; gradients of the edited ones are corrected by what it did, and taken anew at the
present point where it did not do what they told (`LoopOptions.trust`).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from pipeline.artefacts import read_arrays, save_arrays
from pipeline.errors import PipelineError
from pipeline.whole import plain
from vectorfind.bench import Bench
from vectorfind.directions import check_belongs
from vectorfind.names import EDITED, PROPERTIES

EDITED_COLUMNS = [PROPERTIES.index(name) for name in EDITED]
# Tikhonov term of the edited rows: next to nothing for a score that moves with the code (its gradient is near 1 per
# pool deviation), but a score that has run into its floor cannot call for leaps that spoil the others.
FIRM = 0.02
# Most deviations per step by which a kept reading is led back: the intended change comes first.
LED_BACK = 0.1
COVARIANCE_ROWS = 10_000
REACHED, TOO_FAR, STUCK, OUT_OF_STEPS = "reached", "too far", "stuck", "out of steps"
OTHER_VERSION = "was written by another version of this project: run `run_vectorfind.py directions` again"


@dataclass(frozen=True)
class LoopOptions:
    """How the loop walks.

    step: most score deviations per step. tolerance: deviations within which a value counts as reached.
    furthest: longest whole edit, in deviations of the pool's codes. softness: Tikhonov term of the kept readings, as a
    share of their own gradient's square; 0 would hold them at any price. trust: the gradients of the edited scores are
    computed anew where the last step's outcome was off by more than this share of the step; else they are corrected by
    what the step did (Broyden 1965). Those of the kept readings stay those of the unedited face, and only identity is
    corrected: to compute them anew is three times the work.
    """

    step: float = 0.4
    tolerance: float = 0.05
    most_steps: int = 20
    furthest: float = 8.0
    softness: float = 0.05
    trust: float = 0.4


@dataclass
class Walk:
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
class ClosedLoop:
    """An Editor that walks; `factor` [D, D] turns pool deviations into codes (Cholesky factor of their covariance).

    all_sds [8]: deviations of all scores in the pool. identity: a function of images to features [N, F], or None.
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
        """Move codes [N, D] until each edited score has changed by its amount [N, 3] (score deviations)."""
        codes, amounts = np.asarray(codes, np.float32), np.asarray(amounts, np.float32)
        options, count = self.options, len(codes)
        # Many edits of one face start at the same point: one gradient serves them all.
        starts, origin = np.unique(codes, axis=0, return_inverse=True)
        origin = origin.reshape(-1)
        features = self._features(starts)
        _, gradient = self._jacobian(starts, features)
        # Read as the steps are: gradients are drawn in float32, pictures perhaps in bfloat16.
        base = self._readings(starts, features)
        gradient[:, len(PROPERTIES) :] = 0  # nothing has drifted yet
        features = None if features is None else features[origin]
        now, jacobian = base[origin], gradient[origin]
        target = now.copy()
        target[:, EDITED_COLUMNS] += amounts
        moved = np.zeros_like(codes)
        reach = np.full(count, options.step, np.float32)
        steps, why = np.zeros(count, int), np.full(count, OUT_OF_STEPS, dtype=object)
        walking = np.ones(count, bool)
        readings = np.arange(now.shape[1])
        edited = np.isin(readings, EDITED_COLUMNS)
        learning = edited | (readings >= len(PROPERTIES))
        for _ in range(options.most_steps):
            gap = target - now
            done = walking & (np.abs(gap[:, EDITED_COLUMNS]).max(1) <= options.tolerance)
            why[done], walking = REACHED, walking & ~done
            rows = np.flatnonzero(walking)
            if not len(rows):
                break
            most = reach[rows, None] * np.where(edited, 1, LED_BACK / options.step)
            wish = np.clip(gap[rows], -most, most)
            damping = np.where(edited, FIRM, options.softness * (jacobian[rows] ** 2).sum(2) + 1e-3)
            change = shortest_steps(jacobian[rows], wish, damping)
            stride = np.linalg.norm(change, axis=1, keepdims=True)
            # A gradient near zero asks for a leap, where it says nothing any more.
            change *= np.minimum(1, options.furthest / 4 / np.maximum(stride, 1e-9))
            goal = moved[rows] + change
            length = np.linalg.norm(goal, axis=1)
            outside = length > options.furthest
            goal[outside] *= (options.furthest / length[outside])[:, None]
            change = goal - moved[rows]
            there = self._readings(codes[rows] + goal @ self.factor.T, None if features is None else features[rows])
            steps[rows] += 1
            actual, expected = there - now[rows], np.einsum("nrd,nd->nr", jacobian[rows], change)
            before = np.abs(gap[rows][:, EDITED_COLUMNS]).sum(1)
            after = np.abs((target[rows] - there)[:, EDITED_COLUMNS]).sum(1)
            better = after < before
            squared = np.maximum((change**2).sum(1), 1e-12)
            lesson = np.where(learning, actual - expected, 0) / squared[:, None]
            jacobian[rows] += lesson[:, :, None] * change[:, None, :]
            kept = rows[better]
            moved[kept], now[kept] = goal[better], there[better]
            reach[rows[~better]] *= 0.5
            ended = np.where(outside & (after > 0.98 * before), TOO_FAR, "")
            ended[(reach[rows] < options.step / 8) & ~better] = STUCK
            why[rows[ended != ""]] = ended[ended != ""]
            walking[rows[ended != ""]] = False
            surprise = np.abs(actual - expected)[:, EDITED_COLUMNS].max(1) > options.trust * np.abs(wish).max(1)
            anew = rows[(surprise | ~better) & walking[rows]]
            if len(anew):
                here = codes[anew] + moved[anew] @ self.factor.T
                _, gradients = self._jacobian(here, None if features is None else features[anew], EDITED_COLUMNS)
                jacobian[np.ix_(anew, EDITED_COLUMNS)] = gradients
        gap = np.abs((target - now)[:, EDITED_COLUMNS]).max(1)
        why[gap <= options.tolerance] = REACHED
        scores = now[:, : len(PROPERTIES)] * self.all_sds
        ends = codes + moved @ self.factor.T
        return Walk(ends.astype(np.float32), scores, np.linalg.norm(moved, axis=1), steps, why)

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
        save_loop(path, self, "closed_loop", identity_spread=np.array(self.identity_spread))

    @classmethod
    def load(cls, path, bench: Bench, identity=None) -> ClosedLoop:
        """Read one; PipelineError if it is unreadable, of another generator, or needs an identity network."""
        known, arrays = read_loop(Path(path), bench, "closed_loop", LoopOptions, ("identity_spread",))
        held = known["provenance"]["identity"]
        if held and identity is None:
            raise PipelineError(f"{path} holds identity by the filter CNNs, which this profile lacks ([cnn] bundled)")
        return cls(**known, identity=identity if held else None, identity_spread=float(arrays["identity_spread"]))

    def _features(self, codes: np.ndarray) -> torch.Tensor | None:
        if self.identity is None:
            return None
        return features_of(self.bench, codes, self.position, self.identity)

    def _read(self, images: torch.Tensor, features: torch.Tensor | None) -> torch.Tensor:
        sds = torch.from_numpy(self.all_sds).to(images)
        values = self.bench.differentiable_scores(images) / sds
        if features is None:
            return values
        squared = (self.identity(images) - features).square().sum(1, keepdim=True)
        # The root of zero has no gradient; at the start nothing has drifted yet.
        return torch.cat([values, (squared + 1e-12).sqrt() / self.identity_spread], 1)

    def _jacobian(self, codes: np.ndarray, features, columns=None) -> tuple[np.ndarray, np.ndarray]:
        def read(images, rows):
            return self._read(images, None if features is None else features[rows])

        values, gradients = self.bench.jacobian(codes, self.position, read, columns)
        return values, gradients @ self.factor

    def _readings(self, codes: np.ndarray, features) -> np.ndarray:
        parts = []
        with torch.no_grad():
            for rows, images in self.bench.draw(codes, self.position):
                parts.append(self._read(images, None if features is None else features[rows]).float().cpu().numpy())
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


def shortest_steps(jacobian: np.ndarray, wish: np.ndarray, damping: np.ndarray) -> np.ndarray:
    """Shortest steps [N, D] with jacobian [N, R, D] @ step = wish [N, R], softly where `damping` [N, R] is large."""
    gram = jacobian @ jacobian.transpose(0, 2, 1) + damping[:, :, None] * np.eye(damping.shape[1])
    return np.einsum("nrd,nr->nd", jacobian, np.linalg.solve(gram, wish[:, :, None])[:, :, 0])


def code_factor(codes, position: str) -> np.ndarray:
    """Cholesky factor float32 [D, D] of the codes' covariance, shrunk (Ledoit, Wolf 2004).

    codes: [n, D] array or ShardedArray; at most COVARIANCE_ROWS evenly spaced rows are read. z is white by
    construction; the label beside it never varies and so never moves.
    """
    rows = np.unique(np.linspace(0, len(codes) - 1, min(len(codes), COVARIANCE_ROWS)).astype(int))
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
        # A copy: what was drawn in inference mode may take no part in a gradient later.
        return torch.cat([identity(images.clone()) for _, images in bench.draw(codes, position)])


def identity_scale(bench: Bench, codes: np.ndarray, position: str, identity) -> float:
    """Mean feature distance between neighbouring rows of codes [n, D], different people: the unit of drift."""
    features = features_of(bench, codes, position, identity)
    return float((features[1:] - features[:-1]).norm(dim=1).mean())
