"""The DAG on the real stack: the main job, retries, stopping, refused values."""

from typing import TYPE_CHECKING, Any

import pytest
import requests
from mlflow import MlflowClient

from cifar_tasks.cli.dag_run import DagRun, trigger
from cifar_tasks.cli.watch import TRAIN
from cifar_tasks.config import flat
from cifar_tasks.deployment.dag_ids import PROMOTION_DAG, TRAINING_DAG
from cifar_tasks.errors import ConfigError
from cifar_tasks.settings import Settings
from cifar_tasks.steps.payloads import TrainPlan
from cifar_tasks.storage.s3 import S3Store, split_s3_url
from cifar_tasks.tracking import model_registry, runs
from cifar_tasks.tracking.airflow_links import DAG_RUN, MODELS_PAGE
from cifar_tasks.tracking.runs import MODEL, WORKFLOW
from cifar_tasks.tuning.study import load_study
from tests.conftest import RunningStack

if TYPE_CHECKING:
    from airflow_client.client import ApiClient

NAME = "cifar10-classifier"


@pytest.fixture
def client(connected: RunningStack) -> MlflowClient:
    return runs.mlflow_client()


def runs_of(client: MlflowClient, run: DagRun, model: str) -> list[Any]:
    experiment = runs.experiment_id(client, Settings().experiment)
    identity = {WORKFLOW: f"{TRAINING_DAG}/{run.run_id}", MODEL: model}
    return list(runs.find_runs(client, experiment, identity))


def test_both_models_are_registered_and_the_better_one_is_champion(dag_run, client):
    rows = {row["model"]: row for row in dag_run.result("report")["rows"]}
    assert rows.keys() == {"cnn", "resnet50"}
    hidden = next(plan["config"]["hidden_units"] for plan in dag_run.result("select_params"))
    dense = 5_889 * hidden + 3 * (hidden + 1) if hidden else 3 * 5_889  # as the search found it; three classes, not ten
    assert rows["cnn"]["parameters"] == 2_429_270 - 10 * 5_889 + dense
    assert rows["resnet50"]["parameters"] == 26_136_138 + 53_120 - 7 * 513
    champion = model_registry.version_with_alias(client, NAME, model_registry.CHAMPION)
    best = max(rows.values(), key=lambda row: (row["validation_accuracy"], -row["parameters"]))
    assert int(champion.version) == best["version"]
    assert champion.tags["cifar.decision"]


def test_nothing_is_skipped_when_the_search_is_asked_for(dag_run):
    assert {task.state.value for task in dag_run.tasks()} == {"success"}


def test_a_search_s_best_parameters_are_trained_with_and_its_workers_link_to_the_study(dag_run, client):
    tuned, recipe = (TrainPlan.model_validate(plan) for plan in dag_run.result("select_params"))
    source = tuned.params_source
    trials = load_study(source.study).get_trials()
    ended = [trial for trial in trials if trial.state.is_finished()]
    assert 3 <= len(ended) <= 4  # two workers may each end one at the same time
    assert flat(tuned.config).items() >= trials[source.trial].params.items()
    assert (recipe.config.model, recipe.params_source) == ("resnet50", None)
    (child,) = runs_of(client, dag_run, "cnn")
    assert child.data.tags["cifar.study"] == source.study
    assert child.data.params["learning_rate"] == str(tuned.config.optimizer.learning_rate)


def test_one_parent_run_and_a_child_a_model_are_linked_both_ways_with_the_dag_run(dag_run, client, stack):
    (parent,) = runs_of(client, dag_run, "all")
    for index, model in enumerate(("cnn", "resnet50")):
        (child,) = runs_of(client, dag_run, model)
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.info.status == "FINISHED"
        assert child.info.run_id in buttons(dag_run, "model.train", index)["MLflow run"]


def buttons(run: DagRun, task: str, map_index: int = -1) -> dict[str, str | None]:
    """Title → address of the buttons of a task."""
    address = f"{run.client.configuration.host}/api/v2/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/{task}"
    token = {"Authorization": f"Bearer {run.client.configuration.access_token}"}
    answer = requests.get(f"{address}/links", params={"map_index": map_index}, headers=token, timeout=10)
    return dict(answer.json()["extra_links"])


def test_every_mlflow_run_and_every_version_leads_to_its_dag_run_and_to_the_models_page(dag_run, client, stack):
    experiment = runs.experiment_id(client, Settings().experiment)
    workflow = f"{TRAINING_DAG}/{dag_run.run_id}"
    page = f"{stack.airflow_url}/plugin/models?"
    of_this = [
        run
        for run in client.search_runs([experiment])
        if workflow in (run.data.tags.get(runs.WORKFLOW), run.data.tags.get(runs.SEARCHED_IN))
    ]
    assert len(of_this) >= 1 + 2 + 1 + 3  # the parent, two trainings, a study and its trials
    for run in of_this:
        for tag, begin in ((DAG_RUN, dag_run.url), (MODELS_PAGE, page)):
            assert run.data.tags[tag].startswith(begin), run.info.run_name
            assert f"]({begin}" in run.data.tags[runs.NOTE], run.info.run_name
    for row in dag_run.result("report")["rows"]:
        version = client.get_model_version(Settings().registered_model, str(row["version"]))
        assert version.tags["cifar.airflow_url"] == dag_run.url
        assert version.tags["cifar.report_url"] == dag_run.result("report")["report_url"]
        assert version.tags[MODELS_PAGE].endswith(f"view=compare&a={row['version']}")
        assert f"]({dag_run.url})" in version.description
        assert f"]({page}" in version.description


def test_every_task_of_a_model_has_buttons_to_run_version_report_and_comparison(dag_run, client):
    report = dag_run.result("report")
    promotion = DagRun(dag_run.client, dag_run.run_id, PROMOTION_DAG)
    proposal = promotion.result("propose")
    for index, row in enumerate(report["rows"]):
        for task in ("model.train", "model.evaluate", "model.register"):
            found = buttons(dag_run, task, index)
            assert found["MLflow run"] == row["mlflow_url"], task
            assert found["Model version"] == row["registry_url"], task
            assert found["Report"] == report["report_url"], task
            assert found["Comparison"] == proposal["comparison_url"], task
    assert buttons(dag_run, "report")["MLflow run"] == report["mlflow_url"]
    for task in ("propose", "approve", "record"):
        found = buttons(promotion, task)
        assert found["MLflow run"] == proposal["mlflow_url"], task
        assert f"/versions/{report['promotion']['version']}?" in found["Model version"], task
        assert found["Report"] == report["report_url"], task
        assert found["Comparison"] == proposal["comparison_url"], task


def test_every_artifact_lies_in_object_storage(dag_run, client):
    stored = set(S3Store("mlflow").keys(""))
    for model in ("cnn", "resnet50"):
        (child,) = runs_of(client, dag_run, model)
        for name in ("learning_curves.png", "evaluation/confusion_matrix.png"):
            assert any(key.endswith(f"{child.info.run_id}/artifacts/{name}") for key in stored)
        version = client.search_model_versions(f"run_id = '{child.info.run_id}'")[0]
        assert any(version.source.removeprefix("models:/") in key and key.endswith("model.pt2") for key in stored)
    bucket, key = split_s3_url(dag_run.result("prepare")["dataset_uri"])
    assert S3Store(bucket).exists(key)


def test_tasks_are_named_after_their_models(dag_run):
    names = {t.rendered_map_index for t in dag_run.tasks() if t.task_id == TRAIN}
    assert names == {"cnn", "resnet50"}


@pytest.mark.parametrize(("name", "value"), [("epochs", 0), ("models", ["vgg"]), ("learning_rate", 100)])
def test_the_api_refuses_a_bad_value_and_names_it(airflow: "ApiClient", name, value):
    with pytest.raises(ConfigError, match=name):
        trigger(airflow, {name: value})
