"""Weight files: plain dicts of tensors, read with `weights_only=True`, refused with a clear reason."""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError
from pipeline.recognition import describe, refusal
from pipeline.stamps import file_digest, stamp_path
from pipeline.whole import atomic, write_json

if TYPE_CHECKING:
    import torch

HALF_LARGEST = 65504.0
LISTED = 8
PREFIX = "module."
TORCH_HEADS = (b"PK", b"\x80")  # zip archive since torch 1.6, plain stream before
CURE = "use the weight file that belongs to this profile, or train it again"


def save_weights(path: Path | str, state_dict: Mapping[str, Any], half: bool = False, **provenance: Any) -> None:
    """Write tensors (flat, or nested dicts) whole, and beside them a JSON with their provenance and sha256.

    half: store float32 as float16, except tensors whose values half precision cannot hold.
    """
    import torch

    # A stream, not a path: torch writes the file name into the archive, and equal weights shall be equal bytes.
    with atomic(path) as temporary:
        with temporary.open("wb") as stream:
            torch.save(_for_disk(state_dict, half), stream)
        sha256 = file_digest(temporary)  # here, so that a kill hardly finds the file without its record
    write_json(stamp_path(path), {"provenance": provenance, "sha256": sha256})


def read_weights(path: Path | str) -> dict[str, Any]:
    """Read a weight file onto the CPU: halves as float32, prefixes `module.` of parallel training taken off.

    Plain tensors only, nothing in the file is run. PipelineError when missing, truncated or something else.
    """
    from pickle import UnpicklingError  # the name of the exception only; nothing is unpickled outside torch

    import torch

    path = Path(path)
    _check_head(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        # torch's own text advises to switch the protection off, so it is not passed on.
        code = re.search(r"GLOBAL (\S+)", str(error))
        held = f"holds code or objects ({code[1]})" if code else "is damaged or holds more than plain tensors"
        raise PipelineError(
            f"weight file {path} {held}, expected a dict of plain tensors; nothing of it was run; get the file that "
            "holds the state dict, or train it again"
        ) from None
    except (RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, OSError) as error:
        reason = (str(error) or type(error).__name__).split(". ")[0].splitlines()[0]
        raise PipelineError(f"weight file {path} is truncated or damaged ({reason}); fetch or train it again") from None
    if not isinstance(state, Mapping):
        raise PipelineError(
            f"weight file {path} holds a {type(state).__name__}, expected a dict of tensors (a state dict); "
            "get the file that holds one"
        )
    return _for_use(state)


def load_into(
    module: "torch.nn.Module", state: Mapping[str, "torch.Tensor"], source: Path | str, cure: str = CURE
) -> None:
    """Load a flat state dict into a module, strictly: all of it or nothing.

    PipelineError says what the file looks like and lists missing, unexpected and wrongly shaped keys, and keys with
    values that are no numbers.
    """
    own = module.state_dict()
    problems = {
        "missing": [key for key in own if key not in state],
        "unexpected": [key for key in state if key not in own],
        "wrong shape": [
            f"{key} (file {_form(state[key])}, expected {_form(own[key])})"
            for key in own
            if key in state and _form(state[key]) != _form(own[key])
        ],
        "not finite": [key for key in own if key in state and not _is_finite(state[key])],
    }
    lines = [f"{kind}: {_listed(keys)}" for kind, keys in problems.items() if keys]
    if lines:
        kind = describe(own)
        headline = f"{source} does not fit {type(module).__name__}{f' ({kind})' if kind else ''}:"
        raise refusal(headline, state, cure, lines)
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


def _for_use(value: Any) -> Any:
    import torch

    if isinstance(value, Mapping):
        named = value and all(isinstance(key, str) and key.startswith(PREFIX) for key in value)
        return {key.removeprefix(PREFIX) if named else key: _for_use(item) for key, item in value.items()}
    if isinstance(value, torch.Tensor) and value.dtype == torch.float16:
        return value.float()
    return value


def _check_head(path: Path) -> None:
    """Refuse what is not even an archive of torch, by what its first bytes say."""
    try:
        with path.open("rb") as stream:
            head = stream.read(512)
    except IsADirectoryError:
        raise PipelineError(f"weight file {path} is a folder; name the file inside it") from None
    except FileNotFoundError:
        raise PipelineError(f"weight file {path} is missing; see MODELS.md for where each file comes from") from None
    reason = _foreign(path, head)
    if reason:
        raise PipelineError(f"weight file {path} {reason}")


def _foreign(path: Path, head: bytes) -> str:
    """What a file is that torch did not write, and what to do about it; "" for what torch may have written."""
    if not head:
        return "is empty; fetch or train it again"
    if head.startswith(b"version https://git-lfs"):
        return "is only a Git LFS pointer; run `git lfs pull` to fetch the real file"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page (a failed download); delete it and fetch it again"
    if head.startswith(b"\x1f\x8b") or head[257:262] == b"ustar":
        return "is a tar or gzip archive; unpack it and name the weight file inside"
    if head[8:9] == b"{":
        return "is a safetensors file; get the torch file (.pth, .pt)"
    if not head.startswith(TORCH_HEADS):
        return f"is no torch file but begins with {head[:20]!r} (damaged or a failed download); fetch it again"
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except (zipfile.BadZipFile, UnicodeDecodeError, ValueError, OSError) as error:
            return f"is damaged ({error}); fetch or train it again"
        if any(name.endswith("/constants.pkl") for name in names):
            return "is a TorchScript program; get the file that holds its state dict"
        if not any(name.endswith("data.pkl") for name in names):
            return f"is a zip archive of {_listed(names) or 'nothing'}; unpack it and name the weight file inside"
    return ""


def _form(value: Any) -> str:
    """Shape, and whether the numbers are whole: what must agree."""
    if not hasattr(value, "shape"):
        return type(value).__name__
    return f"{list(value.shape)}{'' if value.is_floating_point() else ' whole numbers'}"


def _is_finite(value: Any) -> bool:
    return not hasattr(value, "isfinite") or bool(value.isfinite().all())


def _listed(keys: list[str]) -> str:
    more = f" and {len(keys) - LISTED} more" if len(keys) > LISTED else ""
    return ", ".join(keys[:LISTED]) + more
