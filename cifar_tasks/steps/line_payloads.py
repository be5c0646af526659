"""What the steps of dataset lines take and return."""

from datetime import datetime
from typing import Self

from pydantic import Field, model_validator

from cifar_tasks.data.lines.line_log import Delivery, DiffSummary, EntryKind, LineDataset, LineEntry, PreparedVersion
from cifar_tasks.data.lines.line_watch import Status
from cifar_tasks.data.source_names import LineName
from cifar_tasks.steps.form_request import FormRequest
from cifar_tasks.steps.payloads import Payload


class LineRequest(FormRequest):
    """Which source is checked; the form takes titles and texts from here."""

    line: LineName | None = Field(default=None, title="Dataset line")
    """A line of CIFAR_DATASET_LINES. Empty: all of them, each in a run of its own."""
    event_only: bool = Field(default=False, title="Event only")
    """Do not check the source: send the event of the version in use, if it has none yet."""

    @model_validator(mode="after")
    def _event_of_one_line(self) -> Self:
        if self.event_only and not self.line:
            raise ValueError("event_only needs a dataset line")
        return self


class SourceCheck(Payload):
    line: LineName
    status: Status
    reason: str


class PreparedLine(Payload):
    """A version that was prepared, and is not in use yet."""

    line: LineName
    dataset: LineDataset
    delivery: Delivery
    diff: DiffSummary
    notes: tuple[str, ...]
    in_use: LineDataset | None
    """The version in use, beside which it was prepared."""
    changed: bool
    """Whether it is another version than the one in use."""

    @property
    def version(self) -> PreparedVersion:
        return PreparedVersion(self.dataset, self.delivery, self.diff, self.notes)

    @property
    def base(self) -> str | None:
        """Digest of the version in use."""
        return self.in_use.digest if self.in_use else None


class RecordedVersion(Payload):
    """An entry of the log of a line."""

    line: LineName
    number: int
    kind: EntryKind
    dataset: LineDataset
    reasons: tuple[str, ...]

    @classmethod
    def of_entry(cls, entry: LineEntry) -> Self:
        return cls(**{name: getattr(entry, name) for name in cls.model_fields})


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
