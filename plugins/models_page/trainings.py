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
            for metric in CURVES if run_id else ():
                history = client.get_metric_history(run_id, metric)
                points = {point.step: point.value for point in history}  # the newest, of an epoch that was trained anew
                if points:
                    last = max(points)
                    values = [point.value for point in history if point.step == last]
                    others = {value for step, value in points.items() if step != last}
                    if len(values) > 1 and values[-1] in others:  # the best epoch's, which is logged at the end
                        points[last] = values[-2]
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
