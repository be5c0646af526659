"""A training in its MLflow run."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cifar_tasks.evaluation import plots
from cifar_tasks.tracking import runs
from cifar_tasks.training.callbacks import Callback, Snapshot
from cifar_tasks.training.state import EpochMetrics, TrainingState

if TYPE_CHECKING:
    from mlflow import MlflowClient


class MlflowCallback(Callback):
    """Logs to a run that exists: parameters, the metrics of each epoch, and how training ended.

    Each epoch is logged once. If a retry trains it again with another result, it is logged again: MLflow shows the
    newest value.
    """

    def __init__(self, client: "MlflowClient", run_id: str, params: Mapping[str, Any]) -> None:
        self._client, self._run_id, self._params = client, run_id, params
        self._logged: dict[str, set[tuple[int, float]]] = {}
        """Epochs that the run shows already, with their losses, by the name of the loss."""

    @runs.tracking_errors()
    def on_train_start(self, state: TrainingState) -> None:
        if not state.label:
            self._log_params()
        self._log_epochs(state.label, state.history)

    @runs.tracking_errors()
    def on_epoch_end(self, snapshot: Snapshot) -> None:
        self._log_epochs(snapshot.label, snapshot.history[-1:])

    @runs.tracking_errors()
    def on_train_end(self, state: TrainingState, error: BaseException | None) -> None:
        if error is not None:
            return
        if not state.label:
            self._client.log_figure(self._run_id, plots.learning_curves(state), "learning_curves.png")
            ending = {"cifar.ended_because": state.ending, "cifar.best_epoch": state.best.epoch}
            runs.log_tags(self._client, self._run_id, ending)
        self._show_best(state)

    def _show_best(self, state: TrainingState) -> None:
        """MLflow shows the value with the highest step, of equals the newest: the best epoch's, which is saved."""
        shown = self._client.get_run(self._run_id).data.metrics
        saved = {k: v for k, v in state.best.by_name(state.label).items() if k.endswith(("_loss", "_accuracy"))}
        if any(shown.get(name) != value for name, value in saved.items()):
            runs.log_metrics(self._client, self._run_id, saved, step=state.history[-1].epoch)

    def _log_params(self) -> None:
        """MLflow's parameters never change. What is different in a resumed training, its device say, becomes a tag."""
        known = self._client.get_run(self._run_id).data.params
        new = {name: value for name, value in self._params.items() if name not in known}
        runs.log_params(self._client, self._run_id, new)
        changed = {f"cifar.{k}": v for k, v in self._params.items() if k in known and known[k] != str(v)}
        runs.log_tags(self._client, self._run_id, changed)

    def _log_epochs(self, label: str, history: Sequence[EpochMetrics]) -> None:
        for metrics in history:
            named, loss = metrics.by_name(label), f"{label}train_loss"
            if loss not in self._logged:  # read once: no other process writes to this run
                shown = self._client.get_metric_history(self._run_id, loss)
                self._logged[loss] = {(entry.step, entry.value) for entry in shown}
            if (metrics.epoch, named[loss]) not in self._logged[loss]:
                self._logged[loss].add((metrics.epoch, named[loss]))
                runs.log_metrics(self._client, self._run_id, named, step=metrics.epoch)
