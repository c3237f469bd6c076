"""Weight files: plain dicts of tensors, read with `weights_only=True`, refused with a clear reason."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError
from pipeline.stamps import file_digest, stamp_path
from pipeline.whole import atomic, write_json

if TYPE_CHECKING:
    import torch

HALF_LARGEST = 65504.0
LISTED = 8
TORCH_HEADS = (b"PK", b"\x80")  # zip archive since torch 1.6, plain stream before


def save_weights(path: Path | str, state_dict: Mapping[str, Any], half: bool = False, **provenance: Any) -> None:
    """Write tensors (flat, or nested dicts) whole, and beside them a JSON with their provenance and sha256.

    half: store float32 as float16, except tensors whose values half precision cannot hold.
    """
    import torch

    # A stream, not a path: torch writes the file name into the archive, and equal weights shall be equal bytes.
    with atomic(path) as temporary, temporary.open("wb") as stream:
        torch.save(_for_disk(state_dict, half), stream)
    write_json(stamp_path(path), {"provenance": provenance, "sha256": file_digest(Path(path))})


def read_weights(path: Path | str) -> dict[str, Any]:
    """Read a weight file onto the CPU, halves as float32; PipelineError when missing, truncated or something else."""
    from pickle import UnpicklingError  # the name of the exception only; nothing is unpickled outside torch

    import torch

    path = Path(path)
    _check_head(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:
        # torch's own text advises to switch the protection off, so it is not passed on.
        raise PipelineError(
            f"weight file {path} is damaged or holds more than plain tensors; fetch or train it again"
        ) from None
    except (RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, OSError) as error:
        reason = (str(error) or type(error).__name__).split(". ")[0].splitlines()[0]
        raise PipelineError(f"weight file {path} is truncated or damaged ({reason}); fetch or train it again") from None
    if not isinstance(state, Mapping):
        raise PipelineError(f"weight file {path} holds a {type(state).__name__}, expected a dict of tensors")
    return _as_float32(state)


def load_into(module: "torch.nn.Module", state: Mapping[str, "torch.Tensor"], source: Path | str) -> None:
    """Load a flat state dict into a module, strictly; PipelineError lists missing, unexpected, wrongly shaped keys."""
    own = module.state_dict()
    problems = {
        "missing": [key for key in own if key not in state],
        "unexpected": [key for key in state if key not in own],
        "wrong shape": [
            f"{key} (file {_shape(state[key])}, expected {list(own[key].shape)})"
            for key in own
            if key in state and _shape(state[key]) != list(own[key].shape)
        ],
    }
    lines = [f"  {kind}: {_listed(keys)}" for kind, keys in problems.items() if keys]
    if lines:
        raise PipelineError(
            "\n".join([f"{source} does not fit {type(module).__name__}:", *lines])
            + "\n  cure: use the weight file that belongs to this profile, or train it again"
        )
    module.load_state_dict(dict(state))


def _for_disk(value: Any, half: bool) -> Any:
    import torch

    if isinstance(value, Mapping):
        return {key: _for_disk(item, half) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_for_disk(item, half) for item in value]
    if not isinstance(value, torch.Tensor):
        return value
    tensor = value.detach().cpu().contiguous()
    if half and tensor.dtype == torch.float32 and (tensor.numel() == 0 or float(tensor.abs().max()) <= HALF_LARGEST):
        return tensor.half()
    # A view of a larger storage would drag the whole storage into the file.
    return tensor.clone()


def _as_float32(value: Any) -> Any:
    import torch

    if isinstance(value, Mapping):
        return {key: _as_float32(item) for key, item in value.items()}
    if isinstance(value, torch.Tensor) and value.dtype == torch.float16:
        return value.float()
    return value


def _check_head(path: Path) -> None:
    try:
        with path.open("rb") as stream:
            head = stream.read(256)
    except (FileNotFoundError, IsADirectoryError):
        raise PipelineError(f"weight file {path} is missing; see MODELS.md for where each file comes from") from None
    if not head:
        raise PipelineError(f"weight file {path} is empty; fetch or train it again")
    if head.startswith(b"version https://git-lfs"):
        raise PipelineError(f"weight file {path} is only a Git LFS pointer; run `git lfs pull` to fetch the real file")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise PipelineError(f"weight file {path} is a web page (a failed download); delete it and fetch it again")
    if not head.startswith(TORCH_HEADS):
        raise PipelineError(f"weight file {path} is no torch file (damaged or something else); fetch or train it again")


def _shape(value: Any) -> list[int] | str:
    return list(value.shape) if hasattr(value, "shape") else type(value).__name__


def _listed(keys: list[str]) -> str:
    more = f" and {len(keys) - LISTED} more" if len(keys) > LISTED else ""
    return ", ".join(keys[:LISTED]) + more
