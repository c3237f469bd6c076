"""Trains ParseNet on rendered shards and writes the weight file that the profile `demo` uses.

    python -m segmentation.train_parsenet --data work/renders --out weights/demo/parsenet.pth --minutes 15
    python -m segmentation.train_parsenet --data work/renders --out weights/demo/parsenet.pth --evaluate

The same command goes on where it stopped, until it has trained for the given minutes in all.
"""

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.artefacts import provenance_of, read_weights, save_weights
from pipeline.checkpoint import check_training, training_of
from pipeline.command import Summary, limit_threads, main, resolve_device
from pipeline.errors import PipelineError
from segmentation.augment import training_crops
from segmentation.evaluation import ParserQuality, evaluate
from segmentation.face_crop import FaceCropper
from segmentation.parsenet import ParseNet, ParseNetParser
from segmentation.shards import Shards

# background, skin, brows, eyes, nose, upper lip, inner mouth, lower lip, hair
CLASS_WEIGHTS = (0.7, 0.8, 1.8, 1.8, 3.0, 3.0, 1.0, 1.8, 2.5, 1.8, 0.8)
DICE_SHARE = 0.7
EMA_DECAY = 0.998
QUICK_COUNT = 128  # held-out pictures for the checks on the way
WARM_UP = 0.02  # share of the time in which the learning rate rises


@dataclass
class ParseNetOptions:
    """Train or evaluate ParseNet on rendered shards."""

    data: str
    """Folder of shard_*.npz (images, masks)."""
    out: str = "weights/demo/parsenet.pth"
    minutes: float = 15.0
    """Minutes of training in all, over however many starts."""
    work: str = "work/parsenet"
    """Folder of the checkpoint (of other --data or another --seed it is refused) and the log."""
    held_out: int = 2
    """The first shards of the folder, kept for evaluation."""
    batch: int = 32
    rate: float = 2e-3
    """Highest learning rate; it follows a half cosine down to zero."""
    seed: int = 0
    device: str = "auto"
    save_every: float = 2.0
    """Minutes between checkpoints."""
    evaluate: bool = False
    """Only print the IoU of --out on the held-out shards."""
    count: int = 1000
    """Held-out pictures to evaluate on."""


class Training:
    """Network, moving average, optimiser and clock of one training, resumable from its checkpoint."""

    def __init__(self, options: ParseNetOptions, device: torch.device):
        torch.manual_seed(options.seed)
        self.options, self.device = options, device
        self.network = ParseNet().to(device, memory_format=torch.channels_last)
        self.average = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=options.rate, weight_decay=0.01)
        self.seconds, self.steps, self.samples = 0.0, 0, 0
        self.class_weights = torch.tensor(CLASS_WEIGHTS, device=device)[:, None, None]

    @property
    def progress(self) -> float:
        """Share of the training time that is over, 0..1."""
        return min(1.0, self.seconds / (60 * self.options.minutes))

    def step(self, images: Tensor, masks: Tensor, generator: torch.Generator) -> float:
        """Train on one batch and return its loss."""
        start = time.perf_counter()
        crops, shares = training_crops(images.to(self.device), masks.to(self.device), generator)
        rate = self.options.rate * min(1.0, self.progress / WARM_UP + 0.02)
        rate *= (1 + math.cos(math.pi * self.progress)) / 2
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.network.train()
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            logits = self.network(crops.contiguous(memory_format=torch.channels_last))
        loss = segmentation_loss(logits.float(), shares, self.class_weights)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self._follow()
        self.steps, self.samples = self.steps + 1, self.samples + len(images)
        value = float(loss.detach())
        self.seconds += time.perf_counter() - start
        return value

    @torch.no_grad()
    def _follow(self) -> None:
        decay = min(EMA_DECAY, (self.steps + 1) / (self.steps + 10))
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    def state(self) -> dict[str, Any]:
        """Return everything that `restore` needs."""
        counters = {"seconds": self.seconds, "steps": self.steps, "samples": self.samples}
        return {
            "network": self.network.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "counters": counters,
        }

    def restore(self, state: dict[str, Any], source: Path) -> None:
        """Go on from a checkpoint; PipelineError when it is of another network."""
        try:
            self.network.load_state_dict(state["network"])
            self.average = {name: state["average"][name].to(self.device) for name in self.average}
            self.optimiser.load_state_dict(state["optimiser"])
            for name in ("seconds", "steps", "samples"):
                setattr(self, name, state["counters"][name])
        except (KeyError, RuntimeError, ValueError, TypeError):
            raise PipelineError(
                f"{source} is no checkpoint of this training; delete it or choose another --work"
            ) from None

    def averaged(self) -> ParseNet:
        """Return a copy of the network with the averaged weights, on the CPU."""
        network = ParseNet()
        network.load_state_dict({name: value.cpu() for name, value in self.average.items()})
        return network


def segmentation_loss(logits: Tensor, shares: Tensor, class_weights: Tensor) -> Tensor:
    """Return weighted cross entropy plus soft Dice (Milletari et al., 2016).

    logits and class shares: float32 [N, 11, H, W]. class_weights: float32 [11, 1, 1].
    """
    log_chances = F.log_softmax(logits, dim=1)
    weighted = class_weights * shares
    entropy = -(weighted * log_chances).sum() / weighted.sum()
    chances = log_chances.exp()
    hit, total = (chances * shares).sum(dim=(0, 2, 3)), (chances + shares).sum(dim=(0, 2, 3))
    return entropy + DICE_SHARE * (1 - ((2 * hit + 1) / (total + 1)).mean())


def train(options: ParseNetOptions) -> None:
    """Train until the minutes are over, saving on the way; or only evaluate."""
    if options.minutes <= 0:
        raise PipelineError(f"--minutes {options.minutes:g}: give more than 0")
    limit_threads()
    device = resolve_device(options.device)
    shards = Shards(options.data, options.held_out)
    out = Path(options.out)
    if options.evaluate:
        quality = _quality(ParseNetParser.load(out, device), shards, options.count, device)
        _print(quality, out)
        return
    checkpoint, known = Path(options.work) / "checkpoint.pt", training_of(options.data, options.seed)
    training = Training(options, device)
    if checkpoint.exists():
        check_training(checkpoint, provenance_of(checkpoint).get("training"), known)
        training.restore(read_weights(checkpoint), checkpoint)
        print(f"going on from {checkpoint}: {training.seconds / 60:.1f} min, {training.samples} samples")
    summary = Summary("train ParseNet")
    if training.progress >= 1 and out.exists():
        summary.kept(out, f"{training.seconds / 60:.1f} of {options.minutes} minutes done; raise --minutes to go on")
        summary.print()
        return
    # A resumed training draws other crops than the first part did, but the same ones each time.
    generator = torch.Generator().manual_seed(options.seed * 1_000_003 + training.steps)
    last, losses = training.seconds, []
    for images, masks in shards.batches(options.batch, generator):
        losses.append(training.step(images, masks, generator))
        over = training.progress >= 1
        if over or training.seconds - last >= 60 * options.save_every:
            parser = ParseNetParser(training.averaged(), device)
            quality = _quality(parser, shards, options.count if over else QUICK_COUNT, device)
            _save(training, out, checkpoint, known, quality, float(np.mean(losses)))
            last, losses = training.seconds, []
        if over:
            break
    _print(quality, out)
    summary.wrote(out, f"{training.samples} samples in {training.seconds / 60:.1f} min")
    summary.wrote(checkpoint)
    summary.print()


def _quality(parser: ParseNetParser, shards: Shards, count: int, device: torch.device) -> ParserQuality:
    images, masks = shards.held_out(count)
    return evaluate(parser, FaceCropper(device), images.numpy(), masks.numpy())


def _save(training: Training, out: Path, checkpoint: Path, known: str, quality: ParserQuality, loss: float) -> None:
    scores = quality.table().set_index("class")["iou"].round(4).to_dict()
    line = {
        "minutes": round(training.seconds / 60, 2),
        "samples": training.samples,
        "loss": round(loss, 4),
        "held_out": quality.images,
        "without_face": quality.without_face,
        "iou": scores,
    }
    # The file first: a checkpoint whose time is over vouches for it.
    save_weights(out, training.average, half=True, options=asdict(training.options), **line)
    save_weights(checkpoint, training.state(), training=known)
    with (checkpoint.parent / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")
    progress = f"{line['minutes']:.1f} min  {training.samples} samples"
    print(f"{progress}  loss {loss:.4f}  mean IoU {scores['mean']:.3f}", flush=True)


def _print(quality: ParserQuality, out: Path) -> None:
    print(f"{out} on {quality.images} held-out pictures ({quality.without_face} without a found face):")
    print(quality.table().to_string(index=False, float_format=lambda value: f"{value:.3f}"))


if __name__ == "__main__":
    main(ParseNetOptions, train, examples=(__doc__ or "").split("\n\n")[1])
