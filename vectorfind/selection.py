"""Faces worth keeping: chosen by the finder on one half of the noise, confirmed by every grader on the other half.

Who is chosen and judged by the same noisy measurement looks better than he is; of the published selections between a
third and a half passed again. Here noise is that of the generator, where it has any (training may have left next to
nothing of its strength), and that of a camera, by which each picture is taken anew before a grader sees it.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pipeline.artefacts import atomic
from pipeline.progress import progress
from pipeline.report import Report, wilson_interval
from vectorfind.bench import Bench
from vectorfind.editor import Editor
from vectorfind.evaluate import BARS, passed, per_face
from vectorfind.graders import FINDER, Grader
from vectorfind.groups import Grouping
from vectorfind.names import EDITED, PROPERTIES
from vectorfind.protocol import run_graded, score_codes
from vectorfind.published import write_latents
from vectorfind.setting import Files

CHOOSING, CONFIRMING = 1, 2
SHEET_FACES = 12
# Of the camera: deviations of exposure (stops), of contrast and of a channel's gain, range of JPEG quality.
EXPOSURE, CONTRAST, CAST, QUALITY = 0.15, 0.08, 0.03, (60, 95)


def photograph(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Images float32 [N, 3, R, R] in [-1, 1] as a camera would take each: exposure, contrast, colour cast, JPEG."""
    from torchvision.io import decode_jpeg, encode_jpeg

    taken = []
    for image in images.detach().cpu().clamp(-1, 1) * 0.5 + 0.5:
        gain = 2 ** rng.normal(0, EXPOSURE) * (1 + rng.normal(0, CAST, 3))
        seen = image * torch.from_numpy(gain.astype(np.float32))[:, None, None]
        middle = seen.mean()
        seen = (middle + (seen - middle) * float(1 + rng.normal(0, CONTRAST))).clamp(0, 1)
        file = encode_jpeg((seen * 255).round().to(torch.uint8), int(rng.integers(*QUALITY, endpoint=True)))
        taken.append(decode_jpeg(file).float() / 127.5 - 1)
    return torch.stack(taken).to(images.device)


@dataclass
class Photographer(Grader):
    """A grader who sees every picture through a camera, whose noise is `rng`'s."""

    rng: np.random.Generator | None = None

    def scores(self, images: torch.Tensor) -> np.ndarray:
        """As of a Grader, of the pictures as they were taken."""
        return super().scores(photograph(images, self.rng))


def with_cameras(graders: list[Grader], half: int) -> list[Grader]:
    """The same graders with a camera each, on one half of the noise (CHOOSING or CONFIRMING)."""
    return [Photographer(**vars(grader), rng=np.random.default_rng([half, k])) for k, grader in enumerate(graders)]


@contextmanager
def noise_of(bench: Bench, seed: int):
    """The generator with other noise maps than the stored ones, drawn from a seed; restored afterwards."""
    stored = {name: buffer for name, buffer in bench.generator.named_buffers() if name.endswith(".noise")}
    maker = torch.Generator().manual_seed(seed)
    kept = {name: buffer.clone() for name, buffer in stored.items()}
    try:
        for buffer in stored.values():
            buffer.copy_(torch.randn(buffer.shape, generator=maker))
        yield
    finally:
        for name, buffer in stored.items():
            buffer.copy_(kept[name])


def choose(stage, editor: Editor, grouping: Grouping, graders: list[Grader]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Pass at the bars of v8 by the finder on one half of the noise, then again by every grader on the other.

    Returns (chosen: seed, group_name, the correlations of both rounds, confirmed by all; rates: a row per grader, with
    `noise`: deviation of one take of a picture, in deviations of the edited scores).
    """
    grid, seeds = stage.files.setting.test_grid, stage.plan.test_seeds
    with progress(2 * len(seeds) * len(grid.amounts()), "choosing and confirming") as bar:
        with noise_of(stage.bench, CHOOSING):
            cameras = with_cameras(graders, CHOOSING)
            first = run_graded(stage.bench, editor, grouping, seeds, grid, cameras[:1], bar.update)[FINDER]
            unedited = _edited_scores(stage.bench, cameras, seeds)
        faces = per_face(first)
        faces = faces[passed(faces, BARS["v8"])]
        again = {}
        with noise_of(stage.bench, CONFIRMING):
            cameras = with_cameras(graders, CONFIRMING)
            if len(faces):
                again = run_graded(stage.bench, editor, grouping, faces["seed"], grid, cameras, bar.update)
            unedited_again = _edited_scores(stage.bench, cameras, seeds)
    chosen = faces[["seed", "group_name", *(f"{name}_corr" for name in EDITED)]].reset_index(drop=True)
    everyone, rates = np.ones(len(chosen), bool), []
    for grader in graders:
        ok = np.zeros(len(chosen), bool)
        if grader.name in again:
            judged = per_face(again[grader.name])
            ok = passed(judged, BARS["v8"])
            for name in EDITED:
                chosen[f"{grader.name}_{name}_corr"] = judged[f"{name}_corr"].to_numpy()
        everyone &= ok
        low, high = wilson_interval(int(ok.sum()), len(ok))
        share = float(ok.mean()) if len(ok) else float("nan")
        row = {"grader": grader.name, "tested": len(seeds), "chosen": len(ok), "confirmed": int(ok.sum())}
        noise = np.sqrt(np.nanmean((unedited_again[grader.name] - unedited[grader.name]) ** 2) / 2)
        rates.append({**row, "rate": share, "low": low, "high": high, "noise": round(float(noise), 4)})
    chosen["confirmed"] = everyone
    return chosen.round(4), pd.DataFrame(rates)


def _edited_scores(bench: Bench, graders: list[Grader], seeds) -> dict[str, np.ndarray]:
    """The edited scores [F, 3] of unedited faces in deviations, by grader."""
    found = score_codes(bench, bench.encode(bench.latents(seeds), "w"), "w", graders)
    columns = [PROPERTIES.index(name) for name in EDITED]
    return {grader.name: found[grader.name][:, columns] / grader.edited_sds for grader in graders}


def rates_of(files: Files) -> Path:
    """Where `select` leaves how many of the chosen faces each grader confirmed."""
    return files.run.path("vectorfind", "selection", files.setting.name, "confirmed.csv")


def selected_files(files: Files) -> list[Path]:
    """Where `select` leaves the latents of the kept faces, their groups, and what there is to know of them."""
    names = ("ohlora_z_vectors.csv", f"ohlora_{files.setting.position}_group_names.csv", "final_OhLoRA_info.md")
    return [rates_of(files).with_name(name) for name in names]


def sheets_of(files: Files) -> list[Path]:
    """Where `select` draws the kept faces; it draws none where none is kept."""
    return [rates_of(files).with_name(f"sheet_{name}.jpg") for name in EDITED]


def write_selection(stage, editor: Editor, chosen: pd.DataFrame, rates: pd.DataFrame) -> list[Path]:
    """`ohlora_z_vectors.csv`, `ohlora_{position}_group_names.csv`, rates, sheets, `final_OhLoRA_info.md`: paths.

    Rows are the chosen faces that every grader confirmed, numbered from 0. Latents keep every bit of their float32.
    """
    from vectorfind.figures import draw_strips

    rate_file = rates_of(stage.files)
    with atomic(rate_file) as temporary:
        rates.to_csv(temporary, index=False, lineterminator="\n")
    final = chosen[chosen["confirmed"]].reset_index(drop=True)
    z = stage.bench.latents(final["seed"]) if len(final) else np.zeros((0, stage.bench.generator.z_dim), np.float32)
    latents, groups, info = selected_files(stage.files)
    write_latents(latents, z)
    with atomic(groups) as temporary:
        columns = ["group_name", *(f"{name}_corr" for name in EDITED)]
        final[columns].to_csv(temporary, index_label="case", lineterminator="\n")
    report = Report("Faces kept").text(
        f"Of {rates['tested'].iloc[0]} faces, {len(chosen)} pass by the scorer that found the directions (eyes .92, "
        f"mouth .88, pose .88, signed); {len(final)} of them pass again by every grader, with other noise maps in the "
        f"generator and every picture taken anew by a camera (exposure, contrast, colour cast, JPEG); `noise` is what "
        f"these alone change. Method: {stage.files.setting.name}."
    )
    report.table(rates, "Confirmed").table(final, "The kept faces")
    written = [latents, groups, rate_file]
    sheets = sheets_of(stage.files)
    for sheet in sheets:
        sheet.unlink(missing_ok=True)  # of faces that were kept before
    if len(final):
        draw_strips(sheets, stage.bench, editor, Grouping(editor.grouping, editor.cuts), final["seed"][:SHEET_FACES])
        for name, sheet in zip(EDITED, sheets, strict=True):
            report.figure(sheet, f"{name}, -2 to +2 deviations")
        written += sheets
    return [*written, report.write(info)]
