"""What a decision is made from, and what it consists of."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from cifar_tasks.evaluation.comparison import Comparison
from cifar_tasks.promotion.limits import Limits, Mode


class Value(BaseModel):
    """Immutable; kept as JSON in the promotion log."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Scored(Value):
    """A version and its evaluation on the test set of the decision."""

    version: int
    model: str
    accuracy: float
    """Share of 0–1."""
    calibration_error: float
    """Expected calibration error, 0–1."""
    latency_ms: float | None
    """For one image; none if it was not measured."""
    size_mb: float | None
    classes: tuple[str, ...]
    placeholder: bool
    """Trained on placeholder data."""
    initial_weights: str = ""
    """What its training started from; empty if that is not known."""
    test_set: str
    """Digest."""


class Unscored(Value):
    """A champion that cannot be evaluated."""

    version: int
    reason: str
    gone: bool
    """Nobody can use it any more: its stored model was deleted or is damaged."""


Champion = Scored | Unscored | None
CheckName = Literal["accuracy", "latency", "size", "champion", "gain", "classes", "calibration"]


class Check(Value):
    """One thing that the candidate must meet."""

    name: CheckName
    passed: bool
    text: str


class Decision(Value):
    """What evidence and mode say about a candidate, with all that they were."""

    candidate: Scored
    champion: Champion
    """The champion that it was compared with."""
    comparison: Comparison | None
    limits: Limits
    mode: Mode
    reason: str
    """What a person wrote; empty in most cases."""
    uses: int
    """Earlier decisions on the same test set."""
    checks: tuple[Check, ...]
    promote: bool
    needs_approval: bool
    """A person has to agree before it is promoted."""
    challenger: bool
    """It gets the alias `challenger` if it is not promoted."""
    reasons: tuple[str, ...]
    """One line each; the first says what was decided."""

    @property
    def worn(self) -> bool:
        """So many decisions have used the test set that it has lost its worth."""
        return self.uses >= self.limits.worn_after
