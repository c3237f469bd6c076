"""Reduced precision: float16 on a GPU where a profile asks for it, bfloat16 where it is fast."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from pipeline.profile import Profile

if TYPE_CHECKING:
    import torch


def wants_half(profile: Profile) -> bool:
    """Return the profile's `half` (false unless it says so); PipelineError unless it is true or false."""
    return profile.read("half", bool, False)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Tell whether convolutions in bfloat16 are faster than in float32: on a GPU, a CPU with AVX512-BF16 or AMX."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    probes = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return device.type == "cpu" and any(probe() for probe in probes if probe)


def half_precision(device: torch.device, wanted: bool) -> AbstractContextManager:
    """Return a context in which convolutions and matrix products on a GPU run in float16 when wanted."""
    if not wanted or device.type != "cuda":
        return nullcontext()
    import torch

    return torch.autocast(device.type, torch.float16)
