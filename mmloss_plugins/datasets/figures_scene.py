"""One whole picture: background, figure, clutter in front of it, camera noise, and the labels."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from . import figures_draw as draw
from . import figures_pose as pose

MIN_VISIBLE = 8
MIN_LABELLED = 6
DROP_VISIBLE, DROP_OCCLUDED = 0.02, 0.25
_OWN_SHARE = 0.5


@dataclass(frozen=True)
class Scene:
    """One picture with its labels.

    Attributes:
        image: (size, size, 3) uint8, BGR.
        backdrop: the picture before the figure was drawn, same shape; without camera noise.
        keypoints: (17, 3) float64, x, y in pixels and COCO's flag; 0, 0, 0 where not labelled.
        bbox: (4,) float64, x, y, width, height about all joints inside the image, with a margin.
        area: pixels of the figure inside the image before clutter hides any of it.
    """

    image: np.ndarray
    backdrop: np.ndarray
    keypoints: np.ndarray
    bbox: np.ndarray
    area: float


def render_scene(rng: np.random.Generator, image_size: int) -> Scene:
    """Draw a random figure; see ``Scene``."""
    backdrop = _background(rng, image_size)
    body = _place(rng, pose.sample_body(rng), image_size)
    canvas = draw.Canvas(backdrop)
    draw.FigurePainter(canvas, body, draw.sample_style(rng)).paint()
    area = float((canvas.pixels[..., 3] > 0).sum()) / canvas.factor**2
    xy = np.round(body.joints[:, :2], 3)
    inside = ((xy >= 0) & (xy <= image_size - 1)).all(axis=1)
    _add_clutter(rng, canvas, xy, inside)
    flags = _drop_some(rng, np.where(inside, 1 + _visible(canvas, xy, inside), 0))
    keypoints = np.column_stack([xy, flags]) * (flags > 0)[:, None]
    return Scene(
        image=_camera(rng, canvas.image()),
        backdrop=backdrop,
        keypoints=keypoints,
        bbox=_bounding_box(xy[inside], image_size),
        area=round(area, 2),
    )


def _place(rng: np.random.Generator, body: pose.Body, size: int) -> pose.Body:
    """Scale the figure to the image and move it; one in five leaves the image in part."""
    low, high = body.extent()
    longest = float((high - low).max())
    scale = min(rng.uniform(0.6, 0.98) * size / longest, 0.3 * size)
    room = size - 1 - scale * (high - low)
    corner = rng.uniform(0.05, 0.95, 2) * room
    if rng.random() < 0.2:
        angle = rng.uniform(0, 2 * np.pi)
        away = rng.uniform(0.12, 0.35) * scale * longest * np.array([np.cos(angle), np.sin(angle)])
    else:
        away = np.zeros(2)
    for share in (1.0, 0.6, 0.3, 0.0):
        placed = body.placed(scale, corner - scale * low + share * away)
        xy = placed.joints[:, :2]
        if ((xy >= 0) & (xy <= size - 1)).all(axis=1).sum() > MIN_VISIBLE:
            break
    return placed


def _owners(joint: int) -> tuple[int, ...]:
    """Return the parts on which a joint counts as seen."""
    if joint == pose.NOSE:
        return (draw.NOSE,)
    side = (joint + 1) % 2
    pairs = {
        pose.EYES: (draw.EYE,),
        pose.EARS: (draw.EAR,),
        pose.SHOULDERS: (draw.UPPER_ARM,),
        pose.ELBOWS: (draw.UPPER_ARM, draw.FOREARM),
        pose.WRISTS: (draw.FOREARM,),
        pose.HIPS: (draw.THIGH,),
        pose.KNEES: (draw.THIGH, draw.SHIN),
        pose.ANKLES: (draw.SHIN,),
    }
    return next(tuple(p + side for p in parts) for rows, parts in pairs.items() if joint in rows)


def _visible(canvas: draw.Canvas, xy: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return 1 (17,) where the joint's own part is in front at the joint, else 0."""
    shares = [canvas.owner_share(point, _owners(joint)) for joint, point in enumerate(xy)]
    return ((np.array(shares) > _OWN_SHARE) & inside).astype(np.int64)


def _drop_some(rng: np.random.Generator, flags: np.ndarray) -> np.ndarray:
    """Forget a few labels, hidden ones more often, as annotators do; keep ``MIN_LABELLED``."""
    chance = np.choose(flags, [0.0, DROP_OCCLUDED, DROP_VISIBLE])
    dropped = rng.random(len(flags)) < chance
    kept = np.where(dropped, 0, flags)
    return kept if np.count_nonzero(kept) >= MIN_LABELLED else flags


def _bounding_box(xy: np.ndarray, size: int) -> np.ndarray:
    low, high = xy.min(axis=0), xy.max(axis=0)
    margin = max(0.1 * float((high - low).max()), 4.0)
    low, high = np.clip([low - margin, high + margin], 0, size - 1)
    return np.round(np.concatenate([low, high - low]), 3)


def _add_clutter(
    rng: np.random.Generator, canvas: draw.Canvas, xy: np.ndarray, inside: np.ndarray
) -> None:
    """Hide parts of the figure behind up to two objects, but leave ``MIN_VISIBLE`` joints seen."""
    for _ in range(rng.choice(3, p=[0.45, 0.35, 0.2])):
        before = canvas.pixels.copy()
        centre = xy[rng.choice(np.flatnonzero(inside))] + rng.normal(0, 0.06 * canvas.size, 2)
        _object(rng, canvas, centre, rng.uniform(0.05, 0.11) * canvas.size)
        if _visible(canvas, xy, inside).sum() < MIN_VISIBLE:
            canvas.pixels[:] = before


def _object(rng: np.random.Generator, canvas: draw.Canvas, xy: np.ndarray, radius: float) -> None:
    """Draw a ball, a box or a bar with a rim and a light side."""
    colour = draw.hsv(rng.uniform(0, 360), rng.uniform(0.1, 0.8), rng.uniform(0.3, 0.95))
    kind, angle = rng.integers(3), rng.uniform(0, np.pi)
    axis = np.array([np.cos(angle), np.sin(angle)])
    layers = ((1.08, 0.3), (1.0, 0.8), (0.66, 1.0))
    if kind == 0:
        for grow, shade in layers:
            canvas.disc(
                xy - (1 - min(grow, 1)) * 0.4 * radius, grow * radius, shade * colour, draw.CLUTTER
            )
        return
    across = np.array([-axis[1], axis[0]])
    length, width = (
        (radius, rng.uniform(0.6, 1) * radius)
        if kind == 1
        else (rng.uniform(0.25, 0.8) * canvas.size, 0.32 * radius)
    )
    for grow, shade in layers:
        rim = (grow - 1) * width
        a, b = (length + rim) * axis, grow * width * across
        canvas.fill(
            np.stack([xy - a - b, xy + a - b, xy + a + b, xy - a + b]), shade * colour, draw.CLUTTER
        )


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return a textured, cluttered picture (size, size, 3) uint8 without a figure."""
    hue, light = rng.uniform(0, 360), rng.uniform(0.45, 0.95)
    muted = [_muted(rng, hue, light) for _ in range(4)]
    corners = np.stack(muted).reshape(2, 2, 3).astype(np.float32)
    plain = cv2.resize(corners, (size, size), interpolation=cv2.INTER_LINEAR)
    canvas = draw.Canvas(np.clip(plain, 0, 255).astype(np.uint8), factor=2)
    for _ in range(rng.integers(5, 13)):
        _backdrop_shape(rng, canvas, _muted(rng, hue + rng.choice([0, 0, 120, 180]), light))
    for _ in range(rng.integers(1, 5)):
        _stick(rng, canvas)
    image = canvas.image()
    if rng.random() < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.006, 0.016) * size)
    cloudy = np.zeros((size, size), np.float32)
    for cells in (5, 16, 48):
        grid = rng.standard_normal((cells, cells), dtype=np.float32)
        wave = cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
        cloudy += np.float32(rng.uniform(1, 8)) * wave
    tint = rng.uniform(0.85, 1.15, 3).astype(np.float32)
    return np.clip(image + cloudy[..., None] * tint, 0, 255).astype(np.uint8)


def _muted(rng: np.random.Generator, hue: float, light: float) -> np.ndarray:
    """Return a pale colour near ``hue`` (degrees) and brightness ``light`` in [0, 1]."""
    value = np.clip(light + rng.normal(0, 0.16), 0.15, 0.97)
    return draw.hsv(hue + rng.normal(0, 25), rng.uniform(0.06, 0.48), value)


def _backdrop_shape(rng: np.random.Generator, canvas: draw.Canvas, colour: np.ndarray) -> None:
    """Draw a disc, a polygon, a beam through the picture or a patch of tiles."""
    size = canvas.size
    xy, radius = rng.uniform(-0.1, 1.1, 2) * size, rng.uniform(0.05, 0.3) * size
    kind = rng.integers(4)
    if kind == 0:
        canvas.disc(xy, radius, colour)
    elif kind == 1:
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 7)))
        canvas.fill(xy + radius * np.stack([np.cos(angles), np.sin(angles)], 1), colour)
    elif kind == 2:
        angle = rng.choice([0, np.pi / 2]) + rng.normal(0, 0.15)
        along = size * np.array([np.cos(angle), np.sin(angle)])
        width = rng.uniform(0.01, 0.06) * size
        canvas.capsule(np.stack([xy - 2 * along, xy + 2 * along]), (width, width), colour)
    else:
        _tiles(rng, canvas, xy, radius, colour)


def _tiles(
    rng: np.random.Generator, canvas: draw.Canvas, xy: np.ndarray, radius: float, colour: np.ndarray
) -> None:
    """Draw a patch of checks or stripes."""
    count = int(rng.integers(3, 7))
    step = 2 * radius / count
    square = step * np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    checks = rng.random() < 0.5
    for row in range(count):
        for column in range(count):
            if (row + column * checks) % 2:
                canvas.fill(xy - radius + step * np.array([column, row]) + square, colour)


def _stick(rng: np.random.Generator, canvas: draw.Canvas) -> None:
    """Draw a lone two-part limb in the colours of a sleeve, to be told from the figure's own."""
    size = canvas.size
    start, side = rng.uniform(0, 1, 2) * size, int(rng.integers(2))
    width = rng.uniform(0.015, 0.035) * size
    angle = rng.uniform(0, 2 * np.pi)
    for _ in range(rng.integers(1, 3)):
        end = start + rng.uniform(0.1, 0.2) * size * np.array([np.cos(angle), np.sin(angle)])
        colour, ends = draw.side_colour(rng, side), np.stack([start, end])
        canvas.capsule(ends, (1.25 * width, 1.15 * width), 0.28 * colour)
        canvas.capsule(ends, (width, 0.9 * width), 0.9 * colour)
        start, angle = end, angle + rng.uniform(-1.5, 1.5)


def _camera(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Return the picture with random exposure, contrast, softness and sensor noise."""
    shot = image.astype(np.float32)
    if rng.random() < 0.3:
        shot = cv2.GaussianBlur(shot, (0, 0), rng.uniform(0.4, 0.8))
    gain, shift = np.float32(rng.uniform(0.8, 1.15)), np.float32(rng.uniform(-12, 12))
    shot = (shot - 128) * gain + 128 + shift
    noise = rng.standard_normal(shot.shape, dtype=np.float32)
    shot += np.float32(rng.uniform(1, 6)) * noise
    return np.clip(np.rint(shot), 0, 255).astype(np.uint8)
