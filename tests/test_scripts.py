"""Every script at the root explains itself, and the examples that it shows are ones that it takes."""

import dataclasses
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tyro

from pipeline.command import StageOptions

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(path.stem for pattern in ("run_*.py", "compute_*.py", "apply_*.py") for path in ROOT.glob(pattern))


def help_of(script: str, folder: Path = ROOT) -> str:
    call = [sys.executable, str(ROOT / f"{script}.py"), "--help"]
    done = subprocess.run(call, capture_output=True, text=True, cwd=folder, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_shows_the_common_options_and_working_examples(script, tmp_path):
    text = help_of(script, tmp_path)
    for flag in ("--profile", "--run", "--seed", "--device"):
        assert flag in text
    examples = re.findall(rf"^\s*python {script}\.py[ \t]*(.*)$", text, flags=re.MULTILINE)
    assert examples, "the help shows no example"
    module = importlib.import_module(script)
    own = [value for value in vars(module).values() if isinstance(value, type) and value.__module__ == script]
    options_class = next(value for value in own if issubclass(value, StageOptions) and dataclasses.is_dataclass(value))
    for example in examples:
        tyro.cli(options_class, args=shlex.split(example), config=(tyro.conf.FlagCreatePairsOff,))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_unknown_profile_is_one_clear_line_and_exit_code_2(script, tmp_path):
    call = [sys.executable, str(ROOT / f"{script}.py"), "--profile", "nowhere", "--run", str(tmp_path / "run")]
    done = subprocess.run(call, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)
    assert done.returncode == 2
    assert "profile not found" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_importing_a_stage_loads_no_torch(script):
    code = f"import sys, {script}; sys.exit('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120, check=False
    )
    assert done.returncode == 0, "import torch inside functions, so that a fresh stage is recognised in a moment"


MODULES = sorted(
    f"{path.parent.name}.{path.stem}"
    for folder in ("benchmarks", "cnn", "pipeline", "property_score", "segmentation", "virtual_face")
    for path in (ROOT / folder).glob("*.py")
    if re.search(r"^ *main\(\w+", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_are_ones_that_it_takes(name):
    module = importlib.import_module(name)
    text = f"{module.__doc__}\n{getattr(module, 'EXAMPLES', '')}"
    examples = re.findall(rf"^\s*python (?:-m torch\S* .*)?-m {name}\b(.*)$", text, flags=re.MULTILINE)
    assert examples, "neither its docstring nor its EXAMPLES shows a call"
    own = [value for value in vars(module).values() if isinstance(value, type) and value.__module__ == name]
    options_class = next(
        value for value in own if dataclasses.is_dataclass(value) and value.__name__.endswith("Options")
    )
    for example in examples:
        tyro.cli(options_class, args=shlex.split(example), config=(tyro.conf.FlagCreatePairsOff,))
