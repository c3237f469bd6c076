"""Draws virtual faces with their masks and true attributes.

python -m virtual_face.render --seeds 0-63 --out sheet.png
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.errors import PipelineError
from pipeline.images import SUFFIXES
from virtual_face.compiled import speeds_up
from virtual_face.face_sheet import CHANNELS, box_blur, edge, face_sheet, hair_colour, mix, ramp, skin_colour
from virtual_face.geometry import Head, head_rays, look_up, normals, trace
from virtual_face.population import factors_from_seeds, head_parameters, true_attributes
from virtual_face.shading import Lights, background, develop, glasses_layer, shade_cloth, shade_hair, shade_skin

CLASSES = 11
LEAST_SIZE = 16  # pixels; below, nothing of a face is left to see
SHEET_TEXELS_PER_PIXEL = 1.75


HEIGHT, CAVITY, GLOSS = (CHANNELS.index(name) for name in ("height", "cavity", "gloss"))
COLOUR = slice(CHANNELS.index("red"), CHANNELS.index("blue") + 1)


@dataclass
class RenderBatch:
    """images float32 [n, 3, size, size] in [-1, 1]; masks uint8 [n, size, size], parser ids; attributes, a row each."""

    images: Tensor
    masks: Tensor
    attributes: pd.DataFrame


@speeds_up
def shadow_of(head: Head, at, lights: Lights, hair: bool = True) -> Tensor:
    """Soft shadow of the key light, 0 dark .. 1 lit, from three looks toward the light."""
    lit = None
    for reach in (0.07, 0.18, 0.40):
        there = tuple(a + reach * k for a, k in zip(at, lights.key))
        free = head.skin(*there)
        if hair:
            free = torch.minimum(free, head.hair(*there))
        amount = (free / (0.42 * reach) + 0.35).clamp(0, 1)
        lit = amount if lit is None else torch.minimum(lit, amount)
    return lit


@speeds_up
def part_ids(head: Head, at, sheet: Tensor) -> Tensor:
    """Parser ids [n, m] of points on the skin: neck, shoulders and ears are background."""
    x, y, z = at
    eye, brow, nose, upper, inner, lower = (
        sheet[:, CHANNELS.index(name)] > 0.5
        for name in ("eye", "brow", "nose", "upper_lip", "inner_mouth", "lower_lip")
    )
    neck, shoulders = head.body(x, y, z)
    front = ramp(z, -0.10, 0.30)
    skull = head.skull(x, y, z - sheet[:, HEIGHT] * front)
    on_head = (skull < torch.minimum(neck, shoulders)) & (skull < 0.035)
    facing = z > 0.1
    right = x > 0
    ids = torch.ones_like(x, dtype=torch.uint8)
    for mask, left_id, right_id in (
        (brow, 2, 3),
        (nose, 6, 6),
        (eye, 4, 5),
        (upper, 7, 7),
        (lower, 9, 9),
        (inner, 8, 8),
    ):
        ids = torch.where(mask & facing, torch.where(right, right_id, left_id).to(torch.uint8), ids)
    return torch.where(on_head, ids, torch.zeros_like(ids))


@torch.no_grad()
def render_factors(factors: Tensor, size: int = 128, supersample: int = 2) -> RenderBatch:
    """Renders faces from population factors float32 [n, K] (see `population.FACTORS`)."""
    images, masks, wall = draw_faces(factors, size, supersample)
    p = head_parameters(factors)
    return RenderBatch(images, masks, true_attributes(p, background_statistics(wall), hair_albedo(p)))


def draw_faces(factors: Tensor, size: int, supersample: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tensor half of `render_factors`: images [n, 3, size, size] in [-1, 1], masks uint8, the bare wall in [0, 1]."""
    p = head_parameters(factors)
    n, side = factors.shape[0], size * supersample
    sheet = face_sheet(p, int(size * SHEET_TEXELS_PER_PIXEL))
    head = Head(p, sheet)
    lights = Lights(p, head)
    origin, direction = head_rays(head, side)
    view = tuple(-direction[:, :, i] for i in range(3))

    t_skin, on_skin, skin_at = trace(head, "skin", side)
    t_hair, on_hair, hair_at = trace(head, "hair", side)

    looked = look_up(sheet, skin_at[0], skin_at[1])
    front = ramp(skin_at[2], -0.05, 0.25)[:, None]
    paint = mix(skin_colour(p)[:, :, None], looked[:, COLOUR], front)
    normal = normals(head, "skin", *skin_at)
    hair_gap = head.hair(*(a + 0.05 * k for a, k in zip(skin_at, normal)))
    contact = ((hair_gap + 0.02) / 0.09).clamp(0.25, 1)
    shadow = shadow_of(head, tuple(a + 0.02 * k for a, k in zip(skin_at, normal)), lights)
    # Short roots tint the scalp, so that hair does not begin at a hard line.
    roots = 0.55 * ramp(-hair_gap, -0.062, -0.035) * (1 - p["bald"])[:, None] * ramp(skin_at[1], -0.1, 0.2)
    paint = mix(paint, (0.5 * hair_colour(p))[:, :, None], roots[:, None])
    gloss, cavity = (looked[:, channel] * front[:, 0] for channel in (GLOSS, CAVITY))
    skin = shade_skin(paint, gloss, cavity, normal, view, lights, shadow)
    skin = skin * (0.55 + 0.45 * contact)[:, None]
    neck, shoulders = head.body(*skin_at)
    _, world_y, _ = head.to_world(*skin_at)
    cloth_amount = edge(shoulders.neg() + neck * 0.6 - 0.02, 0.012) * edge(0.045 - shoulders, 0.02)
    cloth = shade_cloth(p, normal, lights)
    under_chin = 0.62 + 0.38 * ramp(-world_y, 0.95, 1.35)
    is_neck = edge(head.skull(*skin_at) - torch.minimum(neck, shoulders) - 0.01, 0.02)
    skin = skin * mix(torch.ones_like(under_chin), under_chin, is_neck)[:, None]
    skin = mix(skin, cloth, (cloth_amount * is_neck)[:, None])

    hair_normal = normals(head, "hair", *hair_at, step=0.012)
    q = ((hair_at[0] / 0.85) ** 2 + ((hair_at[2] + 0.22) / 0.95) ** 2).sqrt()
    depth = torch.maximum(ramp(q, 0.45, 1.0), ramp(hair_at[1], -0.1, 0.35))
    hair_shadow = shadow_of(head, tuple(a + 0.04 * k for a, k in zip(hair_at, hair_normal)), lights, hair=False)
    hair = shade_hair(p, hair_at, hair_normal, view, lights, depth, hair_shadow)

    far = torch.full_like(t_skin, 99.0)
    skin_depth, hair_depth = torch.where(on_skin, t_skin, far), torch.where(on_hair, t_hair, far)
    cover = on_hair * (hair_depth < skin_depth + 0.03) * ramp(skin_depth - hair_depth, -0.002, 0.035)
    behind = background(p, side)
    image = torch.where(on_skin[:, None], skin, behind)
    image = mix(image, hair, cover[:, None])
    frame, lens, sheen = glasses_layer(p, origin, direction, torch.minimum(skin_depth, hair_depth))
    frame_rgb = torch.stack(
        [
            0.02 + 0.10 * ramp(p["cloth_hue"], 0.2, 1.2),
            0.02 + 0.035 * ramp(p["cloth_hue"], 0.2, 1.2),
            torch.full_like(p["age"], 0.02),
        ],
        -1,
    )[:, :, None]
    shown = ramp(p["glasses"], 0.2, 0.8)[:, None]
    image = image * (1 - (0.35 * lens * shown)[:, None]) + (0.55 * sheen * shown)[:, None]
    image = mix(image, frame_rgb, (frame * shown)[:, None])

    ids = part_ids(head, skin_at, looked)
    ids = torch.where(on_skin, ids, torch.zeros_like(ids))
    ids = torch.where(cover > 0.5, torch.full_like(ids, 10), ids)
    one_hot = F.one_hot(ids.view(n, side, side).long(), CLASSES).permute(0, 3, 1, 2).float()
    shares = F.avg_pool2d(one_hot, supersample)
    masks = clean_masks(shares)

    picture = develop(F.avg_pool2d(image.view(n, 3, side, side), supersample))
    picture = blur_top(picture, p["quality"])
    wall = develop(F.avg_pool2d(behind.view(n, 3, side, side), supersample))
    wall = blur_top(wall, p["quality"])
    return picture * 2 - 1, masks, wall


def clean_masks(shares: Tensor) -> Tensor:
    """Majority class per pixel; lone pixels take their neighbourhood's class: uint8 [n, h, w]."""
    best = shares.argmax(1)
    one_hot = F.one_hot(best, CLASSES).permute(0, 3, 1, 2).float()
    around = F.avg_pool2d(F.pad(one_hot, (1, 1, 1, 1), mode="replicate"), 3, 1) * 9
    support = around.gather(1, best[:, None])[:, 0]
    return torch.where(support < 2.5, around.argmax(1), best).to(torch.uint8)


def blur_top(picture: Tensor, quality: Tensor) -> Tensor:
    """The low-quality defect: the top of the frame is out of focus where quality is low; [n, 3, h, w] in [0, 1]."""
    size = picture.shape[-1]
    radius = max(1, size // 16)
    blurred = picture
    for _ in range(2):
        blurred = box_blur(blurred, radius)
    rows = torch.linspace(0, 1, size, device=picture.device)
    weight = (1 - quality)[:, None, None, None] * (1 - ramp(rows, 0.26, 0.46))[None, None, :, None]
    return mix(picture, blurred, weight)


def background_statistics(wall: Tensor) -> Tensor:
    """Mean and spread of the wall's brightness (0..255) beside and above the head, upper half: [n, 2]."""
    size = wall.shape[-1]
    axis = torch.linspace(-1, 1, size, device=wall.device)
    open_ = (axis[None, :].abs() > 0.62) | (axis[:, None] < -0.86)
    values = (wall.mean(1) * 255)[:, open_ & (axis[:, None] < 0)]
    return torch.stack([values.mean(1), values.std(1, unbiased=False)], 1)


def hair_albedo(p: dict[str, Tensor]) -> Tensor:
    """Brightness of the hair's own colour on the display scale, 0..1: [n]."""
    return develop(hair_colour(p)[:, :, None]).mean((1, 2))


def render(seeds: list[int], size: int = 128, batch: int = 8) -> RenderBatch:
    """One face per seed; a seed gives the same face in any batch and on every machine up to float noise."""
    parts = [render_factors(factors_from_seeds(seeds[i : i + batch]), size) for i in range(0, len(seeds), batch)]
    return RenderBatch(
        torch.cat([part.images for part in parts]),
        torch.cat([part.masks for part in parts]),
        pd.concat([part.attributes for part in parts], ignore_index=True),
    )


@dataclass
class RenderOptions:
    """Draw a contact sheet of virtual faces, and on wish their masks and the table of their true attributes."""

    seeds: str = "0-63"
    """Seeds of the faces: 0,1,4-6."""
    out: str = "sheet.png"
    size: int = 128
    """Side of each picture in pixels."""
    columns: int = 8
    masks: str = ""
    """Also write a sheet of the parser classes here."""
    table: str = ""
    """Also write the true attributes here (CSV, one row per seed)."""


def draw_sheet(options: RenderOptions) -> None:
    from pipeline.artefacts import atomic
    from pipeline.seeds import parse_seeds
    from pipeline.sheets import save_sheet
    from segmentation.classes import PALETTE

    seeds = parse_seeds(options.seeds)
    for flag, low in (("--size", LEAST_SIZE), ("--columns", 1)):
        if (value := getattr(options, flag[2:])) < low:
            raise PipelineError(f"{flag} {value}: at least {low}")
    for flag, name in (("--out", options.out), ("--masks", options.masks)):
        if name and Path(name).suffix.lower() not in SUFFIXES:
            raise PipelineError(f"{flag} {name}: write a name that ends in {' or '.join(SUFFIXES)}")
    faces = render(seeds, options.size)
    pictures = ((faces.images.permute(0, 2, 3, 1) + 1) * 127.5 + 0.5).clamp(0, 255).byte().numpy()
    save_sheet(options.out, pictures, options.columns)
    if options.masks:
        save_sheet(options.masks, PALETTE[faces.masks.numpy()], options.columns)
    if options.table:
        faces.attributes.insert(0, "seed", seeds)
        with atomic(options.table) as temporary:
            faces.attributes.to_csv(temporary, index=False)
    print(f"wrote {options.out}: {len(seeds)} faces")


if __name__ == "__main__":
    from pipeline.command import main

    main(RenderOptions, draw_sheet, examples="python -m virtual_face.render --seeds 0-63 --out sheet.png")
