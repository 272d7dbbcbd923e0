"""Threat levels: what an attacker knows about the anonymizer, and so which clips it learns from (methods.md section 2)."""

from dataclasses import dataclass

from bench.files import UserError


@dataclass(frozen=True)
class Threat:
    """One level of knowledge.

    Args:
        name: Name in tables.
        summary: One line for people.
        anonymizes: Whether the attacker anonymizes its own labelled clips before it learns from them. It knows the method, its
            parameters and what it learnt, and draws its own randomness: never the data holder's.
        ranks: Whether a method may be ranked by the leakage at this level.
    """

    name: str
    summary: str
    anonymizes: bool
    ranks: bool


THREATS = {
    threat.name: threat
    for threat in (
        Threat("ignorant", "learns from raw clips, knows nothing of the anonymizer", anonymizes=False, ranks=False),
        Threat(
            "semi-informed", "learns from clips that it anonymizes itself, with its own randomness", anonymizes=True, ranks=True
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
