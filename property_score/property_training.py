"""Training of the property CNN: all eight outputs together on z-scores, with labels that may be missing."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pipeline.artefacts import read_weights, save_weights, stamp_path
from pipeline.errors import PipelineError
from pipeline.progress import progress
from property_score.measure import PROPERTIES
from property_score.property_cnn import MergedPropertyCNN
from property_score.property_settings import PARTS, PropertyTraining

POSE = PROPERTIES.index("pose")


@dataclass(frozen=True)
class TrainedPropertyCNN:
    """A trained network (eval mode, CPU), the part ("train", "val", "test") of each face, epoch log, test figures."""

    network: torch.nn.Module
    parts: np.ndarray
    log: pd.DataFrame
    test_figures: pd.DataFrame


def split_parts(count: int, seed: int) -> np.ndarray:
    """Part of each of `count` faces: "train" 80 %, "val" 10 %, "test" 10 %, by the seed."""
    if count < 10:
        raise PipelineError(f"{count} faces are too few to train a property CNN; at least 10 are needed")
    order = np.random.default_rng([seed, 80, 10, 10]).permutation(count)
    tenth = max(1, round(0.1 * count))
    parts = np.full(count, "train", dtype="<U5")
    parts[order[:tenth]], parts[order[tenth : 2 * tenth]] = "test", "val"
    return parts


def property_figures(scores: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Table property, faces, r, mae, mse of scores [N, 8] against labels [N, 8]; missing labels (NaN) left out.

    r is NaN where either side does not vary or fewer than 3 faces are labelled.
    """
    rows = []
    for column, name in enumerate(PROPERTIES):
        known = np.isfinite(labels[:, column])
        score, label = scores[known, column].astype(np.float64), labels[known, column].astype(np.float64)
        varies = known.sum() > 2 and score.std() > 0 and label.std() > 0
        rows.append(
            {
                "property": name,
                "faces": int(known.sum()),
                "r": float(np.corrcoef(score, label)[0, 1]) if varies else float("nan"),
                "mae": float(np.abs(score - label).mean()) if known.any() else float("nan"),
                "mse": float(((score - label) ** 2).mean()) if known.any() else float("nan"),
            }
        )
    return pd.DataFrame(rows)


def masked_mse(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean over the properties of the mean squared error over their labelled faces; NaN labels count nowhere."""
    known = torch.isfinite(labels)
    squares = (scores - torch.where(known, labels, scores)).square().sum(dim=0)
    counts = known.sum(dim=0)
    return (squares / counts.clamp(min=1)).sum() / (counts > 0).sum().clamp(min=1)


def mirrored(
    inputs: torch.Tensor, labels: torch.Tensor, which: torch.Tensor, level_pose: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mirror pictures [N, 3, R, R] left to right where bool [N] says so, and turn pose around in z-scores [N, 8].

    level_pose: z-score of a level head, about which pose turns.
    """
    pose = torch.where(which, 2 * level_pose - labels[:, POSE], labels[:, POSE])
    labels = torch.cat([labels[:, :POSE], pose[:, None], labels[:, POSE + 1 :]], dim=1)
    return torch.where(which[:, None, None, None], inputs.flip(-1), inputs), labels


def predict(
    network: torch.nn.Module, images: np.ndarray, rows: np.ndarray, device: torch.device, batch: int = 64
) -> np.ndarray:
    """Scores float32 [len(rows), 8] of the given rows of images uint8 [N, R, R, 3]; eval mode."""
    network.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(rows), batch):
            parts.append(network(_as_input(images, rows[start : start + batch], device)).cpu().numpy())
    return np.concatenate(parts) if parts else np.empty((0, len(PROPERTIES)), np.float32)


def train_property_cnn(
    images: np.ndarray,
    labels: pd.DataFrame | np.ndarray,
    *,
    architecture: Callable[[int, float], torch.nn.Module] = MergedPropertyCNN,
    width: float = 0.25,
    settings: PropertyTraining | None = None,
    seed: int = 0,
    parts: np.ndarray | None = None,
    level_pose: float | None = None,
    checkpoint: Path | None = None,
    device: str | torch.device = "cpu",
    on_epoch: Callable[[dict], None] | None = None,
) -> TrainedPropertyCNN:
    """Train all eight outputs together; the weights of the best validation epoch, figures from the test faces only.

    images: uint8 RGB [N, R, R, 3], an array or memory map. labels: z-scores [N, 8] in the order of PROPERTIES (or a
    frame with these columns), NaN where missing. architecture: network of a resolution and a width. parts: "train",
    "val" or "test" for each face (others are not used), else `split_parts`. level_pose: z-score of a level head; with
    it half of the training pictures, drawn anew in each epoch, are mirrored, which turns pose around and nothing else.
    checkpoint: file that is written after every epoch; a killed training that is started again with the same arguments
    goes on there and ends with the same weights. on_epoch: called with each row of the log.
    PipelineError if a property has no labels at all, or if the shapes do not fit.
    """
    settings, device = settings or PropertyTraining(), torch.device(device)
    targets = _targets(images, labels)
    parts = split_parts(len(images), seed) if parts is None else np.asarray(parts)
    rows = {part: np.flatnonzero(parts == part) for part in PARTS}
    if min(len(members) for members in rows.values()) == 0:
        raise PipelineError("every part (train, val, test) needs at least one face; use more faces")
    clipped = torch.from_numpy(targets.clip(-settings.largest_label, settings.largest_label))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(_seed(seed, 0))
        network = architecture(images.shape[1], width).to(device, memory_format=torch.channels_last)
        identity = _identity(images, targets, parts, network, settings, seed, level_pose)
        optimiser = torch.optim.AdamW(
            network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        state = _resume(checkpoint, identity, network, optimiser) or {"epoch": 0, "best": None, "log": []}
        with progress(settings.epochs, "train property CNN") as bar:
            bar.update(state["epoch"])
            while state["epoch"] < settings.epochs and not _is_over(state, settings):
                row = _epoch(
                    network, optimiser, images, clipped, rows, state["epoch"], settings, seed, level_pose, device
                )
                if not math.isfinite(row["val_loss"]):
                    raise PipelineError(
                        f"the property CNN diverged in epoch {row['epoch']}; lower its learning rate "
                        f"(now {settings.learning_rate})"
                    )
                if row["val_loss"] < min((old["val_loss"] for old in state["log"]), default=math.inf):
                    state["best"] = {key: value.detach().cpu().clone() for key, value in network.state_dict().items()}
                state["log"].append(row)
                state["epoch"] += 1
                if checkpoint is not None:
                    save_weights(
                        checkpoint,
                        {
                            "network": network.state_dict(),
                            "optimiser": optimiser.state_dict(),
                            "identity": identity,
                            **state,
                        },
                    )
                if on_epoch is not None:
                    on_epoch(row)
                bar.update()
    network.load_state_dict(state["best"])
    figures = property_figures(predict(network, images, rows["test"], device), targets[rows["test"]])
    log = pd.DataFrame(state["log"])
    return TrainedPropertyCNN(network.cpu().eval().requires_grad_(False), parts, log, figures)


def remove_checkpoint(path: Path) -> None:
    """Delete a checkpoint and the JSON beside it."""
    path.unlink(missing_ok=True)
    stamp_path(path).unlink(missing_ok=True)


def _targets(images: np.ndarray, labels: pd.DataFrame | np.ndarray) -> np.ndarray:
    if isinstance(labels, pd.DataFrame):
        absent = [name for name in PROPERTIES if name not in labels]
        if absent:
            raise PipelineError(f"labels for the property CNN lack the column {', '.join(absent)}")
        labels = labels[list(PROPERTIES)].to_numpy()
    targets = np.asarray(labels, dtype=np.float32)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] != 3:
        raise PipelineError(f"images must be uint8 [N, R, R, 3], found {images.dtype} {list(images.shape)}")
    if targets.shape != (len(images), len(PROPERTIES)):
        raise PipelineError(f"labels must be [{len(images)}, {len(PROPERTIES)}], found {list(targets.shape)}")
    empty = [name for name, column in zip(PROPERTIES, targets.T, strict=True) if not np.isfinite(column).any()]
    if empty:
        raise PipelineError(f"no face has a label for {', '.join(empty)}; measure that property first (stage 4)")
    return targets


def _identity(images, targets, parts, network, settings, seed, level_pose) -> str:
    """What a checkpoint belongs to: network, settings and data (of the pictures a sample of rows, for speed)."""
    layout = {key: list(value.shape) for key, value in network.state_dict().items()}
    total = hashlib.sha256(repr((asdict(settings), layout, seed, images.shape, level_pose)).encode())
    total.update(np.nan_to_num(targets, nan=1e9).tobytes() + "".join(parts.tolist()).encode())
    total.update(np.ascontiguousarray(images[:: max(1, len(images) // 64)]).tobytes())
    return total.hexdigest()


def _resume(checkpoint: Path | None, identity: str, network, optimiser) -> dict | None:
    if checkpoint is None or not checkpoint.exists():
        return None
    saved = read_weights(checkpoint)
    if saved.get("identity") != identity:
        return None
    network.load_state_dict(saved["network"])
    optimiser.load_state_dict(saved["optimiser"])
    return {key: saved[key] for key in ("epoch", "best", "log")}


def _is_over(state: dict, settings: PropertyTraining) -> bool:
    losses = [row["val_loss"] for row in state["log"]]
    return bool(losses) and len(losses) - 1 - int(np.argmin(losses)) >= settings.patience


def _seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, 0x9C, epoch]).generate_state(1, np.uint64)[0] >> 1)


def _as_input(images: np.ndarray, rows: np.ndarray, device: torch.device) -> torch.Tensor:
    pixels = torch.from_numpy(np.ascontiguousarray(images[rows])).to(device)
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def _epoch(
    network, optimiser, images, targets, rows, epoch, settings, seed, level_pose, device
) -> dict[str, float | int]:
    # Order, mirroring and dropout of an epoch depend on its number alone, so that a resumed training repeats them.
    torch.manual_seed(_seed(seed, 1 + epoch))
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(rows["train"])
    rate = settings.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / settings.epochs))
    for group in optimiser.param_groups:
        group["lr"] = rate
    network.train()
    total = 0.0
    for start in range(0, len(order), settings.batch):
        members = np.sort(order[start : start + settings.batch])
        inputs, labels = _as_input(images, members, device), targets[members].to(device)
        if level_pose is not None:
            which = torch.from_numpy(random.random(len(members)) < 0.5).to(device)
            inputs, labels = mirrored(inputs, labels, which, level_pose)
        loss = masked_mse(network(inputs.contiguous(memory_format=torch.channels_last)), labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        total += float(loss.detach()) * len(members)
    known = targets[rows["val"]].numpy()
    scores = predict(network, images, rows["val"], device)
    figures = property_figures(scores, known).set_index("property")
    row = {
        "epoch": epoch,
        "learning_rate": rate,
        "train_loss": total / len(order),
        "val_loss": float(masked_mse(torch.from_numpy(scores), torch.from_numpy(known))),
    }
    for name in PROPERTIES:
        row |= {
            f"{name}_score_loss": float(figures.loc[name, "mse"]),
            f"{name}_score_abs_diff": float(figures.loc[name, "mae"]),
            f"{name}_score_corr": float(figures.loc[name, "r"]),
        }
    return row
