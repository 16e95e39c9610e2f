"""A picture of each pot, ray-marched in plain Python: real work, about half a second each."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator

from .catalog import Product

SIZE = 100
WALL = 0.035
HEIGHT = 1.3
STEPS = 48
LIGHT = (-0.50, 0.72, -0.48)
EYE = (0.0, 1.75, -3.6)
LOOK = (0.08, 0.60, 0.0)
CLAY = (0.86, 0.80, 0.72)

Vector = tuple[float, float, float]


def png(product: Product, size: int = SIZE) -> bytes:
    """Render the pot and pack it as a PNG file."""
    rows = b"".join(b"\0" + bytes(row) for row in render(product, size))
    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)


def render(product: Product, size: int) -> Iterator[list[int]]:
    """Yield the rows of the picture, red, green, blue, from 0 to 255."""
    pot = Pot(product)
    ahead = _unit((LOOK[0] - EYE[0], LOOK[1] - EYE[1], LOOK[2] - EYE[2]))
    up = _unit((0.0, ahead[2], -ahead[1]))
    for row in range(size):
        line: list[int] = []
        v = (0.5 - (row + 0.5) / size) * 0.62
        for column in range(size):
            u = ((column + 0.5) / size - 0.5) * 0.62
            ray = _unit((ahead[0] + u, ahead[1] + v * up[1], ahead[2] + v * up[2]))
            line.extend(int(255 * min(1.0, max(0.0, c)) ** 0.4545) for c in pot.colour(ray))
        yield line


class Pot:
    """A hollow solid of revolution on a table, and a ring for a handle if it has one."""

    def __init__(self, product: Product) -> None:
        self.outline = _smooth(product.profile, 96)
        self.handle = product.handle
        self.reach = max(product.profile)
        self.ball = math.hypot(self.reach + (0.36 if self.handle else 0.04), HEIGHT / 2)
        self.glaze, self.dip = _rgb(product.glaze), _rgb(product.dip)

    def distance(self, x: float, y: float, z: float) -> float:
        """How far away the surface is, at least: the rule that ray marching lives by."""
        radius = math.sqrt(x * x + z * z)
        at = min(0.9999, max(0.0, y / HEIGHT)) * (len(self.outline) - 1)
        low = int(at)
        wall = self.outline[low] + (self.outline[low + 1] - self.outline[low]) * (at - low)
        d = abs(radius - wall + WALL) - WALL
        if y < 3 * WALL:  # the foot is closed
            d = radius - wall
        d = max(d, y - HEIGHT, -y) * 0.75
        if self.handle:
            ring = math.hypot(x - self.reach - 0.02, y - 0.66) - 0.27
            d = min(d, max(math.hypot(ring, z) - 0.055, wall - WALL - radius))
        return d

    def march(self, origin: Vector, ray: Vector) -> float | None:
        """How far along the ray the pot is hit, if it is."""
        (ox, oy, oz), (rx, ry, rz) = origin, ray
        middle = -(ox * rx + (oy - HEIGHT / 2) * ry + oz * rz)
        off = ox**2 + (oy - HEIGHT / 2) ** 2 + oz**2 - middle**2
        if off > self.ball**2:  # the ray misses the ball that the whole pot is in
            return None
        half = math.sqrt(self.ball**2 - off)
        t, far = max(0.0, middle - half), middle + half
        for _ in range(STEPS):
            d = self.distance(ox + t * rx, oy + t * ry, oz + t * rz)
            if d < 0.002:
                return t
            t += d
            if t > far:
                return None
        return None

    def colour(self, ray: Vector) -> Vector:
        """What an eye sees along the ray: the pot, or the table with its shadow."""
        hit = self.march(EYE, ray)
        if hit is not None:
            point = (EYE[0] + hit * ray[0], EYE[1] + hit * ray[1], EYE[2] + hit * ray[2])
            return self._shade(point, ray)
        t = EYE[1] / max(0.08, -ray[1])  # the table bends up into the wall behind it
        x, z = t * ray[0], EYE[2] + t * ray[2]
        away = math.hypot(x, z)
        light = 0.95 - 0.04 * min(8.0, away)
        if self.march((x, 0.01, z), LIGHT) is not None:
            light *= 0.55
        light *= 1 - 0.35 * math.exp(-4 * max(0.0, away - self.outline[0]))
        return (0.90 * light, 0.86 * light, 0.80 * light)

    def _shade(self, point: Vector, ray: Vector) -> Vector:
        x, y, z = point
        e = 0.003
        here = self.distance(x, y, z)
        normal = _unit(
            (
                self.distance(x + e, y, z) - here,
                self.distance(x, y + e, z) - here,
                self.distance(x, y, z + e) - here,
            )
        )
        base = self.dip if y > HEIGHT * (0.58 + 0.03 * math.sin(9 * math.atan2(z, x))) else None
        base = base or (CLAY if y < 0.07 else self.glaze)
        facing = max(0.0, _dot(normal, LIGHT))
        start = (x + 0.02 * normal[0], y + 0.02 * normal[1], z + 0.02 * normal[2])
        if facing > 0 and self.march(start, LIGHT) is not None:
            facing *= 0.25
        half = _unit((LIGHT[0] - ray[0], LIGHT[1] - ray[1], LIGHT[2] - ray[2]))
        shine = 0.0
        if facing > 0:
            shine = 0.45 * max(0.0, _dot(normal, half)) ** 60
        level = 0.30 + 0.12 * normal[1] + 0.72 * facing
        return (
            base[0] * level + shine,
            base[1] * level + shine,
            base[2] * level + shine,
        )


def _smooth(points: tuple[float, ...], count: int) -> list[float]:
    """Draw a Catmull-Rom curve through the radii."""
    line = (points[0], *points, points[-1])
    curve: list[float] = []
    for i in range(count):
        at = i / (count - 1) * (len(points) - 1)
        k = min(int(at), len(points) - 2)
        t = at - k
        a, b, c, d = line[k : k + 4]
        bend = 2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2
        curve.append((bend + (3 * b - a - 3 * c + d) * t**3) / 2)
    return curve


def _rgb(colour: str) -> Vector:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return (red**2.2, green**2.2, blue**2.2)


def _unit(v: Vector) -> Vector:
    length = math.sqrt(v[0] ** 2 + v[1] ** 2 + v[2] ** 2) or 1.0
    return (v[0] / length, v[1] / length, v[2] / length)


def _dot(a: Vector, b: Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)
