"""The faces that fine-tuning aims at: read once, drawn in an order that depends on seed and draw number alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pipeline.artefacts import read_image
from pipeline.errors import PipelineError
from pipeline.profile import shown
from stylegan.sampling import from_uint8


class Faces:
    """Images uint8 [N, R, R, 3] in memory, drawn in batches; what fills no batch is dropped at each epoch's end.

    labels: float32 [N, L], one per image, where the training is conditional.
    """

    def __init__(self, images: np.ndarray, batch: int, seed: int, labels: np.ndarray | None = None):
        if len(images) < batch:
            raise PipelineError(f"{len(images)} faces do not fill one batch of {batch}; let more faces pass the filter")
        if labels is not None and len(labels) != len(images):
            raise PipelineError(f"{len(labels)} labels for {len(images)} faces; run the stage that scores faces again")
        self.images, self.batch, self.seed, self.labels = images, batch, seed, labels
        self.per_epoch = len(images) // batch

    @classmethod
    def read(cls, paths: list[Path], resolution: int, batch: int, seed: int) -> Faces:
        """Read image files; PipelineError names one that is damaged or has another size."""
        images = np.empty((len(paths), resolution, resolution, 3), dtype=np.uint8)
        for k, path in enumerate(paths):
            image = read_image(path)
            if image.shape != images.shape[1:]:
                raise PipelineError(
                    f"{shown(path)} is {image.shape[1]}x{image.shape[0]}, expected {resolution}x{resolution}; "
                    "delete it and run stages 1 and 2 again"
                )
            images[k] = image
        return cls(images, batch, seed)

    def draw(self, number: int) -> torch.Tensor:
        """Batch number 0, 1, 2, ...: float32 [batch, 3, R, R] in [-1, 1]; each epoch has an order of its own."""
        return from_uint8(self.images[self._rows(number)])

    def draw_labels(self, number: int) -> torch.Tensor:
        """Labels of the same batch, float32 [batch, L]."""
        return torch.from_numpy(self.labels[self._rows(number)])

    def first(self, count: int) -> torch.Tensor:
        """A fixed selection for monitors, float32 [count, 3, R, R]; spread over the set, cut to whole batches."""
        return from_uint8(self.images[self._places(count)])

    def first_labels(self, count: int) -> torch.Tensor | None:
        """Labels of that selection, float32 [count, L]; None where faces have none."""
        return None if self.labels is None else torch.from_numpy(self.labels[self._places(count)])

    def _rows(self, number: int) -> np.ndarray:
        epoch, place = divmod(number, self.per_epoch)
        order = np.random.default_rng([self.seed, 9, epoch]).permutation(len(self.images))
        return order[place * self.batch : (place + 1) * self.batch]

    def _places(self, count: int) -> np.ndarray:
        count = min(count, len(self.images)) // self.batch * self.batch
        return np.linspace(0, len(self.images) - 1, count).astype(int)
