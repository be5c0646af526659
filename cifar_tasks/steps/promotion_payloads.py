"""What the steps of promotion and rollback take and return."""

from datetime import datetime
from typing import Any, Self

from pydantic import Field, field_validator

from cifar_tasks.config import RegisteredModelName
from cifar_tasks.promotion.limits import Limits, Mode
from cifar_tasks.steps.form_request import FormRequest
from cifar_tasks.steps.payloads import Payload, WorkflowRun
from cifar_tasks.storage.promotion_log import Action, Entry


class PromotionRequest(FormRequest):
    """Which version may become the champion; the form of the promotion DAG takes titles and texts from here."""

    group = "limits"

    registered_model: RegisteredModelName = Field(title="Registered model")
    """Name in the MLflow model registry."""
    version: int = Field(ge=1, title="Candidate version")
    """The version that is compared with the champion on the same test images."""
    mode: Mode = Field(default="auto", title="Mode")
    """auto: the evidence decides. approve: a person decides, if the evidence is for the candidate. never: compare and
    log only. force: promote against the evidence, for the reason that you give."""
    reason: str = Field(default="", max_length=2_000, title="Reason")
    """Why, in your words; it is kept in the promotion log. The mode force needs it."""
    limits: Limits = Field(title="What the candidate must meet")


class Proposal(Payload):
    """The decision that the evidence leads to, before a person is asked and before anything moves."""

    request: PromotionRequest
    workflow: WorkflowRun
    champion: int | None
    """The version that the candidate was compared with."""
    promote: bool
    needs_approval: bool
    challenger: bool
    """It gets the alias `challenger` if it is not promoted."""
    reasons: list[str]
    test_set: str
    """Digest of the test images."""
    decision: dict[str, Any]
    """Evidence, limits and checks, for the promotion log."""
    markdown: str
    """The comparison, as the person who decides sees it."""
    comparison_url: str | None
    mlflow_url: str


class Answer(Payload):
    """What the person who was asked said."""

    approved: bool
    by: str | None
    """None if nobody answered in time."""
    at: datetime | None = None
    reason: str = Field(default="", max_length=2_000)
    """In the person's own words; empty if they gave none."""


class Promotion(Payload):
    """What was entered into the promotion log, and where the aliases are."""

    registered_model: str
    number: int
    """Of the entry."""
    action: Action
    candidate: int
    """The version that was decided about."""
    champion: int | None
    previous: int | None
    challenger: int | None
    reasons: list[str]
    mlflow_url: str

    @classmethod
    def of_entry(cls, entry: Entry, mlflow_url: str) -> Self:
        fields = {name: getattr(entry, name) for name in cls.model_fields.keys() & Entry.model_fields.keys()}
        return cls(**{**fields, "reasons": list(entry.reasons)}, mlflow_url=mlflow_url)

    def aliases(self) -> dict[str, int | None]:
        return {"champion": self.champion, "previous": self.previous, "challenger": self.challenger}


class RollbackRequest(FormRequest):
    """Which version becomes the champion again; the form of the rollback DAG takes titles and texts from here."""

    registered_model: RegisteredModelName = Field(title="Registered model")
    """Name in the MLflow model registry."""
    version: int | None = Field(default=None, ge=1, title="Version")
    """The version that becomes the champion. Empty: the one that was the champion before."""
    reason: str = Field(max_length=2_000, title="Reason", json_schema_extra={"minLength": 1})
    """Why, in your words; it is kept in the promotion log."""

    @field_validator("reason")
    @classmethod
    def _not_blank(cls, reason: str) -> str:
        if not reason.strip():
            raise ValueError("say why; the promotion log keeps it")
        return reason
