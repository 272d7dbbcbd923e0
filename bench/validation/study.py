"""What every study is: rows of numbers, claims that hold or do not, and who does the work."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

SURE = 0.99  # of binomial limits: seven studies should not fail by chance


@dataclass(frozen=True)
class Claim:
    """Something that must be true of the instrument, and whether it was found so."""

    text: str
    holds: bool


@dataclass
class Study:
    """One experiment.

    Args:
        name: Letter and title.
        question: What it asks, for people.
        rows: Its numbers, equal keys in each.
        claims: What must hold.
    """

    name: str
    question: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return all(claim.holds for claim in self.claims)


@dataclass(frozen=True)
class Crew:
    """Who does the work of a study.

    Args:
        pool: Processes; None to work here.
        progress: Called with (done, total).
    """

    pool: ProcessPoolExecutor | None
    progress: Callable[[int, int], None]

    def each(self, function: Callable[[Any], Any], items: Sequence[Any], chunk: int = 1) -> list[Any]:
        """What a function of this module makes of each item, in order; `chunk` items travel together."""
        made = self.pool.map(function, items, chunksize=chunk) if self.pool else map(function, items)
        found = []
        for one in made:
            found.append(one)
            self.progress(len(found), len(items))
        return found
