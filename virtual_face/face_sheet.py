"""The face as sheets over the frontal plane of the head: how far the skin stands out, its paint, and its parts.

A sheet covers x, y in [-EXTENT, EXTENT] head units (the skull is about 1.5 wide and 2 high, eyes at y = 0, y up).
Sculpting and painting in two dimensions costs little, keeps lids, lips and lashes exactly aligned, and the ray marcher
only has to look the values up.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from virtual_face.compiled import speeds_up

EXTENT = 1.2
MOUTH_Y, NOSE_Y, EYE_X = -0.61, -0.335, 0.285
PARTS = ("eye", "brow", "nose", "upper_lip", "inner_mouth", "lower_lip")
CHANNELS = ("height", "cavity", "red", "green", "blue", "gloss", *PARTS)


def gauss(x: Tensor, width) -> Tensor:
    return torch.exp(-((x / width) ** 2))


def edge(x: Tensor, width: float = 0.012) -> Tensor:
    """Soft step: 0 below, 1 above, over about four widths."""
    return torch.sigmoid(x / width)


def ramp(x: Tensor, low: float, high: float) -> Tensor:
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def mix(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    return a + (b - a) * t


def palette(stops: list[tuple[float, float, float]], t: Tensor) -> Tensor:
    """Piecewise linear colour of t in [0, 1]: linear-light RGB [n, 3]."""
    table = torch.tensor(stops, dtype=t.dtype, device=t.device)
    x = t.clamp(0, 1) * (len(stops) - 1)
    i = x.long().clamp(max=len(stops) - 2)
    f = (x - i).unsqueeze(-1)
    return table[i] * (1 - f) + table[i + 1] * f


def box_blur(planes: Tensor, radius: int) -> Tensor:
    """Mean over a square window, borders repeated: [n, c, h, w]."""
    padded = F.pad(planes, (radius,) * 4, mode="replicate")
    width = 2 * radius + 1
    return F.avg_pool2d(F.avg_pool2d(padded, (1, width), 1), (width, 1), 1)


def hair_colour(p: dict[str, Tensor]) -> Tensor:
    """Colour of the hair, linear-light RGB [n, 3]: black, brown, blond; redder with `hair_warm`; grey with age."""
    natural = palette(
        [(0.010, 0.008, 0.007), (0.045, 0.023, 0.013), (0.16, 0.082, 0.036), (0.42, 0.265, 0.115), (0.72, 0.53, 0.29)],
        p["hair_light"],
    )
    red = palette(
        [(0.03, 0.010, 0.007), (0.14, 0.034, 0.014), (0.34, 0.10, 0.03), (0.52, 0.21, 0.07), (0.7, 0.4, 0.2)],
        p["hair_light"],
    )
    coloured = mix(natural, red, (0.75 * p["hair_warm"])[:, None])
    grey = (0.20 + 0.45 * p["hair_light"])[:, None] * torch.tensor([1.0, 0.99, 0.97], device=coloured.device) + 0.06
    return mix(coloured, grey, p["grey"][:, None])


def skin_colour(p: dict[str, Tensor]) -> Tensor:
    """Base colour of the skin, linear-light RGB [n, 3], from fair to deep brown."""
    tone = palette(
        [
            (0.90, 0.605, 0.47),
            (0.82, 0.505, 0.36),
            (0.63, 0.365, 0.235),
            (0.41, 0.205, 0.115),
            (0.235, 0.112, 0.062),
            (0.15, 0.07, 0.042),
        ],
        p["skin"],
    )
    under = torch.tensor([0.02, 0.0, -0.03], device=tone.device) * p["undertone"][:, None]
    return tone * (1 + under * 2)


def lashes_and_lids(x: Tensor, y: Tensor, p: dict[str, Tensor]) -> dict[str, Tensor]:
    """Curves of the eye at |x|, y: opening mask, distance to the upper lid line, position inside the eye."""
    size = p["eye_size"]
    half_width, centre = 0.150 * size, EYE_X * p["eye_spacing"]
    s = (x - centre) / half_width
    level = y - p["eye_tilt"] * (x - centre)
    arch = (1 - s.abs().clamp(max=1) ** 2.1).clamp(min=0)
    peak = 1 - 0.06 * s  # the upper lid is highest a little toward the nose
    lower = -0.052 * size * arch**0.9 * (0.75 + 0.25 * p["eyes"])
    wide = 0.100 * size * arch**0.72 * peak
    upper = lower + (wide - lower) * p["eyes"].clamp(0, 1.15)
    return {
        "s": s,
        "level": level,
        "upper": upper,
        "lower": lower,
        "wide": wide,
        "centre": centre,
        "half_width": half_width,
    }


def mouth_curves(x: Tensor, p: dict[str, Tensor]) -> dict[str, Tensor]:
    """Edges of the lips over x (signed): outer and inner edge of both lips."""
    half_width = 0.225 * p["mouth_width"] * (1 - 0.22 * p["mouth"])
    t = (x / half_width).abs()
    inside = (1 - t.clamp(max=1) ** 2).clamp(min=0)
    line = MOUTH_Y + (0.075 * p["smile"] - 0.012) * t.clamp(max=1.2) ** 2 - 0.012 * gauss(t, 0.22)
    gap = p["mouth"] * inside**0.62
    bow = 1 + 0.16 * gauss(t - 0.32, 0.2) - 0.20 * gauss(t, 0.14)
    full = p["lip_full"]
    inner_upper = line + 0.25 * gap
    inner_lower = line - 0.75 * gap
    outer_upper = inner_upper + 0.066 * full * inside**0.75 * bow
    outer_lower = inner_lower - 0.088 * full * inside**0.60
    return {
        "t": t,
        "line": line,
        "gap": gap,
        "inner_upper": inner_upper,
        "inner_lower": inner_lower,
        "outer_upper": outer_upper,
        "outer_lower": outer_lower,
        "inside": (1.0 - t) * half_width,
    }


def strokes(x: Tensor, y: Tensor) -> Tensor:
    """Fixed fine noise in [-1, 1], the same on every face and mirror-symmetric."""
    a = torch.sin(61 * x + 5 * torch.sin(17 * y + 1) + 3 * torch.sin(29 * y)) * torch.sin(
        53 * y + 6 * torch.sin(19 * x)
    )
    b = torch.sin(97 * x - 71 * y + 4 * torch.sin(13 * x + 11 * y)) * torch.sin(37 * x + 89 * y + 5 * torch.sin(23 * y))
    return 0.5 * (a + b)


@speeds_up
def face_sheet(parameters: dict[str, Tensor], side: int) -> Tensor:
    """Draws the sheets: parameters float32 [n] each -> float32 [n, len(CHANNELS), side, side], row 0 at the top."""
    p = {name: value[:, None, None] for name, value in parameters.items()}
    axis = torch.linspace(-EXTENT, EXTENT, side, device=p["age"].device)
    x_signed, y = axis[None, None, :].expand(1, side, side), -axis[None, :, None].expand(1, side, side)
    x = x_signed.abs()
    man, age, smile, gap0 = p["man"], p["age"], p["smile"], p["mouth"]

    eye = lashes_and_lids(x, y, p)
    s, level = eye["s"], eye["level"]
    mouth = mouth_curves(x_signed, p)
    # The jaw drops with the mouth: what lies below the lips moves down.
    drop = 0.55 * gap0 * ramp(-y, 0.55, 0.75)
    y_jaw = y + drop
    nose_y = NOSE_Y * p["nose_length"]

    # ---- parts ---------------------------------------------------------------------------------------------
    opening = edge(eye["upper"] - level, 0.008) * edge(level - eye["lower"], 0.008) * edge(1.0 - s.abs(), 0.02)
    brow_s = (x - EYE_X * p["eye_spacing"]) / 0.19
    brow_line = 0.188 + 0.045 * p["brow_raise"] + 0.032 * (1 - (brow_s - 0.15) ** 2) * (1 - 0.45 * man)
    brow_half = 0.026 * p["brow_thick"] * (1 - 0.60 * ramp(brow_s, 0.0, 1.15)) * (1 - 0.35 * ramp(-brow_s, 0.6, 1.0))
    brow_noise = 0.25 * strokes(x * 1.3 + 0.3 * y, y)
    brow = edge(brow_half - (y - brow_line).abs() + 0.006 * brow_noise, 0.007) * edge(1.05 - brow_s.abs(), 0.045)
    bridge = ramp(-y, -0.02, -nose_y)  # 0 at the root of the nose, 1 at its base
    nose_half = (0.050 + 0.100 * bridge**1.8) * p["nose_width"]
    nose = edge(nose_half - x, 0.012) * edge(y - (nose_y - 0.055), 0.010) * edge(0.02 - y, 0.02)
    upper_lip = (
        edge(mouth["outer_upper"] - y, 0.008) * edge(y - mouth["inner_upper"], 0.006) * edge(mouth["inside"], 0.008)
    )
    lower_lip = (
        edge(mouth["inner_lower"] - y, 0.006) * edge(y - mouth["outer_lower"], 0.009) * edge(mouth["inside"], 0.008)
    )
    inner = (
        edge(mouth["inner_upper"] - y, 0.007)
        * edge(y - mouth["inner_lower"], 0.007)
        * edge(mouth["gap"] - 0.016, 0.006)
    )
    upper_lip, lower_lip = upper_lip * (1 - inner), lower_lip * (1 - inner)

    # ---- sculpture -----------------------------------------------------------------------------------------
    def bump(cx, cy, wx, wy, at_y=y):
        return gauss(x - cx, wx) * gauss(at_y - cy, wy)

    height = 0.058 * (0.25 + man) * bump(0.24, 0.17, 0.2, 0.08)
    height = height - 0.075 * bump(EYE_X * p["eye_spacing"] - 0.03, 0.035, 0.17, 0.115)
    height = height + 0.055 * bump(eye["centre"], -0.01, 0.15, 0.10)
    profile = 0.050 + (0.150 + 0.025 * man) * bridge**1.3
    nose_width = (0.070 + 0.030 * bridge) * (0.6 + 0.4 * p["nose_width"])
    under = torch.sigmoid((y - (nose_y - 0.030)) / 0.020)
    height = height + profile * gauss(x, nose_width * 1.25) * under * torch.sigmoid((0.16 - y) / 0.05)
    height = height + 0.050 * bump(0, nose_y + 0.035, 0.085 * p["nose_width"], 0.075) * under
    height = height + 0.070 * bump(0.090 * p["nose_width"], nose_y + 0.015, 0.055, 0.055) * under
    height = height + 0.075 * p["cheek"] * bump(0.37, -0.24 + 0.04 * smile, 0.19, 0.17)
    height = height + 0.075 * bump(0, MOUTH_Y - 0.02, 0.27, 0.20)
    height = height - 0.016 * bump(0, MOUTH_Y + 0.15, 0.035, 0.06)
    lip_mid_u = 0.5 * (mouth["outer_upper"] + mouth["inner_upper"])
    lip_mid_l = 0.5 * (mouth["outer_lower"] + mouth["inner_lower"])
    lip_in = mouth["inside"].clamp(min=0) / 0.225
    height = height + 0.050 * gauss(y - lip_mid_u, 0.046) * lip_in.clamp(max=1).sqrt() * (1 - inner)
    height = height + 0.068 * gauss(y - lip_mid_l, 0.052) * lip_in.clamp(max=1).sqrt() * (1 - inner)
    height = height - 0.045 * inner
    height = height - 0.024 * gauss(y - mouth["line"], 0.014) * edge(mouth["inside"], 0.02) * (
        1 - edge(gap0 - 0.03, 0.01)
    )
    height = height + (0.070 + p["chin"]) * bump(0, -0.89, 0.19, 0.11, y_jaw)
    height = height - 0.030 * bump(0, -0.775, 0.14, 0.05, y_jaw)
    fold_x = 0.17 + 0.20 * ramp(-y, 0.30, 0.70)
    fold = gauss(x - fold_x, 0.028) * ramp(-y, 0.30, 0.42) * (1 - ramp(-y, 0.56, 0.72))
    height = height - (0.026 * ramp(age, 0.2, 0.9) + 0.010 * smile.clamp(0, 1)) * fold
    lines = (
        gauss(torch.sin((y - 0.08 * x**2) * 44), 0.55)
        * ramp(y, 0.26, 0.33)
        * (1 - ramp(y, 0.48, 0.56))
        * (1 - ramp(x, 0.28, 0.42))
    )
    height = height - 0.012 * ramp(age, 0.5, 0.95) * lines
    crow = gauss(torch.sin((level + 0.02) * 70), 0.5) * gauss(x - eye["centre"] - 0.24, 0.05) * gauss(level, 0.09)
    height = height - 0.010 * ramp(age, 0.3, 0.9) * crow
    bag = gauss(level + 0.105 - 0.03 * s**2, 0.018) * edge(0.9 - s.abs(), 0.1)
    height = height - (0.002 + 0.020 * age) * bag
    crease_line = eye["wide"] + 0.022 + 0.014 * (1 - p["eyes"].clamp(0, 1))
    crease = gauss(level - crease_line, 0.013) * edge(1.05 - s.abs(), 0.06)
    height = height - 0.016 * crease * (1 - opening)
    height = height - 0.022 * opening
    height = height * (1 - ramp(x, 0.48, 0.66))  # sculpt the front only: the side of the head is seen edge-on here

    cavity = ((height - box_blur(box_blur(height[:, None], 8), 4)[:, 0]) * 9).clamp(-0.75, 0.35)

    # ---- paint ---------------------------------------------------------------------------------------------
    def colour(rgb):
        return rgb[:, :, None, None]

    base = skin_colour(parameters)
    hair = hair_colour(parameters)
    red = base * torch.tensor([1.04, 0.72, 0.70], device=base.device)
    paint = colour(base).expand(-1, -1, side, side)

    def put(paint: Tensor, rgb: Tensor, amount: Tensor) -> Tensor:
        return mix(paint, rgb, amount[:, None].clamp(0, 1))

    flush = (
        0.55 * bump(0.36, -0.25, 0.17, 0.13)
        + 0.40 * bump(0, nose_y + 0.02, 0.09, 0.07)
        + 0.25 * bump(0, -0.9, 0.15, 0.1)
    )
    paint = put(paint, colour(red), flush * (0.55 + 0.35 * p["makeup"]) * (1 - 0.35 * p["skin"]))
    paint = paint * (1 + 0.03 * strokes(x, y) * (0.4 + age))[:, None]
    spots = ramp(torch.sin(31 * x + 4 * torch.sin(17 * y)) * torch.sin(27 * y + 3 * torch.sin(23 * x)), 0.55, 0.9)
    paint = put(
        paint,
        colour(base * 0.62),
        spots * (0.28 * ramp(age, 0.5, 1.0) + 0.22 * ramp(p["undertone"], 0.45, 0.9) * gauss(y + 0.2, 0.16)),
    )
    socket = bump(eye["centre"] - 0.02, 0.02, 0.19, 0.13)
    paint = put(
        paint, colour(base * torch.tensor([0.72, 0.58, 0.60], device=base.device)), socket * (0.28 + 0.15 * age)
    )
    shadow_rgb = mix(
        base * 0.5, torch.tensor([[0.20, 0.07, 0.09]], device=base.device), torch.full_like(base[:, :1], 0.5)
    )
    lid = edge(level - eye["upper"], 0.02) * edge(crease_line + 0.03 - level, 0.02) * edge(1.1 - s.abs(), 0.06)
    paint = put(paint, colour(shadow_rgb), 0.55 * p["makeup"] * lid)
    paint = put(paint, colour(base * 0.45), 0.40 * crease * (1 - opening) + 0.30 * age * bag)
    paint = put(
        paint,
        colour(base * torch.tensor([0.66, 0.5, 0.48], device=base.device)),
        (0.45 * ramp(age, 0.25, 0.9) + 0.12 * smile.clamp(0, 1)) * fold
        + 0.45 * ramp(age, 0.5, 0.95) * (lines * 0.6 + crow),
    )

    # nostrils
    nostril = gauss(x - 0.050 * p["nose_width"], 0.024) * gauss(y - (nose_y - 0.016), 0.013)
    paint = put(paint, colour(base * 0.16), 0.85 * nostril)
    wing = gauss(x - 0.140 * p["nose_width"], 0.014) * gauss(y - nose_y - 0.005, 0.04)
    paint = put(paint, colour(base * torch.tensor([0.55, 0.42, 0.4], device=base.device)), 0.5 * wing)

    # beard: moustache, chin and cheeks below a line from the ear to the mouth
    cheek_line = -0.62 + 0.60 * ramp(x, 0.34, 0.74)
    beard = edge(cheek_line - y, 0.05) * ramp(x + 0.12 * gauss(y + 0.95, 0.2), 0.0, 0.05).clamp(min=0.0)
    beard = torch.maximum(beard, edge(-0.70 - y_jaw, 0.03))
    moustache = gauss(x - 0.10, 0.20) * edge(y - mouth["outer_upper"] - 0.004, 0.008) * edge(nose_y - 0.085 - y, 0.014)
    beard = torch.maximum(beard, moustache * edge(0.27 - x, 0.02))
    lips_all = (
        edge(mouth["outer_upper"] + 0.012 - y, 0.01)
        * edge(y - mouth["outer_lower"] + 0.012, 0.01)
        * edge(mouth["inside"] + 0.01, 0.01)
    )
    beard = beard * (1 - lips_all) * p["beard"] * edge(0.02 - y, 0.05)
    beard_rgb = mix(hair * 0.62, base * 0.25, torch.full_like(base[:, :1], 0.3))
    paint = put(paint, colour(beard_rgb), beard * (0.86 + 0.10 * strokes(x, y)))
    brow_rgb = mix(hair * 0.55, base * 0.30, torch.full_like(base[:, :1], 0.40))
    paint = put(paint, colour(brow_rgb), 0.92 * brow * (0.9 + 0.35 * brow_noise))

    # lips, inner mouth, teeth, tongue
    natural = base * torch.tensor([0.92, 0.50, 0.50], device=base.device)
    stick = palette(
        [(0.52, 0.10, 0.09), (0.55, 0.055, 0.075), (0.40, 0.05, 0.09)], torch.sigmoid(parameters["undertone"] * 2)
    )
    lip_rgb = mix(natural, stick, (0.72 * parameters["makeup"])[:, None])
    groove = 1 + 0.10 * torch.sin(130 * x)
    paint = put(paint, colour(lip_rgb * 0.80), 0.95 * upper_lip * groove)
    paint = put(paint, colour(lip_rgb), 0.95 * lower_lip * groove)
    paint = put(
        paint,
        colour(base * torch.tensor([0.30, 0.12, 0.12], device=base.device)),
        0.85 * gauss(y - mouth["line"], 0.011) * edge(mouth["inside"] - 0.01, 0.012) * (1 - edge(gap0 - 0.04, 0.012)),
    )
    paint = put(
        paint, torch.tensor([0.065, 0.014, 0.014], device=base.device)[None, :, None, None].expand_as(paint), inner
    )
    depth_in = mouth["inner_upper"] - y
    teeth = inner * edge(0.075 - depth_in, 0.009) * edge(0.82 - mouth["t"], 0.05)
    separators = 1 - 0.16 * gauss(torch.sin(x_signed * 62), 0.22) * ramp(x, 0.0, 0.02)
    ivory = torch.tensor([0.95, 0.91, 0.84], device=base.device)[None, :, None, None]
    paint = mix(
        paint, ivory * separators[:, None] * (1 - 0.35 * mouth["t"][:, None].clamp(0, 1) ** 2), (0.95 * teeth)[:, None]
    )
    tongue = (
        inner
        * edge((y - mouth["inner_lower"] - 0.10 * gap0).neg(), 0.02)
        * edge(gap0 - 0.09, 0.02)
        * edge(0.7 - mouth["t"], 0.06)
    )
    paint = put(
        paint, torch.tensor([0.42, 0.12, 0.12], device=base.device)[None, :, None, None].expand_as(paint), 0.8 * tongue
    )

    # eyes: white, iris, pupil, catch light, lashes
    side_sign = x_signed.sign()
    iris_x = eye["centre"] + 0.038 * p["gaze_x"] * side_sign
    iris_y = 0.014 * p["eye_size"]
    dx, dy = x - iris_x, level - iris_y
    radius = (dx**2 + dy**2 + 1e-8).sqrt()
    iris_r = 0.094 * p["eye_size"]
    white = torch.tensor([0.86, 0.84, 0.82], device=base.device)[None, :, None, None]
    lid_shade = 1 - 0.55 * gauss(level - eye["upper"], 0.05) - 0.22 * s.abs().clamp(max=1) ** 3
    paint = mix(paint, white * lid_shade[:, None], opening[:, None])
    iris_rgb = palette(
        [
            (0.055, 0.022, 0.010),
            (0.12, 0.052, 0.02),
            (0.20, 0.12, 0.045),
            (0.13, 0.20, 0.10),
            (0.12, 0.24, 0.33),
            (0.16, 0.32, 0.50),
        ],
        torch.sigmoid(parameters["iris"] * 1.1),
    )
    glow = 0.75 + 1.1 * ramp(-dy, -0.02, 0.07) * ramp(radius, 0.02, 0.07) - 0.45 * ramp(radius / iris_r, 0.80, 1.0)
    in_iris = edge(iris_r - radius, 0.006) * opening
    paint = mix(paint, colour(iris_rgb) * (glow * lid_shade.clamp(min=0.35))[:, None], in_iris[:, None])
    paint = put(paint, torch.full_like(paint, 0.006), edge(0.040 * p["eye_size"] - radius, 0.006) * opening)
    light_x = 0.030 * p["key_azimuth"].sign().clamp(-1, 1) * (p["key_azimuth"].abs() / 0.1).clamp(max=1)
    catch = gauss(dx * side_sign - light_x, 0.019) * gauss(dy - 0.034, 0.019)
    paint = paint + (1.5 * catch * opening)[:, None]
    lash_dist = level - eye["upper"]
    wing_out = 0.055 * p["makeup"] * edge(s - 0.9, 0.04)
    lash = edge(0.014 + 0.010 * p["makeup"] + 0.007 * (1 - man) - (lash_dist - 0.006).abs(), 0.005) * edge(
        1.03 + wing_out * 4 - s.abs(), 0.03
    )
    paint = put(
        paint, colour(mix(hair * 0.2, torch.full_like(hair, 0.006), torch.full_like(hair[:, :1], 0.6))), 0.93 * lash
    )
    low = gauss(level - eye["lower"], 0.009) * edge(0.98 - s.abs(), 0.03)
    paint = put(
        paint,
        colour(base * torch.tensor([0.40, 0.25, 0.24], device=base.device)),
        (0.45 + 0.3 * p["makeup"]) * low * (1 - lash),
    )
    corner = gauss(s + 0.97, 0.08) * gauss(level - 0.0, 0.016)
    paint = put(paint, colour(red * 0.9), 0.8 * corner * opening)

    gloss = (
        0.32
        + 0.30 * bump(0, nose_y + 0.08, 0.06, 0.12)
        + 0.14 * bump(0, 0.4, 0.3, 0.15)
        + 0.20 * bump(0.36, -0.2, 0.12, 0.1)
    )
    gloss = (
        gloss + (0.55 + 0.5 * p["makeup"]) * (lower_lip + 0.4 * upper_lip) - 0.25 * opening - 0.28 * beard - 0.3 * inner
    )
    eye_part, brow_part = opening * edge(p["eyes"] - 0.02, 0.01), brow
    planes = [
        height,
        cavity,
        *paint.unbind(1),
        gloss,
        eye_part,
        brow_part,
        nose,
        upper_lip,
        inner,
        lower_lip,
    ]
    batch = p["age"].shape[0]
    return torch.stack([plane.expand(batch, side, side) for plane in planes], 1)
