"""The workflow run that a step works for: a DAG run, or one `cifar run`."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class WorkflowRun:
    """Names the run wherever its results lie; a retry of a step says the same and so finds what is there."""

    id: str
    """Unique, stable over retries: `<dag id>/<run id>`, or `cli/<name>`."""
    name: str
    """As a person reads it."""
    url: str | None = None
    """Its page in Airflow."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
