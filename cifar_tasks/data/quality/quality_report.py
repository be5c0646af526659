"""What the checks of a delivery have found."""

from pydantic import BaseModel, ConfigDict

from cifar_tasks.data.quality.quality_limits import QualityLimits


class _Value(BaseModel):
    """Immutable; kept as JSON beside the version."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class CheckRow(_Value):
    """One check: what was measured, and whether it is within its limit."""

    check: str
    value: float | None
    """None if it was not measured."""
    limit: float | None
    """None if it only informs."""
    passed: bool
    text: str
    """In words, with value and limit."""


class Example(_Value):
    """An image that a person should look at."""

    position: int
    """In the images of the version."""
    name: str
    label: str
    why: str


class QualityReport(_Value):
    passed: bool
    reasons: tuple[str, ...]
    """Of a version that failed: the texts of the checks that failed."""
    rows: tuple[CheckRow, ...]
    examples: tuple[Example, ...]
    suspicious: tuple[Example, ...]
    """Labels that are most likely wrong, the most suspicious ones first."""
    images: int
    """Of the version, for training and validation."""
    added: int
    relabelled: int
    gone: int
    judged: int
    """Of the added and relabelled images: so many were drawn for the statistical checks."""
    limits: QualityLimits
