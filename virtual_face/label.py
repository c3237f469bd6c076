"""Writes the 0/1 labels of a generator's first faces, as the oracle sees them.

    python -m virtual_face.label --profile demo --count 2000 --out weights/demo/labels_first_2000.csv

The labels belong to the faces of seeds 0, 1, 2, ... as stage 1 saves them (JPEG), drawn by the profile's generator.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from pipeline.artefacts import atomic, digest, write_stamp
from pipeline.command import main, resolve_device
from pipeline.errors import PipelineError
from pipeline.images import JPEG_QUALITY, through_jpeg
from pipeline.profile import Profile
from pipeline.progress import progress
from stylegan.checkpoint import load_generator
from stylegan.sampling import from_uint8, sample, to_uint8
from virtual_face.oracle import load_oracle


@dataclass
class LabelOptions:
    """Label the first faces of a profile's generator with the oracle."""

    profile: str = "demo"
    count: int = 2000
    out: str = "weights/demo/labels_first_2000.csv"
    device: str = "auto"


def label(options: LabelOptions) -> None:
    if options.count < 1:
        raise PipelineError(f"--count {options.count}: at least 1")
    profile, device = Profile.load(options.profile), resolve_device(options.device)
    generator = load_generator(profile.weight("generator"), device)
    oracle = load_oracle(profile.weight("attribute_net"), device)
    seeds = list(range(options.count))
    tables = []
    for _, _, images in progress(sample(generator, seeds, batch=16, device=device), "label faces"):
        pictures = through_jpeg(to_uint8(images), JPEG_QUALITY)
        tables.append(oracle.attributes(from_uint8(pictures)))
    seen = pd.concat(tables, ignore_index=True)
    labels = pd.DataFrame(
        {
            "img_no": seeds,
            "gender": (seen.gender >= 0.5).astype(int),
            "quality": (seen.quality >= 0.5).astype(int),
            "age": (seen.age >= 0.5).astype(int),
            "glass": (seen.glasses >= 0.5).astype(int),
        }
    )
    with atomic(options.out) as temporary:
        labels.to_csv(temporary, index=False)
    write_stamp(
        options.out,
        command="python -m virtual_face.label",
        options={"count": options.count},
        seed=f"0-{options.count - 1}",
        inputs={"generator": profile.weight("generator"), "oracle": profile.weight("attribute_net")},
        code="",
        rows=len(labels),
        extra={
            "origin": {"generator": digest(profile.weight("generator")), "psi": 1.0, "seeds": f"0-{options.count - 1}"}
        },
    )
    shares = ", ".join(f"{name} {labels[name].mean():.3f}" for name in ("gender", "quality", "age", "glass"))
    print(f"wrote {options.out}: {len(labels)} labels; shares {shares}; concept {oracle.concept(seen).mean():.3f}")


if __name__ == "__main__":
    main(LabelOptions, label, examples=__doc__)
