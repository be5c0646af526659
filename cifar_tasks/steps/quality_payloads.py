"""What the validation of a dataset version of a line returns."""

from datetime import datetime

from cifar_tasks.steps.line_payloads import PreparedLine
from cifar_tasks.steps.payloads import Payload


class ValidatedLine(Payload):
    """A prepared version with the result of its checks."""

    prepared: PreparedLine
    passed: bool
    reasons: list[str]
    """Of a version that failed."""
    markdown: str
    """The checks, as the person who decides sees them."""
    report_url: str
    """The page in MLflow."""
    mlflow_url: str


class Verdict(Payload):
    """What the person who was asked said about a quarantined version."""

    release: bool
    by: str | None
    """None if nobody answered in time: the version stays quarantined."""
    reason: str = ""
    at: datetime | None = None
