"""What a person deletes or changes in MLflow, Optuna or S3 heals, or the error says what to do."""

from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient

from cifar_tasks.deployment.doctor import storage_checks
from cifar_tasks.deployment.doctor.check_runner import Deployment, Finding
from cifar_tasks.errors import ConfigError, IntegrityError, SearchError
from cifar_tasks.settings import Settings
from cifar_tasks.steps.create_studies import create_studies
from cifar_tasks.steps.evaluate import evaluate_model
from cifar_tasks.steps.payloads import EvaluatedModel
from cifar_tasks.steps.register import register_model
from cifar_tasks.steps.report import report
from cifar_tasks.steps.run_trials import run_trials
from cifar_tasks.steps.select_params import select_params
from cifar_tasks.steps.train import train_model
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import runs
from cifar_tasks.tracking.saved_model import load_model
from cifar_tasks.tuning.study import load_study, optimize, study_storage
from tests.conftest import RunningStack, connect
from tests.promotions import promote
from tests.searches import plans_for
from tests.trainings import prepared, train_plan


@pytest.fixture(scope="module")
def evaluated(backend: RunningStack, pictures: Path) -> EvaluatedModel:
    """One trained model; the tests register it under names of their own."""
    with pytest.MonkeyPatch.context() as patch:
        connect(patch, backend.environment)
        return evaluate_model(train_model(train_plan(prepared(pictures, "by-hand"), epochs=1)))


@pytest.fixture(scope="module")
def other(backend: RunningStack, pictures: Path) -> EvaluatedModel:
    """Another one, whose stored model is deleted by one of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        connect(patch, backend.environment)
        return evaluate_model(train_model(train_plan(prepared(pictures, "by-hand-too"), epochs=1, seed=2)))


def registered_as(evaluated: EvaluatedModel, name: str):
    data = evaluated.trained.plan.data
    data = data.model_copy(update={"request": data.request.model_copy(update={"registered_model": name})})
    plan = evaluated.trained.plan.model_copy(update={"data": data})
    trained = evaluated.trained.model_copy(update={"plan": plan})
    return register_model(evaluated.model_copy(update={"trained": trained}))


def champion_by_hand(client: MlflowClient, name: str, evaluated: EvaluatedModel) -> None:
    """A version that somebody registered in MLflow's UI, without this pipeline's tags."""
    client.create_registered_model(name)
    client.create_model_version(name, source=evaluated.trained.saved.uri, model_id=evaluated.trained.saved.model_id)
    client.set_registered_model_alias(name, "champion", "1")


def test_a_champion_that_was_registered_by_hand_stays_and_the_reason_names_the_remedy(client, evaluated, other):
    champion_by_hand(client, "by-hand", other)
    new = registered_as(evaluated, "by-hand")
    promotion = promote(new)
    assert (promotion.champion, promotion.challenger) == (1, new.version)
    reasons = " ".join(promotion.reasons)
    assert "not registered by this pipeline" in reasons
    assert f"To use version {new.version}, promote it with mode force" in reasons
    with pytest.raises(IntegrityError, match="not registered by this pipeline"):
        storage_checks.champion(Deployment(Settings(registered_model="by-hand"), embedded=True))


@pytest.mark.parametrize("tag", ["cifar.dataset_uri", "cifar.model", "cifar.classes"])
def test_a_champion_with_tags_that_somebody_deleted_or_changed_stays_too(client, evaluated, tag):
    name = f"tag-{tag}"
    first = registered_as(evaluated, name)
    promote(first)
    copy = client.create_model_version(
        name, source=evaluated.trained.saved.uri, model_id=evaluated.trained.saved.model_id
    )
    for key, value in client.get_model_version(name, "1").tags.items():
        if key != tag:
            client.set_model_version_tag(name, copy.version, key, value)
    if tag == "cifar.classes":
        client.set_model_version_tag(name, copy.version, tag, "no JSON")
    client.set_registered_model_alias(name, "champion", copy.version)
    promotion = promote(first)
    assert (promotion.champion, promotion.challenger) == (int(copy.version), first.version)
    assert "somebody has changed its tags" in " ".join(promotion.reasons)


def test_a_champion_whose_stored_model_was_deleted_is_replaced_and_the_doctor_finds_it(client, evaluated, other):
    settings = Settings(registered_model="gone")
    promote(registered_as(other, "gone"))
    assert storage_checks.champion(Deployment(settings, embedded=True)) == "version 1 of gone is stored"
    store = S3Store("mlflow")
    for key in [key for key in store.keys("") if other.trained.saved.model_id in key]:
        store.delete(key)
    with pytest.raises(Finding, match="the model of version 1 of gone was deleted from storage"):
        storage_checks.champion(Deployment(settings, embedded=True))
    with pytest.raises(IntegrityError, match=r"was deleted from storage\. Train again"):
        load_model(other.trained.saved)
    new = registered_as(evaluated, "gone")
    promotion = promote(new)
    assert (promotion.champion, promotion.previous) == (new.version, 1)
    assert "cannot be evaluated: its stored model" in " ".join(promotion.reasons)


def test_a_registered_version_that_was_deleted_before_its_promotion_is_named_with_the_remedy(client, evaluated):
    new = registered_as(evaluated, "deleted-version")
    client.delete_registered_model("deleted-version")
    with pytest.raises(
        ConfigError, match=r"no version 1 of deleted-version in MLflow.*deleted or renamed.*clear the task register"
    ):
        promote(new)
    assert promote(registered_as(evaluated, "deleted-version")).champion == 1


def test_a_deleted_parent_run_and_a_deleted_training_run_are_restored(client, pictures):
    trained = train_model(train_plan(prepared(pictures, "deleted-runs"), epochs=1))
    parent = trained.plan.data.parent_run_id
    client.delete_run(trained.run_id)
    client.delete_run(parent)
    registered = registered_as(evaluate_model(trained), "deleted-runs")
    report([registered], [registered.evaluated.trained.plan])
    assert client.get_run(trained.run_id).info.status == "FINISHED"
    client.delete_run(parent)
    report([registered], [registered.evaluated.trained.plan])
    assert client.get_run(parent).info.lifecycle_stage == "active"
    assert client.get_run(parent).info.status == "FINISHED"


def test_a_report_does_without_figures_that_were_deleted(client, pictures):
    trained = train_model(train_plan(prepared(pictures, "deleted-figures"), epochs=1))
    registered = registered_as(evaluate_model(trained), "deleted-figures")
    store = S3Store("mlflow")
    for key in [key for key in store.keys("") if f"{trained.run_id}/artifacts/evaluation" in key]:
        store.delete(key)
    url = report([registered], [registered.evaluated.trained.plan]).report_url
    page = Path(client.download_artifacts(trained.plan.data.parent_run_id, "report.html")).read_text()
    assert "report.html" in url
    assert page.count("<img") == 2  # the sample and the learning curves


def test_a_deleted_experiment_is_restored_by_the_next_run_and_the_doctor_finds_it(client, monkeypatch, pictures):
    monkeypatch.setenv("CIFAR_EXPERIMENT", "deleted-experiment")
    experiment = runs.experiment_id(client, "deleted-experiment")
    deployment = Deployment(Settings(), embedded=True)
    assert storage_checks.experiment(deployment) == "deleted-experiment is there"
    client.delete_experiment(experiment)
    with pytest.raises(Finding, match="deleted-experiment was deleted in MLflow"):
        storage_checks.experiment(deployment)
    assert prepared(pictures, "in-deleted-experiment").experiment_id == experiment
    assert client.get_experiment(experiment).lifecycle_stage == "active"


def test_an_experiment_deleted_between_two_tasks_comes_back_with_its_runs(client, monkeypatch, pictures):
    monkeypatch.setenv("CIFAR_EXPERIMENT", "deleted-meanwhile")
    data = prepared(pictures, "deleted-meanwhile")
    client.delete_experiment(data.experiment_id)
    trained = train_model(train_plan(data, epochs=1))
    assert client.get_run(trained.run_id).info.status == "FINISHED"
    assert client.get_run(data.parent_run_id).info.lifecycle_stage == "active"


def test_a_study_whose_mlflow_run_was_deleted_gets_a_new_one_or_its_own_back(client, pictures):
    data = prepared(pictures, "deleted-study-run")
    plans = plans_for(data, 21, trials=1, search_workers=1)
    (first,) = create_studies(plans)
    client.delete_run(first.study_run_id)
    (second,) = create_studies(plans)
    assert second.study == first.study
    assert second.study_run_id != first.study_run_id
    result = run_trials(second)
    client.delete_run(second.study_run_id)
    (plan,) = select_params(plans, [result])
    assert plan.params_source is not None
    assert client.get_run(second.study_run_id).info.status == "FINISHED"


def test_a_study_that_was_deleted_in_the_dashboard_ends_its_workers_with_one_line(client, pictures):
    data = prepared(pictures, "deleted-study")
    (worker,) = create_studies(plans_for(data, 22, trials=3, search_workers=1))

    def delete_study(trial: optuna.Trial) -> float:
        optuna.delete_study(study_name=worker.study, storage=study_storage())
        return trial.suggest_float("learning_rate", 0.1, 1)

    for work in (lambda: optimize(load_study(worker.study), delete_study, 3), lambda: run_trials(worker)):
        with pytest.raises(SearchError, match=f"no study {worker.study}: it was deleted") as caught:
            work()
        assert not caught.value.retryable
    (again,) = create_studies(plans_for(data, 22, trials=1, search_workers=1))
    assert run_trials(again).trials == 1
