"""The versions of a registered model, as the registry's tags describe them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from cifar_tasks.config import is_model_name
from cifar_tasks.errors import TrackingGone
from cifar_tasks.evaluation.metrics import accuracy_interval
from cifar_tasks.tracking import runs
from cifar_tasks.tracking.model_registry import number_in
from cifar_tasks.tracking.runs import DATASET, MODEL, WORKFLOW
from models_page.page_state import SortKey
from models_page.reading import Cached, mlflow_client

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


MAX_IMAGES = 10**9
"""More test images than any version has: somebody has changed the tag."""


@dataclass(frozen=True)
class Version:
    """A row of the table."""

    entity: "ModelVersion"
    """Without aliases, as MLflow's search returns it."""
    aliases: tuple[str, ...]
    url: str
    """Its page in MLflow."""

    @property
    def number(self) -> int:
        return int(self.entity.version)

    @property
    def created(self) -> datetime:
        return datetime.fromtimestamp(self.entity.creation_timestamp / 1000, UTC)

    @property
    def run_id(self) -> str:
        """Of its training; empty if it has none."""
        return str(self.entity.run_id or "")

    @property
    def tags(self) -> Mapping[str, str]:
        return self.entity.tags

    @property
    def model(self) -> str:
        return self.tags.get(MODEL, "registered by hand")

    @property
    def accuracy(self) -> float | None:
        """On the test images; share of 0–1."""
        return self._number("cifar.test_accuracy")

    @property
    def validation(self) -> float | None:
        return self._number("cifar.validation_accuracy")

    @property
    def calibration(self) -> float | None:
        """Expected calibration error, 0–1."""
        return self._number("cifar.calibration_error")

    @property
    def latency(self) -> float | None:
        """Milliseconds for one image."""
        return self._number("cifar.latency_ms")

    @property
    def size(self) -> float | None:
        """Of the saved model, in MB."""
        return self._number("cifar.size_mb")

    @property
    def images(self) -> int | None:
        """Test images that the accuracy was measured on."""
        number = self._number("cifar.test_images")
        return int(number) if number and 1 <= number <= MAX_IMAGES else None

    @property
    def dataset(self) -> str:
        return self.tags.get(DATASET, "")[:16]

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of the accuracy, 95 %."""
        if self.accuracy is None or not 0 <= self.accuracy <= 1 or not self.images:
            return None
        return _accuracy_interval(round(self.accuracy * self.images), self.images)

    def contains(self, text: str) -> bool:
        """Whether network, alias, dataset or number does."""
        shown = self.model, *self.aliases, self.tags.get(DATASET, ""), self.tags.get("cifar.line", ""), str(self.number)
        return any(text.casefold() in each.casefold() for each in shown)

    def value(self, key: SortKey) -> object:
        return self.number if key == "version" else getattr(self, key)

    def _number(self, tag: str) -> float | None:
        return number_in(self.tags, tag)


_accuracy_interval = lru_cache(maxsize=10_000)(accuracy_interval)  # 0.3 ms each


def _registered_models() -> list[str]:
    """Without those of others whose names this product does not take."""
    with runs.tracking_errors():
        names = [model.name for model in mlflow_client().search_registered_models(max_results=1000)]
    return sorted(name for name in names if is_model_name(name))


def _versions(name: str) -> tuple[Version, ...]:
    """None before the first training registers the model."""
    client = mlflow_client()
    aliases: dict[int, list[str]] = {}
    try:
        with runs.tracking_errors():
            # The versions of a search come without their aliases.
            for alias, number in client.get_registered_model(name).aliases.items():
                aliases.setdefault(int(number), []).append(alias)
            newest_first = ["version_number DESC"]  # MLflow's own order is that of the last change
            found = client.search_model_versions(f"name = '{name}'", max_results=10_000, order_by=newest_first)
    except TrackingGone:
        return ()
    urls = runs.version_urls(name, [int(version.version) for version in found])
    return tuple(
        Version(version, tuple(sorted(aliases.get(number, ()))), urls[number])
        for version in found
        for number in [int(version.version)]
    )


def _registered_by(workflow: str) -> str | None:
    """The registered model that has versions of a workflow run; none if it has registered nothing."""
    with runs.tracking_errors():
        found = mlflow_client().search_model_versions(f"tags.`{WORKFLOW}` {runs.equals(workflow)}")
    return next((version.name for version in found if version.tags[WORKFLOW] == workflow), None)


registered_models = Cached("MLflow", _registered_models)
versions = Cached("MLflow", _versions)
registered_by = Cached("MLflow", _registered_by)


def ordered(rows: tuple[Version, ...], key: SortKey, descending: bool) -> list[Version]:
    """Rows without a value come last in both directions."""
    known = [row for row in rows if row.value(key) is not None]
    known.sort(key=lambda row: (row.value(key), row.number), reverse=descending)  # type: ignore[arg-type, return-value]
    return known + [row for row in rows if row.value(key) is None]
