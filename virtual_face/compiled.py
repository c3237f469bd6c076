"""Optional compilation of the renderer's hot functions."""

from __future__ import annotations

import functools
import os
import shutil

import torch

_active = False


def has_compiler() -> bool:
    """Tell whether torch will find a C++ compiler: the one that CXX names, else g++."""
    return shutil.which(os.environ.get("CXX") or "g++") is not None


def compile_renderer() -> None:
    """From now on compile the marked functions on first use: minutes once per picture size, then faster."""
    global _active
    torch._dynamo.config.cache_size_limit = 64  # one entry per function, field and number of points
    _active = True


def speeds_up(function):
    """Marks a function that is worth compiling; it runs as written until `compile_renderer` is called."""
    compiled = None

    @functools.wraps(function)
    def call(*arguments, **options):
        nonlocal compiled
        if not _active:
            return function(*arguments, **options)
        if compiled is None:
            compiled = torch.compile(function, dynamic=False)
        return compiled(*arguments, **options)

    return call
