"""Reduced precision: float16 on a GPU where a profile asks for it, bfloat16 on a CPU that has units for it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from pipeline.profile import Profile

if TYPE_CHECKING:
    import torch


def wants_half(profile: Profile) -> bool:
    """Return the profile's `half` (false unless it says so); PipelineError unless it is true or false."""
    return profile.read("half", bool, False)


def has_matrix_units(device: torch.device) -> bool:
    """Tell whether this is a CPU that multiplies matrices of bfloat16 in hardware (AMX)."""
    import torch

    return device.type == "cpu" and torch.cpu._is_amx_tile_supported()


def half_precision(device: torch.device, wanted: bool) -> AbstractContextManager:
    """Return a context in which convolutions and matrix products on a GPU run in float16 when wanted."""
    if not wanted or device.type != "cuda":
        return nullcontext()
    import torch

    return torch.autocast(device.type, torch.float16)
