"""The hyperparameters after a search: the best of the study, or those of an earlier search on the same data."""

import json
import logging

import pytest
from optuna.trial import TrialState, create_trial

from cifar_tasks.config import Overrides, flat, with_values
from cifar_tasks.data.versions import load_version
from cifar_tasks.errors import SearchError
from cifar_tasks.steps.create_studies import create_studies
from cifar_tasks.steps.payloads import TrainPlan, WorkerResult
from cifar_tasks.steps.plan import plan_training
from cifar_tasks.steps.register import tuned_tags
from cifar_tasks.steps.select_params import select_params
from cifar_tasks.tracking import model_registry
from cifar_tasks.tracking.saved_model import SavedModel
from cifar_tasks.tuning.space import free_space
from cifar_tasks.tuning.study import load_study
from tests.unit.data.sources import NoiseSource
from tests.unit.steps.conftest import Services

URL = "http://mlflow.example/study"


def plans_for(services: Services, source: NoiseSource | None = None, **request: object) -> list[TrainPlan]:
    return plan_training(services.prepared(source, **{"tune": ["cnn"], "search_workers": 1, **request}))


def result_of(plans: list[TrainPlan], *accuracies: float) -> WorkerResult:
    """Of a study whose trials have these accuracies; the n-th tried the learning rate 0.01 n."""
    (worker,) = create_studies(plans)
    study, space = load_study(worker.study), free_space(worker.trial_config, worker.plan.fixed)
    for number, accuracy in enumerate(accuracies, 1):
        params = {**study.trials[0].system_attrs["fixed_params"], "learning_rate": 0.01 * number}
        result = {"validation_loss": 1.0 / number, "weights_sha256": str(number)}
        study.add_trial(create_trial(value=accuracy, params=params, distributions=space, user_attrs=result))
    return WorkerResult(
        model="cnn", study=worker.study, study_run_id=worker.study_run_id, name="cnn 1", trials=1, mlflow_url=URL
    )


def register(services: Services, plan: TrainPlan, params: dict[str, object], accuracy: float) -> int:
    """A version that a search led to."""
    client = services.client
    run = client.create_run(services.experiment).info.run_id
    model = client.create_logged_model(services.experiment, name="model", source_run_id=run)
    tags = {
        "cifar.model": plan.config.model,
        "cifar.dataset": load_version(services.store, plan.data.dataset_uri).digest,
        "cifar.profile": plan.data.request.profile,
        "cifar.tuned_params": json.dumps(params),
        "cifar.params_source": "study s, trial 3",
        "cifar.validation_accuracy": accuracy,
    }
    saved = SavedModel(f"models:/{model.model_id}", "abc")
    return model_registry.register(client, plan.data.request.registered_model, saved, run, tags)


def test_the_model_is_trained_with_the_best_params_of_its_study(services, caplog):
    plans = plans_for(services, models=["resnet50", "cnn"])
    result = result_of(plans, 0.5, 0.7, 0.6)
    with caplog.at_level(logging.INFO):
        untuned, tuned = select_params(plans, [result])
    assert untuned == plans[0]
    assert tuned.config == with_values(plans[1].config, tuned.params_source.params)
    assert tuned.config.optimizer.learning_rate == 0.02
    source = tuned.params_source
    assert (source.text, source.study, source.trial) == (f"study {result.study}, trial 2", result.study, 2)
    assert source.study_url == URL
    assert f"study {result.study}: trial 2 is best with 0.7000: {URL}" in caplog.messages


def test_the_study_s_run_ends_with_its_best_trial_a_table_and_a_page(services):
    plans = plans_for(services)
    result = result_of(plans, 0.5, 0.7)
    services.client.delete_run(result.study_run_id)
    select_params(plans, [result])
    run = services.client.get_run(result.study_run_id)
    assert (run.info.lifecycle_stage, run.info.status) == ("active", "FINISHED")
    assert run.data.metrics == {"best_accuracy": 0.7, "trials": 3}  # with the recipe, which waits
    assert run.data.tags["cifar.best_trial"] == "2"
    assert {entry.path for entry in services.client.list_artifacts(result.study_run_id)} == {
        "search.html",
        "trials.csv",
    }


def test_an_accuracy_of_zero_is_a_result(services):
    plans = plans_for(services)
    result = result_of(plans, 0.0)
    select_params(plans, [result])
    assert services.client.get_run(result.study_run_id).data.metrics["best_accuracy"] == 0


def test_a_study_without_a_result_is_an_error_and_its_run_failed(services):
    plans = plans_for(services)
    result = result_of(plans)
    with pytest.raises(SearchError, match=r"no trial of study cnn-\w+ has a result"):
        select_params(plans, [result])
    assert services.client.get_run(result.study_run_id).info.status == "FAILED"


def test_a_study_without_a_trial_before_the_time_limit_keeps_the_recipe_and_what_others_have_found(services, caplog):
    # given two studies, of which the first has taken all the time
    both, batch = ["cnn", "resnet50"], Overrides(batch_size=8)
    plans = plans_for(services, models=both, tune=both, search_minutes=5, overrides=batch)
    found, (other,) = result_of(plans[:1], 0.5), create_studies(plans[1:])
    late = found.model_copy(update={"model": "resnet50", "study": other.study, "study_run_id": other.study_run_id})
    # when
    tuned, untuned = select_params(plans, [found, late])
    # then
    assert tuned.params_source.study == found.study
    assert (untuned.config, untuned.params_source, tuned_tags(untuned)) == (plans[1].config, None, {})
    warning = f"no trial of study {other.study} ended before the time limit (Minutes: 5)."
    assert (tuned.search_warning, untuned.search_warning) == (None, f"resnet50 is trained without tuning: {warning}")
    assert untuned.search_warning in caplog.messages
    assert services.client.get_run(other.study_run_id).info.status == "FINISHED"


def test_a_study_whose_trials_failed_before_the_time_limit_is_an_error(services):
    plans = plans_for(services, search_minutes=5)
    result = result_of(plans)
    study = load_study(result.study)
    study.tell(study.ask(), state=TrialState.FAIL)
    with pytest.raises(SearchError, match="has a result, 1 failed"):
        select_params(plans, [result])


def test_a_version_keeps_all_values_that_its_training_had_also_those_that_the_user_has_set(services):
    (plan,) = plans_for(services, tune=[], overrides=Overrides(learning_rate=0.3))
    assert tuned_tags(plan) == {}
    found = {"dropout": 0.25, "learning_rate": 0.02}
    register(services, plan, found, 0.7)
    (selected,) = select_params([plan], [])
    kept = json.loads(tuned_tags(selected)["cifar.tuned_params"])
    assert (kept["dropout"], kept["learning_rate"]) == (0.25, 0.3)
    assert kept.keys() == free_space(plan.config).keys()
    register(services, plan, kept, 0.8)
    (default,) = plans_for(services, tune=[])
    (later,) = select_params([default], [])
    assert later.config == selected.config


def test_without_a_search_the_best_version_s_params_are_used_and_what_the_user_has_set_stays(services, caplog):
    (plan,) = plans_for(services, tune=[], overrides=Overrides(learning_rate=0.3))
    assert select_params([plan], []) == [plan]
    found = {"dropout": 0.25, "learning_rate": 0.02}
    register(services, plan, {"dropout": 0.1}, 0.6)
    best = register(services, plan, found, 0.7)
    with caplog.at_level(logging.INFO):
        (reused,) = select_params([plan], [])
    assert reused.config == with_values(plan.config, {"dropout": 0.25})
    assert flat(reused.config)["learning_rate"] == 0.3
    assert reused.params_source.params == {"dropout": 0.25}
    assert reused.params_source.text == f"version {best}, study s, trial 3"
    assert f"cnn: hyperparameters of version {best}: dropout 0.25" in caplog.messages


def test_params_for_other_data_another_model_profile_or_registered_model_are_not_used(services):
    (plan,) = plans_for(services, tune=[])
    others = [
        *plans_for(services, NoiseSource(seed=7), tune=[]),
        *plans_for(services, tune=[], models=["resnet50"]),
        *plans_for(services, tune=[], registered_model="another"),
        *plans_for(services, tune=[], profile="full"),
    ]
    for other in others:
        register(services, other, {"dropout": 0.25}, 0.7)
    assert select_params([plan], []) == [plan]
