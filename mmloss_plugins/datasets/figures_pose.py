"""Random, plausible poses of a jointed human figure, in numpy alone.

Frame: x to the image's right, y down, z towards the viewer; a torso is one unit long. A figure that
faces the viewer has its own left side at positive x. Left comes before right everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

KEYPOINT_NAMES = (
    'nose', 'left_eye', 'right_eye', 'left_ear', 'right_ear', 'left_shoulder', 'right_shoulder',
    'left_elbow', 'right_elbow', 'left_wrist', 'right_wrist', 'left_hip', 'right_hip',
    'left_knee', 'right_knee', 'left_ankle', 'right_ankle',
)  # fmt: skip
NOSE, EYES, EARS = 0, (1, 2), (3, 4)
SHOULDERS, ELBOWS, WRISTS = (5, 6), (7, 8), (9, 10)
HIPS, KNEES, ANKLES = (11, 12), (13, 14), (15, 16)

LEFT, DOWN, FORWARD = np.eye(3)
SIDES = (1.0, -1.0)

# Points of the face in head radii along (left, down, forward) from the head's centre.
EYE_AZIMUTH, EYE_RISE, EYE_RADIUS = np.deg2rad(25.0), 0.12, 0.21
NOSE_LOCAL = np.array([0.0, 0.14, 1.08])
EAR_LOCAL = np.array([1.04, 0.04, -0.05])


@dataclass(frozen=True)
class Family:
    """Ranges of the joint angles in degrees; ``lead`` is one side, ``trail`` the other.

    Each side is (lift, azimuth, elbow, swing, spread, knee): the upper arm's angle from hanging and
    its direction from sideways (0) to forward (90), the elbow's bend, the thigh's angle forward and
    sideways, and the knee's bend. ``tuck`` turns the elbow's bend from forward to the body.
    """

    weight: float
    lead: tuple[tuple[float, float], ...]
    trail: tuple[tuple[float, float], ...]
    tuck: float = 0.35


def _family(
    weight: float, lead: Sequence[int], trail: Sequence[int] | None = None, tuck: float = 0.35
) -> Family:
    def pairs(flat: Sequence[int]) -> tuple[tuple[float, float], ...]:
        return tuple(zip(flat[::2], flat[1::2]))

    return Family(weight, pairs(lead), pairs(lead if trail is None else trail), tuck)


# One row per side: lift, azimuth, elbow, swing, spread, knee, each as (low, high).
FAMILIES = {
    'stand': _family(3, (8, 32, -20, 60, 5, 60, -8, 12, 3, 14, 0, 15)),
    'wave': _family(
        2,
        (95, 165, -20, 35, 10, 95, -8, 12, 3, 16, 0, 15),
        (8, 40, -20, 50, 5, 60, -8, 12, 3, 16, 0, 15),
        tuck=0.1,
    ),
    'star': _family(2, (65, 150, -20, 20, 0, 30, -8, 12, 18, 42, 0, 20)),
    'reach': _family(1, (125, 172, -15, 40, 0, 45, -10, 15, 3, 22, 0, 25)),
    'akimbo': _family(1, (32, 52, -25, 10, 85, 115, -6, 10, 5, 25, 0, 15), tuck=3.0),
    'walk': _family(
        2,
        (15, 45, 60, 95, 20, 75, -32, -8, 2, 8, 8, 45),
        (15, 45, -90, -55, 5, 40, 14, 40, 2, 8, 4, 30),
    ),
    'run': _family(
        2,
        (30, 70, 60, 95, 70, 115, -35, -10, 2, 10, 40, 100),
        (30, 65, -90, -55, 60, 110, 40, 85, 2, 10, 45, 100),
    ),
    'sit': _family(1, (15, 55, 20, 95, 20, 95, 65, 95, 4, 24, 60, 105)),
    'squat': _family(1, (55, 105, 30, 95, 0, 50, 55, 100, 14, 36, 75, 125)),
    'kick': _family(
        1,
        (30, 90, -40, 40, 5, 70, 45, 95, 4, 24, 0, 35),
        (30, 100, -40, 60, 5, 70, -14, 8, 2, 12, 0, 20),
    ),
}


@dataclass(frozen=True)
class Body:
    """One posed figure.

    ``joints`` (17, 3) in COCO's order, ``hands`` and ``toes`` (2, 3), ``head`` (3,) the centre;
    the rows of ``head_axes``, ``chest_axes`` and ``hip_axes`` (3, 3) are the directions left, down
    and forward of that part. Radii and positions share one unit: torso lengths, pixels once placed.
    """

    joints: np.ndarray
    hands: np.ndarray
    toes: np.ndarray
    head: np.ndarray
    head_axes: np.ndarray
    chest_axes: np.ndarray
    hip_axes: np.ndarray
    unit: float
    head_radius: float
    arm_radius: float
    leg_radius: float

    def placed(self, scale: float, offset_xy: np.ndarray) -> Body:
        """Return the figure scaled by ``scale``, then moved by ``offset_xy`` (2,) pixels."""
        offset = np.append(offset_xy, 0.0)
        return replace(
            self,
            joints=self.joints * scale + offset,
            hands=self.hands * scale + offset,
            toes=self.toes * scale + offset,
            head=self.head * scale + offset,
            unit=self.unit * scale,
            head_radius=self.head_radius * scale,
            arm_radius=self.arm_radius * scale,
            leg_radius=self.leg_radius * scale,
        )

    def extent(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the lowest and highest xy, each (2,), of joints, head, hands and toes."""
        head = self.head[:2] + self.head_radius * np.array([[-1, -1], [1, 1]])
        points = np.concatenate([self.joints[:, :2], self.hands[:, :2], self.toes[:, :2], head])
        return points.min(axis=0), points.max(axis=0)


def rotation(axis: np.ndarray, degrees: float) -> np.ndarray:
    """Return the (3, 3) matrix that turns column vectors about the unit vector ``axis``."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def sample_body(rng: np.random.Generator) -> Body:
    """Return a random figure about the origin, in torso lengths."""
    names = list(FAMILIES)
    weights = np.array([family.weight for family in FAMILIES.values()])
    family = FAMILIES[names[rng.choice(len(names), p=weights / weights.sum())]]
    view = _sample_view(rng)
    hip_axes = (view @ np.eye(3)).T
    bend = (
        rotation(LEFT, rng.normal(-4, 7)) @ rotation(DOWN, rng.normal(0, 9))
        @ rotation(FORWARD, rng.normal(0, 6))
    )  # fmt: skip
    chest_axes = (view @ bend).T
    look = rotation(DOWN, rng.normal(0, 18)) @ rotation(LEFT, rng.normal(0, 9))
    head_axes = (view @ bend @ look @ rotation(FORWARD, rng.normal(0, 6))).T

    joints = np.zeros((17, 3))
    head_radius = rng.uniform(0.31, 0.39)
    chest = -chest_axes[1]
    head = chest - (rng.uniform(0.1, 0.16) + 0.9 * head_radius) * head_axes[1]
    joints[:5] = head + head_radius * _face_local() @ head_axes
    sides = [family.lead, family.trail]
    if rng.random() < 0.5:
        sides.reverse()
    lengths = _sample_lengths(rng)
    hands, toes = np.zeros((2, 3)), np.zeros((2, 3))
    for i, (side, ranges) in enumerate(zip(SIDES, sides)):
        angles = [rng.uniform(low, high) for low, high in ranges]
        shoulder = chest + lengths['shoulder'] * side * chest_axes[0] + 0.08 * chest_axes[1]
        hip = lengths['hip'] * side * hip_axes[0]
        upper, lower = _arm(rng, angles[:3], side, family.tuck)
        elbow = shoulder + lengths['upper_arm'] * upper @ chest_axes
        wrist = elbow + lengths['forearm'] * lower @ chest_axes
        hands[i] = wrist + lengths['hand'] * lower @ chest_axes
        thigh, shin, foot = _leg(angles[3:], side)
        knee = hip + lengths['thigh'] * thigh @ hip_axes
        ankle = knee + lengths['shin'] * shin @ hip_axes
        toes[i] = ankle + lengths['foot'] * foot @ hip_axes
        rows = [SHOULDERS[i], ELBOWS[i], WRISTS[i], HIPS[i], KNEES[i], ANKLES[i]]
        joints[rows] = shoulder, elbow, wrist, hip, knee, ankle
    return Body(
        joints, hands, toes, head, head_axes, chest_axes, hip_axes, unit=1.0,
        head_radius=head_radius, arm_radius=rng.uniform(0.1, 0.135),
        leg_radius=rng.uniform(0.135, 0.18),
    )  # fmt: skip


def _face_local() -> np.ndarray:
    """Return nose, eyes and ears (5, 3) in head radii along (left, down, forward)."""
    mirror = np.array([-1.0, 1.0, 1.0])
    eye = eye_local()
    return np.stack([NOSE_LOCAL, eye, eye * mirror, EAR_LOCAL, EAR_LOCAL * mirror])


def eye_local() -> np.ndarray:
    """Return the left eye's unit vector along (left, down, forward)."""
    flat = np.sqrt(1 - EYE_RISE**2)
    return np.array([flat * np.sin(EYE_AZIMUTH), -EYE_RISE, flat * np.cos(EYE_AZIMUTH)])


def _sample_view(rng: np.random.Generator) -> np.ndarray:
    """Return the (3, 3) rotation of the whole figure: mostly frontal and upright, never always."""
    kind = rng.choice(3, p=[0.68, 0.18, 0.14])
    yaw = (rng.normal(0, 32), rng.choice([-1, 1]) * rng.normal(72, 14), rng.normal(180, 28))[kind]
    roll = rng.uniform(-65, 65) if rng.random() < 0.2 else rng.normal(0, 14)
    tilt = rotation(FORWARD, roll) @ rotation(LEFT, rng.normal(0, 9))
    return tilt @ rotation(DOWN, yaw)


def _sample_lengths(rng: np.random.Generator) -> dict[str, float]:
    """Return the lengths of the bones; shoulder and hip are half widths."""
    return {
        'shoulder': rng.uniform(0.35, 0.43),
        'hip': rng.uniform(0.17, 0.22),
        'upper_arm': rng.uniform(0.52, 0.62),
        'forearm': rng.uniform(0.48, 0.56),
        'hand': 0.17,
        'thigh': rng.uniform(0.74, 0.86),
        'shin': rng.uniform(0.72, 0.84),
        'foot': rng.uniform(0.24, 0.3),
    }


def _arm(
    rng: np.random.Generator, angles: Sequence[float], side: float, tuck: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the directions of upper arm and forearm along (left, down, forward)."""
    lift, azimuth, elbow = np.deg2rad(angles)
    outward = np.cos(azimuth) * side * LEFT + np.sin(azimuth) * FORWARD
    upper = np.cos(lift) * DOWN + np.sin(lift) * outward
    inward = tuck + rng.uniform(-0.3, 0.4)
    towards = rng.uniform(0.5, 1) * FORWARD - inward * side * LEFT - rng.uniform(0, 0.5) * DOWN
    towards = towards - (towards @ upper) * upper
    towards /= max(float(np.linalg.norm(towards)), 1e-6)
    return upper, np.cos(elbow) * upper + np.sin(elbow) * towards


def _leg(angles: Sequence[float], side: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the directions of thigh, shin and foot along (left, down, forward)."""
    swing, spread, knee = np.deg2rad(angles)

    def sagittal(angle: float) -> np.ndarray:
        return np.cos(angle) * DOWN + np.sin(angle) * FORWARD

    outward = np.sin(spread) * side * LEFT
    thigh = np.cos(spread) * sagittal(swing) + outward
    shin = np.cos(spread) * sagittal(swing - knee) + outward
    foot = sagittal(swing - knee + np.deg2rad(70)) + 0.25 * side * LEFT
    return thigh, shin, foot / np.linalg.norm(foot)
