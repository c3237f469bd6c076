"""Stage 1: sample faces from the profile's generator; image k depends on its seed alone."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from pipeline.artefacts import (
    code_version,
    digest,
    is_fresh,
    read_image,
    remove_leftovers,
    save_arrays,
    save_image,
    stamp_path,
    write_json,
    write_stamp,
)
from pipeline.command import StageOptions, Summary, limit_threads, main, resolve_device
from pipeline.errors import PipelineError
from pipeline.precision import half_precision, wants_half
from pipeline.profile import Profile, shown
from pipeline.progress import progress
from pipeline.run import Run
from pipeline.seeds import format_seeds, latents_from_seeds, parse_seeds
from pipeline.sheets import save_sheet
from pipeline.whole import is_leftover, read_json
from stylegan_modified.climb_plan import find_generator

EXAMPLES = """
python run_original_generator.py
python run_original_generator.py -n 200 --run runs/small
python run_original_generator.py --seeds 0,1,4-6 --run runs/five --device cpu
python run_original_generator.py --generator v1 -n 15000 --run runs/v1_faces
"""
CODE = (
    "run_original_generator",
    "stylegan.checkpoint",
    "stylegan.generator",
    "stylegan.mapping",
    "stylegan.layers",
    "stylegan.sampling",
    "pipeline.images",
    "pipeline.seeds",
    "pipeline.sheets",
    "stylegan_modified.labels",
)
SHEET_FACES, SHEET_COLUMNS = 64, 8


@dataclass
class Options(StageOptions):
    """Stage 1: sample faces from the profile's generator.

    Writes stylegan/synthesize_results/000000.jpg ..., stylegan/latents.npz and stylegan/contact_sheet.png in the run.
    Where that folder holds pictures that it did not write, it refuses; and a call without options (-n, --seeds, --psi,
    --generator) does not replace those that options asked for, unless by --force. Eval mode, fixed noise,
    no style mixing. With --generator v1, the run's or the profile's, faces like those of which v8 and v9 were made.
    --seed changes nothing here: each image has a seed of its own (--seeds).
    """

    n: Annotated[int | None, tyro.conf.arg(aliases=["-n"])] = None
    """Number of images: the first n of the seeds, and those that follow where the profile's do not suffice; all of them
    unless given."""
    seeds: str | None = None
    """Seed of each image in order, for example 0,1,4-6; those of the profile unless given."""
    psi: float | None = None
    """Truncation of the first 8 layers, 1.0 for none; that of the profile unless given."""
    batch: int | None = None
    """Images at a time; that of the profile unless given."""
    generator: Literal["base", "v1"] = "base"
    """base: the profile's. v1: fine-tuned, this run's or the bundled one; each face gets random labels by its seed."""


@dataclass
class Plan:
    """What one call of this stage will do, known before the generator is loaded."""

    run: Run
    generator: Path
    resolution: int
    seeds: list[int]
    psi: float
    batch: int
    half: bool
    conditional: bool
    asked: bool  # seeds, psi or generator were given as options, not taken from the profile
    images: Path
    latents: Path
    sheet: Path
    stamp: dict[str, Any]

    def image(self, img_no: int) -> Path:
        """Return the path of one image."""
        return self.images / f"{img_no:06d}.jpg"


def plan(options: Options) -> Plan:
    """Resolve the options against the profile and check what can be checked without the generator."""
    profile, run = Profile.load(options.profile), Run(options.run)
    seeds = parse_seeds(options.seeds or profile.read("stylegan.seeds", str))
    if options.n is not None:
        if options.seeds is None and options.n > len(seeds):
            last = max(seeds)
            seeds += parse_seeds(f"{last + 1}-{last + options.n - len(seeds)}")
        if not 1 <= options.n <= len(seeds):
            raise PipelineError(
                f"-n {options.n}: --seeds names {len(seeds)} images; give 1 to {len(seeds)} or more seeds"
            )
        seeds = seeds[: options.n]
    profile.refuse_unknown("stylegan", profile.section("stylegan"), ("seeds", "psi", "batch"))
    psi = profile.read("stylegan.psi", float, 1.0, low=0, high=1) if options.psi is None else options.psi
    if not 0 <= psi <= 1:
        raise PipelineError(f"--psi {psi}: give 0 (all faces are the mean one) to 1 (no truncation)")
    batch = profile.read("stylegan.batch", int, 32, low=1) if options.batch is None else options.batch
    if batch < 1:
        raise PipelineError(f"--batch {batch}: at least 1 image at a time")
    half = wants_half(profile)
    conditional = options.generator != "base"
    generator = find_generator(profile, run, options.generator) if conditional else profile.weight("generator")
    stamp = {
        "options": {"seeds": format_seeds(seeds), "psi": psi, "resolution": profile.resolution, "half": half},
        "seed": None,
        "inputs": {"generator": generator},
        "code": code_version(*CODE),
    }
    folder = run.path("stylegan")
    images, latents, sheet = folder / "synthesize_results", folder / "latents.npz", folder / "contact_sheet.png"
    resolution = profile.resolution
    asked = conditional or any(value is not None for value in (options.n, options.seeds, options.psi))
    return Plan(run, generator, resolution, seeds, psi, batch, half, conditional, asked, images, latents, sheet, stamp)


def run(options: Options) -> None:
    """Sample what is missing or stale."""
    work = plan(options)
    summary = Summary("1 sample faces")
    artefacts = {work.images: f"{len(work.seeds)} images", work.latents: "z, label, seed, img_no", work.sheet: ""}
    reasons = [is_fresh(path, **work.stamp) for path in artefacts]
    if all(fresh for fresh, _ in reasons) and not options.force:
        for path in artefacts:
            summary.kept(path)
        summary.print()
        return

    _check_pictures(work)
    origin = {
        "generator": digest(work.generator),
        "code": work.stamp["code"],
        "psi": work.psi,
        "half": work.half,
        "seeds": work.seeds,
    }
    if not (work.asked or options.force):
        _check_wish(work)
    _check_disk(work)
    limit_threads()
    generator = _load(work, resolve_device(options.device))
    missing = _clear_folder(work, origin, force=options.force)
    if len(missing) < len(work.seeds):
        summary.note(f"{len(work.seeds) - len(missing)} images of an earlier run were whole and stayed")
    _sample(work, generator, missing)
    seeds = np.array(work.seeds, dtype=np.int64)
    save_arrays(
        work.latents,
        z=latents_from_seeds(work.seeds, generator.z_dim),
        label=_labels(work.seeds, generator),
        seed=seeds,
        img_no=np.arange(len(seeds), dtype=np.int64),
    )
    first = np.stack([read_image(work.image(img_no)) for img_no in range(min(SHEET_FACES, len(seeds)))])
    save_sheet(work.sheet, first, SHEET_COLUMNS)
    for path, what in artefacts.items():
        extra = _record(work, origin) if path == work.images else None
        write_stamp(path, command="run_original_generator.py", rows=len(seeds), extra=extra, **work.stamp)
        summary.wrote(path, what)
    summary.print()


def _check_pictures(work: Plan) -> None:
    """PipelineError if the folder holds pictures that stage 1 did not write: they are somebody's, and not to delete."""
    written = {work.image(img_no).name for img_no in range(len(_seeds_before(work)))}
    pictures = [path.name for path in work.images.glob("*.jpg") if not is_leftover(path)]
    strangers = sorted(set(pictures) - written)
    if strangers:
        raise PipelineError(
            f"{work.images} holds {len(strangers)} pictures that stage 1 did not write, the first is {strangers[0]}; "
            "sample into another run with --run, or move them away. To go on with pictures of your own start at stage "
            f"2: run_pipeline.py --from 2 --run {work.run}, with the same --profile"
        )


def _check_wish(work: Plan) -> None:
    """PipelineError if pictures that options asked for would be deleted for those of the profile."""
    record = _record_before(work.images)
    if not record.get("asked"):
        return
    before = record["origin"]
    same = (before.get("psi"), record.get("conditional")) == (work.psi, work.conditional)
    kept = _kept(work) if same else set()
    lost = [k for k in range(len(_seeds_before(work))) if k not in kept and work.image(k).is_file()]
    if lost:
        raise PipelineError(
            f"{work.images} holds {len(lost)} pictures (seeds {before['seeds']}, psi {before.get('psi')}, "
            f"{'v1' if record.get('conditional') else 'base'} generator) that options asked for, not the profile, and "
            "that would be deleted; give the options again (--seeds, -n, --psi, --generator), go on with them at stage "
            "2 (run_pipeline.py --from 2, same --run and --profile), sample into another run with --run, or replace "
            "them with run_original_generator.py --force"
        )


def _check_disk(work: Plan) -> None:
    existing = next(folder for folder in (work.run.root, *work.run.root.resolve().parents) if folder.exists())
    needed = len(work.seeds) * (work.resolution**2 + 4096)
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise PipelineError(
            f"{work.run}: {len(work.seeds)} images need about {needed / 2**20:.0f} MiB, {free / 2**20:.0f} MiB are "
            "free; free some space or choose another folder with --run"
        )


def _load(work: Plan, device):
    from stylegan.checkpoint import load_generator

    generator = load_generator(work.generator, device=device, resolution=work.resolution)
    if generator.label_size and not work.conditional:
        raise PipelineError(
            f"{shown(work.generator)}: stage 1 samples an unconditional generator, this one wants "
            f"{generator.label_size} labels; name the base generator in [weights]"
        )
    return generator


def _clear_folder(work: Plan, origin: dict[str, Any], force: bool) -> list[int]:
    """Delete images that this call would not make, write down what is in the making, and return the missing img_no.

    The order matters for a kill at any moment: the record changes only when no foreign image is left.
    """
    before = _origin_before(work.images)
    same = not force and {**before, "seeds": None} == {**origin, "seeds": None}
    kept = _kept(work) if same else set()
    if work.images.exists():
        remove_leftovers(work.images)
        kept_names = {work.image(img_no).name for img_no in kept}
        for path in work.images.glob("*.jpg"):
            if path.name not in kept_names:
                path.unlink()
    write_json(stamp_path(work.images), _record(work, origin))
    return [img_no for img_no in range(len(work.seeds)) if img_no not in kept or not _is_whole(work, img_no)]


def _record(work: Plan, origin: dict[str, Any]) -> dict[str, Any]:
    """What the record beside the folder tells of its pictures, and of who chose them."""
    described = {**origin, "seeds": format_seeds(work.seeds)}
    return {"origin": described, "asked": work.asked, "conditional": work.conditional}


def _record_before(images: Path) -> dict[str, Any]:
    try:
        record = read_json(stamp_path(images))
    except PipelineError:
        return {}
    return record if isinstance(record, dict) else {}


def _origin_before(images: Path) -> dict[str, Any]:
    return _record_before(images).get("origin", {})


def _seeds_before(work: Plan) -> list[int]:
    """Seeds of the images that the record beside the folder lists; none where there is no record."""
    seeds = _origin_before(work.images).get("seeds")
    return parse_seeds(seeds) if seeds else []


def _kept(work: Plan) -> set[int]:
    """Return the img_no whose seed is the one that the record beside the folder lists."""
    pairs = enumerate(zip(work.seeds, _seeds_before(work), strict=False))
    return {img_no for img_no, (seed, before) in pairs if seed == before}


def _is_whole(work: Plan, img_no: int) -> bool:
    try:
        return read_image(work.image(img_no)).shape == (work.resolution, work.resolution, 3)
    except PipelineError:
        return False


def _sample(work: Plan, generator, missing: list[int]) -> None:
    from stylegan.sampling import to_uint8

    # Batches lie on a fixed grid and the last one is filled up, so that an image that is made again after a kill, or in
    # a larger run, comes out of a batch of the same size, to the last bit.
    wanted = set(missing)
    starts = sorted({img_no // work.batch * work.batch for img_no in missing})
    members = [img_no for start in starts for img_no in range(start, start + work.batch)]
    seeds = [work.seeds[min(img_no, len(work.seeds) - 1)] for img_no in members]
    done = 0
    device = next(generator.parameters()).device
    with half_precision(device, work.half), progress(len(missing), "sample faces") as bar:
        for images in _images(work, generator, seeds, device):
            if not images.isfinite().all():
                cure = "; half = false in the profile may cure it" if work.half and device.type == "cuda" else ""
                raise PipelineError(
                    f"{shown(work.generator)} draws pixels that are no numbers from img_no {members[done]} on; "
                    f"the file may be damaged{cure}"
                )
            for image in to_uint8(images):
                img_no = members[done]
                done += 1
                if img_no in wanted:
                    save_image(work.image(img_no), np.asarray(image))
                    bar.update()


def _images(work: Plan, generator, seeds: list[int], device):
    """Yield the images of seeds, batch by batch."""
    import torch

    from stylegan.sampling import images_of, sample

    if not work.conditional:
        yield from (images for _, _, images in sample(generator, seeds, batch=work.batch, device=device, psi=work.psi))
        return
    for start in range(0, len(seeds), work.batch):
        part = seeds[start : start + work.batch]
        z = torch.from_numpy(latents_from_seeds(part, generator.z_dim))
        yield images_of(generator, z, device, work.psi, label=_labels(part, generator).tolist())


def _labels(seeds: list[int], generator) -> np.ndarray:
    """Labels float32 [n, label_size]; none for an unconditional generator."""
    if not generator.label_size:
        return np.zeros((len(seeds), 0), dtype=np.float32)
    from stylegan_modified.labels import normal_labels

    return normal_labels(seeds, generator.label_size)


if __name__ == "__main__":
    main(Options, run, EXAMPLES)
