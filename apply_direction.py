"""Open the eyes, open the mouth, tilt the head of any seed: a strip from the face as it is to the face as wished."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pipeline.command import StageOptions, Summary, main
from pipeline.errors import PipelineError
from pipeline.images import SUFFIXES
from pipeline.profile import Profile
from pipeline.run import Run
from pipeline.seeds import LARGEST
from vectorfind.models import locate, open_bench, open_identity
from vectorfind.names import EDITED, PROPERTIES, Cuts, GroupsName, Method, Position
from vectorfind.setting import Files, Setting

if TYPE_CHECKING:
    import numpy as np

    from vectorfind.bench import Bench

EXAMPLES = """
python apply_direction.py --seed 12 --eyes 1.5 --mouth -1 --pose 0.5
python apply_direction.py --seed 7 --mouth 2 --frames 9 --out smile.png
python apply_direction.py --z runs/demo/vectorfind/selection/svm_w/ohlora_z_vectors.csv --row 3 --eyes -1
"""
FURTHEST = 6.0


@dataclass
class ApplyOptions(StageOptions):
    """Edit one face along the directions of a run; weights are standard deviations of the property's score."""

    most_seed: ClassVar[int] = LARGEST  # that of a face, not of a run

    seed: int = 0
    """Which face: the one that this seed makes."""
    z: str = ""
    """CSV of latents (`ohlora_z_vectors.csv`), from which --row is taken instead of the face of --seed."""
    row: int = 0
    """Which row of --z, the first is 0."""
    eyes: float = 0.0
    """How far to open (+) or close (-) the eyes."""
    mouth: float = 0.0
    """How far to open (+) or close (-) the mouth."""
    pose: float = 0.0
    """How far to tilt the head (roll)."""
    frames: int = 5
    """Pictures in the strip; the first is the face as it is, the last has the full weights."""
    out: str = ""
    """PNG or JPEG to write; by default in vectorfind/strips of the run."""
    method: Method = "svm"
    """Whose directions; imported: those of `run_vectorfind.py --vectors`."""
    position: Position = "w"
    """Where in the generator."""
    groups: GroupsName = "16"
    """Grouping of the directions."""
    conditional: bool = False
    """The directions that leave the other properties alone."""
    looks: bool = False
    """The directions that also leave alone how the parsed face looks."""
    mended: bool = False
    """The mended form of the method."""
    cuts: Cuts = "medians"
    """Where the groups of the directions begin."""
    generator: str = "v9"
    """v9: of this run's stage 5, or else of the profile. base: the profile's. Or the path of a weight file."""
    scorer: str = ""
    """Path of a property CNN; by default that of this run's stage 4b."""


def run(options: ApplyOptions) -> None:
    """Draw the strip and say what the scores did."""
    import numpy as np

    from pipeline.sheets import save_sheet
    from stylegan.sampling import to_uint8
    from vectorfind.editor import load_editor
    from vectorfind.groups import Grouping

    summary = Summary("strip")
    weights = np.array([getattr(options, name) for name in EDITED], np.float32)
    if options.out and Path(options.out).suffix.lower() not in SUFFIXES:
        raise PipelineError(f"--out {options.out}: an image file ends in {', '.join(SUFFIXES)}")
    if options.z and options.seed:
        raise PipelineError(f"--seed {options.seed} beside --z: give one of the two; --row says which face of --z")
    if options.row and not options.z:
        raise PipelineError(f"--row {options.row} is of a file of latents: give that by --z, or leave --row out")
    if options.frames < 2:
        raise PipelineError(f"--frames {options.frames}: a strip needs at least 2, the face as it is and as wished")
    if np.abs(weights).max() > FURTHEST or not np.isfinite(weights).all():
        raise PipelineError(f"weights are score deviations: give numbers between {-FURTHEST:g} and {FURTHEST:g}")
    profile, run_folder = Profile.load(options.profile), Run(options.run)
    setting = Setting(
        options.method,
        options.position,
        options.groups,
        options.conditional,
        mended=options.mended,
        cuts=options.cuts,
        looks=options.looks,
    )
    files = Files(run_folder, setting)
    if not files.directions.is_file():
        raise PipelineError(f"{files.directions} is missing: run first\n  {_finding_command(options)}")
    models = locate(profile, run_folder, options.generator, options.scorer)
    bench = open_bench(models, options.device)
    directions = load_editor(
        files.directions, setting.method, bench, lambda: open_identity(profile, setting.holds, options.device)
    )
    z, labels = _latents(options, bench)
    codes = bench.encode(z, setting.position, labels)
    group = Grouping(directions.grouping, directions.cuts).assign(bench.measure(codes, setting.position))[0]
    amounts = np.linspace(0, 1, options.frames, dtype=np.float32)[:, None] * weights
    edited = directions.edit(np.repeat(codes, options.frames, axis=0), [group] * options.frames, amounts)
    images = [part for _, part in bench.draw(edited, setting.position)]
    scores = np.concatenate([bench.scores(part) for part in images])
    out = Path(options.out) if options.out else run_folder.path("vectorfind", "strips", _name(options, setting))
    labels = [" ".join(f"{value:+.1f}" for value in row) for row in amounts]
    save_sheet(out, np.concatenate([to_uint8(part) for part in images]), columns=options.frames, labels=labels)
    face = f"row {options.row} of {options.z}" if options.z else f"seed {options.seed}"
    summary.title = f"strip of {face}, group {group}"
    summary.wrote(out, f"{options.frames} pictures")
    moved = (scores[-1] - scores[0])[[PROPERTIES.index(name) for name in EDITED]] / directions.score_sds
    for name, wish, change in zip(EDITED, weights, moved, strict=True):
        summary.note(f"{name}: {wish:+.2f} deviations asked, {change:+.2f} measured")
    for note in models.notes:
        summary.note(note)
    summary.print()


def _finding_command(options: ApplyOptions) -> str:
    """The command that finds the directions that these options ask for, with all that differs from its defaults."""
    words = ["python", "run_vectorfind.py", "pool", "directions", "--run", str(options.run)]
    words += ["--vectors", "FOLDER"] if options.method == "imported" else ["--method", options.method]
    words += ["--position", options.position, "--groups", options.groups]
    words += ["--conditional"] * options.conditional + ["--looks"] * options.looks + ["--mended"] * options.mended
    usual = ApplyOptions()
    for name in ("cuts", "profile", "generator", "scorer"):
        if getattr(options, name) != getattr(usual, name):
            words += [f"--{name}", str(getattr(options, name))]
    return shlex.join(words)


def _latents(options: ApplyOptions, bench: Bench) -> tuple[np.ndarray, np.ndarray | None]:
    """z [1, z_dim] of the face, and its label [1, label_size] where a file tells one."""
    if not options.z:
        return bench.latents([options.seed]), None
    from vectorfind.published import read_latents

    z, labels = read_latents(options.z, bench.generator.z_dim, bench.generator.label_size)
    if not 0 <= options.row < len(z):
        raise PipelineError(f"--row {options.row}: {options.z} has rows 0 to {len(z) - 1}")
    row = slice(options.row, options.row + 1)
    return z[row], None if labels is None else labels[row]


def _name(options: ApplyOptions, setting: Setting) -> str:
    weights = "_".join(f"{name}{getattr(options, name):+g}" for name in EDITED)
    face = f"{Path(options.z).stem}_{options.row}" if options.z else f"seed{options.seed:06d}"
    return f"{setting.name}_{face}_{weights}.png"


if __name__ == "__main__":
    main(ApplyOptions, run, EXAMPLES)
