"""What the report of a run returns."""

from pydantic import Field

from cifar_tasks.steps.payloads import Payload
from cifar_tasks.steps.promotion_payloads import PromotionRequest


class ReportRow(Payload):
    """One model in the table at the end."""

    model: str
    parameters: int
    epochs: int
    validation_accuracy: float
    test_accuracy: float
    version: int
    candidate: bool
    """Chosen by validation accuracy; the promotion compares it with the champion."""
    mlflow_url: str
    registry_url: str


class RunReport(Payload):
    """What a terminal prints at the end."""

    rows: list[ReportRow]
    banner: str | None
    warnings: list[str] = Field(default_factory=list)
    """Of the run and of the data."""
    notes: list[str] = Field(default_factory=list)
    """Why the run did without some of its models, or without tuning them; also among the warnings."""
    reasons: list[str]
    """Why this candidate."""
    promotion: PromotionRequest
    airflow_url: str | None
    mlflow_url: str
    compare_url: str
    report_url: str
