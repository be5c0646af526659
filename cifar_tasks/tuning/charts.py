"""What a study's MLflow run shows: the table of its trials, and a page of charts."""

from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

from optuna import visualization
from optuna.study import Study
from optuna.trial import TrialState

if TYPE_CHECKING:
    from mlflow import MlflowClient

PAGE, TABLE = "search.html", "trials.csv"
COLUMNS = ("number", "state", "value", "duration", "params", "user_attrs")


def log_study(client: "MlflowClient", run_id: str, study: Study) -> None:
    client.log_text(run_id, table(study), TABLE)
    client.log_text(run_id, page(study), PAGE)


def table(study: Study) -> str:
    """One row per trial, as CSV, which MLflow shows as a table."""
    return str(study.trials_dataframe(COLUMNS).to_csv(index=False))


def page(study: Study) -> str:
    """The study's charts in one HTML page that loads nothing from elsewhere."""
    draw: list[Callable[..., Any]] = [
        visualization.plot_optimization_history,
        visualization.plot_parallel_coordinate,
        visualization.plot_slice,
    ]
    if len({trial.value for trial in study.trials if trial.state is TrialState.COMPLETE}) > 1:
        draw.append(visualization.plot_param_importances)
    charts = [
        chart(study, target_name="validation accuracy").to_html(
            full_html=False, include_plotlyjs=chart is draw[0], default_height="480px"
        )
        for chart in draw
    ]
    return f"<!doctype html><meta charset=utf-8><title>{escape(study.study_name)}</title>{''.join(charts)}"
