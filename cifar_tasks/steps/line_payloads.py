"""What the steps of dataset lines take and return."""

from pydantic import Field

from cifar_tasks.config import LineName
from cifar_tasks.data.lines.line_log import Delivery, DiffSummary, EntryKind, LineDataset
from cifar_tasks.data.lines.line_watch import Status
from cifar_tasks.steps.form_request import FormRequest
from cifar_tasks.steps.payloads import Payload


class LineRequest(FormRequest):
    """Which source is checked; the form takes titles and texts from here."""

    line: LineName | None = Field(default=None, title="Dataset line")
    """A line of CIFAR_DATASET_LINES. Empty: all of them, each in a run of its own."""


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


class RecordedVersion(Payload):
    """An entry of the log of a line."""

    line: LineName
    number: int
    kind: EntryKind
    dataset: LineDataset
    reasons: tuple[str, ...]
