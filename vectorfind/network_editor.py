"""Edits along the gradient of a small network (VectorFind v9): each face has a direction of its own.

The published form takes the gradient once, at the unedited code, over its length in latent units. The mended form
trains in standardised dimensions, takes the mean gradient over codes around the face, anew along the path, and goes
where codes vary instead of along that gradient. A property without a network uses vectors (`mixed`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from pipeline.artefacts import load_into, read_arrays, read_weights, save_arrays, save_weights
from pipeline.errors import PipelineError
from pipeline.whole import plain
from vectorfind.bench import Bench
from vectorfind.calibration import LONGEST_STEP
from vectorfind.closed_loop import ways_around
from vectorfind.directions import DirectionSet, check_belongs
from vectorfind.gradient_net import GradientNet
from vectorfind.names import EDITED, PROPERTIES, mixed_file, net_file

PROBED_FACES = 24
# A network that learnt from many samples is rough: of a mended edit the gradient is the mean over so many codes, so
# many deviations of the pool's codes away.
LOOKS, AROUND = 16, 0.5


@dataclass
class NetworkEditor:
    """An Editor along network gradients.

    nets: property -> GradientNet in eval mode. mean, spread [D]: what a net's input is standardised by (0 and 1 when it
    takes raw codes; a dimension of spread 0 is dead). steps: property -> latent units per score deviation, of the nets;
    with `kept` of all, as a vector without what it shares with others needs another step. substeps: how often the
    gradient is taken along an edit. factor [D, D]: of the codes' covariance (`code_factor`), along which edits go;
    None: along gradients. kept [K, D]: normals of scores that an edit leaves alone besides the other edited ones; None
    leaves nothing alone. vectors: directions of the other properties; with factor and kept normals to the levels of
    their scores, else moves.
    """

    position: str
    nets: dict[str, GradientNet]
    mean: np.ndarray
    spread: np.ndarray
    score_sds: np.ndarray
    steps: dict[str, float] = field(default_factory=dict)
    substeps: int = 1
    factor: np.ndarray | None = None
    kept: np.ndarray | None = None
    vectors: DirectionSet | None = None
    grouping: str = "none"
    cuts: tuple[float, ...] = ()
    provenance: dict = field(default_factory=dict)

    def edit(self, codes: np.ndarray, groups, amounts: np.ndarray, raw: bool = False) -> np.ndarray:
        """See Editor."""
        codes = np.asarray(codes, np.float32).copy()
        lengths = self.step_lengths(groups, len(codes))
        # In latent units too a net that points the wrong way is followed backwards.
        lengths = np.asarray(amounts, np.float32) * (np.where(lengths < 0, -1, 1) if raw else lengths)
        for _ in range(self.substeps):
            codes += np.einsum("np,npd->nd", lengths / self.substeps, self.units(codes, groups))
        return codes

    def units(self, codes: np.ndarray, groups) -> np.ndarray:
        """Unit vectors float32 [N, 3, D] of each face at its present code."""
        around = None if self.factor is None else ways_around(self.factor, LOOKS, AROUND)
        normals = np.stack(
            [
                level_normals(self.nets[name], codes, self.mean, self.spread, around)
                if name in self.nets
                else np.stack([self.vectors.get(name, group).unit for group in groups])
                for name in EDITED
            ],
            1,
        )
        if self.kept is not None:
            return moves(normals, self.factor, self.kept)
        if self.factor is None:
            return normals
        nets = np.isin(EDITED, list(self.nets))
        return np.where(nets[:, None], moves(normals, self.factor), normals)

    def step_lengths(self, groups, count: int) -> np.ndarray:
        """Latent units per score deviation, float32 [N, 3]."""
        columns = [
            np.full(count, self.steps[name], np.float32)
            if name in self.calibrated
            else np.array([self.vectors.get(name, group).step for group in groups], np.float32)
            for name in EDITED
        ]
        return np.stack(columns, 1)

    @property
    def calibrated(self) -> tuple[str, ...]:
        """The properties whose step is one of all faces, not of a vector."""
        return tuple(self.nets) if self.kept is None else EDITED

    def calibrate(self, bench: Bench, codes: np.ndarray, groups) -> tuple[dict[str, bool], dict[str, bool]]:
        """Measure sign and step of each calibrated property on decoded faces (codes [n, D]) in two rounds.

        Returns by property which steps were capped, and which lead toward lower scores: those are followed backwards.
        """
        spread, capped, flipped = float(np.sqrt(codes.var(0).mean())), {}, {}
        for name in self.calibrated:
            row, column = EDITED.index(name), PROPERTIES.index(name)
            guess, toward = spread, 1.0
            self.steps = {**dict.fromkeys(self.calibrated, 0.0), **self.steps, name: guess}
            for round_number in range(2):
                self.steps[name] = toward * guess
                moved = []
                for sign in (1.0, -1.0):
                    amounts = np.zeros((len(codes), len(EDITED)), np.float32)
                    amounts[:, row] = sign
                    moved.append(bench.measure(self.edit(codes, groups, amounts), self.position)[:, column])
                effect = float(np.nanmean(moved[0] - moved[1]) / 2 / self.score_sds[row])
                if round_number == 0 and effect < 0:
                    toward, effect = -1.0, -effect
                guess = float(np.clip(guess / max(effect, 0.05), guess / 4, guess * 4))
            longest = LONGEST_STEP * spread
            capped[name], flipped[name] = guess > longest, toward < 0
            self.steps[name] = toward * min(guess, longest)
        return capped, flipped

    def save(self, path) -> None:
        """Write arrays and settings as .npz, the nets in the published file names beside it."""
        path = Path(path)
        for name, net in self.nets.items():
            save_weights(
                path.with_name(net_file(name, self.position, self.grouping)), net.state_dict(), position=self.position
            )
        about = {
            "kind": "network",
            "position": self.position,
            "nets": list(self.nets),
            "steps": self.steps,
            "substeps": self.substeps,
            "conditional": self.kept is not None,
            "vectors": self.vectors is not None,
            "grouping": self.grouping,
            "cuts": self.cuts,
            "provenance": self.provenance,
        }
        if self.vectors is not None:
            self.vectors.save(mixed_file(path))
        text = np.array(json.dumps(about, default=plain))
        none = np.zeros((0, len(self.mean)), np.float32)
        factor, kept = (none if array is None else array for array in (self.factor, self.kept))
        known = {"mean": self.mean, "spread": self.spread, "score_sds": self.score_sds}
        save_arrays(path, **known, factor=factor, kept=kept, about=text)

    @classmethod
    def load(cls, path, bench: Bench) -> NetworkEditor:
        """Read one; PipelineError if a file is missing, unreadable or of another generator or scorer."""
        path = Path(path)
        if not path.is_file():
            raise PipelineError(f"{path} does not exist: run `python run_vectorfind.py --method gradient` first")
        arrays = read_arrays(path, ("mean", "spread", "score_sds", "factor", "kept", "about"))
        about = json.loads(str(arrays["about"]))
        check_belongs(path, about["provenance"], bench)
        nets = {}
        for name in about["nets"]:
            file = path.with_name(net_file(name, about["position"], about["grouping"]))
            net = GradientNet(len(arrays["mean"]))
            load_into(net, read_weights(file), file)
            nets[name] = net.eval().requires_grad_(False)
        return cls(
            nets=nets,
            factor=arrays["factor"] if len(arrays["factor"]) else None,
            kept=arrays["kept"] if about["conditional"] else None,
            vectors=DirectionSet.load(mixed_file(path), bench) if about["vectors"] else None,
            cuts=tuple(about["cuts"]),
            **{name: arrays[name] for name in ("mean", "spread", "score_sds")},
            **{name: about[name] for name in ("position", "steps", "substeps", "grouping", "provenance")},
        )


def level_normals(
    net: GradientNet, codes: np.ndarray, mean: np.ndarray, spread: np.ndarray, around: np.ndarray | None = None
) -> np.ndarray:
    """Unit vectors float32 [N, D] along a net's gradient by the codes [N, D]: normal to the level that each lies in.

    mean, spread [D]: see NetworkEditor. around [K, D]: ways to further codes; the gradient is the mean over these.
    """
    alive = spread > 0
    scale = np.where(alive, spread, 1.0).astype(np.float32)

    def read(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.where(alive, values / scale, 0.0).astype(np.float32))

    with torch.no_grad():
        gradient = net.slope(read(codes - mean), None if around is None else read(around)).numpy()
    return _unit_rows(np.where(alive, gradient, 0.0) / scale)


def moves(normals: np.ndarray, factor: np.ndarray | None, kept: np.ndarray | None = None) -> np.ndarray:
    """Unit vectors float32 [N, P, D] that raise the scores of normals [N, P, D], by covariance factor @ factor.T.

    They go where codes vary, as `along_codes` of vectors; without a factor [D, D] along the normals. kept [K, D]:
    normals of further scores. With it each is freed of what moves these and the other P - 1 of its face, in the metric
    of the covariance, so that it still raises its own.
    """
    white = normals.astype(np.float64)
    if factor is not None:
        white = white @ factor
    if kept is not None:
        basis, _ = np.linalg.qr((kept if factor is None else kept @ factor).T.astype(np.float64))
        white = _freed(white - white @ basis @ basis.T)
    return _unit_rows(white if factor is None else white @ factor.T)


def _freed(white: np.ndarray) -> np.ndarray:
    """Each row of white [N, P, D] less what lies in the span of the other rows of its face."""
    # The dual basis: row i of it is orthogonal to every other row of the face, and raises row i.
    gram = white @ white.transpose(0, 2, 1)
    return np.linalg.pinv(gram, hermitian=True) @ white


def _unit_rows(rows: np.ndarray) -> np.ndarray:
    return (rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)).astype(np.float32)
