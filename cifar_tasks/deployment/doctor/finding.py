"""What a check says."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warning", "failure", "skipped"]


@dataclass(frozen=True)
class Finding:
    verdict: Verdict
    says: str
    """What was seen, in words."""
    remedy: str = ""
    """What to do about it; every warning and every failure has one."""

    def __post_init__(self) -> None:
        if (self.verdict in ("warning", "failure")) != bool(self.remedy):
            raise ValueError(f"a {self.verdict} with the remedy {self.remedy!r}: {self.says}")


class CannotTell(Exception):
    """Raised by a check that something keeps from looking, when another check reports that something."""


def ok(says: str) -> Finding:
    return Finding("ok", says)


def skipped(says: str) -> Finding:
    """The check does not apply here, or could not look."""
    return Finding("skipped", says)


def warning(says: str, remedy: str) -> Finding:
    return Finding("warning", says, remedy)


def failure(says: str, remedy: str) -> Finding:
    return Finding("failure", says, remedy)
