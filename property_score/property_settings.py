"""Settings of the property CNN's training, free of torch, so that checks start fast."""

from __future__ import annotations

from dataclasses import dataclass

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class PropertyTraining:
    """How the property CNN is trained: AdamW, one cosine from `learning_rate` to 0 over `epochs`, early stop."""

    epochs: int = 60
    patience: int = 12
    batch: int = 32
    learning_rate: float = 5e-4
    weight_decay: float = 0.01
    largest_label: float = 5.0  # z-scores beyond are pulled in for the loss, so that no single face rules a batch
