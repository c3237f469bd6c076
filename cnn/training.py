"""Training of one fold of a filter CNN: class-weighted BCE, AdamW, cosine, early stop, bounded retries."""

from __future__ import annotations

import math
import time
import zlib
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from cnn.filter_cnn import FilterCNN, build
from cnn.metrics import binary_figures
from cnn.settings import Architecture, TrainSettings
from pipeline.errors import PipelineError


@dataclass(frozen=True)
class FoldData:
    """The labelled faces of one property, cropped: crops uint8 [N, 3, h, w], labels 0/1 [N], fold of each [N]."""

    crops: torch.Tensor
    labels: np.ndarray
    folds: np.ndarray


@dataclass(frozen=True)
class TrainedFold:
    """The best weights of a fold, its row of the training log, and its log of epochs."""

    state: dict[str, torch.Tensor]
    log: dict[str, float | int | bool | str]
    epochs: pd.DataFrame
    seconds: float


def crop_pixels(pixels: np.ndarray, architecture: Architecture) -> torch.Tensor:
    """The property's window of pictures uint8 [N, R, R, 3] as uint8 [N, 3, h, w]."""
    top, bottom, left, right = architecture.window.pixels(architecture.resolution)
    return torch.from_numpy(np.ascontiguousarray(pixels[:, top:bottom, left:right])).permute(0, 3, 1, 2)


def split_validation(labels: np.ndarray, rows: np.ndarray, share: float, random: np.random.Generator):
    """Split `rows` into (training, validation) with `share` of each class, one at least, in the validation part."""
    validation = []
    for value in (0, 1):
        members = random.permutation(rows[labels[rows] == value])
        validation.append(members[: max(1, round(share * len(members)))])
    validation = np.sort(np.concatenate(validation))
    return np.setdiff1d(rows, validation), validation


def class_weights(labels: np.ndarray, rare_weight: float) -> tuple[float, float]:
    """Weights of labels 0 and 1 in the loss: the rarer class up to `rare_weight` times the other, mean weight 1."""
    share = float(np.clip(labels.mean(), 1e-6, 1 - 1e-6))
    ratio = float(np.clip((1 - share) / share, 1 / rare_weight, rare_weight))  # weight of label 1 over that of label 0
    zero = 1 / (1 - share + share * ratio)
    return zero, zero * ratio


def fold_seed_sequence(seed: int, property_name: str, fold: int, attempt: int, epoch: int = 0) -> list[int]:
    """Seed of one epoch; it depends on nothing that was trained before, so that a fold can be resumed or repeated."""
    return [seed, zlib.crc32(property_name.encode()), fold, attempt, epoch]


def _as_input(crops: torch.Tensor, device: torch.device) -> torch.Tensor:
    return (crops.to(device).float() / 255).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def predict(network: FilterCNN, crops: torch.Tensor, device: torch.device, batch: int = 128) -> np.ndarray:
    """Probabilities of label 1, float64 [N], of cropped windows uint8 [N, 3, h, w]; eval mode."""
    network.eval()
    parts = [torch.sigmoid(network.crop_logits(_as_input(part, device))).cpu() for part in crops.split(batch)]
    return torch.cat(parts).double().numpy()


def weighted_bce(labels: np.ndarray, scores: np.ndarray, weights: tuple[float, float]) -> float:
    """Mean class-weighted binary cross-entropy of probabilities."""
    scores = np.clip(scores, 1e-7, 1 - 1e-7)
    loss = -(weights[1] * labels * np.log(scores) + weights[0] * (1 - labels) * np.log(1 - scores))
    return float(loss.mean())


def train_fold(
    property_name: str,
    data: FoldData,
    fold: int,
    architecture: Architecture,
    settings: TrainSettings,
    learning_rate: float,
    cutoff: float,
    seed: int,
    device: torch.device,
) -> TrainedFold:
    """Train the model of one fold; the faces of that fold are only read for the last figures, never to choose by.

    `cutoff` is where the logged accuracy, precision and recall call a face positive.
    """
    start = time.perf_counter()
    held_out = np.flatnonzero(data.folds == fold)
    others = np.flatnonzero(data.folds != fold)
    random = np.random.default_rng(fold_seed_sequence(seed, property_name, fold, 0))
    training, validation = split_validation(data.labels, others, settings.validation_share, random)
    weights = class_weights(data.labels[training], settings.rare_weight)
    best = None
    for attempt in range(1 + settings.max_retries):
        state, epochs = _attempt(
            property_name,
            data,
            fold,
            attempt,
            training,
            validation,
            weights,
            architecture,
            settings,
            learning_rate,
            cutoff,
            seed,
            device,
        )
        loss = epochs["val_loss"].min()
        if best is None or loss < best[0]:
            best = (loss, attempt, state, epochs)
        if loss <= settings.retry_above:
            break
    loss, chosen, state, epochs = best
    network = build(property_name, architecture).to(device)
    network.load_state_dict(state)
    scores = predict(network, data.crops[held_out], device)
    figures = binary_figures(data.labels[held_out], scores, cutoff)
    log = {
        "fold_no": fold,
        "success": bool(loss <= settings.retry_above),
        "min_val_loss": round(float(loss), 4),
        "total_epochs": len(epochs),
        "best_epoch": int(epochs["val_loss"].argmin()),
        "attempts": attempt + 1,
        "chosen_attempt": chosen,
        "train_faces": len(training),
        "val_faces": len(validation),
        "heldout_faces": len(held_out),
        "heldout_auroc": round(figures["auroc"], 4),
        "heldout_auprc": round(figures["auprc"], 4),
        "val_loss_list": " ".join(f"{value:.4f}" for value in epochs["val_loss"]),
    }
    return TrainedFold(state, log, epochs, time.perf_counter() - start)


def _attempt(
    property_name,
    data,
    fold,
    attempt,
    training,
    validation,
    weights,
    architecture,
    settings,
    learning_rate,
    cutoff,
    seed,
    device,
) -> tuple[dict[str, torch.Tensor], pd.DataFrame]:
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(_torch_seed(fold_seed_sequence(seed, property_name, fold, attempt)))
        network = build(property_name, architecture).to(device, memory_format=torch.channels_last)
        optimiser = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=settings.weight_decay)
        best_loss, best_state, rows = math.inf, None, []
        for epoch in range(settings.epochs):
            sequence = fold_seed_sequence(seed, property_name, fold, attempt, 1 + epoch)
            torch.manual_seed(_torch_seed(sequence))
            rate = learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / settings.epochs))
            for group in optimiser.param_groups:
                group["lr"] = rate
            train_loss = _epoch(network, optimiser, data, training, weights, settings, sequence, device)
            scores = predict(network, data.crops[validation], device)
            truth = data.labels[validation]
            val_loss = weighted_bce(truth, scores, weights)
            figures = binary_figures(truth, scores, cutoff)
            counts = {name: figures.pop(name) for name in ("tp", "tn", "fp", "fn")}
            rows.append(
                {
                    "epoch": epoch,
                    "val_loss": val_loss,
                    "val_accuracy": figures.pop("accuracy"),
                    **counts,
                    **{f"val_{name}": value for name, value in figures.items()},
                    "val_bce": weighted_bce(truth, scores, (1.0, 1.0)),
                    "train_loss": train_loss,
                    "learning_rate": rate,
                }
            )
            if not math.isfinite(val_loss):
                raise PipelineError(
                    f"training of {property_name}, fold {fold} diverged in epoch {epoch}; lower "
                    f"[cnn.learning_rates] {property_name} (now {learning_rate}) in the profile"
                )
            if val_loss < best_loss:
                best_loss = val_loss
                best_state = {key: value.detach().cpu().clone() for key, value in network.state_dict().items()}
                best_epoch = epoch
            if epoch - best_epoch >= settings.patience:
                break
    return best_state, pd.DataFrame(rows)


def _torch_seed(sequence: list[int]) -> int:
    return int(np.random.SeedSequence(sequence).generate_state(1, np.uint64)[0] >> 1)


def _epoch(network, optimiser, data, training, weights, settings, sequence, device) -> float:
    network.train()
    random = np.random.default_rng(sequence)
    order = random.permutation(training)
    total = 0.0
    for start in range(0, len(order), settings.batch):
        rows = order[start : start + settings.batch]
        crops = _as_input(data.crops[rows], device)
        if settings.flip:
            mirrored = torch.from_numpy(random.random(len(rows)) < 0.5).to(device)
            crops = torch.where(mirrored[:, None, None, None], crops.flip(-1), crops)
        truth = torch.from_numpy(data.labels[rows].astype(np.float32)).to(device)
        weight = torch.where(truth > 0.5, weights[1], weights[0])
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network.crop_logits(crops), truth, weight)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        total += float(loss.detach()) * len(rows)
    return total / len(order)
