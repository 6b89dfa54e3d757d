"""Drawing of a posed figure: a super-sampled canvas that knows which part owns each pixel.

Pixel-centre convention: the integer coordinate i is the centre of pixel i, as OpenCV draws. Colours
are BGR in 0..255. Needs OpenCV.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from . import figures_pose as pose

Colour = np.ndarray

# Part numbers in the canvas' fourth channel; a part with two sides adds 0 (left) or 1 (right).
BACKGROUND, TORSO, HEAD, NOSE = 0, 1, 2, 3
EYE, EAR, UPPER_ARM, FOREARM, THIGH, SHIN = 4, 6, 8, 10, 12, 14
CLUTTER = 16

_SHIFT = 4
_TURN = np.linspace(0, 2 * np.pi, 24, endpoint=False)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], 1)
# Angles of a capsule's two arcs: heading + tangent * _ARC_TANGENT + _ARC_TURN.
_SWEEP = np.linspace(-1, 1, 13)
_ARC_TANGENT = np.concatenate([_SWEEP, -_SWEEP])
_ARC_TURN = np.concatenate([np.zeros(13), np.pi * (1 + _SWEEP)])


class Canvas:
    """A square picture drawn ``factor`` times larger, with the owner of each of its pixels.

    Args:
        image (np.ndarray): the picture to draw on, (size, size, 3) uint8.
        factor (int): super-sampling per axis.
    """

    def __init__(self, image: np.ndarray, factor: int = 4) -> None:
        self.size, self.factor = image.shape[0], factor
        side = self.size * factor
        owned = np.dstack([image, np.full(image.shape[:2], BACKGROUND, np.uint8)])
        self.pixels = cv2.resize(owned, (side, side), interpolation=cv2.INTER_NEAREST)

    def fill(self, points: np.ndarray, colour: Colour, part: int = BACKGROUND) -> None:
        """Fill the convex polygon ``points`` (N, 2), in pixels, and give it to ``part``."""
        fixed = np.rint(self.to_canvas(points) * (1 << _SHIFT)).astype(np.int32)
        bgr = [min(max(channel, 0.0), 255.0) for channel in colour.tolist()]
        cv2.fillConvexPoly(self.pixels, fixed, (*bgr, part), cv2.LINE_8, _SHIFT)

    def disc(self, xy: np.ndarray, radius: float, colour: Colour, part: int = BACKGROUND) -> None:
        """Fill the circle of ``radius`` pixels about ``xy`` (2,)."""
        self.fill(xy + radius * _CIRCLE, colour, part)

    def capsule(
        self, ends: np.ndarray, radii: tuple[float, float], colour: Colour, part: int = BACKGROUND
    ) -> None:
        """Fill the hull of two circles about ``ends`` (2, 2) with ``radii`` in pixels."""
        self.fill(_capsule_outline(ends, radii), colour, part)

    def hull(
        self, centres: np.ndarray, radii: np.ndarray, colour: Colour, part: int = BACKGROUND
    ) -> None:
        """Fill the convex hull of the circles about ``centres`` (N, 2) with ``radii`` (N,)."""
        points = centres[:, None] + radii[:, None, None] * _CIRCLE
        self.fill(cv2.convexHull(points.reshape(-1, 2).astype(np.float32))[:, 0], colour, part)

    def to_canvas(self, points: np.ndarray) -> np.ndarray:
        """Return pixel coordinates as coordinates of the enlarged picture."""
        return points * self.factor + (self.factor - 1) / 2

    def owner_share(self, xy: np.ndarray, parts: tuple[int, ...]) -> float:
        """Return the share in [0, 1] of the pixel-sized square about ``xy`` that ``parts`` own."""
        x, y = np.rint(self.to_canvas(xy)).astype(int)
        reach = self.factor // 2
        rows = slice(max(y - reach, 0), y + reach + 1)
        owners = self.pixels[rows, max(x - reach, 0) : x + reach + 1, 3]
        if not owners.size:
            return 0.0
        return sum(np.count_nonzero(owners == part) for part in parts) / owners.size

    def image(self) -> np.ndarray:
        """Return the picture at its own size, (size, size, 3) uint8."""
        size = (self.size, self.size)
        return cv2.resize(self.pixels, size, interpolation=cv2.INTER_AREA)[..., :3].copy()


def _capsule_outline(ends: np.ndarray, radii: tuple[float, float]) -> np.ndarray:
    """Return the hull of two circles as a polygon (26, 2): the far arc, then the near one."""
    (first, second), along = radii, ends[1] - ends[0]
    distance = math.hypot(*along)
    if distance <= abs(first - second) + 1e-6:
        return ends[int(second > first)] + max(radii) * _CIRCLE
    tangent = math.acos((first - second) / distance)
    angles = math.atan2(along[1], along[0]) + tangent * _ARC_TANGENT + _ARC_TURN
    points = np.stack([np.cos(angles), np.sin(angles)], 1)
    half = len(points) // 2
    points[:half] = points[:half] * second + ends[1]
    points[half:] = points[half:] * first + ends[0]
    return points


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Return the BGR colour of a hue in degrees and a saturation and value in [0, 1]."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 360 / 360, saturation, value)
    return 255 * np.array([blue, green, red])


def side_colour(rng: np.random.Generator, side: int) -> Colour:
    """Return a colour of the left side (0: pink, red, yellow) or the right (1: cyan to violet)."""
    # Orange is left out: a sleeve in it passes for bare skin.
    ranges = (((-26, 12), (42, 56)), ((172, 215), (215, 262)))[side]
    low, high = ranges[int(rng.random() < 0.35)]
    return hsv(rng.uniform(low, high), rng.uniform(0.62, 0.95), rng.uniform(0.75, 1.0))


@dataclass(frozen=True)
class Style:
    """Colours of one figure, and how it is dressed; tuples hold (left, right)."""

    skin: Colour
    hair: Colour
    shirt: Colour
    trim: Colour
    sleeves: tuple[Colour, Colour]
    forearms: tuple[Colour, Colour]
    trousers: tuple[Colour, Colour]
    shins: tuple[Colour, Colour]
    marks: tuple[Colour, Colour]
    bands: bool
    hairline: float
    light_xy: np.ndarray


def sample_style(rng: np.random.Generator) -> Style:
    """Return random clothes: the left side in warm colours, the right side in cool ones."""
    skin = hsv(rng.uniform(14, 30), rng.uniform(0.28, 0.62), rng.uniform(0.45, 0.98))
    hair = (
        hsv(rng.uniform(10, 45), rng.uniform(0.2, 0.8), rng.uniform(0.1, 0.55)),
        hsv(rng.uniform(0, 360), rng.uniform(0.3, 0.9), rng.uniform(0.3, 0.9)),
    )[int(rng.random() < 0.25)]
    shirt = (
        hsv(rng.uniform(75, 150), rng.uniform(0.35, 0.8), rng.uniform(0.45, 0.9)),
        hsv(rng.uniform(275, 320), rng.uniform(0.3, 0.7), rng.uniform(0.45, 0.9)),
        hsv(0, 0, rng.uniform(0.25, 0.95)),
    )[rng.integers(3)]

    def pair() -> tuple[Colour, Colour]:
        return side_colour(rng, 0), side_colour(rng, 1)

    sleeves, trousers = pair(), pair()
    angle = rng.uniform(-2.6, -0.5)
    return Style(
        skin=skin,
        hair=hair,
        shirt=shirt,
        trim=hsv(0, 0, 0.95 if shirt.mean() < 140 else 0.15),
        sleeves=sleeves,
        forearms=(skin, skin) if rng.random() < 0.35 else pair(),
        trousers=trousers,
        shins=(skin, skin) if rng.random() < 0.3 else pair(),
        marks=pair(),
        bands=rng.random() < 0.35,
        hairline=rng.uniform(0.02, 0.25),
        light_xy=np.array([np.cos(angle), np.sin(angle)]),
    )


class FigurePainter:
    """Draws one body on a canvas, far parts first, so that near parts hide them."""

    def __init__(self, canvas: Canvas, body: pose.Body, style: Style) -> None:
        self.canvas, self.body, self.style = canvas, body, style
        self.edge = max(0.022 * body.unit, 0.5)

    def paint(self) -> None:
        """Draw the whole figure."""
        for _, draw in sorted(self._parts(), key=lambda part: part[0]):
            draw()

    def _parts(self) -> list[tuple[float, Callable[[], None]]]:
        """Return (depth, drawing) of each part; limbs at a joint lie on the trunk, not in it."""
        joints, unit = self.body.joints, self.body.unit
        trunk = joints[[*pose.SHOULDERS, *pose.HIPS], 2].mean()
        parts = [(trunk, self._torso), (max(self.body.head[2], trunk) + 0.02 * unit, self._head)]
        for side in (0, 1):
            arm = [joints[rows[side], 2] for rows in (pose.SHOULDERS, pose.ELBOWS, pose.WRISTS)]
            leg = [joints[rows[side], 2] for rows in (pose.HIPS, pose.KNEES, pose.ANKLES)]
            parts += [
                (np.mean(arm[:2]) + 0.19 * unit, lambda side=side: self._upper_arm(side)),
                (np.mean(arm[1:]) + 0.17 * unit, lambda side=side: self._forearm(side)),
                (np.mean(leg[:2]) + 0.12 * unit, lambda side=side: self._thigh(side)),
                (np.mean(leg[1:]) + 0.1 * unit, lambda side=side: self._shin(side)),
            ]
        return parts

    def _limb(
        self,
        start: np.ndarray,
        end: np.ndarray,
        radii: tuple[float, float],
        colour: Colour,
        part: int,
    ) -> None:
        """Draw a rounded segment: a dark rim, the shade, the colour and a light streak."""
        ends = np.stack([start[:2], end[:2]])
        first, second = radii
        rim = (first + self.edge, second + self.edge)
        light = self.style.light_xy * min(radii)
        self.canvas.capsule(ends, rim, 0.28 * colour, part)
        self.canvas.capsule(ends, radii, 0.76 * colour, part)
        self.canvas.capsule(ends + 0.16 * light, (0.8 * first, 0.8 * second), colour, part)
        streak = colour + 0.3 * (255 - colour)
        self.canvas.capsule(ends + 0.34 * light, (0.36 * first, 0.36 * second), streak, part)

    def _band(
        self, start: np.ndarray, end: np.ndarray, span: tuple[float, float], radius: float,
        colour: Colour, part: int,
    ) -> None:  # fmt: skip
        """Draw a band across a segment between two shares ``span`` of its length."""
        along = end[:2] - start[:2]
        across = np.array([-along[1], along[0]])
        across *= radius / max(math.hypot(*across), 1e-6)
        low, high = start[:2] + span[0] * along, start[:2] + span[1] * along
        points = np.stack([low - across, high - across, high + across, low + across])
        self.canvas.fill(points, colour, part)

    def _upper_arm(self, side: int) -> None:
        joints, radius = self.body.joints, self.body.arm_radius
        start, end = joints[pose.SHOULDERS[side]], joints[pose.ELBOWS[side]]
        colour, part = self.style.sleeves[side], UPPER_ARM + side
        self._limb(start, end, (1.15 * radius, 0.92 * radius), colour, part)
        if self.style.bands:
            self._band(start, end, (0.42, 0.58), radius, self.style.trim, part)

    def _forearm(self, side: int) -> None:
        joints, radius = self.body.joints, self.body.arm_radius
        elbow, wrist, part = joints[pose.ELBOWS[side]], joints[pose.WRISTS[side]], FOREARM + side
        hand = self.body.hands[side]
        self._limb(wrist, hand, (0.68 * radius, 0.85 * radius), self.style.skin, part)
        self._limb(elbow, wrist, (0.9 * radius, 0.66 * radius), self.style.forearms[side], part)
        self._cuff(elbow, wrist, 0.8 * radius, self.style.marks[side], part)

    def _thigh(self, side: int) -> None:
        joints, radius = self.body.joints, self.body.leg_radius
        start, end = joints[pose.HIPS[side]], joints[pose.KNEES[side]]
        colour, part = self.style.trousers[side], THIGH + side
        self._limb(start, end, (1.12 * radius, 0.86 * radius), colour, part)
        if self.style.bands:
            self._band(start, end, (0.5, 0.62), 0.97 * radius, self.style.trim, part)

    def _shin(self, side: int) -> None:
        joints, radius = self.body.joints, self.body.leg_radius
        knee, ankle, part = joints[pose.KNEES[side]], joints[pose.ANKLES[side]], SHIN + side
        toe = self.body.toes[side]
        self._limb(ankle, toe, (0.6 * radius, 0.52 * radius), 0.45 * self.style.marks[side], part)
        self._limb(knee, ankle, (0.84 * radius, 0.58 * radius), self.style.shins[side], part)
        self._cuff(knee, ankle, 0.7 * radius, self.style.marks[side], part)

    def _cuff(
        self, start: np.ndarray, end: np.ndarray, radius: float, colour: Colour, part: int
    ) -> None:
        """Draw a cuff centred on the far end, so that wrist and ankle are seen as a place."""
        length = max(math.hypot(*(end - start)[:2]), 0.5 * radius)
        half = 0.07 * self.body.unit / length
        self._band(start, end, (1 - 1.7 * half, 1 + 1.7 * half), radius, 0.28 * colour, part)
        self._band(start, end, (1 - half, 1 + half), radius, colour, part)

    def _torso(self) -> None:
        body, style, unit = self.body, self.style, self.body.unit
        left, down, front = body.chest_axes
        shoulders, hips = body.joints[list(pose.SHOULDERS)], body.joints[list(pose.HIPS)]
        chest, pelvis = shoulders.mean(axis=0), hips.mean(axis=0)
        neck = np.stack([chest, body.head])
        self._limb(neck[0], neck[1], (0.12 * unit, 0.12 * unit), 0.88 * style.skin, TORSO)
        inner = chest + 0.8 * (shoulders - chest) + 0.04 * unit * down
        belly = 0.6 * pelvis + 0.4 * chest
        depth = 0.1 * unit * front
        seat = pelvis + 0.05 * unit * body.hip_axes[1]
        sides = 0.95 * (hips - pelvis)
        upper = np.stack([*inner, chest + depth, chest - depth, *(belly + sides), belly + depth])
        lower = np.stack([*(pelvis + sides), *(belly + 0.9 * sides), seat + depth, seat - depth])
        cloth = 0.5 * (style.trousers[0] + style.trousers[1]) * 0.6
        upper_radii = np.full(len(upper), 0.13 * unit)
        self._trunk_layer(lower, np.full(len(lower), 0.13 * unit), cloth)
        self._trunk_layer(upper, upper_radii, style.shirt)
        self._front_or_back(chest, belly, left, front)

    def _trunk_layer(self, centres: np.ndarray, radii: np.ndarray, colour: Colour) -> None:
        flat = centres[:, :2]
        light = 0.03 * self.body.unit * self.style.light_xy
        self.canvas.hull(flat, radii + self.edge, 0.28 * colour, TORSO)
        self.canvas.hull(flat, radii, 0.8 * colour, TORSO)
        self.canvas.hull(flat + light, 0.62 * radii, colour, TORSO)

    def _front_or_back(
        self, chest: np.ndarray, belly: np.ndarray, left: np.ndarray, front: np.ndarray
    ) -> None:
        """Mark the shirt so that front (a zip and a badge) and back (a panel) differ."""
        unit, style = self.body.unit, self.style
        if abs(front[2]) < 0.3:
            return
        if front[2] < 0:
            panel = np.stack([chest - 0.1 * unit * front, belly - 0.1 * unit * front])[:, :2]
            reach = 0.16 * unit * abs(front[2])
            self.canvas.capsule(panel, (reach, 0.8 * reach), 0.55 * style.shirt, TORSO)
            return
        surface = 0.2 * unit * front
        middle = np.stack([chest + surface, belly + surface])[:, :2]
        width = 0.028 * unit
        self.canvas.capsule(middle, (width, width), style.trim, TORSO)
        badge = 0.7 * chest + 0.3 * belly + 0.9 * surface + 0.17 * unit * left
        self.canvas.disc(badge[:2], 0.06 * unit, style.trim, TORSO)

    def _head(self) -> None:
        body, style = self.body, self.style
        radius, centre = body.head_radius, body.head
        before = [i for i in pose.EARS if body.joints[i, 2] < centre[2] - 0.2 * radius]
        for index in before:
            self._ear(index)
        nose_in_front = body.joints[pose.NOSE, 2] > centre[2] + 0.05 * radius
        if not nose_in_front:
            self._nose()
        self.canvas.disc(centre[:2], radius + self.edge, 0.28 * style.skin, HEAD)
        self._face()
        for index in pose.EARS:
            if index not in before:
                self._ear(index)
        if nose_in_front:
            self._nose()

    def _ear(self, index: int) -> None:
        xy, radius = self.body.joints[index, :2], 0.25 * self.body.head_radius
        side = pose.EARS.index(index)
        self.canvas.disc(xy, radius + self.edge, 0.28 * self.style.skin, EAR + side)
        self.canvas.disc(xy, radius, self.style.skin, EAR + side)
        self.canvas.disc(xy, 0.55 * radius, self.style.marks[side], EAR + side)

    def _nose(self) -> None:
        xy, radius = self.body.joints[pose.NOSE, :2], 0.16 * self.body.head_radius
        tip = 0.55 * self.style.skin + 0.45 * np.array([70.0, 60.0, 235.0])
        self.canvas.disc(xy, radius + 0.6 * self.edge, 0.45 * self.style.skin, NOSE)
        self.canvas.disc(xy, radius, tip, NOSE)

    def _face(self) -> None:
        """Colour the head as a lit sphere: skin, hair, eyes and mouth turn with it."""
        canvas, style = self.canvas, self.style
        radius = self.body.head_radius * canvas.factor
        x, y = canvas.to_canvas(self.body.head[:2])
        side = canvas.pixels.shape[0]
        x0, x1 = max(int(x - radius), 0), min(int(x + radius) + 2, side)
        y0, y1 = max(int(y - radius), 0), min(int(y + radius) + 2, side)
        if x0 >= x1 or y0 >= y1:
            return
        right, below = np.meshgrid(
            (np.arange(x0, x1) - x) / radius, (np.arange(y0, y1) - y) / radius
        )
        depth_sq = 1 - right**2 - below**2
        inside = depth_sq > 0
        normal = np.stack([right, below, np.sqrt(np.maximum(depth_sq, 0))], -1)[inside]
        colour, part = _face_colours(normal @ self.body.head_axes.T, style)
        light = np.append(0.6 * style.light_xy, 0.8)
        colour *= (0.66 + 0.4 * np.maximum(normal @ light, 0))[:, None]
        window = canvas.pixels[y0:y1, x0:x1]
        window[inside, :3] = np.clip(colour, 0, 255).astype(np.uint8)
        window[inside, 3] = part


def _face_colours(local: np.ndarray, style: Style) -> tuple[np.ndarray, np.ndarray]:
    """Return colours (N, 3) and parts (N,) at unit vectors ``local`` (left, down, forward)."""
    colour = np.tile(style.skin, (len(local), 1))
    part = np.full(len(local), HEAD, np.uint8)
    mouth = np.hypot(local[:, 0] / 1.9, local[:, 1] - 0.5) < 0.12
    colour[mouth & (local[:, 2] > 0)] = (60, 50, 130)
    crown = local @ np.array([0.0, -0.75, -0.66])
    colour[crown > style.hairline] = style.hair
    eye = pose.eye_local()
    for side in (0, 1):
        angle = np.arccos(np.clip(local @ (eye * (pose.SIDES[side], 1, 1)), -1, 1))
        colour[angle < pose.EYE_RADIUS + 0.05] = 0.4 * style.skin
        colour[angle < pose.EYE_RADIUS] = 250
        colour[angle < 0.6 * pose.EYE_RADIUS] = 0.22 * style.marks[side]
        part[angle < pose.EYE_RADIUS] = EYE + side
    return colour, part
