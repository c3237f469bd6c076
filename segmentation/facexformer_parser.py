"""FaceXFormer as a face parser, and everything else that it tells about a face."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from segmentation.classes import SIZE
from segmentation.facexformer import HEADS, PARSING, FaceXFormer, load_facexformer

MEAN = (0.485, 0.456, 0.406)  # of ImageNet, RGB
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class FaceDescription:
    """What FaceXFormer tells about N faces, in the frame of the 224x224 crop.

    The network came without names of its attributes, landmarks and classes: they are columns and numbers here.
    """

    parsing: np.ndarray
    """Class ids uint8 [N, 224, 224], see `segmentation.classes`."""
    landmarks: np.ndarray
    """float32 [N, 68, 2]: x and y in pixels; 0, 0 is the middle of the first pixel."""
    headpose: np.ndarray
    """float32 [N, 3]: pitch, yaw and roll in radians."""
    attributes: np.ndarray
    """bool [N, 40], in CelebA's order as far as known."""
    visibility: np.ndarray
    """bool [N, 29]."""
    age: np.ndarray
    """int64 [N], class 0..7."""
    gender: np.ndarray
    """int64 [N], class 0..1."""
    race: np.ndarray
    """int64 [N], class 0..4."""


class FaceXFormerParser:
    """A FaceParser: float32 on a CPU, half precision on a GPU unless `precision` says otherwise.

    batch: crops per pass, 1 on a CPU and 32 on a GPU unless given; every pass has exactly this many (filled up with
    copies), because other batch sizes round differently and a map must not depend on its batch.
    """

    name = "facexformer"

    def __init__(
        self,
        network: FaceXFormer,
        device: str | torch.device = "cpu",
        batch: int | None = None,
        precision: torch.dtype | None = None,
    ):
        self.device = torch.device(device)
        on_cpu = self.device.type == "cpu"
        self.batch = batch or (1 if on_cpu else 32)
        self.precision = precision or (torch.float32 if on_cpu else torch.float16)
        self._network = network.eval().requires_grad_(False).to(self.device)

    @classmethod
    def load(cls, path: Path | str, device: str | torch.device = "cpu", half: bool = True) -> "FaceXFormerParser":
        """Load a published checkpoint; half: half precision on a GPU. PipelineError when the file does not fit."""
        return cls(load_facexformer(path, device), device, precision=None if half else torch.float32)

    @torch.inference_mode()
    def parse(self, images: torch.Tensor) -> np.ndarray:
        """Return class ids uint8 [N, 224, 224] of face crops float32 [N, 3, H, W] RGB in [-1, 1]."""
        maps = np.empty((len(images), SIZE, SIZE), np.uint8)
        for rows, batch in self._batches(images):
            found = self._run(lambda batch: {PARSING: self._network.segment(*self._network.encode(batch))}, batch)
            maps[rows] = _class_ids(found[PARSING])[: rows.stop - rows.start]
        return maps

    @torch.inference_mode()
    def describe(self, images: torch.Tensor) -> FaceDescription:
        """Return the class ids and what all other heads tell of face crops float32 [N, 3, H, W] RGB in [-1, 1]."""
        maps = np.empty((len(images), SIZE, SIZE), np.uint8)
        heads = {name: np.empty((len(images), size), np.float32) for name, size in HEADS.items()}
        for rows, batch in self._batches(images):
            found, count = self._run(self._network, batch), rows.stop - rows.start
            maps[rows] = _class_ids(found[PARSING])[:count]
            for name, values in heads.items():
                values[rows] = found[name][:count].float().cpu().numpy()
        return described(maps, heads)

    def _batches(self, images: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield which rows a batch stands for, and the batch as the network wants it."""
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(f"face crops are float [N, 3, H, W] in [-1, 1], got {images.dtype} {list(images.shape)}")
        for start in range(0, len(images), self.batch):
            part = images[start : start + self.batch]
            filled = part if len(part) == self.batch else part[torch.arange(self.batch) % len(part)]
            yield slice(start, start + len(part)), prepare(filled.to(self.device, torch.float32))

    def _run(self, function: Callable[[torch.Tensor], dict[str, torch.Tensor]], batch: torch.Tensor):
        if self.precision != torch.float32:
            with torch.autocast(self.device.type, self.precision):
                found = function(batch)
            if found[PARSING].isfinite().all():
                return found
        # Half precision overflows at 65504; a batch in which that happens is computed again.
        return function(batch)


def prepare(images: torch.Tensor) -> torch.Tensor:
    """Turn face crops float [N, 3, H, W] in [-1, 1] into what the network wants: 224x224, ImageNet-normalised.

    After `segmentation.face_crop.crop` (PIL's bicubic resize) and `segmentation.parser.to_tensor` this is the
    published preprocessing. Crops of another size are resized with the same kernel.
    """
    if images.shape[2:] != (SIZE, SIZE):
        images = F.interpolate(images, (SIZE, SIZE), mode="bicubic", antialias=True).clamp(-1, 1)
    mean, std = (images.new_tensor(values).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    return ((images + 1) / 2 - mean) / std


def described(parsing: np.ndarray, heads: Mapping[str, np.ndarray]) -> FaceDescription:
    """Turn class ids uint8 [N, 224, 224] and the raw heads float32 [N, k] of HEADS into pixels, flags and classes."""
    places = heads["landmarks"].reshape(-1, 68, 2)
    return FaceDescription(
        parsing=parsing,
        landmarks=((places + 1) * SIZE - 1) / 2,
        headpose=heads["headpose"],
        # Half of a sigmoid is zero before it.
        **{name: heads[name] >= 0 for name in ("attributes", "visibility")},
        **{name: heads[name].argmax(axis=1) for name in ("age", "gender", "race")},
    )


def _class_ids(logits: torch.Tensor) -> np.ndarray:
    return logits.argmax(dim=1).to(torch.uint8).cpu().numpy()
