"""Two registered versions side by side, from their stored evaluations: no model is loaded, and no image read."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from rich.text import Text

from cifar_tasks.cli.tables import print_table
from cifar_tasks.errors import ConfigError, nearest
from cifar_tasks.promotion.comparison_tables import (
    CLASSES_SHOWN,
    by_difference,
    class_rows,
    column_names,
    comparison_markdown,
    interval_chart,
    score_rows,
    verdict,
)
from cifar_tasks.promotion.decision import decide
from cifar_tasks.promotion.evidence import Decision
from cifar_tasks.promotion.limits import Limits
from cifar_tasks.promotion.page import comparison_page
from cifar_tasks.storage.promotion_log import uses_of
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import model_registry, runs
from cifar_tasks.tracking.evaluations import StoredEvaluation
from cifar_tasks.tracking.version_evidence import common_evaluations, compare_evaluations, score_version

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from rich.console import Console

Found = TypeVar("Found")


@dataclass(frozen=True)
class Compared:
    """The decision that a promotion of the first version over the second would be, and what was measured of both."""

    registered_model: str
    decision: Decision
    evaluations: tuple[StoredEvaluation, StoredEvaluation]

    @cached_property
    def verdict(self) -> str:
        return verdict(self.decision)

    def print(self, console: "Console") -> None:
        """Verdict, reasons and tables."""
        names, comparison = column_names(self.decision, self.evaluations[1]), self.decision.comparison
        console.print(Text(self.verdict, style="bold"), soft_wrap=True)
        for reason in self.decision.reasons[1:]:
            console.print(Text(f"  {reason}"), soft_wrap=True)
        print_table(console, ("", *names, "difference"), score_rows(self.decision, *self.evaluations))
        if comparison:
            shown = by_difference(comparison)[:CLASSES_SHOWN]
            caption = f"The {len(shown)} of {len(comparison.classes)} classes that differ most."
            print_table(
                console,
                ("recall of a class (images)", *names, "difference"),
                class_rows(shown),
                caption if len(shown) < len(comparison.classes) else "",
            )
            console.print(Text(interval_chart(comparison)), soft_wrap=True)

    def as_json(self) -> str:
        first, second = (evaluation.model_dump(mode="json") for evaluation in self.evaluations)
        about = {"registered_model": self.registered_model, "verdict": self.verdict}
        decision = self.decision.model_dump(mode="json")
        return json.dumps({**about, "decision": decision, "candidate": first, "champion": second}, indent=2)

    def as_markdown(self) -> str:
        return comparison_markdown(self.decision, *self.evaluations, head=self.verdict)

    def as_page(self) -> str:
        numbers = [scored.version for scored in (self.decision.candidate, self.decision.champion) if scored]
        return comparison_page(
            self.decision,
            *self.evaluations,
            title=f"{self.registered_model}: version {numbers[0]} and version {numbers[1]}",
            head=self.verdict,
            links=[(f"Version {number}", runs.version_url(self.registered_model, number)) for number in numbers],
        )


def compare_versions(
    client: "MlflowClient", store: S3Store, name: str, first: str, second: str, limits: Limits
) -> Compared:
    """Each is a version number or an alias. `ConfigError` says why two cannot be compared, and what to do."""
    versions = [find_version(client, name, wanted) for wanted in (first, second)]
    numbers = [int(version.version) for version in versions]
    if numbers[0] == numbers[1]:
        raise ConfigError(f"{first} and {second} are the same version {numbers[0]} of {name}: name two versions.")
    evaluations = common_evaluations(store, versions)
    comparison = compare_evaluations(store, *evaluations, limits.confidence)
    scored = [score_version(*pair) for pair in zip(versions, evaluations, strict=True)]
    uses = uses_of(store, evaluations[0].test_set.digest)
    decision = decide(scored[0], scored[1], comparison, limits, "auto", uses=uses)
    return Compared(name, decision, evaluations)


def find_version(client: "MlflowClient", name: str, wanted: str) -> "ModelVersion":
    """By its number or an alias."""
    # Not `search_model_versions`, whose versions have no aliases.
    aliases = model_registry.registered_model(client, name).aliases
    if wanted.isdecimal():
        return _get(client.get_model_version, f"version {wanted} of {name}", name, str(int(wanted)))
    if wanted not in aliases:
        known = f"Its aliases: {', '.join(sorted(aliases))}." if aliases else "It has none."
        raise ConfigError(f"{name} has no alias {wanted}{nearest(wanted, aliases)}. {known} Or give a version number.")
    return _get(client.get_model_version, f"version {aliases[wanted]} of {name}", name, aliases[wanted])


def _get(read: Callable[..., Found], what: str, *arguments: str) -> Found:
    from mlflow.exceptions import MlflowException

    try:
        return read(*arguments)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise ConfigError(f"there is no {what} in MLflow.") from None
