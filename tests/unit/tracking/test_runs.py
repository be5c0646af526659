"""How a run is found again, what is logged to it, how it ends, and links to where a person finds MLflow."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED, TEMPORARILY_UNAVAILABLE

from cifar_tasks.data.versions import DatasetVersion
from cifar_tasks.errors import ConfigError, LeaseLost, Stopped, TrackingRefused, TrainingError
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


def test_there_is_no_default_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match="there is no MLflow server"):
        runs.mlflow_client()


def test_an_experiment_is_made_once_and_comes_back_after_somebody_has_deleted_it(
    mlflow_client: MlflowClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = runs.experiment_id(mlflow_client, str(tmp_path))
    assert runs.experiment_id(mlflow_client, str(tmp_path)) == first
    assert not caplog.messages
    assert mlflow_client.get_experiment(first).tags["mlflow.experimentKind"] == "custom_model_development"
    mlflow_client.delete_experiment(first)
    assert runs.experiment_id(mlflow_client, str(tmp_path)) == first
    assert mlflow_client.get_experiment(first).lifecycle_stage == "active"
    assert "was deleted in MLflow: it is restored" in caplog.text


class Server:
    """Answers with what a test gave, raises it if it is an error."""

    def __init__(self, **answers: list[object]) -> None:
        self._answers = answers

    def __getattr__(self, asked: str) -> Callable[..., object]:
        def answer(*arguments: object, **more: object) -> object:
            given = self._answers[asked].pop(0)
            if isinstance(given, Exception):
                raise given
            return given

        return answer


REFUSED = MlflowException("no permission", error_code=PERMISSION_DENIED)
AWAY = MlflowException("no answer", error_code=TEMPORARILY_UNAVAILABLE)
EXPERIMENT = SimpleNamespace(experiment_id="7", name="mine", lifecycle_stage="active")


def test_an_experiment_that_another_process_makes_at_the_same_time_is_used() -> None:
    server = Server(get_experiment_by_name=[None, EXPERIMENT], create_experiment=[MlflowException("it exists")])
    assert runs.experiment_id(server, "mine") == "7"


def test_a_server_that_refuses_is_an_error_and_not_a_missing_experiment_or_run() -> None:
    with pytest.raises(MlflowException, match="no permission"):
        runs.experiment_id(Server(get_experiment_by_name=[None, None], create_experiment=[REFUSED]), "mine")
    for error in (REFUSED, AWAY):
        with pytest.raises(MlflowException, match=error.message):
            runs.exists(Server(get_run=[error]), "run")


def test_what_this_user_may_not_restore_is_an_error_that_says_who_can() -> None:
    deleted = SimpleNamespace(experiment_id="7", name="mine", lifecycle_stage="deleted")
    with pytest.raises(TrackingRefused, match="experiments restore --experiment-id 7"):
        runs.experiment_id(Server(get_experiment_by_name=[deleted], restore_experiment=[REFUSED]), "mine")
    gone = SimpleNamespace(info=SimpleNamespace(lifecycle_stage="deleted"))
    with pytest.raises(TrackingRefused, match="the MLflow run run was deleted and cannot be restored"):
        runs.restore(Server(get_run=[gone], restore_run=[REFUSED]), "run")


def test_a_run_that_was_deleted_is_restored(
    mlflow_client: MlflowClient, run_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert runs.exists(mlflow_client, run_id)
    runs.restore(mlflow_client, run_id)
    assert not caplog.messages
    mlflow_client.delete_run(run_id)
    assert not runs.exists(mlflow_client, run_id)
    runs.restore(mlflow_client, run_id)
    assert runs.exists(mlflow_client, run_id)
    assert caplog.messages == [f"the MLflow run {run_id} was deleted: it is restored"]
    assert not runs.exists(mlflow_client, "0" * 32)
    assert not runs.exists(mlflow_client, None)


def test_a_retry_continues_the_run_of_its_parent_and_of_no_other(mlflow_client: MlflowClient, run_id: str) -> None:
    experiment = mlflow_client.get_run(run_id).info.experiment_id

    def opened(identity: dict[str, str], parent: str | None) -> str:
        run = runs.open_run(mlflow_client, experiment, identity, "cnn", parent)
        return str(run.info.run_id)

    mine = {runs.WORKFLOW: "w", runs.MODEL: "cnn"}
    first = opened(mine, run_id)
    mlflow_client.set_terminated(first, "FAILED")
    others = {opened(mine, None), opened(mine, first), opened({**mine, runs.MODEL: "resnet50"}, run_id)}
    assert opened(mine, run_id) == first
    assert len(others | {first}) == 4
    run = mlflow_client.get_run(first)
    assert (run.info.status, run.info.run_name) == ("RUNNING", "cnn")
    assert run.data.tags["mlflow.parentRunId"] == run_id
    assert "mlflow.parentRunId" not in mlflow_client.get_run(opened(mine, None)).data.tags


def test_an_error_of_mlflow_is_a_warning_where_it_must_not_hide_another_one(
    run_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ZeroDivisionError), runs.closing(Server(set_terminated=[REFUSED]), run_id):
        raise ZeroDivisionError
    assert "no permission" in caplog.text


def test_what_is_logged_can_be_read_and_what_mlflow_cannot_keep_is_left_out(
    mlflow_client: MlflowClient, run_id: str
) -> None:
    version = DatasetVersion(
        "s3://b/m", "d" * 64, "n" * 501, ("cat", "dog"), {"train": {"cat": 1}}, 32, "crop", False, ()
    )
    runs.log_params(mlflow_client, run_id, {"epochs": 3})
    runs.log_tags(mlflow_client, run_id, {"cifar.trial": 0, "cifar.error": None})
    before = time.time() * 1000
    runs.log_metrics(mlflow_client, run_id, {"accuracy": 0.5, "loss": math.nan, "gap": -math.inf})
    runs.log_metrics(mlflow_client, run_id, {"accuracy": 0.6}, step=2)
    runs.log_dataset(mlflow_client, run_id, version, "training")

    run = mlflow_client.get_run(run_id)
    assert run.data.params == {"epochs": "3"}
    assert run.data.tags["cifar.trial"] == "0"
    assert "cifar.error" not in run.data.tags
    assert run.data.metrics == {"accuracy": 0.6}
    history = mlflow_client.get_metric_history(run_id, "accuracy")
    assert [(entry.step, entry.value) for entry in history] == [(0, 0.5), (2, 0.6)]
    assert all(before - 1 <= entry.timestamp <= time.time() * 1000 for entry in history)
    assert runs.logged_steps(mlflow_client, run_id, "accuracy") == {0, 2}
    (logged,) = run.inputs.dataset_inputs
    assert (logged.dataset.name, logged.dataset.digest) == ("n" * 500, "d" * 32)
    assert json.loads(logged.dataset.source) == {"uri": "s3://b/m"}
    assert json.loads(logged.dataset.profile) == {"counts": {"train": {"cat": 1}}, "classes": ["cat", "dog"]}
    assert [(tag.key, tag.value) for tag in logged.tags] == [("mlflow.data.context", "training")]


def test_runs_are_found_oldest_first(mlflow_client: MlflowClient, run_id: str) -> None:
    experiment = mlflow_client.get_run(run_id).info.experiment_id
    made = [
        mlflow_client.create_run(experiment, start_time=time, tags={runs.WORKFLOW: "w"}).info.run_id
        for time in (2000, 1000, 3000)
    ]
    found = runs.find_runs(mlflow_client, experiment, {runs.WORKFLOW: "w"})
    assert [run.info.run_id for run in found] == [made[1], made[0], made[2]]


def test_a_link_leads_to_an_artifact_or_to_a_registered_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    at = "http://127.0.0.1:5000/#"
    kind = "workflowType=machine_learning"
    assert runs.run_url("run", "1") == f"{at}/experiments/1/runs/run?{kind}"
    assert runs.run_url("run", "1", "a page.html") == f"{at}/experiments/1/runs/run/artifacts/a%20page.html?{kind}"
    assert runs.version_url("my model", 2) == f"{at}/models/my%20model/versions/2?{kind}"
