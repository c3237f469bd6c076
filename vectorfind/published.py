"""Files of the published project: its vectors, whose sign is inverted, and its latents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.artefacts import atomic
from pipeline.errors import PipelineError
from vectorfind.bench import Bench
from vectorfind.calibration import calibrate
from vectorfind.directions import DirectionSet, read_vectors
from vectorfind.finding import edited_deviations
from vectorfind.groups import Grouping
from vectorfind.names import EDITED, vector_file
from vectorfind.pool import Pool


def import_vectors(
    bench: Bench, pool: Pool, grouping: Grouping, folder, position: str, progress=None
) -> tuple[DirectionSet, np.ndarray]:
    """Read `{property}_change_{position}_vector_{group}.csv` of a folder and measure their sign and step.

    The published SVMs name their classes 'largest' and 'smallest', of which the alphabet makes the second the positive
    one, so their vectors lower the property; measured, not assumed, and turned. Returns (DirectionSet, which vectors
    were turned [P, G]). PipelineError for a missing file, another length, or a vector without a direction.
    """
    folder, codes = Path(folder), pool.codes(position)
    units = np.zeros((len(EDITED), len(grouping.names), codes.shape[1]), np.float32)
    for i, name in enumerate(EDITED):
        for j, group in enumerate(grouping.names):
            path = folder / vector_file(name, position, group)
            vectors = read_vectors(path)
            if len(vectors) > 1:
                raise PipelineError(
                    f"{path} holds {len(vectors)} vectors, of as many SVMs: leave the row that is meant, and the header"
                )
            vector = vectors[0]
            if len(vector) != codes.shape[1]:
                raise PipelineError(
                    f"{path} has {len(vector)} numbers, codes of this generator at {position} have {codes.shape[1]}: "
                    "these vectors belong to another generator or position; give --generator or --position as theirs"
                )
            length = float(np.linalg.norm(vector))
            if not length > 0:
                raise PipelineError(f"{path} has length 0 and points nowhere: bring back the vector that it held")
            units[i, j] = vector / length
    sds = edited_deviations(pool)
    found = calibrate(
        bench, codes, grouping.assign(pool.scores), grouping.names, units, EDITED, position, sds, progress
    )
    provenance = {
        "generator_hash": bench.generator_hash,
        "scorer_hash": bench.scorer_hash,
        "method": "imported",
        "turned": int(found.flipped.sum()),
        "capped": int(found.capped.sum()),
        "pool_rows": len(pool),
        "pool_seed_start": pool.plan.seed_start,
    }
    directions = DirectionSet(
        properties=EDITED,
        groups=tuple(grouping.names),
        position=position,
        units=found.units,
        steps=found.steps,
        score_sds=sds.astype(np.float32),
        grouping=grouping.kind,
        cuts=grouping.cuts,
        provenance=provenance,
    )
    return directions, found.flipped


def write_latents(path, latents: np.ndarray) -> None:
    """Latents float32 [rows, D] as the published z CSV: header `0,1,…,D-1`, and no numbers of rows."""
    with atomic(Path(path)) as temporary:
        # As of vectors: every bit of a float32.
        pd.DataFrame(latents).to_csv(temporary, index=False, float_format="%.9g", lineterminator="\n")


def read_latents(path, z_dim: int, label_size: int = 0) -> tuple[np.ndarray, np.ndarray | None]:
    """Latents float32 [rows, z_dim] of a z CSV (`ohlora_z_vectors.csv`), and labels [rows, label_size] if it has any.

    Rows may be numbered, as those of vectors are. The published z is followed by the label that its face was drawn
    with; without one (None) a generator is fed zeros. PipelineError for another width, or a spoilt file.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:  # Excel begins a file with a mark of its encoding
            numbered = next((line for line in file if line.strip()), "").startswith(",")
    except (OSError, ValueError) as error:
        raise PipelineError(
            f"{path} cannot be read as a CSV of numbers ({error}): save it with commas, in UTF-8"
        ) from error
    latents = read_vectors(path, numbered)
    if latents.shape[1] == z_dim:
        return latents, None
    if latents.shape[1] != z_dim + label_size:
        with_label = f", or {z_dim + label_size} with a label" * bool(label_size)
        raise PipelineError(
            f"{path} has {latents.shape[1]} numbers a row, this generator takes {z_dim}{with_label}: these latents are "
            "of another one; give it by --generator"
        )
    return latents[:, :z_dim], latents[:, z_dim:]
