"""The steps of a search on the real stack: what they leave."""

import csv
import io
import json
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState
from typer.testing import CliRunner

from cifar_tasks.cli.main import app
from cifar_tasks.config import flat, trial_config, with_values
from cifar_tasks.errors import ConfigError
from cifar_tasks.steps import create_studies as steps_create_studies
from cifar_tasks.steps.create_studies import create_studies
from cifar_tasks.steps.evaluate import evaluate_model
from cifar_tasks.steps.payloads import MAX_WORKERS, PreparedData, RegisteredModel, WorkerResult
from cifar_tasks.steps.process import run_step
from cifar_tasks.steps.register import register_model
from cifar_tasks.steps.run_trials import run_trials
from cifar_tasks.steps.select_params import select_params
from cifar_tasks.steps.train import train_model
from cifar_tasks.tracking import runs
from cifar_tasks.tuning.study import all_studies, best_trial, load_study
from tests.conftest import RunningStack, connect
from tests.searches import in_background, plans_for, states, workers_for
from tests.trainings import as_json, child_run, prepared


@pytest.fixture(scope="module")
def data(backend: RunningStack, pictures: Path) -> PreparedData:
    with pytest.MonkeyPatch.context() as patch:
        connect(patch, backend.environment)
        return prepared(pictures, "search")


class Search:
    """A whole search: two workers beside each other, selection, training, registration."""

    def __init__(self, data: PreparedData) -> None:
        self.plans = plans_for(data, 1, trials=5, registered_model="searched")
        self.workers = create_studies(self.plans)
        self.name, self.run_id = self.workers[0].study, self.workers[0].study_run_id
        tasks = [in_background(worker) for worker in self.workers]
        for task in tasks:
            task.join()
            assert task.error is None, task.lines
        self.results = [WorkerResult(**task.result) for task in tasks]
        (self.plan,) = select_params(self.plans, self.results)
        self.registered: RegisteredModel = register_model(evaluate_model(train_model(self.plan)))


@pytest.fixture(scope="module")
def search(backend: RunningStack, data: PreparedData) -> Search:
    with pytest.MonkeyPatch.context() as patch:
        connect(patch, backend.environment)
        return Search(data)


def test_two_workers_share_a_budget_and_end_at_most_one_trial_more(search, tracked):
    trials = load_study(search.name).trials
    assert 5 <= len(trials) <= 6
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert sum(result.trials for result in search.results) == len(trials)
    assert all(result.trials for result in search.results)


def test_the_recipe_is_the_first_trial_and_each_trial_has_its_own_model(search, tracked):
    trials = load_study(search.name).trials
    assert trials[0].params.items() <= flat(search.plans[0].config).items()
    for name in ("weights_sha256", "validation_loss"):
        assert len({trial.user_attrs[name] for trial in trials}) == len(trials)


def test_a_trial_s_value_is_the_accuracy_of_the_epoch_with_the_lowest_validation_loss(search, client):
    for trial in load_study(search.name).trials:
        run_id = trial.user_attrs["mlflow_run_id"]
        losses = {entry.step: entry.value for entry in client.get_metric_history(run_id, "validation_loss")}
        assert trial.user_attrs["validation_loss"] == min(losses.values())
        assert trial.value == trial.intermediate_values[min(losses, key=lambda epoch: losses[epoch])]


def test_what_the_user_has_set_is_not_searched(search, tracked):
    assert all("batch_size" not in trial.params for trial in load_study(search.name).trials)
    assert search.plan.config.batch_size == 32


def test_the_training_takes_the_best_params_and_its_run_names_study_and_trial(search, client):
    best = best_trial(load_study(search.name))
    assert best.params.items() <= flat(search.plan.config).items()
    assert search.plan.config == with_values(search.plans[0].config, best.params)
    tags = client.get_run(search.registered.evaluated.trained.run_id).data.tags
    assert (tags["cifar.study"], tags["cifar.trial"]) == (search.name, str(best.number))
    assert (
        search.plan.params_source.study_url
        == search.results[0].mlflow_url
        == runs.run_url(search.run_id, search.plan.data.experiment_id)
    )


def test_the_study_has_an_mlflow_run_with_table_and_page_and_a_child_per_trial(search, client):
    study, parent = load_study(search.name), client.get_run(search.run_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["mlflow.parentRunId"] == search.plan.data.parent_run_id
    assert f"/{parent.data.tags['cifar.dataset'][:16]}/" in search.plan.data.dataset_uri
    assert parent.data.tags["cifar.best_trial"] == str(best_trial(study).number)
    assert {entry.path for entry in client.list_artifacts(search.run_id)} == {"search.html", "trials.csv"}
    rows = csv.DictReader(io.StringIO(Path(client.download_artifacts(search.run_id, "trials.csv")).read_text()))
    assert [row["number"] for row in rows] == [str(trial.number) for trial in study.trials]
    assert parent.data.metrics["best_accuracy"] == best_trial(study).value
    for trial in study.trials:
        child = client.get_run(trial.user_attrs["mlflow_run_id"])
        assert child.info.status == "FINISHED"
        assert child.data.tags["mlflow.parentRunId"] == search.run_id
        assert child.data.tags["cifar.state"] == "COMPLETE"
        assert child.data.params["learning_rate"] == str(trial.params["learning_rate"])
        curve = client.get_metric_history(child.info.run_id, "validation_accuracy")
        assert {entry.step: entry.value for entry in curve} == trial.intermediate_values


def test_trials_are_ended_with_their_workflow_run_and_are_not_taken_for_its_training(search, client):
    workflow = search.plan.data.workflow.id
    assert [run.info.run_id for run in child_run(client, workflow)] == [search.registered.evaluated.trained.run_id]
    for run_id in [search.run_id, *(trial.user_attrs["mlflow_run_id"] for trial in load_study(search.name).trials)]:
        assert client.get_run(run_id).data.tags["cifar.searched_in"] == workflow


def test_a_run_without_a_search_reuses_the_best_params_for_its_data_and_registered_model(search, data, tracked):
    (plan,) = select_params(search.plans, [])
    assert plan.config == search.plan.config
    assert plan.params_source is not None
    assert plan.params_source.text.startswith("version 1, study ")
    others = plans_for(data, 1, registered_model="somebody-elses")
    assert select_params(others, []) == others


def test_reused_params_leave_what_the_user_has_set(search, tracked):
    (plan,) = search.plans
    config = with_values(plan.config, {"learning_rate": 0.0123})
    fixed = plan.model_copy(update={"config": config, "fixed": [*plan.fixed, "learning_rate"]})
    (selected,) = select_params([fixed], [])
    assert selected.config == with_values(search.plan.config, {"learning_rate": 0.0123})
    assert selected.params_source is not None
    assert "learning_rate" not in selected.params_source.params


def test_a_model_that_was_not_tuned_keeps_its_recipe_beside_one_that_was(search, data, tracked):
    tuned, other = plans_for(data, 1, models=["cnn", "resnet50"], trials=5, registered_model="searched")
    assert select_params([other, tuned], search.results) == [
        other,
        tuned.model_copy(update=dict(search.plan) | {"data": tuned.data}),
    ]


def test_the_same_search_again_continues_its_study_and_mlflow_run(search, pictures, tracked):
    before = load_study(search.name).trials
    again = create_studies(plans_for(prepared(pictures, "search-again"), 1, trials=5))[0]
    assert (again.study, again.study_run_id) == (search.name, search.run_id)
    assert run_trials(again).trials == 0
    assert load_study(search.name).trials == before


def test_a_search_of_fewer_hyperparameters_is_another_study(search, tracked):
    plan = search.plans[0].model_copy(update={"fixed": [*search.plans[0].fixed, "dropout"]})
    (first, *_) = create_studies([plan])
    assert first.study != search.name


def test_workers_and_budget_are_those_of_the_request_else_of_profile_and_deployment(data, tracked, monkeypatch):
    workers = workers_for(data, 10, trials=7, search_workers=3)
    assert [(worker.name, worker.budget.trials, worker.budget.deadline) for worker in workers] == [
        ("cnn 1", 7, None),
        ("cnn 2", 7, None),
        ("cnn 3", 7, None),
    ]
    assert len({worker.seed for worker in workers}) == 3
    assert {worker.trial_config for worker in workers} == {trial_config(workers[0].plan.config, "demo")}
    both = workers_for(data, 10, models=["cnn", "resnet50"], tune=["resnet50"])
    assert [worker.plan.config.model for worker in both] == ["resnet50", "resnet50"]
    monkeypatch.setenv("CIFAR_GPU_SLOTS", "4")
    for profile, trials in (("demo", 8), ("full", 24)):
        defaults = workers_for(data, 10, trials=None, search_workers=None, profile=profile)
        assert [worker.budget.trials for worker in defaults] == [trials] * 4


def test_studies_are_listed_with_their_best(search, tracked):
    (found,) = [study for study in all_studies() if study.study_name == search.name]
    study = load_study(search.name)
    assert found.n_trials == len(study.trials)
    assert found.best_trial.value == best_trial(study).value
    shown = CliRunner().invoke(app, ["studies"], env={"COLUMNS": "250"})
    assert shown.exit_code == 0, shown.output
    assert search.name in shown.output
    assert "learning_rate" in shown.output
    assert "postgresql" not in shown.output


def test_no_trial_begins_after_the_minutes_of_the_request(data, tracked):
    before = time.time()
    worker = workers_for(data, 5, search_minutes=2)[0]
    assert before + 120 <= worker.budget.deadline <= time.time() + 120
    late = worker.model_copy(update={"budget": worker.budget.model_copy(update={"deadline": before})})
    assert run_trials(late).trials == 0
    assert states(worker) == ["WAITING"]


def test_the_largest_search_fits_in_airflow_and_a_larger_one_is_refused_before_it_starts(data, tracked, monkeypatch):
    plans = plans_for(data, 12, models=["cnn", "resnet50"], tune=["cnn", "resnet50"], search_workers=MAX_WORKERS)
    workers = run_step("cifar_tasks.steps.create_studies:create_studies", plans=[as_json(plan) for plan in plans])
    assert len(workers) == 2 * MAX_WORKERS
    assert len(json.dumps(workers)) < 2**20  # one XCom
    monkeypatch.setattr(steps_create_studies, "MAX_MAPPED_TASKS", 199)
    with pytest.raises(ConfigError, match="2 studies with 100 workers each are more than the 199 tasks"):
        create_studies(plans)
    monkeypatch.setenv("CIFAR_GPU_SLOTS", "5000")
    assert len(workers_for(data, 12, search_workers=None)) == MAX_WORKERS
