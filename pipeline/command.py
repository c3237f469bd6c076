"""What every command line shares: options, devices, threads, errors, and the summary at the end."""

import ctypes
import errno
import inspect
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pipeline.errors import PipelineError

if TYPE_CHECKING:
    import torch

MOST_THREADS = 16
MOST_SEED = 9_000_000_000  # stage 6 counts its faces from a thousand millions of it on, and tables hold 64 bits
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h in glibc


_CURES = {
    errno.ENOSPC: "; free some space and run the same command again: it goes on with what is there",
    errno.EDQUOT: "; free some space and run the same command again: it goes on with what is there",
    errno.EACCES: "; give a place that may be written, as with --run, or change the rights",
    errno.EROFS: "; give a place that may be written, as with --run",
    errno.EISDIR: "; name a file",
    errno.ENOTDIR: "; a file stands where a folder is wanted",
}


@dataclass
class StageOptions:
    """Options that every stage takes."""

    profile: str = "demo"
    """World to work in: the name of a file in profiles/, or the path of a .toml."""
    run: str = "runs/demo"
    """Folder that the run reads and writes."""
    device: str = "auto"
    """Where to compute: auto (a GPU if there is one), cpu, cuda or cuda:1."""
    seed: int = 0
    """Seed of everything random in this stage."""
    force: bool = False
    """Build again even what is fresh."""


def main(options_class: type, function: Callable[[Any], None], examples: str = "") -> None:
    """Parse the command line into `options_class`, call `function` with it, and end the process honestly.

    A PipelineError becomes one message on stderr and exit code 2, and so does what the file system refuses (no room, no
    right, a file in a folder's place) and a GPU without enough memory; an interrupt exit code 130. A `seed` that is
    negative, or above `most_seed` of the class (MOST_SEED where it has none), is refused here, for all commands.
    """
    import tyro

    description = inspect.cleandoc(options_class.__doc__ or "")
    if examples:
        lines = [f"  {line.strip()}" for line in examples.strip().splitlines()]
        description += "\n\nexamples:\n" + "\n".join(lines)
    reuse_freed_memory()
    options = tyro.cli(options_class, description=description, config=(tyro.conf.FlagCreatePairsOff,))
    try:
        seed = getattr(options, "seed", 0)
        if seed < 0:
            raise PipelineError(f"--seed {seed}: seeds are not negative")
        most = getattr(options_class, "most_seed", MOST_SEED)
        if seed > most:
            raise PipelineError(f"--seed {seed} is too large: give at most {most}")
        function(options)
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno is None:
            raise
        where, cure = error.filename2 or error.filename, _CURES.get(error.errno, "")
        print(f"error: {f'{where}: ' if where else ''}{os.strerror(error.errno)}{cure}", file=sys.stderr)
        sys.exit(2)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # by name, as this module does without torch
            raise
        print(
            f"error: {str(error).splitlines()[0]}\n"
            "  cure: a smaller batch (--batch, or in the profile), nothing else on the GPU, or --device cpu",
            file=sys.stderr,
        )
        sys.exit(2)
    except KeyboardInterrupt:
        without = " without --force" if getattr(options, "force", False) else ""
        print(f"interrupted; run the same command again{without} to go on", file=sys.stderr)
        sys.exit(130)


def resolve_device(name: str) -> "torch.device":
    """Turn `auto`, `cpu`, `cuda` or `cuda:1` into a torch device; PipelineError when it is not there.

    Each process that torchrun starts gets a GPU of its own, that of its LOCAL_RANK, unless `name` numbers one.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise PipelineError(f"--device {name} is unknown; use auto, cpu, cuda or cuda:1") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise PipelineError(f"--device {name}: {torch.cuda.device_count()} CUDA devices found; use --device cpu")
    if device.type == "cuda" and device.index is None and "LOCAL_RANK" in os.environ:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        if device.index >= torch.cuda.device_count():
            raise PipelineError(
                f"process {device.index} of torchrun finds no GPU of its own: {torch.cuda.device_count()} CUDA devices "
                "found; start at most as many processes, or use --device cpu"
            )
    if device.type not in ("cpu", "cuda"):
        raise PipelineError(f"--device {name} is not supported; use auto, cpu, cuda or cuda:1")
    return device


def limit_threads() -> int:
    """Let torch use the cores this process may use (16 at most), repeatably; return their number.

    A smaller OMP_NUM_THREADS in the environment is respected.
    """
    import torch

    threads = min(usable_cores(), MOST_THREADS)
    wish = os.environ.get("OMP_NUM_THREADS", "")
    if wish.isdigit() and int(wish) > 0:
        threads = min(threads, int(wish))
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    return threads


def reuse_freed_memory() -> None:
    """Let glibc keep what is freed for the next tensor; without effect on other systems.

    By default it returns blocks above 32 MiB to the kernel at once and asks for zeroed pages again, which takes about
    as long as what a CPU computes on such a block. The process then stays as large as it once was.
    """
    if sys.platform != "linux":
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if set_option is not None:
        set_option(M_MMAP_MAX, 0)
        set_option(M_TRIM_THRESHOLD, 2**31 - 1)


def usable_cores() -> int:
    """Return how many cores this process may really use: its affinity, and a container's quota on Linux."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota_file = Path("/sys/fs/cgroup/cpu.max")
    if quota_file.is_file():
        quota, period = quota_file.read_text().split()[:2]
        if quota != "max":
            cores = min(cores, max(1, round(int(quota) / int(period))))
    return cores


class Summary:
    """What a stage wrote and kept, printed at its end; a driver finds all of them in `Summary.printed`."""

    printed: ClassVar[list["Summary"]] = []

    def __init__(self, title: str):
        self.title = title
        self.written: list[tuple[Path, str]] = []
        self.unchanged: list[tuple[Path, str]] = []
        self.notes: list[str] = []
        self._start = time.perf_counter()
        self.seconds = 0.0

    def wrote(self, path: Path | str, what: str = "") -> None:
        """Note a file or folder that was written."""
        self.written.append((Path(path), what))

    def kept(self, path: Path | str, why: str = "fresh") -> None:
        """Note a file or folder that was left as it was."""
        self.unchanged.append((Path(path), why))

    def note(self, text: str) -> None:
        """Note anything else that the user should know; the same only once."""
        if text not in self.notes:
            self.notes.append(text)

    def print(self) -> None:
        """Print the summary to stdout."""
        self.seconds = time.perf_counter() - self._start
        Summary.printed.append(self)
        print(f"{self.title}: {'done' if self.written else 'nothing new'} in {self.seconds:.1f} s")
        for verb, entries in (("wrote", self.written), ("kept ", self.unchanged)):
            for path, what in entries:
                print(f"  {verb}  {path.as_posix()}{f'  ({what})' if what else ''}")
        for text in self.notes:
            print(f"  note   {text}")
        sys.stdout.flush()
