"""What a study shows: the table of its trials, a page to explore, pictures for a page that stands still."""

import csv
import io
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    from mlflow import MlflowClient

PAGE, TABLE = "search.html", "trials.csv"
VALUE = "validation accuracy"

_log = logging.getLogger(__name__)


def rows(trials: Sequence[FrozenTrial]) -> list[dict[str, Any]]:
    """A row a trial, in the order of their numbers: state, accuracy of 0–1, loss in nats, seconds, parameters."""
    names = sorted({name for trial in trials for name in trial.params})
    return [
        {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "accuracy": trial.user_attrs.get("accuracy"),
            "validation_loss": trial.user_attrs.get("validation_loss"),
            "seconds": round(trial.duration.total_seconds(), 1) if trial.duration else None,
            "epochs": len(trial.intermediate_values),
            **{name: trial.params.get(name) for name in names},
            "error": trial.user_attrs.get("error"),
        }
        for trial in trials
    ]


def in_words(parameters: Mapping[str, Any]) -> str:
    """`dropout 0.1, learning_rate 0.03`, with three digits."""
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in parameters.items()
    )


def log_study(client: "MlflowClient", run_id: str, study: Study) -> None:
    """Table, page and pictures as artifacts of the study's run."""
    table = rows(study.trials)
    client.log_text(run_id, as_csv(table), TABLE)
    client.log_table(run_id, {name: [row[name] for row in table] for name in table[0]}, "trials.json")
    client.log_text(run_id, page(study), PAGE)
    for name, draw in _drawings(study, "optuna.visualization.matplotlib").items():
        axes = draw(study, target_name=VALUE)
        figure = getattr(axes, "figure", None) or axes.flat[0].figure
        figure.set_size_inches(10, 5)
        client.log_figure(run_id, figure, f"{name}.png")


def as_csv(table: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(table[0]))
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()


def page(study: Study) -> str:
    """The study's charts in one HTML page that needs nothing but itself."""
    drawn = [draw(study, target_name=VALUE) for draw in _drawings(study, "optuna.visualization").values()]
    parts = [
        figure.to_html(full_html=False, include_plotlyjs=number == 0, default_height="480px")
        for number, figure in enumerate(drawn)
    ]
    return f"<!doctype html><meta charset=utf-8><title>{study.study_name}</title>{''.join(parts)}"


def _drawings(study: Study, library: str) -> dict[str, Callable[..., Any]]:
    """Name → drawing; importances need two completed trials whose accuracies differ."""
    from importlib import import_module

    draw = import_module(library)
    drawings = {
        "optimisation_history": draw.plot_optimization_history,
        "parallel_coordinate": draw.plot_parallel_coordinate,
        "slices": draw.plot_slice,
    }
    values = {trial.value for trial in study.trials if trial.state is TrialState.COMPLETE}
    if len(values) > 1:
        drawings["parameter_importances"] = draw.plot_param_importances
    else:
        _log.info("no parameter importances: too few trials were completed")
    return drawings
