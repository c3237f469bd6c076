"""Shared tiny world: a random 32-pixel generator and a profile that names it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RESOLUTION = 32


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the project root."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def few_threads() -> None:
    """Keep torch to two threads at most: the nets here are tiny, and idle threads only spin."""
    import torch

    torch.set_num_threads(min(2, torch.get_num_threads()))


def make_generator_file(path: Path, resolution: int = RESOLUTION, seed: int = 0) -> Path:
    """Write {generator, discriminator} of random tiny nets."""
    import torch

    from pipeline.artefacts import save_weights
    from stylegan.discriminator import Discriminator
    from stylegan.generator import Generator

    torch.manual_seed(seed)
    sizes = {"resolution": resolution, "channel_base": 256, "channel_max": 16}
    nets = {"generator": Generator(**sizes), "discriminator": Discriminator(**sizes)}
    save_weights(path, {name: net.state_dict() for name, net in nets.items()}, seed=seed)
    return path


@pytest.fixture(scope="session")
def tiny_generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint {generator, discriminator} of random nets at 32 pixels."""
    return make_generator_file(tmp_path_factory.mktemp("weights") / "generator.pth")


@pytest.fixture
def write_profile(tmp_path: Path, tiny_generator: Path) -> Callable[..., Path]:
    """Return a function that writes a profile like demo, but tiny; sections are given as dicts by keyword."""

    def write(name: str = "tiny", resolution: int = RESOLUTION, **sections: dict[str, Any]) -> Path:
        given = {"weights": {"generator": tiny_generator}, "stylegan": {"seeds": "0-19", "batch": 8}}
        for section, values in sections.items():
            given[section] = {**given.get(section, {}), **values}
        lines = ['extends = "demo"', f"resolution = {resolution}"]
        for section, values in given.items():
            lines += [f"[{section}]", *(f"{key} = {_toml(value)}" for key, value in values.items())]
        path = tmp_path / f"{name}.toml"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


@pytest.fixture
def tiny_profile(write_profile: Callable[..., Path]) -> Path:
    """Return the path of a profile like demo with a random generator at 32 pixels and 20 images."""
    return write_profile()


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return f"'{value.as_posix() if isinstance(value, Path) else value}'"
