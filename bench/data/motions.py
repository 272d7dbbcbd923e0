"""Actions of synthetic people as joint-angle trajectories.

An action is a few key postures, joined by minimum-jerk movements (Flash and Hogan 1985), with repeated swings on top.
Angles are degrees as `kinematics` defines them, named "<joint> <axis>"; what a posture does not name is at rest. "lift" is
the height of a jump in metres. A person's style bends all of it: see `people.Style`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bench.data.kinematics import AXES, INDEX, JOINTS
from bench.data.people import PERFORMANCES, Style

FRAME_RATE = 30.0
SHORTEST, LONGEST = 36, 100  # frames
_LIFT = len(JOINTS) * len(AXES)  # channel after all angles
Posture = Mapping[str, float]


@dataclass(frozen=True)
class Swing:
    """A repeated movement about the key postures.

    Args:
        channel: "<joint> <axis>" or "lift".
        size: Degrees (metres for "lift").
        cycles: Repetitions from `start` to `end`.
        shift: Where in its cycle it starts; 0.5 is the opposite swing.
        start, end: Share of the clip in which it goes on; it fades in and out at both ends.
        half: Only the positive half of the wave, for limbs that take turns.
    """

    channel: str
    size: float
    cycles: float
    shift: float = 0.0
    start: float = 0.0
    end: float = 1.0
    half: bool = False


@dataclass(frozen=True)
class Action:
    """One action.

    Args:
        name: What people call it.
        seconds: Usual duration.
        postures: Key postures by share of the clip, 0 and 1 included.
        swings: Movements on top of them.
    """

    name: str
    seconds: float
    postures: Mapping[float, Posture]
    swings: tuple[Swing, ...] = ()


def _both(**angles: float) -> dict[str, float]:
    """The same for left and right: `shoulder_bend=60` and so on."""
    return {f"{side} {name.replace('_', ' ')}": angle for side in ("left", "right") for name, angle in angles.items()}


def _right(**angles: float) -> dict[str, float]:
    return {f"right {name.replace('_', ' ')}": angle for name, angle in angles.items()}


def _held(posture: Posture, rise: float, fall: float) -> dict[float, Posture]:
    """From rest to a posture and back."""
    return {0.0: {}, rise: posture, fall: posture, 1.0: {}}


_REST: Posture = _both(shoulder_side=9, shoulder_bend=2, elbow_bend=14, hip_side=3, hip_twist=8, hip_bend=3, knee_bend=5) | {
    "spine bend": 3
}
_GUARD = _both(shoulder_bend=28, shoulder_side=4, elbow_bend=105, shoulder_twist=-8) | {"spine bend": 5}
_CROUCH = _both(hip_bend=48, knee_bend=68, shoulder_bend=-28) | {"pelvis bend": 14, "spine bend": 14}
_FLIGHT = _both(hip_bend=2, knee_bend=2, shoulder_bend=48, elbow_bend=20, foot_bend=-26)
_SQUAT = _both(hip_bend=88, knee_bend=102, hip_side=6, shoulder_bend=98, elbow_bend=-4) | {
    "pelvis bend": 28,
    "spine bend": 12,
    "neck bend": -22,
}
_SEAT = _both(hip_bend=76, knee_bend=80, shoulder_bend=26, elbow_bend=40) | {"pelvis bend": 4, "spine bend": 2}
_COCKED = _right(shoulder_bend=12, shoulder_side=82, shoulder_twist=82, elbow_bend=80) | {"spine twist": -24, "spine bend": -8}
_THROWN = _right(shoulder_bend=68, shoulder_side=6, elbow_bend=4) | {"spine twist": 24, "spine bend": 16, "pelvis bend": 6}
_UP = _both(shoulder_side=140, shoulder_bend=10, elbow_bend=-6, clavicle_side=12)
_DRINK = _right(shoulder_bend=38, shoulder_side=2, shoulder_twist=-22, elbow_bend=116)
_CALL = _right(shoulder_bend=30, shoulder_side=14, shoulder_twist=-4, elbow_bend=122)
_REACH = _both(hip_bend=62, knee_bend=70) | {
    "pelvis bend": 46,
    "spine bend": 30,
    "right shoulder bend": 82,
    "left shoulder bend": 30,
}
_CLAP = _both(shoulder_bend=42, shoulder_side=-4, shoulder_twist=-24, elbow_bend=62)
_CHAMBER = _right(hip_bend=-18, knee_bend=62) | {"left shoulder bend": 24, "right shoulder bend": -14, "left knee bend": 10}
_KICK = _right(hip_bend=66, knee_bend=4, foot_bend=42, shoulder_bend=-26) | {
    "left shoulder bend": 32,
    "left knee bend": 8,
    "pelvis bend": -8,
}

ACTIONS = (
    Action(
        "wave with the right hand",
        2.4,
        _held(_right(shoulder_bend=12, shoulder_side=62, shoulder_twist=78, elbow_bend=82), 0.2, 0.84),
        (Swing("right elbow bend", 20, 4, start=0.16, end=0.88), Swing("right wrist side", 12, 4, 0.85, 0.16, 0.88)),
    ),
    Action(
        "drink",
        2.8,
        {0.0: {}, 0.32: _DRINK, 0.45: _DRINK | {"neck bend": -20}, 0.66: _DRINK | {"neck bend": -26, "right shoulder side": 8}}
        | {0.76: _DRINK, 1.0: {}},
    ),
    Action(
        "telephone",
        2.7,
        {
            0.0: {},
            0.32: _CALL,
            0.5: _CALL | {"neck side": 5},
            0.64: _CALL | {"neck side": 2, "neck twist": -8},
            0.76: _CALL,
            1.0: {},
        },
    ),
    Action("throw", 2.5, {0.0: {}, 0.34: _COCKED, 0.42: _COCKED, 0.66: _THROWN, 0.74: _THROWN, 1.0: {}}),
    Action(
        "punch",
        3.0,
        _held(_GUARD, 0.2, 0.86),
        (
            Swing("spine twist", 18, 2, 0.0, 0.2, 0.84),
            *(
                Swing(f"{side} {channel}", size, 2, shift, 0.2, 0.84, True)
                for side, shift in (("right", 0.0), ("left", 0.5))
                for channel, size in (("shoulder bend", 48), ("elbow bend", -80))
            ),
        ),
    ),
    Action("kick", 2.2, {0.0: {}, 0.28: _CHAMBER, 0.54: _KICK, 0.6: _KICK, 0.8: _right(hip_bend=10, knee_bend=30), 1.0: {}}),
    Action("squat", 2.8, {0.0: {}, 0.38: _SQUAT, 0.5: _SQUAT, 0.92: {}, 1.0: {}}),
    Action(
        "sit down",
        2.4,
        {0.0: {}, 0.2: {"pelvis bend": 8, "spine bend": 10}, 0.5: _SEAT | {"pelvis bend": 34, "spine bend": 12}}
        | {0.72: _SEAT, 1.0: _SEAT},
    ),
    Action(
        "walk in place",
        2.6,
        _held({"spine bend": 2}, 0.1, 0.9),
        (
            Swing("spine twist", 5, 3, 0.0, 0.02, 0.98),
            Swing("pelvis side", 2.5, 3, 0.0, 0.02, 0.98),
            *(
                Swing(f"{side} {channel}", size, 3, shift, 0.02, 0.98, half)
                for side, shift in (("left", 0.0), ("right", 0.5))
                for channel, size, half in (
                    ("hip bend", 42, True),
                    ("knee bend", 62, True),
                    ("foot bend", -16, True),
                    ("shoulder bend", -22, False),
                    ("elbow bend", -8, False),
                )
            ),
        ),
    ),
    Action(
        "jump",
        2.4,
        {0.0: {}, 0.28: _CROUCH, 0.33: _CROUCH, 0.55: _FLIGHT, 0.6: _FLIGHT, 0.8: _CROUCH, 1.0: {}},
        (Swing("lift", 0.2, 0.5, start=0.46, end=0.68),),
    ),
    Action(
        "clap",
        2.2,
        _held(_CLAP, 0.18, 0.84),
        tuple(Swing(f"{side} shoulder twist", 15, 5, start=0.14, end=0.9) for side in ("left", "right")),
    ),
    Action("bow", 2.4, _held({"pelvis bend": 36, "spine bend": 26, "neck bend": 12} | _both(shoulder_bend=18), 0.4, 0.58)),
    Action("pick up from the floor", 2.7, _held(_REACH, 0.42, 0.54)),
    Action("raise both arms", 2.3, _held(_UP, 0.4, 0.6)),
)


def _channel(name: str) -> int:
    if name == "lift":
        return _LIFT
    joint, _, axis = name.rpartition(" ")
    return INDEX[joint] * len(AXES) + AXES.index(axis)


_RESTING = np.zeros(_LIFT + 1)
for _name, _angle in _REST.items():
    _RESTING[_channel(_name)] = _angle
_JOINT_OF = np.repeat(np.arange(len(JOINTS)), len(AXES))  # (3K,)
_BENT = [_channel(name) for name in ("left elbow bend", "right elbow bend", "left knee bend", "right knee bend")]


def _minimum_jerk(share: np.ndarray) -> np.ndarray:
    return share**3 * (10 - 15 * share + 6 * share**2)


def _excursions(action: Action, phase: np.ndarray, harmonic: float) -> np.ndarray:
    """Deviation from rest of every channel.

    Args:
        action: The action.
        phase: (T, C) share of the action that each channel has gone through at each frame.
        harmonic: Weight of the second harmonic in swings.

    Returns:
        (T, C), C = 3K + 1.
    """
    times = np.array(list(action.postures))
    out = np.zeros_like(phase)
    for name in {name for posture in action.postures.values() for name in posture}:
        c = _channel(name)
        values = np.array([posture.get(name, 0.0) for posture in action.postures.values()])
        k = np.clip(np.searchsorted(times, phase[:, c], side="right") - 1, 0, len(times) - 2)
        share = (phase[:, c] - times[k]) / (times[k + 1] - times[k])
        out[:, c] = values[k] + (values[k + 1] - values[k]) * _minimum_jerk(np.clip(share, 0, 1))
    for swing in action.swings:
        c = _channel(swing.channel)
        share = np.clip((phase[:, c] - swing.start) / (swing.end - swing.start), 0, 1)
        turn = 2 * np.pi * (swing.cycles * share + swing.shift)
        wave = np.sin(turn) + harmonic * np.sin(2 * turn)
        if swing.half:
            # The positive half, squared so that a limb leaves and comes back without a jerk.
            wave = np.maximum(np.sin(turn), 0) * wave
        fade = _minimum_jerk(np.clip(np.minimum(share, 1 - share) / 0.12, 0, 1))
        out[:, c] += swing.size * fade * wave
    return out


@dataclass(frozen=True)
class Performance:
    """One person doing an action once.

    Args:
        angles: (T, K, 3) joint angles in degrees.
        lift: (T,) height of the lower foot above the floor in metres.
        bearing: Degrees by which the person does not quite face the middle camera.
        place: (2,) metres from the middle of the room: to the side and away from the middle camera.
    """

    angles: np.ndarray
    lift: np.ndarray
    bearing: float
    place: np.ndarray


def perform(action: Action, style: Style, rng: np.random.Generator) -> Performance:
    """Lets somebody with a style do an action once; chance differs from time to time, the same for everybody."""
    own = style + Style.draw(rng, PERFORMANCES)
    bearing, place = 7.0 * rng.standard_normal(), 0.12 * rng.standard_normal(2)
    onset, swaying = 0.02 * rng.standard_normal(), 2 * np.pi * rng.random(2)
    frames = int(np.clip(round(FRAME_RATE * action.seconds * np.exp(-own.tempo)), SHORTEST, LONGEST))
    clock = np.linspace(0, 1, frames)
    lag = np.append(own.lag[_JOINT_OF], 0.0) + onset  # (C,)
    # A lifted body and its legs move together, or a jump would start with bent knees in the air.
    lag[_LIFT] = onset
    rush = clock + own.rush * np.sin(np.pi * clock) ** 2
    phase = np.clip(rush[:, None] - lag, 0, 1)  # (T, C)
    gain = np.exp(np.append(own.gain[_JOINT_OF], 0.0))
    values = _RESTING + gain * _excursions(action, phase, own.harmonic)
    values[:, :_LIFT] += own.posture.ravel()
    seconds = clock * frames / FRAME_RATE
    slow = np.sin(2 * np.pi * 0.45 * seconds + swaying[0]) + 0.5 * np.sin(2 * np.pi * 0.8 * seconds + swaying[1])
    values[:, AXES.index("side") : _LIFT : len(AXES)] += own.sway * slow[:, None]
    # Elbows and knees do not bend backwards. Rounded off, so that no joint stops dead.
    values[:, _BENT] = 1 + np.logaddexp(0, (values[:, _BENT] - 1) / 4) * 4
    angles = values[:, :_LIFT].reshape(frames, len(JOINTS), len(AXES))
    return Performance(angles, values[:, _LIFT], bearing, place)
