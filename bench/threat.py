"""Threat levels: what an attacker knows about the anonymizer, and so which clips it learns from.

The levels are those of the VoicePrivacy Challenges (Tomashenko et al., arXiv 2109.00648), carried over to skeletons, and one of
our own, `inverter`.
"""

from dataclasses import dataclass
from enum import StrEnum

from bench.files import UserError


class Learning(StrEnum):
    """How one model of an attacker is made. All but the first learn from clips that the attacker anonymizes itself.

    It knows the method, its parameters and what it learnt, and draws its own randomness: never the data holder's.
    """

    RAW = "raw"  # from raw clips
    REFIT = "refit"  # representation from raw clips, what stands on top of it from anonymized ones
    SCRATCH = "scratch"  # all from anonymized clips
    FINE_TUNE = "fine-tune"  # first from raw clips, then from anonymized ones


@dataclass(frozen=True)
class Threat:
    """One level of knowledge.

    Args:
        name: Name in tables.
        summary: One line for people.
        learnings: How its models are made; of several, one attacks, which is chosen on the attacker's own validation part
            (`bench.choice`).
        enrols_raw: Whether the clips that a released one is compared with (linkage) are raw, or anonymized by the attacker.
        inverts: Whether it undoes the anonymizer first: it attacks what a network, trained on pairs of anonymized and raw clips
            that it made itself, restores from the released clips.
        ranks: Whether a method may be ranked by the leakage at this level.
    """

    name: str
    summary: str
    learnings: tuple[Learning, ...]
    enrols_raw: bool = False
    inverts: bool = False
    ranks: bool = False


THREATS = {
    threat.name: threat
    for threat in (
        Threat("ignorant", "learns from raw clips, knows nothing of the anonymizer", (Learning.RAW,), enrols_raw=True),
        Threat(
            "lazy-informed",
            "keeps what it learnt to see in raw clips, and refits its classifier to clips that it anonymizes itself",
            (Learning.REFIT,),
        ),
        Threat(
            "semi-informed",
            "learns from clips that it anonymizes itself, from scratch and by fine-tuning; attacks with the best of its models",
            (Learning.SCRATCH, Learning.FINE_TUNE, Learning.RAW),  # of names it knows all that an ignorant one knows
            ranks=True,
        ),
        Threat(
            "inverter",
            "learns to restore raw clips from those it anonymizes itself, and attacks what it restores",
            (Learning.RAW,),
            enrols_raw=True,
            inverts=True,
        ),
    )
}

RANKING = next(threat.name for threat in THREATS.values() if threat.ranks)


def parse_threats(text: str) -> list[Threat]:
    """Parses a comma list of levels, or `all`.

    Raises:
        UserError: if a level is unknown.
    """
    names = list(THREATS) if text.strip() == "all" else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in THREATS:
            raise UserError(f"no threat level named {name!r}; there are {', '.join(THREATS)}")
    return [THREATS[name] for name in dict.fromkeys(names)]
