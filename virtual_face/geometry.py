"""Shape of head, hair and body as signed distances, and the ray marcher that finds them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from virtual_face.compiled import speeds_up
from virtual_face.face_sheet import EXTENT, gauss, ramp

PIVOT = (
    0.0,
    0.0,
    0.30,
)  # the head turns about a point behind the eyes, so that they stay in place as in an aligned portrait
CAMERA_DISTANCE, FAR = 7.0, 9.2
FRAME_HALF, FRAME_Y = 1.20, -0.13  # half the frame's side at the eyes' depth, height of its centre
Vector = tuple[Tensor, Tensor, Tensor]


def rotation(p: dict[str, Tensor]) -> Tensor:
    """Head to world rotation [n, 3, 3] from yaw (to image right), pitch (up) and roll, in radians.

    Positive roll lowers the eye on the image's right.
    """
    zero, one = torch.zeros_like(p["yaw"]), torch.ones_like(p["yaw"])
    cy, sy, cp, sp, cr, sr = (f(p[a]) for a in ("yaw", "pitch", "roll") for f in (torch.cos, torch.sin))

    def matrix(*rows):
        return torch.stack([torch.stack(row, -1) for row in rows], -2)

    yaw = matrix((cy, zero, sy), (zero, one, zero), (-sy, zero, cy))
    pitch = matrix((one, zero, zero), (zero, cp, sp), (zero, -sp, cp))
    roll = matrix((cr, sr, zero), (-sr, cr, zero), (zero, zero, one))
    return roll @ yaw @ pitch


def smooth_min(a: Tensor, b: Tensor, k: float) -> Tensor:
    h = (k - (a - b).abs()).clamp(min=0) / k
    return torch.minimum(a, b) - h * h * (k * 0.25)


def smooth_max(a: Tensor, b: Tensor, k: float) -> Tensor:
    return -smooth_min(-a, -b, k)


def ellipsoid(x: Tensor, y: Tensor, z: Tensor, rx, ry, rz) -> Tensor:
    """Signed distance to an ellipsoid, first order (exact at the surface)."""
    ax, ay, az = x / rx, y / ry, z / rz
    k0 = (ax * ax + ay * ay + az * az + 1e-9).sqrt()
    k1 = ((ax / rx) ** 2 + (ay / ry) ** 2 + (az / rz) ** 2 + 1e-9).sqrt()
    return k0 * (k0 - 1) / k1


def look_up(sheet: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Bilinear values of a sheet [n, C, S, S] at head coordinates [n, m]: [n, C, m]."""
    grid = torch.stack([x, -y], -1)[:, None] / EXTENT
    return F.grid_sample(sheet, grid, mode="bilinear", padding_mode="border", align_corners=True)[:, :, 0]


class Head:
    """Signed distance fields of one batch of heads.

    Points are head coordinates [n, m]: x to image right, y up, z to the viewer.
    """

    def __init__(self, p: dict[str, Tensor], sheet: Tensor):
        self.p = {name: value[:, None] for name, value in p.items()}
        self.height = sheet[:, :1].contiguous()
        self.rotation = rotation(p)
        neck_top = torch.tensor([0.0, -0.62, -0.20], device=sheet.device)
        pivot = torch.tensor(PIVOT, device=sheet.device)
        top = (self.rotation @ (neck_top - pivot)) + pivot
        self.neck_top = [top[:, i, None] for i in range(3)]
        self.neck_low = [
            0.45 * self.neck_top[0],
            torch.full_like(self.neck_top[0], -1.75),
            -0.30 + 0 * self.neck_top[0],
        ]

    def to_world(self, x: Tensor, y: Tensor, z: Tensor) -> Vector:
        r, (px, py, pz) = self.rotation, PIVOT
        q = (x - px, y - py, z - pz)
        return tuple(
            r[:, i, 0, None] * q[0] + r[:, i, 1, None] * q[1] + r[:, i, 2, None] * q[2] + PIVOT[i] for i in range(3)
        )

    def body(self, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Neck and shoulders; returns (distance of the neck, distance of the shoulders)."""
        wx, wy, wz = self.to_world(x, y, z)
        a, b = self.neck_top, self.neck_low
        dx, dy, dz = (b[i] - a[i] for i in range(3))
        t = (((wx - a[0]) * dx + (wy - a[1]) * dy + (wz - a[2]) * dz) / (dx * dx + dy * dy + dz * dz)).clamp(0, 1)
        radius = 0.315 + 0.055 * self.p["man"] + 0.16 * ramp(t, 0.45, 1.0)
        neck = (
            (wx - a[0] - t * dx) ** 2 + (wy - a[1] - t * dy) ** 2 + 1.05 * (wz - a[2] - t * dz) ** 2 + 1e-9
        ).sqrt() - radius
        shoulders = ellipsoid(wx - b[0], wy + 1.98, wz + 0.32, 1.25 + 0.2 * self.p["man"], 0.64, 0.56)
        return neck, shoulders

    def skull(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """Head without the sculpture of the sheet."""
        p = self.p
        ax = x.abs() / p["face_width"]
        taper = 1 + (0.17 - 0.26 * p["jaw"]) * ramp(-y, 0.30, 1.05)
        cranium = ellipsoid(ax, y - 0.20, z + 0.16, 0.725, 0.80, 0.90)
        drop = 0.20 * p["mouth"]
        jaw = ellipsoid(ax * taper, y + 0.29 + drop, z - 0.10, 0.640, 0.725 + 0.5 * p["chin"] + drop, 0.615)
        return smooth_min(cranium, jaw, 0.28)

    def skin(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        front = ramp(z, -0.10, 0.30)
        height = look_up(self.height, x, y)[:, 0] * front
        head = self.skull(x, y, z - height)
        ear = ellipsoid(
            x.abs() - 0.735 * self.p["face_width"] - 0.12 * (z + 0.10).neg().clamp(-0.2, 0.2),
            y + 0.07 - 0.1 * (z + 0.1),
            z + 0.12,
            0.070,
            0.185,
            0.125,
        )
        head = smooth_min(head, ear, 0.05)
        neck, shoulders = self.body(x, y, z)
        return smooth_min(head, smooth_min(neck, shoulders, 0.22), 0.06)

    def hair(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """Outer surface of the hair: a shell that thins out toward the hairline, and a drape when it is long."""
        p = self.p
        length, curl, volume = p["hair_length"], p["hair_curl"], p["hair_volume"]
        part = 0.22 * p["hair_part"]
        xs = x - part
        line = 0.69 - 0.10 * ramp(xs.abs(), 0.0, 0.30) - 0.32 * ramp(x.abs(), 0.22, 0.66) + 0.01 * p["man"]
        recede = (0.10 * p["man"] * p["age"]) * gauss(x.abs() - 0.33, 0.16)
        sweep = p["fringe"] * (0.36 - 0.16 * gauss(xs, 0.12)) * (1 - 0.35 * ramp(x.abs(), 0.3, 0.6))
        bald = p["bald"]
        above = y - (line - sweep + recede + 0.9 * bald)
        # Sides: in front of the ear the hair ends at a line that reaches lower when it is long.
        sides = (x.abs() - 0.66) * 1.2 - 0.55 * (z - 0.12) - 0.05
        sides = torch.minimum(sides, y + 0.16 + 0.5 * length)
        back = -(z + 0.18) * 1.4 + 0.1 * (y + 0.2)
        low_nape = y + 0.62 + 1.2 * length
        back = torch.minimum(back, low_nape) - 0.45 * bald * ramp(y, 0.30, 0.75)
        inside = torch.maximum(torch.maximum(above, sides - 0.3 * bald), back)
        thick = 0.045 + 0.09 * volume + 0.055 * ramp(length, 0.2, 0.7) + 0.05 * p["fringe"] * ramp(z, 0.2, 0.7)
        shell = thick * ramp(inside, -0.02, 0.42) - 0.22 * ramp(-inside, -0.03, 0.30)
        crown = 0.03 * ramp(y, 0.4, 1.0) * (1 - 0.5 * gauss(xs, 0.10)) * (1 - bald)
        cap = self.skull(x, y, z) - shell - crown
        # Drape: an upright elliptic cylinder around the head, open in front of the face.
        end = 0.10 - 2.05 * length + 0.05 * torch.sin(13 * x.abs() + 4 * z) + 0.03 * torch.sin(29 * x.abs())
        flare = 0.16 * ramp(-y, 0.0, 1.1) * (0.4 + volume)
        rx, rz = 0.775 * p["face_width"] + 0.10 * volume + flare + 0.05 * curl, 0.86 + 0.10 * volume
        q = (x / rx) ** 2 + ((z + 0.22) / rz) ** 2
        cylinder = (q.sqrt() - 1) * rx
        front = z - 0.02 - (0.20 + 0.08 * p["fringe"]) * ramp(x.abs(), 0.34, 0.62)
        top = y - 0.45
        drape = smooth_max(smooth_max(cylinder, front, 0.16), smooth_max(end - y, top, 0.2), 0.16)
        drape = drape + 0.7 * ramp(-length, -0.30, -0.12)
        hair = smooth_min(cap, drape, 0.16)
        wave = (
            torch.sin(11 * x.abs() + 2.0 * torch.sin(5 * y))
            * torch.sin(10.5 * y + 1)
            * torch.sin(10 * z + 2 * torch.sin(6 * y))
        )
        fine = torch.sin(23 * x.abs() + 1.3) * torch.sin(22 * y + 3 * z) * torch.sin(21 * z + 0.7)
        rough = ramp(inside, 0.0, 0.3)
        return hair - rough * curl * (0.055 * wave + 0.022 * fine) * (1 + 0.6 * volume)


def camera_rays(size: int, device) -> tuple[Tensor, Tensor]:
    """World origin [3] and directions [size * size, 3] of a perspective camera; row 0 at the top."""
    depth = CAMERA_DISTANCE - PIVOT[2]
    pixel = (torch.arange(size, device=device) + 0.5) / size * 2 - 1
    x = (pixel * FRAME_HALF)[None, :].expand(size, size)
    y = (FRAME_Y - pixel * FRAME_HALF)[:, None].expand(size, size)
    direction = torch.stack([x, y, torch.full_like(x, -depth)], -1).reshape(-1, 3)
    return torch.tensor([0.0, 0.0, CAMERA_DISTANCE], device=device), F.normalize(direction, dim=-1)


def head_rays(head: Head, size: int) -> tuple[Tensor, Tensor]:
    """The camera's rays in head coordinates: origins [n, 3], directions [n, size * size, 3]."""
    origin, direction = camera_rays(size, head.rotation.device)
    pivot = torch.tensor(PIVOT, device=head.rotation.device)
    inverse = head.rotation.transpose(1, 2)
    return (inverse @ (origin - pivot)) + pivot, direction @ head.rotation


def march(
    head: Head, kind: str, origin: Tensor, direction: Tensor, start: Tensor, steps: int, relax: float
) -> tuple[Tensor, Tensor]:
    """Sphere tracing: distance along each ray [n, m] and the field's last value there."""
    t, value = start, None
    for _ in range(steps):
        t, value = march_step(head, kind, origin, direction, t, relax)
    return t, value


@speeds_up
def march_step(
    head: Head, kind: str, origin: Tensor, direction: Tensor, t: Tensor, relax: float
) -> tuple[Tensor, Tensor]:
    value = getattr(head, kind)(*points(origin, direction, t))
    return (t + value * relax).clamp(max=FAR), value


def points(origin: Tensor, direction: Tensor, t: Tensor) -> Vector:
    return tuple(origin[:, i, None] + direction[:, :, i] * t for i in range(3))


def trace(head: Head, kind: str, size: int) -> tuple[Tensor, Tensor, Vector]:
    """Finds the surface of `kind` ("skin" or "hair") for every pixel of a square picture.

    A quarter-size march gives each pixel a safe start: the nearest of its neighbours' depths, a little closer.
    Returns (t [n, size²], hit bool [n, size²], points).
    """
    coarse = size // 4
    origin, direction = head_rays(head, coarse)
    start = torch.full(direction.shape[:2], CAMERA_DISTANCE - 1.6, device=direction.device)
    t, value = march(head, kind, origin, direction, start, 15, 0.85)
    n = t.shape[0]
    near = -F.max_pool2d(-t.view(n, 1, coarse, coarse), 3, 1, 1)
    near = F.interpolate(near, size=(size, size), mode="nearest").view(n, -1) - 0.03
    origin, direction = head_rays(head, size)
    t, value = march(head, kind, origin, direction, near, 6, 0.85)
    # Rays that pass close by a silhouette need more steps; the rest have converged. A fixed share keeps shapes static.
    waiting = torch.where(t < FAR - 0.01, value, torch.zeros_like(value))
    order = waiting.topk(size * size // 8, dim=1, sorted=False).indices
    chosen = torch.gather(direction, 1, order[..., None].expand(-1, -1, 3))
    t_slow, value_slow = march(head, kind, origin, chosen, torch.gather(t, 1, order), 24, 0.85)
    t, value = t.scatter(1, order, t_slow), value.scatter(1, order, value_slow)
    hit = (value < 0.02) & (t < FAR - 0.01)
    return t, hit, points(origin, direction, t)


@speeds_up
def normals(head: Head, kind: str, x: Tensor, y: Tensor, z: Tensor, step: float = 0.006) -> Vector:
    """Unit surface normals by central differences over a tetrahedron."""
    field, total = getattr(head, kind), [0.0, 0.0, 0.0]
    for sx, sy, sz in ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)):
        value = field(x + sx * step, y + sy * step, z + sz * step)
        total = [total[0] + sx * value, total[1] + sy * value, total[2] + sz * value]
    length = (total[0] ** 2 + total[1] ** 2 + total[2] ** 2 + 1e-12).sqrt()
    return tuple(component / length for component in total)
