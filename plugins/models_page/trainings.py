"""What MLflow knows of the trainings of two versions: learning curves, and the parameters that differ."""

from cifar_tasks.tracking import runs
from models_page.plotly_figures import FIRST, SECOND
from models_page.reading import Cached, Result, mlflow_client
from models_page.version_table import Version

CURVES = ("train_accuracy", "validation_accuracy")
TAGS = {
    "cifar.dataset": "dataset version",
    "cifar.line": "dataset line",
    "cifar.line_entry": "entry of the dataset line",
    "cifar.start_from": "start from",
    "cifar.image_size": "image size",
    "cifar.resize": "resize",
    "cifar.params_source": "hyperparameters from",
    "cifar.config_sha256": "configuration (SHA-256)",
    "cifar.code_sha256": "code (SHA-256)",
}
"""Of a version, that say what it was trained on and with."""

Curve = tuple[str, str, list[tuple[int, float]]]


def _curves(runs_of_both: tuple[str, str], names: tuple[str, str]) -> list[Curve]:
    client, curves = mlflow_client(), list[Curve]()
    with runs.tracking_errors():
        for run_id, name, colour in zip(runs_of_both, names, (FIRST, SECOND), strict=True):
            best = client.get_run(run_id).data.tags.get("cifar.best_epoch") if run_id else None
            for metric in CURVES if run_id else ():
                values: dict[int, list[float]] = {}
                for point in client.get_metric_history(run_id, metric):
                    values.setdefault(point.step, []).append(point.value)
                points = {epoch: each[-1] for epoch, each in values.items()}  # a retry may have trained an epoch again
                last = max(values, default=0)
                if best not in (None, str(last)) and len(values.get(last, ())) > 1:
                    points[last] = values[last][-2]  # `MlflowCallback` logs the best epoch's value after it
                curves.append((f"{name}, {metric.removesuffix('_accuracy')}", colour, sorted(points.items())))
    return curves


def _params(run_id: str) -> dict[str, str]:
    with runs.tracking_errors():
        return dict(mlflow_client().get_run(run_id).data.params) if run_id else {}


def _differences(runs_of_both: tuple[str, str], tags: tuple[tuple[str, str, str], ...]) -> list[tuple[str, str, str]]:
    first, second = (_params(run_id) for run_id in runs_of_both)
    names = sorted(first.keys() | second.keys())
    rows = [*tags, *((name, first.get(name, "–"), second.get(name, "–")) for name in names)]
    return [row for row in rows if row[1] != row[2]]


_cached_curves, _cached_differences = Cached("MLflow", _curves), Cached("MLflow", _differences)


def curves(first: Version, second: Version, names: tuple[str, str]) -> Result[list[Curve]]:
    """Accuracy of each epoch."""
    return _cached_curves((first.run_id, second.run_id), names)


def differences(first: Version, second: Version) -> Result[list[tuple[str, str, str]]]:
    """What differs: name, value of the first, value of the second."""
    tags = tuple((text, first.tags.get(tag, "–"), second.tags.get(tag, "–")) for tag, text in TAGS.items())
    return _cached_differences((first.run_id, second.run_id), tags)
