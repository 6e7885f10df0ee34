"""Drawing one image of the embedded data set: a background, shaded shapes, and the visible mask of every shape.

All random numbers come from the generator that is passed in, so an image depends only on its own seed.
"""

import colorsys
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ('circle', 'square', 'triangle', 'star', 'ring', 'cross')
VISIBLE = 0.7  # at least this part of a shape stays visible under later shapes
MAX_TILT = math.radians(20)  # shapes are nearly upright, like most objects in photographs
CIRCLE_CORNERS = 32  # of the polygon of a circle, which then lies within half a percent of the radius of it
SUPERSAMPLE = 4  # outlines are drawn so many times larger and averaged, for smooth edges


class Shape(NamedTuple):
    """A drawn shape.

    Attributes:
        label: position in ``CLASSES``.
        mask: (H, W) bool, the visible pixels.
        area: number of all its pixels, including hidden ones.
        corners: polygons (k, 2), x and y in pixels, which together are the whole shape; none of a ring, because COCO's
            polygons have no holes.
    """

    label: int
    mask: np.ndarray
    area: int
    corners: list[np.ndarray]


def draw_image(rng: np.random.Generator, height: int, width: int, max_objects: int) -> tuple[np.ndarray, list[Shape]]:
    """An image (height, width, 3) uint8 RGB with 1 to ``max_objects`` shapes that hide little of each other."""
    canvas = _background(rng, height, width)
    shapes: list[Shape] = []
    for _ in range(int(rng.integers(1, max_objects + 1))):
        for _ in range(12):  # tries to place this shape
            label = int(rng.integers(len(CLASSES)))
            alpha, corners, top, left = _place(rng, CLASSES[label], height, width)
            mask = np.zeros((height, width), dtype=bool)
            mask[top : top + alpha.shape[0], left : left + alpha.shape[1]] = alpha >= 0.5
            below = [shape._replace(mask=shape.mask & ~mask) for shape in shapes]
            if all(shape.mask.sum() >= VISIBLE * shape.area for shape in below):
                canvas = _paint(rng, canvas, alpha, top, left)
                shapes = [*below, Shape(label, mask, int(mask.sum()), corners)]
                break
    return (canvas.clip(0, 1) * 255 + 0.5).astype(np.uint8), shapes


def _colour(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(*saturation), rng.uniform(*value)))


def _ramp(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 1) from 0 to 1, rising in a random direction."""
    angle = rng.uniform(0, 2 * math.pi)
    y, x = np.mgrid[0:height, 0:width]
    ramp = x * math.cos(angle) + y * math.sin(angle)
    return ((ramp - ramp.min()) / max(np.ptp(ramp), 1e-9))[..., None]


def _background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) from about 0 to 1: a gradient of two quiet colours, a pattern, clouds and grain."""
    first, second = (_colour(rng, (0.05, 0.45), (0.25, 0.95)) for _ in range(2))
    ramp = _ramp(rng, height, width)
    canvas = first * (1 - ramp) + second * ramp
    kind = rng.integers(4)
    if kind < 3:
        wave = _pattern(rng, height, width, checked=bool(kind == 0))
        canvas = canvas + rng.uniform(0.02, 0.07) * wave[..., None]
    coarse = rng.normal(size=(int(rng.integers(3, 9)), int(rng.integers(3, 9)))).astype(np.float32)
    clouds = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    grain = rng.normal(size=(height, width, 1)) * rng.uniform(0.0, 0.03)
    return canvas + rng.uniform(0.0, 0.08) * clouds[..., None] + grain


def _pattern(rng: np.random.Generator, height: int, width: int, *, checked: bool) -> np.ndarray:
    """(H, W) from -1 to 1: stripes, or the checks of two sets of stripes."""
    angle, period = rng.uniform(0, math.pi), rng.uniform(8, 32)
    y, x = np.mgrid[0:height, 0:width] * (2 * math.pi / period)
    stripes = np.sin(x * math.cos(angle) + y * math.sin(angle))
    if checked:
        stripes = stripes * np.sin(y * math.cos(angle) - x * math.sin(angle))
    return np.tanh(3 * stripes)


def _place(
    rng: np.random.Generator, name: str, height: int, width: int
) -> tuple[np.ndarray, list[np.ndarray], int, int]:
    """A shape of random size and angle, (h, w) from 0 to 1 and trimmed, its polygons, and its top left corner."""
    short = min(height, width)
    # Small shapes are more frequent than large ones, as in photographs.
    radius = 0.5 * short * math.exp(rng.uniform(math.log(0.22), math.log(0.62)))
    alpha, corners = _outline(name, radius, -math.pi / 2 + rng.uniform(-MAX_TILT, MAX_TILT))
    top = int(rng.integers(0, height - alpha.shape[0] + 1))
    left = int(rng.integers(0, width - alpha.shape[1] + 1))
    return alpha, [points + np.array([left, top]) for points in corners], top, left


def _outline(name: str, radius: float, angle: float) -> tuple[np.ndarray, list[np.ndarray]]:
    """The filled shape, (h, w) from 0 to 1 with smooth edges, cut to the pixels that it covers by half or more.

    The second result is its polygons, in pixels of the first.
    """
    side = 2 * math.ceil(radius) + 2
    image = Image.new('L', (side * SUPERSAMPLE, side * SUPERSAMPLE))
    centre = side * SUPERSAMPLE / 2
    corners = OUTLINES[name](ImageDraw.Draw(image), centre, radius * SUPERSAMPLE, angle)
    alpha = np.asarray(image.resize((side, side), Image.Resampling.BOX), dtype=np.float64) / 255
    rows, columns = (np.flatnonzero((alpha >= 0.5).any(axis=axis)) for axis in (1, 0))
    trimmed = alpha[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    # Pillow's number of a pixel is the middle of it, half a pixel of the drawing further in continuous coordinates.
    return trimmed, [(np.array(points) + 0.5) / SUPERSAMPLE - [columns[0], rows[0]] for points in corners]


# Each function draws a shape and returns its polygons in pixels of the drawing.
Points = list[tuple[float, float]]


def _polygon(draw: ImageDraw.ImageDraw, centre: float, radii: list[float], angle: float) -> list[Points]:
    """A polygon with corners at ``radii`` from the centre, at equal angles."""
    corners = _around(centre, radii, angle)
    draw.polygon(corners, fill=255)
    return [corners]


def _around(centre: float, radii: list[float], angle: float) -> Points:
    steps = [(r, angle + 2 * math.pi * k / len(radii)) for k, r in enumerate(radii)]
    return [(centre + r * math.cos(a), centre + r * math.sin(a)) for r, a in steps]


def _circle(draw: ImageDraw.ImageDraw, centre: float, radius: float, angle: float, fill: int = 255) -> list[Points]:
    draw.ellipse([centre - radius, centre - radius, centre + radius, centre + radius], fill=fill)
    return [_around(centre, [radius] * CIRCLE_CORNERS, angle)]


def _ring(draw: ImageDraw.ImageDraw, centre: float, radius: float, angle: float) -> list[Points]:
    _circle(draw, centre, radius, angle)
    _circle(draw, centre, 0.55 * radius, angle, fill=0)
    return []


def _cross(draw: ImageDraw.ImageDraw, centre: float, radius: float, angle: float) -> list[Points]:
    """A plus sign: two bars, as long as the diameter and a third as wide."""
    half = radius / 3
    corners = np.array([(-radius, -half), (radius, -half), (radius, half), (-radius, half)])
    bars = []
    for turn in (angle, angle + math.pi / 2):
        rotation = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
        bars.append([tuple(corner) for corner in corners @ rotation + centre])
        draw.polygon(bars[-1], fill=255)
    return bars


OUTLINES: dict[str, Callable[[ImageDraw.ImageDraw, float, float, float], list[Points]]] = {
    'circle': _circle,
    'square': lambda draw, c, r, a: _polygon(draw, c, [r] * 4, a + math.pi / 4),
    'triangle': lambda draw, c, r, a: _polygon(draw, c, [r] * 3, a),
    'star': lambda draw, c, r, a: _polygon(draw, c, [r, 0.42 * r] * 5, a),
    'ring': _ring,
    'cross': _cross,
}


def _paint(rng: np.random.Generator, canvas: np.ndarray, alpha: np.ndarray, top: int, left: int) -> np.ndarray:
    """``canvas`` with a shaded shape over a soft shadow. Its colour differs from the canvas."""
    height, width = alpha.shape
    region = np.s_[top : top + height, left : left + width]
    under = canvas[region].mean(axis=(0, 1))
    colours = [_colour(rng, (0.45, 1.0), (0.45, 1.0)) for _ in range(6)]
    colour = max(colours, key=lambda c: min(np.abs(c - under).sum(), 0.6))  # the first one that differs enough
    shading = 0.78 + 0.34 * _ramp(rng, height, width)
    texture = shading if rng.uniform() < 0.7 else shading + 0.1 * _pattern(rng, height, width, checked=False)[..., None]
    # The shadow lies a little below and to the right of the shape, and is cut at the border.
    offset = max(1, round(0.05 * max(height, width)))
    shadow = np.zeros((*canvas.shape[:2], 1))
    seen = shadow[top + offset :, left + offset :][:height, :width]
    seen[...] = alpha[: seen.shape[0], : seen.shape[1], None]
    canvas = canvas * (1 - 0.25 * shadow)
    blend = alpha[..., None]
    canvas[region] = canvas[region] * (1 - blend) + colour * texture * blend
    return canvas
