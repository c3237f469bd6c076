"""A start for labels that have never been learnt: the shift of z that moves one score by one, and no other score.

The mean slope of a score over normal latents is its best linear prediction from z (Stein's lemma), and backpropagation
gives a whole slope for each face, so some dozen faces tell the three directions well. From a random start the label's
columns would first have to find them against the noise of small batches. Hair, background and hairstyle are scores that
must stay, too.
"""

from __future__ import annotations

import torch

from property_score.measure import PROPERTIES
from stylegan.generator import Generator
from stylegan_modified.labels import StandardScorer
from stylegan_modified.terms import OUTPUTS
from stylegan_modified.versions import Version

FACES = 96
ROUNDS, REACH, MOST = 1, 1.6, 1.8
EMBEDDED = 2.0  # what a unit label becomes in its own place of the embedding; z has unit entries


def mean_slopes(generator: Generator, scorer: StandardScorer, count: int = FACES, batch: int = 8) -> torch.Tensor:
    """Mean gradients [z_dim, 8] of the property scores along z, zero labels, fixed latents."""
    generator = generator.eval()
    device = next(generator.parameters()).device
    latents = torch.randn(count, generator.z_dim, generator=torch.Generator().manual_seed(20250408))
    total = torch.zeros(generator.z_dim, len(PROPERTIES))
    for part in latents.split(batch):
        z = part.to(device).requires_grad_(True)
        scores = scorer(generator.decode(generator.encode(z)).float().clamp(-1.0, 1.0))
        for k in range(len(PROPERTIES)):
            slope = torch.autograd.grad(scores[:, k].sum(), z, retain_graph=k + 1 < len(PROPERTIES))[0]
            total[:, k] += slope.sum(0).cpu()
    return total / count


def aim_labels(generator: Generator, version: Version, slopes: torch.Tensor) -> None:
    """Set label matrix and label columns of dense0 so that a label acts like the shift of z that moves its score by 1.

    The shifts D solve B^T D = 1 for the slopes B of all eight scores, and are the shortest that do.
    """
    shifts = (slopes @ torch.linalg.inv(slopes.T @ slopes))[:, list(OUTPUTS.values())]
    mapping = generator.mapping
    with torch.no_grad():
        weight, matrix = mapping.dense0.weight, mapping.label_weight
        shifts = shifts.to(weight)
        for place, row in enumerate(version.obeyed):
            matrix[row] = 0.0
            matrix[row, place] = EMBEDDED
            weight[:, mapping.z_dim + place] = weight[:, : mapping.z_dim] @ shifts[:, place] / EMBEDDED


@torch.no_grad()
def calibrate_labels(
    generator: Generator, version: Version, scorer: StandardScorer, count: int = FACES, batch: int = 8
) -> torch.Tensor:
    """Rescale and unmix the label columns until a unit label moves its own score by about one, over whole shifts.

    A slope holds for small shifts only; large ones saturate. Each round draws faces with random labels, takes the
    regression of scores on labels, and undoes it, by MOST at most. Returns the last regression [3, 3] (label, score).
    """
    generator = generator.eval()
    device = next(generator.parameters()).device
    random, response = torch.Generator().manual_seed(20250409), torch.eye(len(OUTPUTS))
    columns, outputs = list(version.obeyed), list(OUTPUTS.values())
    for last in [False] * ROUNDS + [True]:
        z = torch.randn(count, generator.z_dim, generator=random)
        wished = (torch.rand(count, len(columns), generator=random) * 2.0 - 1.0) * REACH
        label = torch.zeros(count, generator.label_size)
        label[:, columns] = wished
        scores = []
        for rows in range(0, count, batch):
            part = slice(rows, rows + batch)
            mid = generator.encode(z[part].to(device), label[part].to(device))
            scores.append(scorer(generator.decode(mid).float().clamp(-1.0, 1.0)).cpu()[:, outputs])
        design = torch.cat([wished, torch.ones(count, 1)], dim=1)
        response = torch.linalg.lstsq(design, torch.cat(scores)).solution[: len(columns)]
        if last:
            break
        left, sizes, right = torch.linalg.svd(response)
        undo = right.T @ torch.diag(1.0 / sizes.clamp_min(1.0 / MOST)) @ left.T
        matrix = generator.mapping.label_weight
        matrix[columns] = undo.to(matrix) @ matrix[columns]
    return response
