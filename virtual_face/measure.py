"""Measures the virtual world: renders, generator and latent space, with pictures; writes reports/virtual_world.md.

    python -m virtual_face.measure
    python -m virtual_face.measure --samples 500 --out runs/quick/virtual_world.md

Renders come from seeds that no training used. The generator is sampled without truncation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pipeline.artefacts import write_json
from pipeline.command import Summary, limit_threads, main, resolve_device
from pipeline.profile import Profile
from pipeline.progress import progress
from pipeline.report import Report, wilson_interval
from pipeline.seeds import latents_from_seeds
from pipeline.sheets import save_sheet
from segmentation.face_crop import FaceCropper, crop
from segmentation.parser import load_parser, to_tensor
from stylegan.checkpoint import load_generator
from stylegan.sampling import sample, to_uint8
from vectorfind.space import honest_space
from virtual_face.oracle import Oracle, load_oracle
from virtual_face.population import ATTRIBUTES
from virtual_face.shards import read_shards

CLOSED = 0.12  # the oracle's eye opening below which a missing eye region is right


@dataclass
class MeasureOptions:
    """Measure the bundled generator against renders."""

    profile: str = "demo"
    samples: int = 2000
    """Generated faces (seeds 100000, 100001, ...)."""
    held_out: str = "work/heldout"
    """Folder of held-out renders (virtual_face.dataset with --first-seed 1000000)."""
    training: str = "work/renders"
    """Folder of the training renders, for the nearest neighbours; left out if it is not there."""
    out: str = "reports/virtual_world.md"
    device: str = "auto"


def kernel_distance(a: Tensor, b: Tensor, subsets: int = 20, size: int = 500, seed: int = 0) -> tuple[float, float]:
    """Kernel distance of two feature sets [n, F] (KID, Binkowski et al. 2018): mean and standard error over subsets."""
    rng, values = np.random.default_rng(seed), []
    size = min(size, len(a), len(b))
    for _ in range(subsets):
        x, y = (s[rng.choice(len(s), size, replace=False)].double() for s in (a, b))

        def kernel(p, q):
            return (p @ q.T / p.shape[1] + 1) ** 3

        xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
        off = size * (size - 1)
        values.append(float((xx.sum() - xx.trace()) / off + (yy.sum() - yy.trace()) / off - 2 * xy.mean()))
    return float(np.mean(values)), float(np.std(values) / len(values) ** 0.5)


def faces_and_parts(images: np.ndarray, parser, seen: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Whether MTCNN finds a face in each picture, and whether the parser sees all its parts (hair or a bald head)."""
    cropper, found, complete = FaceCropper(), [], []
    for start in progress(range(0, len(images), 64), "find and parse faces"):
        part = images[start : start + 64]
        hits = cropper.detect(part)
        found += [hit.box is not None for hit in hits]
        crops = [crop(image, hit.box) if hit.box is not None else None for image, hit in zip(part, hits)]
        maps = iter(
            parser.parse(to_tensor(np.stack([c for c in crops if c is not None]))) if any(found[start:]) else ()
        )
        for k, one in enumerate(crops):
            if one is None:
                complete.append(False)
                continue
            counts = np.bincount(next(maps).ravel(), minlength=11)
            row = seen.iloc[start + k]
            eyes = (counts[4] >= 8 and counts[5] >= 8) or row.eyes < CLOSED or abs(row.yaw) > 0.45
            bald = row.hair_length < 0.35 and counts[1] > 8000
            complete.append(bool(eyes and counts[6] > 50 and counts[7] + counts[9] > 30 and (counts[10] > 200 or bald)))
    return np.array(found), np.array(complete)


def nearest(samples: np.ndarray, training: np.ndarray, block: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Nearest training picture of each sample on 32x32 pixels: (distance per pixel in 8-bit steps, index)."""

    def small(pictures: np.ndarray) -> Tensor:
        x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
        return torch.nn.functional.avg_pool2d(x, pictures.shape[1] // 32).flatten(1)

    a, b = small(samples), small(training)
    best = [torch.cdist(part, b).min(1) for part in a.split(block)]
    distance = torch.cat([m.values for m in best]) / a.shape[1] ** 0.5
    return distance.numpy(), torch.cat([m.indices for m in best]).numpy()


def draw(generator, seeds: list[int], device, psi: float = 1.0) -> np.ndarray:
    layers = generator.num_layers
    parts = sample(generator, seeds, batch=16, device=device, psi=psi, trunc_layers=layers)
    return np.concatenate([to_uint8(images) for _, _, images in progress(parts, f"sample psi {psi}")])


def latents(generator, seeds: list[int]) -> tuple[np.ndarray, np.ndarray]:
    z = latents_from_seeds(seeds)
    with torch.no_grad():
        there = torch.from_numpy(z).to(next(generator.parameters()).device)
        return z, generator.encode(there, position="w").cpu().numpy()


def measure(options: MeasureOptions) -> None:
    limit_threads()
    profile, device = Profile.load(options.profile), resolve_device(options.device)
    out, summary = Path(options.out), Summary("virtual world")
    figures = out.parent / "figures"
    held = read_shards(options.held_out, ("images", "attributes"))
    generator = load_generator(profile.weight("generator"), device)
    oracle: Oracle = load_oracle(profile.weight("attribute_net"), device)
    parser = load_parser(profile, device)
    seeds = list(range(100_000, 100_000 + options.samples))
    images = draw(generator, seeds, device)
    seen, features = oracle.read(to_tensor(images))
    truth = pd.DataFrame(held["attributes"], columns=list(ATTRIBUTES))
    render_seen, render_features = oracle.read(to_tensor(held["images"]))
    found, complete = faces_and_parts(images, parser, seen)
    render_found, _ = faces_and_parts(held["images"][:500], parser, render_seen)

    half = len(render_features) // 2
    kid = kernel_distance(features, render_features)
    floor = kernel_distance(render_features[:half], render_features[half:])
    spread = pd.DataFrame(
        {
            "attribute": list(ATTRIBUTES),
            "renders, true": truth.std().to_numpy(),
            "renders, oracle": render_seen.std().to_numpy(),
            "generated, oracle": seen.std().to_numpy(),
            "ratio": (seen.std() / render_seen.std()).to_numpy(),
            "oracle r": [np.corrcoef(render_seen[c], truth[c])[0, 1] for c in ATTRIBUTES],
        }
    )
    z, w = latents(generator, seeds)
    targets = seen[list(ATTRIBUTES[:14])]
    space, cosines = honest_space({"z": z, "w": w}, targets)
    figures_of = {
        "faces found by MTCNN, generated": share(found),
        "faces found by MTCNN, 500 renders": share(render_found),
        "both eyes, nose, lips, hair or bald head found by the parser, generated": share(complete),
        "spread within 15 % of the renders'": f"{int((abs(spread.ratio - 1) <= 0.15).sum())} of {len(spread)}",
        "KID generated / renders, features of the oracle": f"{kid[0]:.4f} ± {kid[1]:.4f}",
        "KID renders / renders, features of the oracle": f"{floor[0]:.4f} ± {floor[1]:.4f}",
        "concept share (young woman, good quality, no glasses)": share(oracle.concept(seen)),
    }
    if Path(options.training).exists():
        training = read_shards(options.training, ("images",))["images"]
        distance, index = nearest(images, training)
        other, _ = nearest(held["images"][: len(images)], training)
        figures_of["nearest training picture, generated"] = f"{distance.mean():.1f} of 255"
        figures_of["nearest training picture, held-out renders"] = f"{other.mean():.1f} of 255"
        order = np.argsort(distance)
        pick = order[np.linspace(0, len(order) - 1, 8).astype(int)]
        save_sheet(figures / "nearest.jpg", np.concatenate([images[pick], training[index[pick]]]), 8)
    save_sheet(figures / "generated_psi_1.0.jpg", draw(generator, list(range(64)), device), 8)
    save_sheet(figures / "generated_psi_0.7.jpg", draw(generator, list(range(64)), device, 0.7), 8)

    report = Report("The virtual world, measured")
    report.text(f"{options.samples} generated faces without truncation beside {len(truth)} held-out renders.")
    report.table(pd.DataFrame({"figure": list(figures_of), "value": list(figures_of.values())}))
    report.heading("Spread of each attribute").table(spread)
    report.heading("How straight the latent space is")
    report.text("Held-out ridge R² of each attribute (oracle, generated faces) from z and from w.").table(space)
    report.text("Cosines between the attributes' directions in w.").table(cosines.round(2), index=True, digits=2)
    report.heading("Pictures")
    report.figure(figures / "generated_psi_1.0.jpg", "generated, psi 1.0, seeds 0-63")
    report.figure(figures / "generated_psi_0.7.jpg", "generated, psi 0.7, seeds 0-63")
    if Path(options.training).exists():  # else the picture there is of an earlier generator
        report.figure(figures / "nearest.jpg", "generated (top), nearest training render on 32x32 pixels (bottom)")
    report.write(out)
    write_json(out.with_suffix(".json"), figures_of)
    summary.wrote(out, f"{options.samples} generated faces")
    for name, value in figures_of.items():
        summary.note(f"{name}: {value}")
    summary.print()


def share(hits: np.ndarray) -> str:
    low, high = wilson_interval(int(np.sum(hits)), len(hits))
    return f"{np.mean(hits):.3f} ({low:.3f}-{high:.3f})"


if __name__ == "__main__":
    main(MeasureOptions, measure, examples=__doc__)
