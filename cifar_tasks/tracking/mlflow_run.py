"""A training's MLflow run, as a tracker."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cifar_tasks.tracking import runs

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient


class MlflowRun:
    """Writes to a run that exists (`tracking.open_run`)."""

    def __init__(self, client: "MlflowClient", run_id: str) -> None:
        self.client, self.run_id = client, run_id
        self._logged: dict[str, set[int]] = {}

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """MLflow's parameters never change: what a resumed training says otherwise (its device, say) is a tag."""
        known = self.client.get_run(self.run_id).data.params
        runs.log_params(self.client, self.run_id, {k: v for k, v in parameters.items() if k not in known})
        changed = {f"cifar.{k}": v for k, v in parameters.items() if k in known and known[k] != str(v)}
        runs.log_tags(self.client, self.run_id, changed)

    def log_epoch(self, epoch: int, metrics: Mapping[str, float], label: str = "") -> None:
        named = {f"{label}{name}": value for name, value in metrics.items()}
        if label not in self._logged:  # asked once: from then on nobody else writes to this run
            self._logged[label] = runs.logged_steps(self.client, self.run_id, next(iter(named)))
        if epoch not in self._logged[label]:
            self._logged[label].add(epoch)
            runs.log_metrics(self.client, self.run_id, named, step=epoch)

    def log_figure(self, figure: "Figure", name: str) -> None:
        self.client.log_figure(self.run_id, figure, name)

    def log_ending(self, reason: str, best_epoch: int) -> None:
        runs.log_tags(self.client, self.run_id, {"cifar.ended_because": reason, "cifar.best_epoch": best_epoch})
