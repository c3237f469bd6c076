"""A small network that knows every score as a function of the code: it tells the closed loop where to step next.

The loop's true gradient holds for half a score deviation and costs a pass back through the generator for each score.
This network, fitted once to a pool, gives all slopes at any code for next to nothing, and smoother ones: it has
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
BATCH, EPOCHS, RATE, DECAY = 256, 80, 2e-3, 0.3
# Share of hidden units that a training step leaves out: this much of FEW samples, less of more, as its root.
DROPOUT, FEW = 0.2, 8000
# Enough updates for a small pool, an end for a large one.
MOST_UPDATES = 12_000
# A score with so large a share of the pool so near (in deviations) above its first percentile ends in a floor: a mouth
# cannot be more closed than closed.
FLOOR_SHARE, FLOOR_WIDTH = 0.2, 0.2
NO_FLOOR = -1e9
# Of the expectation and maximisation that finds how far below a floor readings would lie.
ROUNDS = 30
# Codes over which slopes are averaged.
MEAN_OF = 2000
# Rows that are widened to float64 at a time; up to so many bytes the widened codes are kept for all rounds.
BLOCK, KEPT_BYTES = 10_000, 2**30


class ScoreNetwork(nn.Module):
    """Two SiLU layers beside a linear map, which carries the slopes where the layers are flat.

    dropout: share of hidden units that is left out while training.
    """

    def __init__(self, inputs: int, outputs: int, dropout: float = 0.0):
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.first, self.second = nn.Linear(inputs, HIDDEN[0]), nn.Linear(HIDDEN[0], HIDDEN[1])
        self.last, self.straight = nn.Linear(HIDDEN[1], outputs), nn.Linear(inputs, outputs, bias=False)
        nn.init.zeros_(self.straight.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs [N, R] of standardised codes [N, D]."""
        bent = self.drop(nn.functional.silu(self.first(x)))
        bent = self.drop(nn.functional.silu(self.second(bent)))
        return self.last(bent) + self.straight(x)


@dataclass
class ScoreModel:
    """Readings in pool deviations from codes: the eight scores, and whatever else should stay.

    mean, spread [D]: of the codes; a dimension of spread 0 is dead and has no slope. held_r [R]: correlation with the
    held-out tenth of the pool. floors [R]: where a reading ends (in deviations; NO_FLOOR without an end), as of the
    mouth's score among closed mouths. Below a floor the model tells how far below a reading would lie if it did not
    end (`_below_floor`), and so keeps a slope that leads out.
    """

    network: ScoreNetwork
    mean: np.ndarray
    spread: np.ndarray
    held_r: np.ndarray
    floors: np.ndarray

    @classmethod
    def fit(cls, codes, readings: np.ndarray, sds: np.ndarray, seed: int = 0, progress=None) -> ScoreModel:
        """Fit to codes ([n, D] array or ShardedArray) and readings [n, R], the eight scores first.

        Rows with a missing score are left out; other readings may be missing (NaN) anywhere. sds [R]: the deviations to
        express readings in. progress: called with 1 after each epoch.
        """
        rng = np.random.default_rng([seed, 17])
        rows = np.flatnonzero(np.isfinite(readings[:, : len(PROPERTIES)]).all(1))
        rows = np.sort(rng.permutation(rows)[:MOST_ROWS])
        x = codes[rows]
        mean, spread = x.mean(0), x.std(0)
        spread = np.where(spread > 1e-3 * spread.max(), spread, 0.0).astype(np.float32)
        # In place: at the widest position the codes of 100,000 samples take a gigabyte.
        inputs = torch.from_numpy(_standardise(x, mean, spread))
        values = (readings[rows] / sds).astype(np.float32)
        floors = np.array([_floor(column) for column in values.T], np.float32)
        wanted = _below_floor(inputs.numpy(), values, floors)
        # Some readings lie many deviations from 0 (a face's width 16): to get there would take most of the training.
        known = np.isfinite(wanted)
        centre = (np.where(known, wanted, 0).sum(0) / np.maximum(known.sum(0), 1)).astype(np.float32)
        wanted = torch.from_numpy(wanted - centre)
        order = rng.permutation(len(rows))
        held, train = order[: int(HELD_SHARE * len(rows))], order[int(HELD_SHARE * len(rows)) :]
        batch = min(BATCH, len(train))
        epochs = max(1, min(EPOCHS, MOST_UPDATES * batch // len(train)))
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(seed)
            network = ScoreNetwork(x.shape[1], values.shape[1], DROPOUT * min(1.0, (FEW / len(train)) ** 0.5))
            optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
            updates = epochs * (len(train) // batch)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=updates + 1)
            for _ in range(epochs):
                shuffled = torch.from_numpy(rng.permutation(train))
                for part in shuffled[: len(train) // batch * batch].split(batch):
                    optimiser.zero_grad(set_to_none=True)
                    _loss(network(inputs[part]), wanted[part]).backward()
                    optimiser.step()
                    schedule.step()
                if progress is not None:
                    progress(1)
        with torch.no_grad():
            network.last.bias += torch.from_numpy(centre)
        model = cls(network.eval().requires_grad_(False), mean.astype(np.float32), spread, np.empty(0), floors)
        with torch.no_grad():
            told = np.maximum(network(inputs[held]).numpy(), floors)
        held_values = np.maximum(values[held], floors)
        model.held_r = np.array([_r(a, b) for a, b in zip(told.T, held_values.T, strict=True)], np.float32)
        return model

    def tell(self, codes: np.ndarray) -> np.ndarray:
        """Readings float32 [N, R] in deviations of codes [N, D]; below a floor only their order means something."""
        with torch.no_grad():
            return self.network(self.inputs(codes)).numpy()

    def inputs(self, codes: np.ndarray) -> torch.Tensor:
        """What the network sees of codes [N, D]: float32, in deviations."""
        return torch.from_numpy(_standardise(np.array(codes, np.float32), self.mean, self.spread))

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything, as arrays whose names begin with `model_`."""
        named = {f"model_{name}": value.numpy() for name, value in self.network.state_dict().items()}
        return named | {f"model_{name}": getattr(self, name) for name in ("mean", "spread", "held_r", "floors")}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> ScoreModel:
        """The model that `arrays` wrote."""
        named = {name.removeprefix("model_"): value for name, value in arrays.items()}
        known = {name: named.pop(name) for name in ("mean", "spread", "held_r", "floors")}
        network = ScoreNetwork(len(known["mean"]), len(known["held_r"]))
        network.load_state_dict({name: torch.from_numpy(value) for name, value in named.items()})
        return cls(network.eval().requires_grad_(False), **known)


class EditModel:
    """A ScoreModel as a function of edits: `moved` [N, D] leads from a code to code + moved @ factor.T.

    All tensors are on `device`. Only the two linear maps at the front meet the code, `first` [H, D] and `straight`
    [R, D], so the slopes [N, R, D] need never be formed: they are through [N, R, H] @ first + straight, and all that a
    shortest step wants of them are their products with each other.
    """

    def __init__(self, model: ScoreModel, factor: np.ndarray, device: torch.device | str = "cpu"):
        self.model, self.device = model, torch.device(device)
        network = model.network
        alive = model.spread > 0
        lift = self.tensor(factor * np.where(alive, 1 / np.where(alive, model.spread, 1), 0)[:, None])
        weights = (network.first.weight, network.straight.weight, network.second.weight, network.last.weight)
        first, straight, self.second, self.last = (weight.to(self.device) for weight in weights)
        self.first, self.straight = first @ lift, straight @ lift
        self.biases = [layer.bias.to(self.device) for layer in (network.second, network.last)]
        self.first_first, self.first_straight = self.first @ self.first.T, self.first @ self.straight.T
        self.straight_straight = self.straight @ self.straight.T

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        """A float32 copy on the device."""
        return torch.from_numpy(np.array(array, np.float32)).to(self.device)

    def start(self, codes: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """What the front sees of codes [N, D] before any edit: hidden [N, H] and straight [N, R]."""
        x = self.model.inputs(codes)
        return self.model.network.first(x).to(self.device), self.model.network.straight(x).to(self.device)

    def read(self, start: tuple[torch.Tensor, torch.Tensor], moved: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Readings [N, R] in deviations at the end of edits [N, D], and `through` [N, R, H]."""
        a = start[0] + moved @ self.first.T
        b = nn.functional.linear(nn.functional.silu(a), self.second, self.biases[0])
        told = nn.functional.linear(nn.functional.silu(b), self.last, self.biases[1])
        told = told + start[1] + moved @ self.straight.T
        return told, ((self.last * _slope(b)[:, None]) @ self.second) * _slope(a)[:, None]

    def mean_through(self) -> torch.Tensor:
        """The mean of `through` [1, R, H] over MEAN_OF codes that are spread as the pool's are."""
        spread = np.random.default_rng(0).standard_normal((MEAN_OF, self.first.shape[1]), np.float32)
        _, through = self.read(self.start(self.model.mean[None]), self.tensor(spread))
        return through.mean(0, keepdim=True)

    def gram(self, through: torch.Tensor) -> torch.Tensor:
        """Products [N, R, R] of the slopes with each other."""
        mixed = through @ self.first_straight
        bent = through @ self.first_first @ through.transpose(1, 2)
        return bent + mixed + mixed.transpose(1, 2) + self.straight_straight

    def along(self, through: torch.Tensor, amounts: torch.Tensor) -> torch.Tensor:
        """Sums [N, D] of the slopes, amounts [N, R] of each."""
        return (amounts[:, None] @ through)[:, 0] @ self.first + amounts @ self.straight


def _loss(told: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Mean squared error over what was read."""
    known = torch.isfinite(wanted)
    return torch.where(known, told - wanted, 0).square().sum() / known.sum()


def _below_floor(inputs: np.ndarray, values: np.ndarray, floors: np.ndarray) -> np.ndarray:
    """values [n, R], those at a floor replaced by what is expected below it.

    Censored linear regression on standardised codes [n, D] (Tobin 1958), solved by expectation and maximisation
    (Amemiya 1984): the mean of a normal variable around the line, given that it lies below the floor.
    """
    from scipy.linalg import cho_factor, cho_solve
    from scipy.stats import norm

    values = values.copy()
    columns = np.flatnonzero(floors > NO_FLOOR / 2)
    if not len(columns):
        return values
    for column in columns:
        rows = np.flatnonzero(np.isfinite(values[:, column]))
        ended = values[rows, column] <= floors[column]
        filled = values[rows, column].astype(np.float64)

        def blocks(rows=rows):
            """(first row, codes float64 with a column of ones) of a part of the rows at a time."""
            for start in range(0, len(rows), BLOCK):
                part = inputs[rows[start : start + BLOCK]].astype(np.float64)
                yield start, np.concatenate([part, np.ones((len(part), 1))], 1)

        parts = None  # of the column before: two of them would be too much
        parts = list(blocks()) if len(rows) * inputs.shape[1] * 8 <= KEPT_BYTES else None
        gram = sum(part.T @ part for _, part in parts or blocks())
        factor = cho_factor(gram + 1e-3 * np.trace(gram) / len(gram) * np.eye(len(gram)))
        extra = np.zeros(len(rows))
        for _ in range(ROUNDS):
            slopes = cho_solve(factor, sum(part.T @ filled[start : start + BLOCK] for start, part in parts or blocks()))
            line = np.concatenate([part @ slopes for _, part in parts or blocks()])
            sigma = np.sqrt(((filled - line) ** 2 + extra).mean())
            z = (floors[column] - line[ended]) / sigma
            hazard = np.exp(norm.logpdf(z) - norm.logcdf(z))
            filled[ended] = line[ended] - sigma * hazard
            extra[ended] = sigma**2 * np.clip(1 - z * hazard - hazard**2, 0, 1)
        values[rows, column] = filled
    return values


def _floor(values: np.ndarray) -> float:
    """Upper edge of the heap at the low end of values, NO_FLOOR where there is none."""
    values = values[np.isfinite(values)]
    if not len(values):
        return NO_FLOOR
    edge = float(np.percentile(values, 1)) + FLOOR_WIDTH
    return edge if (values <= edge).mean() >= FLOOR_SHARE else NO_FLOOR


def _standardise(codes: np.ndarray, mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """The same float32 codes [n, D], changed in place: less the mean, in deviations, 0 where there is no spread."""
    codes -= mean
    codes /= np.where(spread > 0, spread, 1)
    codes[:, spread == 0] = 0
    return codes


def _slope(x: torch.Tensor) -> torch.Tensor:
    """Derivative of SiLU."""
    gate = torch.sigmoid(x)
    return gate * (1 + x * (1 - gate))


def _r(a: np.ndarray, b: np.ndarray) -> float:
    known = np.isfinite(b)
    a, b = a[known], b[known]
    return float(np.corrcoef(a, b)[0, 1]) if len(a) > 2 and np.ptp(a) > 0 and np.ptp(b) > 0 else float("nan")
