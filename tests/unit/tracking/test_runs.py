"""How a run ends, and links that lead to where a person finds MLflow."""

from urllib.parse import parse_qs, urlsplit

import pytest
from mlflow import MlflowClient

from cifar_tasks.errors import LeaseLost, Stopped, TrainingError
from cifar_tasks.tracking import runs


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "FINISHED"),
        (TrainingError("the loss is nan"), "FAILED"),
        (ZeroDivisionError("a bug"), "FAILED"),
        (Stopped("SIGTERM"), "KILLED"),
        (KeyboardInterrupt(), "KILLED"),
        (LeaseLost("the run is another process's now"), "RUNNING"),
    ],
)
def test_a_run_s_status_says_how_the_work_on_it_ended(
    mlflow_client: MlflowClient, run_id: str, error: BaseException | None, status: str
) -> None:
    def work() -> None:
        with runs.closing(mlflow_client, run_id):
            if error is not None:
                raise error

    if error is None:
        work()
    else:
        with pytest.raises(type(error)):
            work()
    assert mlflow_client.get_run(run_id).info.status == status


def test_links_lead_to_the_server_that_the_tasks_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert runs.run_url("run", "1").startswith("http://127.0.0.1:5000/#/experiments/1/runs/run?")


def test_links_lead_to_the_address_for_people_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    monkeypatch.setenv("CIFAR_MLFLOW_URL", "https://mlflow.example.com/")
    for url in (runs.run_url("run", "1"), runs.version_url("name", 2), runs.compare_url(["run"], "1")):
        assert url.startswith("https://mlflow.example.com/#/")


@pytest.mark.parametrize(
    "name",
    [
        "it's",
        'say "x"',
        "back\\slash",
        "end\\",
        "'\\",
        "50%",
        "a_b",
        "new\nline",
        "🐱",
        "a' AND tags.x = 'b",
        "`",
        "x" * 250,
    ],
)
def test_a_run_is_found_again_by_whatever_name(mlflow_client: MlflowClient, run_id: str, name: str) -> None:
    experiment = mlflow_client.get_run(run_id).info.experiment_id
    others = [
        runs.open_run(mlflow_client, experiment, {runs.WORKFLOW: other}, "other") for other in ("it_s", "its", "_\\")
    ]
    first, again = (runs.open_run(mlflow_client, experiment, {runs.WORKFLOW: name}, name) for _ in range(2))
    assert first.info.run_id == again.info.run_id
    assert first.info.run_id not in [run.info.run_id for run in others]


def test_the_comparison_is_sorted_by_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    query = parse_qs(urlsplit(urlsplit(runs.compare_url(["one", "two"], "1")).fragment).query)
    assert query["searchFilter"] == ["attributes.run_id IN ('one', 'two')"]
    assert query["orderByKey"] == ["metrics.`test_accuracy`"]
