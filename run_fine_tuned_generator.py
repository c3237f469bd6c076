"""Draw faces from any fine-tuned version, with labels for eyes, mouth and pose."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.artefacts import (
    code_version,
    is_fresh,
    provenance_of,
    record_beside,
    save_image,
    stamp_path,
    write_json,
    write_stamp,
)
from pipeline.command import StageOptions, Summary, limit_threads, main, resolve_device
from pipeline.errors import PipelineError
from pipeline.profile import Profile, shown
from pipeline.run import Run
from pipeline.seeds import format_seeds, latents_from_seeds, parse_seeds
from pipeline.sheets import contact_sheet
from pipeline.whole import is_leftover
from stylegan_modified.climb_plan import find_generator
from stylegan_modified.versions import EXPERIMENTS, OBEYED, VERSIONS, obeyed_columns, version_of

EXAMPLES = """
python run_fine_tuned_generator.py --version v1 --eyes 1.5 --mouth -1 --seeds 0-11
python run_fine_tuned_generator.py --version v5 --experiment 3 --pose 2 --seeds 3,5,8
python run_fine_tuned_generator.py --version v3 --seeds 7 --around 0.3 --count 20
python run_fine_tuned_generator.py --version v3 --z ohlora_z_vectors.csv --row 2 --mouth 1.5
"""
COMMAND = "run_fine_tuned_generator.py"
CODE = (
    *("run_fine_tuned_generator", "stylegan", "stylegan_modified.sampler", "stylegan_modified.truncation"),
    *("vectorfind.published", "vectorfind.directions"),
)
COLUMNS = 10
SHEET = "contact_sheet.png"


@dataclass
class Options(StageOptions):
    """Draw faces from any rung of the family: eval mode, stored noise, one latent per seed.

    Writes final_inference_test_{version}/000000.jpg ... and a sheet of them in the run. Labels are in deviations of the
    scores of the filtered faces (those of published rungs in the property CNN's own).
    """

    version: str = "v1"
    """v1, v2, v3, v4, v5, v8 or v9; or the path of a generator file."""
    published: bool = False
    """Take the rung that was trained as published."""
    experiment: Literal[1, 2, 3] | None = None
    """Which experiment of v5; the third unless given."""
    eyes: float = 0.0
    """Label: 0 as usual, more is wider open."""
    mouth: float = 0.0
    """Label: 0 as usual, more is wider open."""
    pose: float = 0.0
    """Label: roll of the head, more is the right eye of the picture lower."""
    seeds: str = "0-19"
    """Seed of each face."""
    z: str = ""
    """CSV of latents (`ohlora_z_vectors.csv`), from which --row is taken instead of the faces of --seeds; of the label
    beside it, if any, eyes, mouth and pose are replaced where one of them is given."""
    row: int = 0
    """Which face of --z, the first is 0."""
    around: float = 0.0
    """Spread of noise added to the latent: with it each seed gives --count faces, the first without noise."""
    count: int = 1
    """Faces per seed."""
    psi: float | None = None
    """Truncation toward the centre of the label, 0 to 1; that of the version unless given."""
    batch: int = 8
    """Images at a time."""
    out: str = ""
    """Folder for the faces, instead of the one in the run."""


@dataclass
class Plan:
    """What one call will do, known before the generator is loaded."""

    tag: str
    generator: Path
    seeds: list[int]  # with --z the row, which stands for a seed
    psi: float | None
    folder: Path
    stamp: dict[str, Any]


def plan(options: Options) -> Plan:
    """Resolve the options and check what can be checked without the generator."""
    profile, run = Profile.load(options.profile), Run(options.run)
    seeds = [options.row] if options.z else parse_seeds(options.seeds)
    for flag, value in (("--count", options.count), ("--batch", options.batch)):
        if value < 1:
            raise PipelineError(f"{flag} {value}: at least 1")
    for name in (*OBEYED, "around"):
        if not np.isfinite(getattr(options, name)):
            raise PipelineError(f"--{name} {getattr(options, name)}: give a number")
    if options.psi is not None and not 0 <= options.psi <= 1:
        raise PipelineError(f"--psi {options.psi}: give 0 (all faces of a label are the mean one) to 1 (no truncation)")
    if options.z and options.seeds != Options.seeds:
        raise PipelineError(f"--seeds {options.seeds} beside --z: give one of the two; --row says which face of --z")
    if options.row and not options.z:
        raise PipelineError(f"--row {options.row} counts the faces of --z: give that too, or leave --row out")
    if options.z and not Path(options.z).is_file():
        raise PipelineError(f"--z {shown(options.z)}: there is no such file")
    if options.count > 1 and not options.around:
        raise PipelineError(f"--count {options.count}: without --around all faces of a seed are the same; give both")
    if options.experiment is not None and options.version != "v5":
        raise PipelineError(f"--experiment {options.experiment} belongs to v5, not to {options.version}")
    path = Path(options.version)
    if path.suffix or path.name != options.version:
        if options.published:
            raise PipelineError(f"--published chooses among versions; {shown(path)} is a file and says it by itself")
        if not path.is_file():
            raise PipelineError(f"--version {shown(path)}: there is no such file")
        known = provenance_of(path).get("psi")
        tag, psi = path.stem, known if options.psi is None else options.psi
    else:
        name = f"v5_{options.experiment or max(EXPERIMENTS)}" if options.version == "v5" else options.version
        version = version_of(name, options.published)
        tag, psi = version.tag, version.psi if options.psi is None else options.psi
        path = find_generator(profile, run, tag)
    folder = Path(options.out) if options.out else run.path(f"final_inference_test_{tag}")
    labels = {name: getattr(options, name) for name in OBEYED}
    stamp = {
        "options": {"seeds": format_seeds(seeds), "psi": psi, **labels, "around": options.around,
                    "count": options.count},
        "seed": options.seed if options.around else None,
        "inputs": {"generator": path, **({"z": options.z} if options.z else {})},
        "code": code_version(*CODE),
    }  # fmt: skip
    return Plan(tag, path, seeds, psi, folder, stamp)


def run(options: Options) -> None:
    """Draw what is missing or stale."""
    work = plan(options)
    summary = Summary(f"faces of {work.tag}")
    if is_fresh(work.folder, **work.stamp)[0] and not options.force:
        summary.kept(work.folder)
        summary.print()
        return
    _check_folder(work)
    images = _faces(options, work)
    _clear_folder(work, len(images))
    for number, image in enumerate(images):
        save_image(work.folder / f"{number:06d}.jpg", image)
    save_image(work.folder / SHEET, contact_sheet(images, columns=COLUMNS))
    write_stamp(work.folder, command=COMMAND, rows=len(images), **work.stamp)
    summary.wrote(work.folder, f"{len(images)} faces")
    summary.print()


def _own(work: Plan) -> set[str]:
    """Names of the pictures in the folder that this command wrote, as the record beside it tells."""
    record = record_beside(work.folder)
    rows = record.get("rows") or 0 if record.get("command") == COMMAND else 0
    return {f"{number:06d}.jpg" for number in range(rows)}


def _check_folder(work: Plan) -> None:
    """PipelineError if the folder holds pictures of somebody else, which are not to be lost among these."""
    pictures = {path.name for path in work.folder.glob("*.jpg") if not is_leftover(path)}
    own = _own(work)
    if not own and (work.folder / SHEET).exists():
        pictures.add(SHEET)
    strangers = sorted(pictures - own)
    if strangers:
        raise PipelineError(
            f"{work.folder} holds {len(strangers)} pictures that this command did not write, the first is "
            f"{strangers[0]}; give an empty folder with --out, or move them away"
        )


def _clear_folder(work: Plan, count: int) -> None:
    """Delete the pictures of an earlier call; first the record names all that may be there if this one is killed."""
    own = _own(work)
    write_json(stamp_path(work.folder), {"command": COMMAND, "rows": max(len(own), count)})
    for name in own:
        (work.folder / name).unlink(missing_ok=True)


def _faces(options: Options, work: Plan) -> np.ndarray:
    import torch

    from stylegan.checkpoint import load_generator
    from stylegan.sampling import to_uint8
    from stylegan_modified.sampler import Sampler

    limit_threads()
    device = resolve_device(options.device)
    generator = load_generator(work.generator, device)
    wished = [getattr(options, name) for name in OBEYED]
    if any(wished) and generator.label_size not in (3, 7):
        raise PipelineError(f"{shown(work.generator)} takes no labels for eyes, mouth and pose; leave them at 0")
    if any(wished) and not _conditional(work):
        print(f"note: {work.tag} was fed zero labels while training, it does not know what they mean", flush=True)
    latents, told = _latents(options, work, generator)
    z = torch.from_numpy(latents).repeat_interleave(options.count, 0)
    if options.around:
        # A stream for each seed, so that its faces are the same in any company.
        streams = [np.random.default_rng([options.seed, seed]) for seed in work.seeds]
        moves = np.stack([stream.standard_normal((options.count, generator.z_dim)) for stream in streams])
        moves[:, 0] = 0.0  # the first of each seed is the latent itself
        z = z + options.around * torch.from_numpy(moves.astype(np.float32)).flatten(0, 1)
    label = None
    if generator.label_size:
        label = torch.zeros(len(z), generator.label_size) if told is None else torch.from_numpy(told).repeat(len(z), 1)
        if any(wished):
            label[:, list(obeyed_columns(generator.label_size))] = torch.tensor(wished)
    images = Sampler(generator, work.psi, options.batch, device).images(z, label)
    if not images.isfinite().all():
        raise PipelineError(
            f"{shown(work.generator)} draws pixels that are no numbers; ask for less by --eyes, --mouth, --pose and "
            "--around; if these are small the file may be damaged"
        )
    return to_uint8(images)


def _latents(options: Options, work: Plan, generator) -> tuple[np.ndarray, np.ndarray | None]:
    """z float32 [n, z_dim] of the faces, and the label [1, label_size] where the file of --z tells one."""
    if not options.z:
        return latents_from_seeds(work.seeds, generator.z_dim), None
    from vectorfind.published import read_latents

    z, labels = read_latents(options.z, generator.z_dim, generator.label_size)
    if not 0 <= options.row < len(z):
        raise PipelineError(f"--row {options.row}: {options.z} has rows 0 to {len(z) - 1}")
    return z[[options.row]], None if labels is None else labels[[options.row]]


def _conditional(work: Plan) -> bool:
    # Published files tell no version beside them; a file's name, or the one asked for, does.
    told = provenance_of(work.generator).get("version") or work.tag
    name = str(told).removesuffix("_published").rpartition("fine_tuned_")[2]
    return name not in VERSIONS or VERSIONS[name].conditional


if __name__ == "__main__":
    main(Options, run, EXAMPLES)
