"""What a candidate must meet, and who decides."""

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Mode = Literal["auto", "approve", "never", "force"]
MODES: tuple[Mode, ...] = get_args(Mode)
TrainingMode = Literal["auto", "approve", "never"]
"""Of the promotion that a training starts: nobody gives a reason for `force` there."""


class Limits(BaseModel):
    """Accuracies, recalls and calibration errors are shares of 0–1: 0.01 is one percentage point."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    confidence: float = Field(default=0.95, ge=0.5, lt=1, title="Confidence")
    """Of the interval of the difference in accuracy; its complement is the significance level of the exact tests."""
    min_gain: float = Field(default=0.01, ge=0, le=1, title="Minimum gain")
    """By how much the candidate's test accuracy must be higher than the champion's, beside being significantly so."""
    min_accuracy: float = Field(default=0.0, ge=0, le=1, title="Minimum accuracy")
    """Of a candidate on the test images; also of a first one."""
    class_margin: float = Field(default=0.03, ge=0, le=1, title="Margin of a class")
    """No class may have a recall that is significantly lower than the champion's, and by more than this."""
    calibration_margin: float = Field(default=0.05, ge=0, le=1, title="Margin of the calibration")
    """By how much the candidate's expected calibration error may be higher than the champion's."""
    max_latency_ms: float | None = Field(default=None, gt=0, title="Maximum latency")
    """Milliseconds of the saved model for one image, on the machine that evaluates. Empty: no limit."""
    max_size_mb: float | None = Field(default=None, gt=0, title="Maximum size")
    """Megabytes of the saved model. Empty: no limit."""
    worn_after: int = Field(default=20, ge=1, title="Decisions of a test set")
    """After so many decisions on the same test images, each further decision says that the test set is worn."""
