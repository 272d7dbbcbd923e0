"""What a check of a submission found."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.submission.manifest import Manifest

Problems = Sequence[tuple[str, str]]  # what is wrong, and what would be right


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Args:
        name: Short name of the check, as in tables.
        what: What is wrong.
        remedy: What would be right.
        grave: Whether it must be mended; otherwise it is to be known.
    """

    name: str
    what: str
    remedy: str
    grave: bool = True


@dataclass
class Report:
    """What a check found.

    Args:
        manifest: What the submission states; None if that could not be read.
        findings: What is wrong.
        passed: Names of the checks that held.
        smoke: Rows of the smoke evaluation: attacker and normalised leakage.
    """

    manifest: Manifest | None = None
    findings: list[Finding] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    smoke: dict[str, float] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        return not any(finding.grave for finding in self.findings)

    def add(self, name: str, problems: Problems, *, grave: bool = True) -> None:
        """Notes the outcome of one check; no problem is a pass."""
        self.findings += [Finding(name, *problem, grave=grave) for problem in problems]
        if not problems:
            self.passed.append(name)
