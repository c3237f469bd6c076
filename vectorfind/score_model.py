"""A small network that knows every score as a function of the code: it tells the closed loop where to step next.

The loop's true gradient holds for half a score deviation and costs a pass back through the generator for each score.
This network, fitted once to a pool, gives all eight slopes at any code for next to nothing, and smoother ones: it has
no eye for the pixels that move a scorer without moving the face. What it gets wrong the loop measures and corrects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from vectorfind.names import PROPERTIES

HIDDEN = (384, 192)
MOST_ROWS = 100_000
HELD_SHARE = 0.1
BATCH, EPOCHS, RATE, DECAY = 256, 40, 2e-3, 1e-2
# Enough updates for a small pool, an end for a large one.
MOST_UPDATES = 12_000


@dataclass
class ScoreModel:
    """Scores in pool deviations from codes: two SiLU layers on standardised dimensions.

    mean, spread [D]: of the codes; a dimension of spread 0 is dead and has no slope. held_r [8]: correlation with the
    scores of the held-out tenth of the pool.
    """

    network: nn.Sequential
    mean: np.ndarray
    spread: np.ndarray
    held_r: np.ndarray

    @classmethod
    def fit(cls, codes, scores: np.ndarray, sds: np.ndarray, seed: int = 0, progress=None) -> ScoreModel:
        """Fit to codes ([n, D] array or ShardedArray) and scores [n, 8]; rows with a missing score are left out.

        sds [8]: the deviations to express scores in. progress: called with 1 after each epoch.
        """
        rng = np.random.default_rng([seed, 17])
        rows = np.flatnonzero(np.isfinite(scores).all(1))
        rows = np.sort(rng.permutation(rows)[:MOST_ROWS])
        x = codes[rows]
        mean, spread = x.mean(0), x.std(0)
        spread = np.where(spread > 1e-3 * spread.max(), spread, 0.0).astype(np.float32)
        inputs = torch.from_numpy(_standardised(x, mean, spread))
        wanted = torch.from_numpy((scores[rows] / sds).astype(np.float32))
        order = rng.permutation(len(rows))
        held, train = order[: int(HELD_SHARE * len(rows))], order[int(HELD_SHARE * len(rows)) :]
        batch = min(BATCH, len(train))
        epochs = max(1, min(EPOCHS, MOST_UPDATES * batch // len(train)))
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(seed)
            network = _network(x.shape[1])
            optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
            updates = epochs * (len(train) // batch)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=updates + 1)
            for _ in range(epochs):
                shuffled = torch.from_numpy(rng.permutation(train))
                for part in shuffled[: len(train) // batch * batch].split(batch):
                    optimiser.zero_grad(set_to_none=True)
                    (network(inputs[part]) - wanted[part]).square().mean().backward()
                    optimiser.step()
                    schedule.step()
                if progress is not None:
                    progress(1)
        network.eval().requires_grad_(False)
        with torch.no_grad():
            told = network(inputs[held]).numpy()
        held_r = np.array([_r(told[:, k], wanted[held, k].numpy()) for k in range(len(PROPERTIES))], np.float32)
        return cls(network, mean.astype(np.float32), spread, held_r)

    def jacobian(self, codes: np.ndarray) -> np.ndarray:
        """Slopes float32 [N, 8, D] of all scores (deviations per unit of the code) at codes [N, D]."""
        first, second, last = (self.network[i] for i in (0, 2, 4))
        with torch.no_grad():
            a = first(torch.from_numpy(_standardised(codes, self.mean, self.spread)))
            b = second(nn.functional.silu(a))
            through = (last.weight * _slope(b)[:, None]) @ second.weight  # [N, 8, first layer]
            through = (through * _slope(a)[:, None]) @ first.weight
        alive = self.spread > 0
        return through.numpy() * np.where(alive, 1 / np.where(alive, self.spread, 1), 0).astype(np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything, as arrays whose names begin with `model_`."""
        named = {f"model_{name}": value.numpy() for name, value in self.network.state_dict().items()}
        return named | {"model_mean": self.mean, "model_spread": self.spread, "model_held_r": self.held_r}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> ScoreModel:
        """The model that `arrays` wrote."""
        named = {name.removeprefix("model_"): value for name, value in arrays.items()}
        known = {name: named.pop(name) for name in ("mean", "spread", "held_r")}
        network = _network(len(known["mean"]))
        network.load_state_dict({name: torch.from_numpy(value) for name, value in named.items()})
        return cls(network.eval().requires_grad_(False), **known)


def _network(inputs: int) -> nn.Sequential:
    first, second = HIDDEN
    return nn.Sequential(
        nn.Linear(inputs, first), nn.SiLU(), nn.Linear(first, second), nn.SiLU(), nn.Linear(second, len(PROPERTIES))
    )


def _standardised(codes: np.ndarray, mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    return np.where(spread > 0, (codes - mean) / np.where(spread > 0, spread, 1), 0).astype(np.float32)


def _slope(x: torch.Tensor) -> torch.Tensor:
    """Derivative of SiLU."""
    gate = torch.sigmoid(x)
    return gate * (1 + x * (1 - gate))


def _r(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if len(a) > 2 and a.std() > 0 and b.std() > 0 else float("nan")
