"""A study for each model to be tuned: its name, its budget, its workers, and its MLflow run."""

import time

import pytest

from cifar_tasks.config import Overrides, trial_config
from cifar_tasks.errors import ConfigError
from cifar_tasks.steps import create_studies as step
from cifar_tasks.steps.create_studies import create_studies
from cifar_tasks.steps.payloads import MAX_WORKERS, TrialBudget, TrialWorker
from cifar_tasks.steps.plan import plan_training
from cifar_tasks.tuning.space import free_space, recipe_params
from cifar_tasks.tuning.study import load_study


@pytest.fixture
def workers(services):
    """A function that asks for a search and returns its workers."""

    def search(**request: object) -> list[TrialWorker]:
        asked = {"tune": ["cnn"], "search_workers": 2, **request}
        return create_studies(plan_training(services.prepared(**asked)))

    return search


def test_the_workers_of_a_study_differ_in_name_and_seed_alone(workers):
    first, second, third = workers(trials=7, search_workers=3)
    assert [(worker.name, worker.seed) for worker in (first, second, third)] == [
        ("cnn 1", 1),
        ("cnn 2", 2),
        ("cnn 3", 3),
    ]
    assert first.budget == TrialBudget(trials=7, deadline=None)
    assert first.trial_config == trial_config(first.plan.config, "demo")
    assert second.model_copy(update={"name": first.name, "seed": first.seed}) == first


@pytest.mark.parametrize(("profile", "trials"), [("demo", 8), ("full", 24)])
def test_without_numbers_in_the_request_profile_and_deployment_decide(workers, monkeypatch, profile, trials):
    monkeypatch.setenv("CIFAR_GPU_SLOTS", "4")
    found = workers(profile=profile, search_workers=None)
    assert [worker.budget.trials for worker in found] == [trials] * 4
    monkeypatch.setenv("CIFAR_GPU_SLOTS", "5000")
    assert len(workers(search_workers=None)) == MAX_WORKERS


def test_no_trial_begins_after_the_minutes_of_the_request(workers):
    before = time.time()
    assert before + 120 <= workers(search_minutes=2)[0].budget.deadline <= time.time() + 120


def test_only_the_models_to_be_tuned_have_a_study(workers):
    found = workers(models=["cnn", "resnet50"], tune=["resnet50"])
    assert [worker.name for worker in found] == ["resnet50 1", "resnet50 2"]


def test_a_search_of_as_many_tasks_as_airflow_maps_is_made_and_a_larger_one_refused(workers, monkeypatch):
    assert step.MAX_MAPPED_TASKS == 1024  # what Airflow maps by default
    monkeypatch.setattr(step, "MAX_MAPPED_TASKS", 6)
    both = {"models": ["cnn", "resnet50"], "tune": ["cnn", "resnet50"]}
    assert len(workers(**both, search_workers=3)) == 6
    with pytest.raises(ConfigError, match="2 studies with 4 workers each are more than the 6 tasks"):
        workers(**both, search_workers=4)


def test_a_study_begins_with_the_recipe_and_its_run_belongs_to_the_workflow_run(workers, services):
    worker = workers()[0]
    study, run = load_study(worker.study), services.client.get_run(worker.study_run_id)
    (first,) = study.trials
    assert first.system_attrs["fixed_params"] == recipe_params(worker.trial_config, free_space(worker.trial_config))
    tags, data = run.data.tags, worker.plan.data
    assert (run.info.run_name, tags["cifar.model"], tags["cifar.study"]) == ("search cnn", "search cnn", worker.study)
    assert (tags["mlflow.parentRunId"], tags["cifar.searched_in"]) == (data.parent_run_id, data.workflow.id)
    assert f"/{tags['cifar.dataset'][:16]}/" in data.dataset_uri
    assert study.user_attrs == {"dataset": "noise", "mlflow_run_id": worker.study_run_id}


def test_the_same_search_continues_its_study_and_run_and_another_one_has_its_own(workers, services):
    first, again, fewer = workers()[0], workers()[0], workers(overrides=Overrides(learning_rate=0.1))[0]
    assert (again.study, again.study_run_id) == (first.study, first.study_run_id)
    assert len(load_study(first.study).trials) == 1
    assert fewer.study != first.study
    assert "learning_rate" not in load_study(fewer.study).trials[0].system_attrs["fixed_params"]
    services.client.delete_run(first.study_run_id)
    new = workers()[0]
    assert new.study == first.study
    assert new.study_run_id != first.study_run_id
    assert load_study(new.study).user_attrs["mlflow_run_id"] == new.study_run_id
