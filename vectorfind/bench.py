"""The generator and the scorer side by side: seeds to codes, codes to images, images to scores."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from pipeline.errors import PipelineError
from pipeline.seeds import latents_from_seeds
from vectorfind.names import POSITIONS, PROPERTIES


class Bench:
    """A generator and a scorer that share a device; every array that leaves it is float32 numpy.

    generator: `z_dim`, `label_size`, `encode(z, label, position)`, `decode(mid, position)`; a conditional one is fed
    zero labels, as fine-tuned generators were trained, unless others are given. scorer: `score_tensor(images) -> [N,
    8]` or `score(images) -> DataFrame`. generator_hash, scorer_hash: hex digests that go into the provenance of
    whatever is measured here. precision: of the generator's convolutions when it draws, float32 or bfloat16; scores and
    gradients are always computed in float32.
    """

    def __init__(
        self,
        generator,
        scorer,
        *,
        generator_hash: str,
        scorer_hash: str,
        device="cpu",
        batch: int = 50,
        precision: str = "float32",
    ):
        self.generator = generator.eval()
        if hasattr(self.generator, "requires_grad_"):
            # `slopes` wants gradients of the codes only.
            self.generator.requires_grad_(False)
        self.scorer = scorer
        self.generator_hash = generator_hash
        self.scorer_hash = scorer_hash
        self.device = torch.device(device)
        self.batch = batch
        self.precision = precision
        if self.device.type == "cpu" and hasattr(self.generator, "to"):
            # What convolutions want on a CPU; a GPU in float32 does not.
            self.generator.to(memory_format=torch.channels_last)

    @property
    def positions(self) -> tuple[str, ...]:
        """The positions that this generator has: `z` and `w`, and the two split ones when its mapping is split."""
        return POSITIONS if getattr(self.generator, "split", False) else POSITIONS[:2]

    def latents(self, seeds) -> np.ndarray:
        """The float32 [N, z_dim] normal vectors of the seeds."""
        return latents_from_seeds(list(seeds), self.generator.z_dim)

    def encode(self, z: np.ndarray, position: str, labels: np.ndarray | None = None) -> np.ndarray:
        """Codes float32 [N, D] of z [N, z_dim] at `position`; PipelineError if the generator has no such position.

        labels [N, label_size]: zeros by default.
        """
        if position not in self.positions:
            raise PipelineError(
                f"position '{position}' does not exist in this generator; it has {', '.join(self.positions)}: "
                "choose one of these, or a generator with a split mapping (v9)"
            )
        parts = []
        with torch.inference_mode():
            for start in range(0, len(z), self.batch):
                rows = slice(start, start + self.batch)
                label = None if labels is None else self._tensor(labels[rows])
                parts.append(self.generator.encode(self._tensor(z[rows]), label, position))
        return torch.cat(parts).float().cpu().numpy()

    def images(self, codes: np.ndarray, position: str) -> torch.Tensor:
        """Images float32 [N, 3, R, R], about [-1, 1], of at most one batch of codes; they stay on the device."""
        reduced = self.precision == "bfloat16"
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=reduced):
            return self.generator.decode(self._tensor(codes), position).float()

    def draw(self, codes: np.ndarray, position: str) -> Iterator[tuple[slice, torch.Tensor]]:
        """Images of any number of codes [N, D], a batch at a time: (rows, float32 [n, 3, R, R] on the device)."""
        for start in range(0, len(codes), self.batch):
            rows = slice(start, min(start + self.batch, len(codes)))
            yield rows, self.images(codes[rows], position)

    def scores(self, images: torch.Tensor) -> np.ndarray:
        """Scores float32 [N, 8] in the order of PROPERTIES; NaN where the scorer could not measure."""
        return read_scores(self.scorer, images)

    def measure(self, codes: np.ndarray, position: str, progress=None) -> np.ndarray:
        """Scores float32 [N, 8] of codes [N, D], decoded in batches; no image is kept.

        progress: called with the number of rows of each batch.
        """
        found = np.empty((len(codes), len(PROPERTIES)), np.float32)
        for rows, images in self.draw(codes, position):
            found[rows] = self.scores(images)
            if progress is not None:
                progress(len(images))
        return found

    def slopes(self, codes: np.ndarray, position: str, columns: list[int]) -> np.ndarray:
        """Gradients float32 [N, C, D] through generator and scorer of the scores `columns` [C] of codes [N, D].

        Each score costs a pass back through both.
        """
        found = []
        for start in range(0, len(codes), self.batch):
            with torch.enable_grad():
                x = self._tensor(codes[start : start + self.batch]).requires_grad_(True)
                scores = self.differentiable_scores(self.generator.decode(x, position))
                parts = [
                    torch.autograd.grad(scores[:, column].sum(), x, retain_graph=column != columns[-1])[0]
                    for column in columns
                ]
            found.append(torch.stack(parts, 1).float().cpu().numpy())
        return np.concatenate(found)

    def differentiable_scores(self, images: torch.Tensor) -> torch.Tensor:
        """Scores [N, 8] of images on the device, through which gradients flow; PipelineError for other scorers."""
        if hasattr(self.scorer, "network"):
            return self.scorer.network(images)
        if not hasattr(self.scorer, "score_tensor"):
            raise PipelineError("the loops need a scorer with a gradient: give them a property CNN (--scorer)")
        return self.scorer.score_tensor(images)

    def _tensor(self, array) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)).to(self.device)


def evenly_spaced(count: int, most: int) -> np.ndarray:
    """Rows int [n] of `count`, evenly spaced, all of them or `most`."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))


def read_scores(scorer, images: torch.Tensor) -> np.ndarray:
    """Scores float32 [N, 8] in the order of PROPERTIES of images [N, 3, R, R] by any Scorer; NaN where unmeasured."""
    with torch.inference_mode():
        if hasattr(scorer, "score_tensor"):
            return scorer.score_tensor(images).float().cpu().numpy()
        return scorer.score(images)[list(PROPERTIES)].to_numpy(dtype=np.float32)
