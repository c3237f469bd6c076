"""Light and colour: skin, hair, glasses, cloth and background, in linear light."""

from __future__ import annotations

import torch
from torch import Tensor

from virtual_face.compiled import speeds_up
from virtual_face.face_sheet import EYE_X, edge, hair_colour, mix, palette, ramp
from virtual_face.geometry import Head, Vector


def dot(a, b) -> Tensor:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def unit(a) -> Vector:
    length = (dot(a, a) + 1e-9).sqrt()
    return tuple(component / length for component in a)


class Lights:
    """Key light, sky and ground of each picture; directions in head coordinates, fields [n, 1] or [n, 3]."""

    def __init__(self, p: dict[str, Tensor], head: Head):
        azimuth, elevation = p["key_azimuth"], p["key_elevation"]
        key = torch.stack([azimuth.sin() * elevation.cos(), elevation.sin(), azimuth.cos() * elevation.cos()], -1)
        self.key = self.local(head, key)
        self.up = self.local(head, torch.tensor([0.0, 1.0, 0.0], device=key.device).expand_as(key))
        warm = p["key_warm"][:, None] * torch.tensor([0.10, 0.0, -0.12], device=key.device)
        self.key_rgb = 1.18 * (1 + warm)
        self.sky_rgb = p["fill"][:, None] * (1 - 0.6 * warm) * torch.tensor([0.98, 1.0, 1.06], device=key.device)
        self.ground_rgb = 0.55 * p["fill"][:, None] * torch.tensor([1.05, 0.96, 0.9], device=key.device)
        self.rim_rgb = (0.25 + 0.5 * p["background_light"])[:, None] * torch.ones(3, device=key.device)

    @staticmethod
    def local(head: Head, world: Tensor) -> Vector:
        vector = (head.rotation.transpose(1, 2) @ world[..., None])[..., 0]
        return tuple(vector[:, i, None] for i in range(3))

    def ambient(self, normal: Vector) -> Tensor:
        up = (0.5 + 0.5 * dot(normal, self.up))[:, None]
        return mix(self.ground_rgb[:, :, None], self.sky_rgb[:, :, None], up)


@speeds_up
def shade_skin(
    paint: Tensor, gloss: Tensor, cavity: Tensor, normal: Vector, view: Vector, lights: Lights, shadow: Tensor
) -> Tensor:
    """Soft skin: red-shifted wrapped terminator, faint highlight, rim; paint [n, 3, m] -> linear RGB [n, 3, m]."""
    facing = dot(normal, lights.key)
    wrap = torch.tensor([0.50, 0.34, 0.28], device=paint.device)[None, :, None]
    diffuse = ((facing[:, None] + wrap) / (1 + wrap)).clamp(min=0) ** 1.25
    softened = 1 - (1 - shadow[:, None]) * torch.tensor([0.62, 0.74, 0.78], device=paint.device)[None, :, None]
    occlusion = (1 + 0.75 * cavity)[:, None].clamp(0.25, 1.15)
    light = lights.key_rgb[:, :, None] * diffuse * softened + lights.ambient(normal)
    half = unit(tuple(a + b for a, b in zip(lights.key, view)))
    fresnel = (1 - dot(normal, view).clamp(0, 1)) ** 4
    shine = dot(normal, half).clamp(min=0)
    highlight = gloss * (0.10 * shine**14 + 0.11 * shine**60) * shadow
    rim = (0.22 * fresnel * (0.5 + 0.5 * dot(normal, lights.up)))[:, None] * lights.rim_rgb[:, :, None]
    return paint * light * occlusion + highlight[:, None] + rim * (0.3 + paint)


def strand_noise(angle: Tensor, y: Tensor, curl: Tensor) -> tuple[Tensor, Tensor]:
    """Coarse locks and fine strands, each about [-1, 1], running along the hair; mirror-symmetric in the angle."""
    a = angle.abs() + curl * 0.10 * torch.sin(9 * y + 2 * torch.sin(3 * angle.abs())) + 0.03 * torch.sin(4 * y)
    locks = (torch.cos(14 * a + 1.0) + torch.cos(23.3 * a - 0.7 + 0.5 * y) + torch.cos(37 * a + 2.2)) / 3
    fine = (torch.cos(59 * a + 0.3) + torch.cos(83 * a + 1.9 + 1.5 * y) + torch.cos(127 * a + 0.8)) / 3
    return locks, fine


@speeds_up
def shade_hair(
    p: dict[str, Tensor], at: Vector, normal: Vector, view: Vector, lights: Lights, depth: Tensor, shadow: Tensor
) -> Tensor:
    """Strands with two shifted highlights (Kajiya and Kay 1989; Marschner et al. 2003): linear RGB [n, 3, m]."""
    x, y, z = at
    q = {name: value[:, None] for name, value in p.items()}
    part = 0.22 * q["hair_part"]
    # Hair falls from the parting, over the temples and down: lines of equal angle around the top of the parting.
    angle = torch.atan2((x - part).abs() + 0.75 * (0.25 - z).clamp(min=0), 1.12 - y)
    curl = q["hair_curl"]
    locks, fine = strand_noise(angle, y, curl)
    flow = ((x - part) * (0.3 + ramp(y, -0.3, 0.6)), y - 1.15, -0.35 * ramp(y, 0.0, 0.7))
    along = dot(flow, normal)
    tangent = unit(tuple(f - along * n for f, n in zip(flow, normal)))
    half = unit(tuple(a + b for a, b in zip(lights.key, view)))
    shift = 0.10 * fine + 0.08 * locks
    th = dot(tangent, half) + shift
    first = (1 - (th - 0.08).clamp(-1, 1) ** 2).clamp(min=0).sqrt() ** 70
    second = (1 - (th + 0.14).clamp(-1, 1) ** 2).clamp(min=0).sqrt() ** 22
    tl = dot(tangent, lights.key)
    facing = (0.5 + 0.5 * dot(normal, lights.key)).clamp(0, 1)
    diffuse = (1 - tl.clamp(-1, 1) ** 2).clamp(min=0).sqrt() * facing
    base = hair_colour(p)[:, :, None]
    texture = 1 + (0.30 * locks + 0.26 * fine) * (1 - 0.35 * curl)
    occlusion = ((0.42 + 0.58 * depth) * (1 + 0.16 * locks)).clamp(0.15, 1.2)
    lit = lights.key_rgb[:, :, None] * (diffuse * (0.35 + 0.65 * shadow))[:, None] + 0.9 * lights.ambient(normal)
    colour = base * texture[:, None] * lit
    gleam = (facing * shadow * (1 - 0.45 * curl))[:, None] * lights.key_rgb[:, :, None]
    colour = colour + gleam * ((0.055 * first)[:, None] + (0.55 * second)[:, None] * (base * 0.8 + 0.012))
    fresnel = ((1 - dot(normal, view).clamp(0, 1)) ** 3)[:, None]
    colour = colour + 0.16 * fresnel * (base + 0.02) * lights.rim_rgb[:, :, None]
    return colour * occlusion[:, None]


@speeds_up
def glasses_layer(
    p: dict[str, Tensor], origin: Tensor, direction: Tensor, depth: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Frame, temples and lenses: (frame alpha, lens alpha, lens sheen), each [n, m]; 0 where something hides them."""
    o = [origin[:, i, None] for i in range(3)]
    d = [direction[:, :, i] for i in range(3)]
    size = (0.96 + 0.05 * (p["eye_size"] - 1) / 0.1)[:, None]
    t = (0.72 - o[2]) / d[2]
    for _ in range(2):
        x = o[0] + t * d[0]
        t = (0.735 - 0.36 * x * x - o[2]) / d[2]
    x, y = o[0] + t * d[0], o[1] + t * d[1]
    in_front = edge(depth - t + 0.03, 0.015)
    centre = (EYE_X * p["eye_spacing"])[:, None] + 0.012
    ax = x.abs() - centre
    round_ = 0.085
    qx, qy = ax.abs() - 0.195 * size + round_, (y + 0.012 + 0.02 * ax).abs() - 0.145 * size + round_
    lens = (qx.clamp(min=0) ** 2 + qy.clamp(min=0) ** 2 + 1e-9).sqrt() + torch.maximum(qx, qy).clamp(max=0) - round_
    thick = 0.013 + 0.010 * p["man"][:, None]
    rim = edge(thick - lens.abs(), 0.005)
    bridge = edge(thick - (y - 0.045 + 0.9 * x * x).abs(), 0.005) * edge(centre - 0.185 * size - x.abs(), 0.01)
    frame = torch.maximum(rim, bridge) * in_front
    # Temples: rods from the outer rim to the ears; distance from the ray to each segment.
    for side in (-1.0, 1.0):
        ax0, az0 = side * (EYE_X * p["eye_spacing"] + 0.205)[:, None], 0.62
        ax1, az1 = side * (0.765 * p["face_width"])[:, None], -0.10
        ex, ez = ax1 - ax0, az1 - az0
        wx, wy, wz = o[0] - ax0, o[1] - 0.055, o[2] - az0
        b = d[0] * ex + d[2] * ez
        c = ex * ex + ez * ez
        dw, ew = d[0] * wx + d[1] * wy + d[2] * wz, ex * wx + ez * wz
        s = ((ew - b * dw) / (c - b * b + 1e-6)).clamp(0, 1)
        tt = s * b - dw
        gap = ((wx + tt * d[0] - s * ex) ** 2 + (wy + tt * d[1]) ** 2 + (wz + tt * d[2] - s * ez) ** 2 + 1e-9).sqrt()
        frame = torch.maximum(frame, edge(thick * 0.9 - gap, 0.006) * edge(depth - tt + 0.012, 0.008))
    inside = edge(-lens, 0.006) * in_front
    sheen = inside * (0.05 + 0.16 * ramp((x.abs() * 0.7 + y), 0.10, 0.36))
    return frame, inside * 0.05, sheen


def shade_cloth(p: dict[str, Tensor], normal: Vector, lights: Lights) -> Tensor:
    hue = palette(
        [
            (0.10, 0.16, 0.34),
            (0.12, 0.30, 0.30),
            (0.34, 0.35, 0.36),
            (0.55, 0.50, 0.42),
            (0.42, 0.12, 0.13),
            (0.25, 0.10, 0.26),
        ],
        torch.sigmoid(p["cloth_hue"] * 1.4),
    )
    base = hue * (0.35 + 1.5 * p["cloth_light"])[:, None]
    diffuse = (0.25 + 0.75 * dot(normal, lights.key)).clamp(min=0)
    return base[:, :, None] * (lights.key_rgb[:, :, None] * diffuse[:, None] + lights.ambient(normal))


@speeds_up
def background(p: dict[str, Tensor], size: int) -> Tensor:
    """A wall with light falling across it, out-of-focus lamps and panels: linear RGB [n, 3, size²]."""
    q = {name: value[:, None] for name, value in p.items()}
    axis = (torch.arange(size, device=p["age"].device) + 0.5) / size * 2 - 1
    x, y = axis.repeat(size)[None], (-axis).repeat_interleave(size)[None]
    turn = 1.1 * q["background_angle"]
    slope = x * turn.sin() + y * turn.cos()
    spread = q["background_spread"]
    shade = 0.42 * spread * slope
    lamps_here, lamps_mirrored = torch.zeros_like(x), torch.zeros_like(x)
    for cx, cy, r, a in (
        (-0.72, 0.62, 0.22, 1.0),
        (0.55, 0.80, 0.16, 0.8),
        (0.85, 0.22, 0.26, 0.7),
        (-0.92, -0.05, 0.18, 0.6),
        (0.20, 0.95, 0.12, 0.5),
    ):
        lamps_here = lamps_here + a * edge(r - ((x - cx) ** 2 + (y - cy) ** 2).sqrt(), 0.035)
        lamps_mirrored = lamps_mirrored + a * edge(r - ((x + cx) ** 2 + (y - cy) ** 2).sqrt(), 0.035)
    side = 0.5 + 0.5 * q["background_angle"]
    lamps = mix(lamps_here, lamps_mirrored, side)
    panel = edge(torch.sin(5.2 * x.abs() + 0.6) - 0.2, 0.10)
    structure = ramp(spread, 0.45, 0.85) * 0.42 * lamps + ramp(spread, 0.2, 0.6) * 0.16 * (panel - 0.4)
    level = 0.10 + 0.80 * q["background_light"]
    value = (level * (1 + shade) + structure * (0.35 + 0.9 * level) - 0.05 * (x**2 + y**2)).clamp(min=0.012)
    tint = palette(
        [(0.78, 0.92, 1.18), (0.86, 1.02, 0.98), (1.0, 1.0, 1.0), (1.12, 0.98, 0.84), (1.10, 0.88, 0.86)],
        torch.sigmoid(p["background_hue"] * 1.3),
    )
    tint = mix(torch.ones_like(tint), tint, (0.35 + 0.65 * p["background_tint"])[:, None])
    return (value**1.9)[:, None] * tint[:, :, None]


@speeds_up
def develop(linear: Tensor) -> Tensor:
    """Linear light to display values in [0, 1]: a soft shoulder, then the sRGB curve."""
    x = linear.clamp(min=0)
    x = x * (1 + x / 4.0) / (1 + x * 0.72)
    return torch.where(x <= 0.0031308, 12.92 * x, 1.055 * x.clamp(min=1e-6) ** (1 / 2.4) - 0.055).clamp(0, 1)
