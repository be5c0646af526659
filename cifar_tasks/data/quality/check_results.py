"""A check as a row of the report: its value, its limit, and both in words."""

from collections.abc import Sequence
from typing import NamedTuple

from cifar_tasks.data.quality.drift import Measured
from cifar_tasks.data.quality.quality_limits import QualityLimits
from cifar_tasks.data.quality.quality_report import CheckRow, Example
from cifar_tasks.evaluation.comparison import p_text

TESTS = 14
"""Statistical checks of one delivery, among which the error rate is divided."""


class Result(NamedTuple):
    row: CheckRow
    examples: Sequence[Example] = ()
    """Images that a person should look at if the check failed."""


def row(name: str, value: float | None, limit: float | None, passed: bool, text: str) -> CheckRow:
    return CheckRow(check=name, value=value, limit=limit, passed=passed, text=f"{name}: {text}")


def not_measured(name: str, limit: float, why: str) -> Result:
    return Result(row(name, None, limit, True, f"not measured, {why}"))


def share(name: str, count: int, of: int, limit: float, where: str, more: str = "") -> CheckRow:
    """Of what was counted, without chance."""
    value = count / of if of else 0.0
    text = f"{count:,} of {of:,} {where} ({value:.1%}; at most {limit:.4g})"
    return row(name, value, limit, value <= limit, f"{text}: {more}" if more else text)


def statistical(name: str, found: Measured, limit: float, limits: QualityLimits, what: str) -> CheckRow:
    """Fails if the value is beyond the limit, and more so than chance explains."""
    beyond, by_chance = found.value > limit, found.p_value >= (1 - limits.confidence) / TESTS
    text = f"{found.value:.3f} ({what}; at most {limit:.4g}; p {p_text(found.p_value)})"
    if beyond and by_chance:
        text += ": too few images to tell it from chance"
    return row(name, found.value, limit, not beyond or by_chance, text)
