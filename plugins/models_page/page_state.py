"""What the address of the page says, so that a link shows what its sender saw."""

from typing import Any, Literal
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, Field

from cifar_tasks.config import RegisteredModelName
from cifar_tasks.deployment.dag_ids import PROMOTION_DAG, TRAINING_DAG

SortKey = Literal["version", "model", "accuracy", "validation", "calibration", "latency", "size", "created"]
View = Literal["versions", "compare", "history"]
Text = Field(default=None, max_length=300)


class State(BaseModel):
    """Of the page. The address may have more keys: on the tab of a DAG run those of Airflow's own views."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    view: View = "versions"
    registered_model: RegisteredModelName | None = None
    sort: SortKey = "version"
    ascending: bool = False
    model: str | None = Text
    """Shows the versions of this network only."""
    search: str | None = Text
    """Shows only the versions whose network, alias, dataset or number contains this text."""
    a: int | None = None
    b: int | None = None
    true_class: str | None = Text
    """Shows the pictures of this class only."""
    pictures: int = Field(default=1, ge=1, le=100_000)
    """Which page of the pictures, from 1."""
    dag_id: str | None = Text
    run_id: str | None = Text

    @property
    def workflow(self) -> str | None:
        """The training whose versions are shown; all versions without one. A promotion has the id of its training."""
        if self.run_id is None:
            return None
        return f"{TRAINING_DAG if self.dag_id == PROMOTION_DAG else self.dag_id}/{self.run_id}"

    def link(self, **changes: Any) -> str:
        """The query of the same state with changes."""
        values = self.model_dump(exclude_defaults=True) | changes
        defaults = {name: field.default for name, field in type(self).model_fields.items()}
        return "?" + urlencode({name: value for name, value in values.items() if value != defaults[name]})
