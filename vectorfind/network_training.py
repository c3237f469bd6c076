"""Training of the gradient networks: published settings, and mended ones (standardised, larger batches, no noise)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from vectorfind.gradient_net import GradientNet


@dataclass(frozen=True)
class TrainOptions:
    """AdamW, exponential decay per epoch, early stop on the validation loss, best epoch kept."""

    batch: int = 16
    learning_rate: float = 1e-3
    decay: float = 0.95
    patience: int = 15
    most_epochs: int = 1000
    standardised: bool = False
    substeps: int = 1
    seed: int = 0


PUBLISHED = TrainOptions()
MENDED = TrainOptions(batch=128, decay=0.9, patience=5, most_epochs=60, standardised=True, substeps=6)


@dataclass
class Trained:
    """A net in eval mode; corr on the held-out tenth, of how many samples; epochs run; whether it stopped by itself."""

    net: GradientNet
    corr: float
    held_out: int
    epochs: int
    converged: bool


def train_net(codes: np.ndarray, scores: np.ndarray, options: TrainOptions, progress=None) -> Trained:
    """One property's net from codes float32 [n, D] (standardised already where wished) and scores [n].

    Split 80/10/10 by the seed. progress: called with 1 after each epoch.
    """
    rng = np.random.default_rng([options.seed, 5])
    order = rng.permutation(len(codes))
    first, second = int(0.8 * len(order)), int(0.9 * len(order))
    train, valid, test = order[:first], order[first:second], order[second:]
    x, y = torch.from_numpy(np.ascontiguousarray(codes)), torch.from_numpy(scores.astype(np.float32))[:, None]
    # Only the net's own randomness (weights, dropout) comes from torch's global generator.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        net = GradientNet(codes.shape[1])
        optimiser = torch.optim.AdamW(net.parameters(), lr=options.learning_rate)
        decay = torch.optim.lr_scheduler.ExponentialLR(optimiser, options.decay)
        best, best_state, since, epochs = np.inf, None, 0, 0
        with torch.enable_grad():
            for _ in range(options.most_epochs):
                epochs += 1
                net.train()
                for part in np.array_split(rng.permutation(train), max(len(train) // options.batch, 1)):
                    optimiser.zero_grad(set_to_none=True)
                    # Summed, as published.
                    (net(x[part]) - y[part]).square().sum().backward()
                    optimiser.step()
                decay.step()
                loss = _mse(net, x, y, valid)
                since = 0 if loss < best else since + 1
                if loss < best:
                    best, best_state = loss, {key: value.clone() for key, value in net.state_dict().items()}
                if progress is not None:
                    progress(1)
                if since >= options.patience:
                    break
    if best_state is not None:
        net.load_state_dict(best_state)
    net.eval().requires_grad_(False)
    with torch.no_grad():
        predicted = net(x[test])[:, 0].numpy()
    corr = float(np.corrcoef(predicted, scores[test])[0, 1]) if len(test) > 2 else float("nan")
    return Trained(net, corr, len(test), epochs, since >= options.patience)


def _mse(net: GradientNet, x: torch.Tensor, y: torch.Tensor, rows: np.ndarray) -> float:
    net.eval()
    with torch.no_grad():
        return float((net(x[rows]) - y[rows]).square().mean()) if len(rows) else float("nan")
