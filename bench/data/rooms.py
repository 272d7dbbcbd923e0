"""Rooms, cameras and the sensor: how a moving person becomes the clip that a depth camera's body tracker reports.

Three cameras stand around the person and film the same moment. What a room gives away after the published normalisation
(centred on the spine, turned upright and frontal) is the calibration of its sensors: the scale of each axis, a smooth
bending of space, and how fast noise grows with distance. The dial `setup` scales all of it.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from bench.data.kinematics import LAYOUT
from bench.data.people import generator

# Bearing in degrees, distance and height of the eye above the point looked at in metres.
CAMERAS = ((-45.0, 3.0, 0.35), (0.0, 3.1, 0.1), (45.0, 2.9, 0.6))
_EYE_LEVEL = 1.0  # metres above the floor of the point that every camera looks at
SETUPS = 4
_ELSEWHERE = 0.15  # share of the performances that are filmed in another room than the person's usual one
_ROOM, _SENSOR, _PLAN = 4, 5, 6  # channels of randomness

# Standard deviation of a joint's noise, metres: hands and feet are guessed more than measured.
_NOISE = np.array([0.007] * LAYOUT.num_joints)
_NOISE[list(LAYOUT.noisy)] = 0.012
_CORRELATION = np.array([0.5, 0.75, 0.433])  # of the moving average that makes noise linger; unit power in total
_CORRELATION /= np.linalg.norm(_CORRELATION)
# The tracker fits its limbs anew in each clip and misjudges their lengths: log-normal, of all bones together and of each.
_MISFIT_ALL, _MISFIT_BONE = 0.012, 0.045


def home_setup(number: int) -> int:
    """Room in which a person is usually filmed, 1 to `SETUPS`; four people in a row share one, so it tells no gender."""
    return (number - 1) // 4 % SETUPS + 1


def performance_room(seed: int, number: int, replication: int, action: int) -> int:
    """Room in which a performance is filmed: the person's usual one, now and then another."""
    rng = generator(seed, _PLAN, number, replication, action)
    home = home_setup(number)
    return home if rng.random() >= _ELSEWHERE else (home - 1 + int(rng.integers(1, SETUPS))) % SETUPS + 1


@dataclass(frozen=True)
class Camera:
    """One camera of one room.

    Args:
        turn: (3, 3) from room to camera axes.
        distance: Metres to the middle of the room.
        scale: (3,) factor on each camera axis.
        wave: (3, 3) wave numbers of the bending, radians per metre, one row for each axis bent.
        crest: (3,) phase of the bending.
        bend: (3,) size of the bending in metres.
        blur: Growth of the noise per metre away from the middle, as a logarithm.
        loudness: Logarithm of the factor on the noise.
    """

    turn: np.ndarray
    distance: float
    scale: np.ndarray
    wave: np.ndarray
    crest: np.ndarray
    bend: np.ndarray
    blur: float
    loudness: float

    def film(self, joints: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Joints (T, V, 3) in the room to the clip (3, T, V, 1) that the tracker reports, float32, camera space, metres."""
        seen = (joints - [0, _EYE_LEVEL, 0]) @ self.turn.T + [0, 0, self.distance]
        bent = seen * self.scale + self.bend * np.sin(seen @ self.wave.T + self.crest)
        white = rng.standard_normal((len(joints) + len(_CORRELATION) - 1, *joints.shape[1:]), dtype=np.float32)
        noise = sum(w * white[i : i + len(joints)] for i, w in enumerate(_CORRELATION))
        away = seen[..., 2].mean() - self.distance
        noise *= _NOISE[:, None] * np.exp(self.loudness + self.blur * away)
        return (bent + noise).astype(np.float32).transpose(2, 0, 1)[..., None]


@cache
def camera(seed: int, setup: int, number: int, dial: float) -> Camera:
    """Camera `number` (from 1) of room `setup`; with the dial at 0 all rooms are the same."""
    bearing, distance, height = CAMERAS[number - 1]
    room, own = generator(seed, _ROOM, setup, 0), generator(seed, _ROOM, setup, number)
    yaw, tilt = np.radians(bearing), np.arcsin(height / distance)
    turn = _about_side(-tilt) @ _about_vertical(yaw)
    return Camera(
        turn=turn,
        distance=distance,
        scale=np.exp(dial * (0.02 * room.standard_normal(3) + 0.015 * own.standard_normal(3))),
        wave=own.uniform(2.5, 4.5, (3, 3)) * own.choice([-1, 1], (3, 3)),
        crest=own.uniform(0, 2 * np.pi, 3),
        bend=dial * 0.008 * own.standard_normal(3),
        blur=dial * 0.3,
        loudness=dial * 0.12 * room.standard_normal(),
    )


def sensor_generator(seed: int, number: int, replication: int, action: int, view: int) -> np.random.Generator:
    """What chance adds to one clip."""
    return generator(seed, _SENSOR, number, replication, action, view)


def misjudged(lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Bone lengths (V,) as the tracker takes them to be throughout one clip."""
    error = _MISFIT_ALL * rng.standard_normal() + _MISFIT_BONE * rng.standard_normal(len(lengths))
    return lengths * np.exp(error)


def _about_vertical(angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])


def _about_side(angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])


def into_room(joints: np.ndarray, bearing: float, place: np.ndarray) -> np.ndarray:
    """Turns a person (T, V, 3) by degrees about the vertical and puts them at `place` (2,) on the floor."""
    return joints @ _about_vertical(np.radians(bearing)).T + [place[0], 0, place[1]]
