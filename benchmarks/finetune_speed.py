"""How many training steps a second this trainer does, against a plain loop in float32 with R1 in every update.

Both train the same nets (the profile's generator and discriminator, freeze lists of v9) with one update of D and one of
G a step on the same batch of faces. The plain loop is what the published scripts do: float32 and R1 each time. The
trainer measures R1 every sixteenth update, computes in bfloat16 where that is fast and takes a fused optimiser. Times
are processor time on a CPU and wall time on a GPU. Other work on the machine slows processor time too (caches and
memory are shared), so both loops take turns, and the median of the rounds counts; the extreme ratios stand beside it.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from pipeline.command import main, resolve_device
from pipeline.errors import PipelineError
from pipeline.precision import has_fast_bfloat16
from stylegan.checkpoint import load_discriminator, load_generator
from stylegan.discriminator import Discriminator
from stylegan.generator import Generator
from stylegan.sampling import to_uint8
from stylegan_modified.carry import conditional_generator, labelled_discriminator, split_generator
from stylegan_modified.faces import Faces
from stylegan_modified.sampler import Sampler
from stylegan_modified.settings import Rates
from stylegan_modified.trainer import Trainer
from stylegan_modified.versions import VERSIONS, train_critic

EXAMPLES = """
python -m benchmarks.finetune_speed
python -m benchmarks.finetune_speed --resolution 256 --batch 8 --device cuda
"""
R1_EVERY = 16


@dataclass
class Options:
    """Steps per second of the trainer and of a plain loop, on one thread of a CPU or on a GPU."""

    resolution: int = 128
    """128: the bundled nets; others: random nets of the published widths."""
    batch: int = 8
    steps: int = 16
    """Steps that are timed: a multiple of 16, so that the rare R1 is paid for in full."""
    plain: int = 4
    """Steps of the plain loop that are timed."""
    rounds: int = 3
    """Turns of the two loops, each of so many steps."""
    device: str = "auto"
    generator: str = "weights/demo/generator.pth"


def nets(options: Options, device: torch.device) -> tuple[Generator, Discriminator]:
    """The v9 generator with its discriminator."""
    if options.resolution == 128:
        base, critic = load_generator(options.generator, device), load_discriminator(options.generator, device)
    else:
        torch.manual_seed(0)
        base = Generator(options.resolution).to(device)
        critic = Discriminator(options.resolution).to(device)
    return split_generator(conditional_generator(base)).to(device), labelled_discriminator(critic).to(device)


def plain_step(generator: Generator, critic: Discriminator, real: torch.Tensor, optimisers) -> None:
    """One update of D and one of G as published: logistic loss, R1 with gamma 10 each time, float32."""
    for_d, for_g = optimisers
    z = torch.randn(2, len(real), generator.z_dim).to(real.device)
    real = real.clone().requires_grad_(True)
    fake = generator(z[0], lod=0.0, randomize_noise=True)["image"]
    on_real, on_fake = critic(real, lod=0.0), critic(fake.detach(), lod=0.0)
    slope = torch.autograd.grad(on_real.sum(), real, create_graph=True)[0]
    loss = F.softplus(on_fake).mean() + F.softplus(-on_real).mean() + 5.0 * slope.square().sum((1, 2, 3)).mean()
    for_d.zero_grad()
    loss.backward()
    for_d.step()
    fake = generator(z[1], lod=0.0, randomize_noise=True)["image"]
    for_g.zero_grad()
    F.softplus(-critic(fake, lod=0.0)).mean().backward()
    for_g.step()


def timed(step: Callable[[], None], count: int, device: torch.device) -> float:
    """Seconds per step of `count` steps."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return clock()

    start = now()
    for _ in range(count):
        step()
    return (now() - start) / count


def measure(options: Options) -> dict[str, list[float]]:
    """Seconds per step of `plain` and `trainer` in each round; PipelineError for numbers of steps that say nothing."""
    if options.steps < R1_EVERY or options.steps % R1_EVERY or min(options.plain, options.rounds) < 1:
        raise PipelineError(
            f"--steps {options.steps}: a multiple of {R1_EVERY}; --plain {options.plain} and --rounds "
            f"{options.rounds}: at least 1"
        )
    device = resolve_device(options.device)
    torch.set_num_threads(1 if device.type == "cpu" else torch.get_num_threads())
    generator, critic = nets(options, device)
    z = torch.randn(4 * options.batch, generator.z_dim, generator=torch.Generator().manual_seed(1))
    faces = Faces(to_uint8(Sampler(generator, batch=options.batch, device=device).images(z)), options.batch, 0)
    version = VERSIONS["v9"]
    one_each = {"d_most": 1, "g_most": 1}
    rates = Rates(r1_every=R1_EVERY, reduced=has_fast_bfloat16(device))
    row = type(version)(**{**vars(version), **one_each})
    trainer = Trainer(copy.deepcopy(generator), copy.deepcopy(critic), row, faces, rates, 0, device)
    generator.train()
    critic.train()
    trained = [(name, p) for name, p in trainer.generator.named_parameters() if p.requires_grad]
    names = {name for name, _ in trained}
    # The published scripts freeze by the same lists.
    for name, parameter in generator.named_parameters():
        parameter.requires_grad_(name in names)
    train_critic(row, critic)
    optimisers = (
        torch.optim.AdamW([p for p in critic.parameters() if p.requires_grad], lr=1e-4),
        torch.optim.AdamW([p for p in generator.parameters() if p.requires_grad], lr=1e-4),
    )
    real = faces.draw(0).to(device)
    loops = {
        "plain": (lambda: plain_step(generator, critic, real, optimisers), options.plain),
        "trainer": (trainer.step, options.steps),
    }
    for step, _ in loops.values():
        step()  # the first one allocates and is not counted
    seconds = {name: [] for name in loops}
    for _ in range(options.rounds):
        for name, (step, count) in loops.items():
            seconds[name].append(timed(step, count, device))
    return seconds


def report(options: Options) -> None:
    """Print both, their ratio and the peak memory."""
    rounds = measure(options)
    seconds = {name: statistics.median(values) for name, values in rounds.items()}
    ratios = [plain / own for plain, own in zip(rounds["plain"], rounds["trainer"])]
    device = resolve_device(options.device)
    what = torch.cuda.get_device_name(device) if device.type == "cuda" else "one CPU thread, processor time"
    print(f"fine-tuning at {options.resolution} px, batch {options.batch}, {what}")
    for name, value in seconds.items():
        print(f"  {name:8} {value * 1e3:9.1f} ms a step  {options.batch / value:8.2f} faces a second")
    print(f"  ratio    {seconds['plain'] / seconds['trainer']:9.2f}  ({min(ratios):.2f} to {max(ratios):.2f})")
    if device.type == "cuda":
        print(f"  peak     {torch.cuda.max_memory_allocated(device) / 2**30:9.2f} GiB of the device")


if __name__ == "__main__":
    main(Options, report, EXAMPLES)
