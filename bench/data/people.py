"""Synthetic people: how long their bones are and how they move.

Stature follows the 2012 survey of U.S. Army personnel (ANSUR II; Gordon et al. 2014, NATICK/TR-15/007): men 1.756 m, SD
0.069 m; women 1.629 m, SD 0.064 m. Segment lengths are the shares of stature of Drillis and Contini (1966) as reproduced
in Winter, Biomechanics and Motor Control of Human Movement: upper arm 0.186, forearm 0.146, hand 0.108, thigh 0.245,
shank 0.246, ankle height 0.039, foot 0.152, biacromial breadth 0.259, hip breadth 0.191, hip height 0.530, shoulder
height 0.818. Where the Kinect puts a joint inside such a segment (spine, neck, hand, foot) is our own estimate. So are the
spread of the single segments about these shares, the sexes' differences in relative breadth (broader shoulders in
men, broader hips in women), and every number about style: no published distribution covers them.

Everything is drawn from generators that depend on the seed, a channel and the person's number alone, so that people stay
who they are when others, or actions, are added.
"""

from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np

from bench.data.kinematics import AXES, JOINTS, LAYOUT

STATURE = {"F": (1.629, 0.064), "M": (1.756, 0.069)}  # mean and standard deviation, metres
_MEAN_STATURE = (STATURE["F"][0] + STATURE["M"][0]) / 2

# Length of the bone that ends at a joint, as a share of stature; `*` stands for either side.
_SHARES = {
    "spine base": 0.0,
    "spine mid": 0.150,
    "spine shoulder": 0.118,
    "neck": 0.045,
    "head": 0.085,
    "* shoulder": 0.259 / 2 * 0.84,  # the joint lies inwards of the acromion
    "* elbow": 0.186,
    "* wrist": 0.146,
    "* hand": 0.050,
    "* hand tip": 0.045,
    "* thumb": 0.035,
    "* hip": 0.191 / 2 * 0.55,  # hip breadth is measured over the flesh
    "* knee": 0.245,
    "* ankle": 0.246,
    "* foot": 0.075,
}
_LOG_MEN = {"* shoulder": 0.027, "* hip": -0.047}  # men's deviation from both sexes' share; women's is the opposite
_SEGMENT_SD = 0.028  # log-normal spread of a segment about its share of stature
_SIDE_SD = 0.005  # of which left and right do not share

_LEFT = [k for k, joint in enumerate(JOINTS) if joint.startswith("left ")]
_RIGHT = [JOINTS.index(JOINTS[k].replace("left", "right")) for k in _LEFT]
_SYMMETRY = 0.85  # correlation of a style's left and right
_BODY, _STYLE, _PERFORMANCE = 1, 2, 3  # channels of randomness


def generator(seed: int, *key: int) -> np.random.Generator:
    """The generator of one entity; streams of different keys are independent."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def gender_of(number: int) -> str:
    """F M M F, and so on: any even number of people is balanced, and so are odd and even numbers in any multiple of four."""
    return "F" if number % 4 in (0, 1) else "M"


def _share(joint: str, table: dict[str, float]) -> float:
    side, _, rest = joint.partition(" ")
    return table.get(f"* {rest}" if side in ("left", "right") else joint, 0.0)


_MEAN_LENGTHS = np.array([_share(joint, _SHARES) for joint in LAYOUT.joints]) * _MEAN_STATURE  # (V,)
_MEN = np.array([_share(joint, _LOG_MEN) for joint in LAYOUT.joints])  # (V,)


def bone_lengths(seed: int, number: int, body: float) -> np.ndarray:
    """Lengths of the bones that end at each joint.

    Args:
        seed: Seed of the data set.
        number: Number of the person, from 1.
        body: How far the person deviates from the mean of both sexes, on the logarithmic scale: 1 is realistic, 0 is none.

    Returns:
        (V,) metres; the root's is zero.
    """
    rng = generator(seed, _BODY, number)
    gender = gender_of(number)
    mean, spread = STATURE[gender]
    deviation = np.full(LAYOUT.num_joints, np.log((mean + spread * rng.standard_normal()) / _MEAN_STATURE))
    deviation += _MEN if gender == "M" else -_MEN
    segment = _SEGMENT_SD * rng.standard_normal(LAYOUT.num_joints)
    for left, right in LAYOUT.mirror:
        segment[right] = segment[left]
    deviation += segment + _SIDE_SD * rng.standard_normal(LAYOUT.num_joints)
    return _MEAN_LENGTHS * np.exp(body * deviation)


@dataclass(frozen=True)
class Style:
    """How somebody moves, as deviations from the common way; zero is the common way itself.

    Args:
        posture: (K, 3) degrees added to every joint angle throughout.
        gain: (K,) logarithm of the factor on each joint's excursions.
        lag: (K,) how much later a joint moves than the rest, as a share of the clip.
        sway: (K,) degrees of a slow swing to the side (trunk) that goes on under every action.
        tempo: Logarithm of the factor on speed.
        rush: Early (positive) or late effort: shifts the middle of the action by this share of the clip.
        harmonic: Weight of the second harmonic in repeated movements.
    """

    posture: np.ndarray
    gain: np.ndarray
    lag: np.ndarray
    sway: np.ndarray
    tempo: float
    rush: float
    harmonic: float

    @classmethod
    def draw(cls, rng: np.random.Generator, spread: Self) -> Self:
        """A normal deviate of every number, with the standard deviations in `spread`; left and right are alike, not equal."""
        drawn = {}
        for field in fields(cls):
            sd = np.asarray(getattr(spread, field.name))
            deviate = rng.standard_normal(sd.shape)
            if sd.ndim:
                deviate[_RIGHT] = _SYMMETRY * deviate[_LEFT] + np.sqrt(1 - _SYMMETRY**2) * deviate[_RIGHT]
            drawn[field.name] = sd * deviate
        return cls(**drawn)

    def scaled(self, factor: float) -> Self:
        return type(self)(**{f.name: factor * getattr(self, f.name) for f in fields(self)})

    def __add__(self, other: Self) -> Self:
        return type(self)(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})


def _by_joint(table: dict[str, float]) -> np.ndarray:
    """(K,) from values by joint; sided joints are given without their side."""
    return np.array([table.get(joint.split()[-1], 0.0) for joint in JOINTS])


def _by_axis(table: dict[str, tuple[float, float, float]]) -> np.ndarray:
    """(K, 3) from bend, side and twist by joint; sided joints are given without their side."""
    return np.array([table.get(joint.split()[-1], (0.0,) * len(AXES)) for joint in JOINTS])


# Spread between people. Degrees: bend, side, twist.
PEOPLE = Style(
    posture=_by_axis(
        {
            "pelvis": (1.5, 0.8, 0.0),
            "spine": (3.5, 1.2, 1.5),
            "neck": (5.0, 2.0, 2.5),
            "clavicle": (0.0, 3.0, 3.0),
            "shoulder": (4.0, 4.0, 6.0),
            "elbow": (6.0, 0.0, 6.0),
            "wrist": (6.0, 4.0, 0.0),
            "hip": (1.5, 2.0, 4.0),
            "knee": (3.0, 0.0, 0.0),
        }
    ),
    gain=_by_joint(dict.fromkeys(("pelvis", "spine", "neck", "shoulder", "elbow", "wrist", "hip", "knee"), 0.12)),
    lag=_by_joint({"pelvis": 0.015, "spine": 0.015, "neck": 0.02, "elbow": 0.02, "wrist": 0.02, "knee": 0.01}),
    sway=_by_joint({"pelvis": 1.0, "spine": 1.5, "shoulder": 1.5}),
    tempo=0.09,
    rush=0.03,
    harmonic=0.12,
)
# What a woman's style differs by from the mean of the sexes; a man's differs by the opposite.
_WOMEN = replace(
    PEOPLE.scaled(0.0),
    posture=_by_axis({"shoulder": (0, -3.5, 3.0), "elbow": (3.5, 0, 5.0), "hip": (0, -1.8, -3.5), "spine": (-2.0, 0, 0)}),
    sway=_by_joint({"pelvis": 0.8}),
)
# Spread between two performances of one person: the same for everybody, whatever the dials.
PERFORMANCES = replace(PEOPLE.scaled(0.7), tempo=0.06)


def person_style(seed: int, number: int, dynamics: float) -> Style:
    """A person's style, scaled by the dial: 1 is realistic, 0 is the common way."""
    sign = 1.0 if gender_of(number) == "F" else -1.0
    return (Style.draw(generator(seed, _STYLE, number), PEOPLE) + _WOMEN.scaled(sign)).scaled(dynamics)


def performance_generator(seed: int, number: int, replication: int, action: int) -> np.random.Generator:
    """What chance adds to one performance."""
    return generator(seed, _PERFORMANCE, number, replication, action)
