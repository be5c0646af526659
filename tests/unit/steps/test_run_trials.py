"""A worker of a search: it trains trials until the budget is spent, and each has an MLflow run of its own."""

import logging
import time

import pytest
from optuna.trial import Trial, TrialState

from cifar_tasks.config import Overrides, with_values
from cifar_tasks.errors import StorageError
from cifar_tasks.steps import run_trials as step
from cifar_tasks.steps.create_studies import create_studies
from cifar_tasks.steps.payloads import TrialWorker
from cifar_tasks.steps.plan import plan_training
from cifar_tasks.steps.run_trials import run_trials
from cifar_tasks.steps.select_params import select_params
from cifar_tasks.tracking import runs
from cifar_tasks.tuning.study import load_study
from tests.unit.steps.conftest import Services


@pytest.fixture
def worker(services: Services) -> TrialWorker:
    """Of a small study."""
    overrides = Overrides(epochs=2, batch_size=8)
    data = services.prepared(tune=["cnn"], search_workers=1, trials=2, overrides=overrides)
    (found,) = create_studies(plan_training(data))
    small = with_values(found.trial_config, {"train_images": 16, "validation_images": 8})
    return found.model_copy(update={"trial_config": small})


def test_trials_are_trained_until_the_budget_is_spent_each_with_a_run_of_its_own(services, worker, caplog):
    with caplog.at_level(logging.INFO):
        result = run_trials(worker)
    study = load_study(worker.study)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
    assert (result.trials, result.model, result.study, result.name) == (2, "cnn", worker.study, "cnn 1")
    assert result.study_run_id == worker.study_run_id
    assert result.mlflow_url == runs.run_url(worker.study_run_id, services.experiment)
    assert f"MLflow run: {result.mlflow_url}" in caplog.messages
    assert "the study's budget is spent; this worker trained 2 trials" in caplog.messages
    for number, trial in enumerate(study.trials):
        run = services.client.get_run(trial.user_attrs["mlflow_run_id"])
        tags = run.data.tags
        assert (run.info.status, run.info.run_name) == ("FINISHED", f"cnn trial {number}")
        assert (tags["cifar.study"], tags["cifar.trial"]) == (worker.study, str(number))
        assert (tags["mlflow.parentRunId"], tags["cifar.searched_in"]) == (
            worker.study_run_id,
            worker.plan.data.workflow.id,
        )
        assert (tags["cifar.state"], "cifar.error" in tags) == ("COMPLETE", False)
        assert run.data.params["learning_rate"] == str(trial.params["learning_rate"])
        curve = services.client.get_metric_history(run.info.run_id, "validation_accuracy")
        assert {entry.step: entry.value for entry in curve} == trial.intermediate_values
        assert trial.value in trial.intermediate_values.values()
        assert f"trial {number}: COMPLETE, accuracy {trial.value}" in caplog.messages
    assert run_trials(worker).trials == 0


def test_no_trial_begins_after_the_deadline(worker):
    late = worker.model_copy(update={"budget": worker.budget.model_copy(update={"deadline": time.time() - 1})})
    assert run_trials(late).trials == 0
    assert [trial.state for trial in load_study(worker.study).trials] == [TrialState.WAITING]


def test_a_worker_that_comes_after_the_time_limit_leaves_a_training_by_the_recipe(services):
    # given
    plans = plan_training(services.prepared(tune=["cnn"], search_workers=1, search_minutes=1))
    (worker,) = create_studies(plans)
    late = worker.model_copy(update={"budget": worker.budget.model_copy(update={"deadline": time.time() - 1})})
    # when
    (plan,) = select_params(plans, [run_trials(late)])
    # then
    assert plan == plans[0].model_copy(update={"search_warning": plan.search_warning})
    assert "ended before the time limit (Minutes: 1)" in plan.search_warning


def test_a_trial_that_fails_is_one_failed_run_and_the_search_continues(services, worker, monkeypatch):
    trained, fit = [], step.fit_classifier

    def fail_first(*arguments):
        trained.append(arguments)
        if len(trained) == 1:
            raise ZeroDivisionError("a bug")
        return fit(*arguments)

    monkeypatch.setattr(step, "fit_classifier", fail_first)
    assert run_trials(worker).trials == 2
    failed, complete = load_study(worker.study).trials
    assert (failed.state, complete.state) == (TrialState.FAIL, TrialState.COMPLETE)
    run = services.client.get_run(failed.user_attrs["mlflow_run_id"])
    assert (run.info.status, run.data.tags["cifar.state"]) == ("FAILED", "FAIL")
    assert run.data.tags["cifar.error"] == "ZeroDivisionError: a bug"


def test_a_pruned_trial_is_no_failure_of_its_run(services, worker):
    def perfect(trial: Trial) -> float:
        for epoch in (1, 2, 3):
            trial.report(2.0, epoch)
            trial.should_prune()
        return 2.0

    load_study(worker.study).optimize(perfect, n_trials=3)
    longer = with_values(worker.trial_config, {"epochs": 3})
    budget = worker.budget.model_copy(update={"trials": 4})
    assert run_trials(worker.model_copy(update={"trial_config": longer, "budget": budget})).trials == 1
    pruned = load_study(worker.study).trials[3]
    assert pruned.state is TrialState.PRUNED
    run = services.client.get_run(pruned.user_attrs["mlflow_run_id"])
    assert (run.info.status, run.data.tags["cifar.state"]) == ("FINISHED", "PRUNED")


def test_a_worker_that_loses_storage_ends_and_leaves_its_trial_to_be_repeated(services, worker, monkeypatch):
    def away(*arguments):
        raise StorageError("S3 did not answer")

    monkeypatch.setattr(step, "fit_classifier", away)
    with pytest.raises(StorageError, match="S3 did not answer"):
        run_trials(worker)
    (trial,) = load_study(worker.study).trials
    assert trial.state is TrialState.RUNNING
    assert services.client.get_run(trial.user_attrs["mlflow_run_id"]).info.status == "FAILED"


def test_a_retry_of_a_trial_continues_its_mlflow_run(services, worker, monkeypatch):
    study = load_study(worker.study)
    monkeypatch.setattr(step.requeue, "retried_trial_number", lambda trial: 7)
    first = runs.open_run(
        services.client,
        services.experiment,
        {"cifar.study": worker.study, "cifar.trial": "7", "cifar.model": "cnn"},
        "cnn trial 7",
        parent=worker.study_run_id,
    )
    one = worker.budget.model_copy(update={"trials": 1})
    run_trials(worker.model_copy(update={"budget": one}))
    (trial,) = load_study(study.study_name).trials
    assert trial.user_attrs["mlflow_run_id"] == first.info.run_id
