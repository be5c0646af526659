"""Which results are believed, and what counts against the budget; Optuna's own storage in memory."""

from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import OperationalError

from cifar_tasks.errors import ConfigError, SearchError, StorageError
from cifar_tasks.storage import hosts
from cifar_tasks.tuning.study import (
    all_studies,
    best_trial,
    check_distinct,
    count_ended,
    database_errors,
    load_study,
    pruner,
    requeue,
    sampler,
    study_name,
)

SPACE = {"learning_rate": FloatDistribution(1e-5, 1.0, log=True), "crop_padding": IntDistribution(0, 4)}


def trial(
    rate: float, state: TrialState = TrialState.COMPLETE, value: float | None = None, **changes: Any
) -> FrozenTrial:
    """A trial whose result is its own, unless `changes` say otherwise."""
    accuracy = rate if value is None else value
    return create_trial(
        state=state,
        value=None if state is TrialState.FAIL else accuracy,
        params={"learning_rate": rate, "crop_padding": 2},
        distributions=SPACE,
        user_attrs={"validation_loss": 2 - rate, "weights_sha256": f"{rate}", **changes},
        intermediate_values={1: accuracy},
    )


def study_of(*trials: FrozenTrial) -> optuna.Study:
    study = optuna.create_study(direction="maximize", study_name="cnn-test")
    study.add_trials(trials)
    return study


def test_results_of_different_models_are_believed():
    check_distinct(study_of(trial(0.1), trial(0.2), trial(0.3, TrialState.FAIL)))


def test_equal_accuracies_alone_can_be_chance():
    check_distinct(study_of(trial(0.1, value=0.8303), trial(0.2, value=0.8303)))


@pytest.mark.parametrize("name", ["validation_loss", "weights_sha256"])
def test_one_result_of_two_configurations_is_an_error_that_names_the_trials(name):
    study = study_of(trial(0.1), trial(0.2), trial(0.3, **{name: trial(0.1).user_attrs[name]}))
    with pytest.raises(SearchError, match=r"trials 0 and 2 have different hyperparameters"):
        check_distinct(study)
    with pytest.raises(SearchError, match=r"trials 0 and 2 have different hyperparameters"):
        best_trial(study)


def test_one_configuration_may_give_one_result_twice():
    check_distinct(study_of(trial(0.1), trial(0.1)))


def test_a_pruned_trial_with_the_result_of_another_is_an_error_too():
    with pytest.raises(SearchError):
        check_distinct(study_of(trial(0.1), trial(0.2, TrialState.PRUNED, weights_sha256="0.1")))


def test_the_best_trial_is_the_first_of_the_most_accurate_completed_ones():
    study = study_of(trial(0.1), trial(0.3, TrialState.PRUNED), trial(0.2), trial(0.15, value=0.2), trial(0.05))
    assert best_trial(study).number == 2


def test_a_study_without_a_result_says_why_its_first_trial_failed():
    study = study_of(trial(0.1, TrialState.FAIL, error="the loss is nan"), trial(0.2, TrialState.FAIL, error="other"))
    with pytest.raises(SearchError, match=r"cnn-test has a result, 2 failed. The first: the loss is nan"):
        best_trial(study)
    with pytest.raises(SearchError, match="none has ended"):
        best_trial(study_of())


def test_a_trial_that_lost_its_worker_counts_once_with_its_retry():
    study = study_of(trial(0.1, TrialState.FAIL), trial(0.2), trial(0.3, TrialState.PRUNED))
    assert count_ended(study) == 3
    requeue(study, study.trials[0])
    assert (study.trials[3].state, study.trials[3].params) == (TrialState.WAITING, study.trials[0].params)
    assert count_ended(study) == 2
    study.tell(study.ask(), 0.1)
    assert count_ended(study) == 3


def test_a_trial_returns_to_the_queue_once():
    study = study_of(trial(0.1, TrialState.FAIL))
    requeue(study, study.trials[0])
    study.tell(study.ask(), state=TrialState.FAIL)
    requeue(study, study.trials[1])
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.FAIL]


def test_workers_draw_different_values_and_a_seed_draws_the_same_again():
    def draws(seed: int) -> list[float]:
        study = optuna.create_study(sampler=sampler(seed))
        return [study.ask().suggest_float("learning_rate", 1e-5, 1.0) for _ in range(3)]

    assert draws(1) == draws(1)
    assert not set(draws(1)) & set(draws(2))


def test_the_worse_half_of_the_trials_is_pruned_after_the_second_epoch_but_not_after_the_first():
    study = optuna.create_study(direction="maximize", pruner=pruner())
    for accuracy in (0.6, 0.7, 0.8):
        good = study.ask()
        for epoch in (1, 2, 3, 4):
            good.report(accuracy, epoch)
            assert not good.should_prune()
        study.tell(good, accuracy)
    bad, fair = study.ask(), study.ask()
    bad.report(0.1, 1)
    assert not bad.should_prune()
    bad.report(0.1, 2)
    assert bad.should_prune()
    fair.report(0.75, 2)
    assert not fair.should_prune()


def test_the_seventh_trial_is_drawn_near_the_best_of_the_first_six():
    def seventh(seed: int) -> float:
        study = optuna.create_study(direction="maximize", sampler=sampler(seed))
        for value in (0.0, 0.1, 0.2, 0.3, 0.9, 1.0):
            study.enqueue_trial({"dropout": value})
            study.tell(study.ask({"dropout": FloatDistribution(0, 1)}), value)
        return float(study.ask({"dropout": FloatDistribution(0, 1)}).params["dropout"])

    assert min(seventh(seed) for seed in range(5)) > 0.8


def test_a_study_is_the_same_for_the_same_data_recipe_and_code_only():
    identity = {"data": "d", "config": {"epochs": 3}, "code": "c"}
    assert study_name("cnn", identity) == study_name("cnn", dict(reversed(identity.items())))
    assert study_name("cnn", identity) != study_name("cnn", {**identity, "code": "d"})
    assert study_name("cnn", identity) != study_name("resnet50", identity)


@pytest.mark.parametrize(
    ("said", "retryable"),
    [
        ('connection to server at "h", port 1 failed: FATAL:  password authentication failed for user "u"', False),
        ('connection to server at "h", port 1 failed: FATAL:  database "d" does not exist', False),
        ('connection to server at "h", port 1 failed: FATAL:  no pg_hba.conf entry for host "h"', False),
        ("connection to server failed: received invalid response to SSL negotiation: H", False),
        ("permission denied for table trials", False),
        ('connection to server at "h", port 1 failed: Connection refused', True),
        ("connection to server failed: FATAL:  the database system is starting up", True),
        ("connection to server failed: FATAL:  sorry, too many clients already", True),
        ("server closed the connection unexpectedly\n\tThis probably means", True),
    ],
)
def test_what_the_database_refuses_is_told_from_a_database_that_is_away(said, retryable):
    error = StorageInternalError("An exception is raised during the commit.")
    error.__cause__ = OperationalError("SELECT 1", {}, Exception(said))
    for raised in (error, error.__cause__):
        with pytest.raises(StorageError) as caught, database_errors():
            raise raised
        assert caught.value.retryable is retryable
        assert len(str(caught.value).splitlines()) == 1


def test_a_study_that_was_deleted_is_named():
    with pytest.raises(SearchError, match="no study cnn-1: it was deleted"), database_errors("cnn-1"):
        raise KeyError("Record does not exist.")


@pytest.mark.parametrize(
    "url", ["garbage", "nosuchdriver://u:hidden-word@127.0.0.1/x", "postgresql://u:hidden-word@127.0.0.1:54x3/x"]
)
def test_what_is_no_url_of_a_database_is_a_configuration_error_without_the_password(monkeypatch, url):
    monkeypatch.setenv("CIFAR_STUDIES_URL", url)
    with pytest.raises(ConfigError, match="CIFAR_STUDIES_URL is no URL") as caught:
        all_studies()
    assert "hidden-word" not in str(caught.value)


def test_a_database_with_an_unknown_host_name_is_worth_a_retry(monkeypatch):
    monkeypatch.setattr(hosts, "PATIENCE_SECONDS", 0)
    monkeypatch.setenv("CIFAR_STUDIES_URL", "postgresql://user:hidden-word@no-such-host.invalid/optuna")
    with pytest.raises(StorageError, match="no host has the name in CIFAR_STUDIES_URL, no-such-host") as caught:
        all_studies()
    assert caught.value.retryable
    assert "hidden-word" not in str(caught.value)


def test_a_database_without_a_server_is_worth_a_retry(monkeypatch):
    monkeypatch.setenv("CIFAR_STUDIES_URL", "postgresql://user:hidden-word@127.0.0.1:9/optuna")
    with pytest.raises(StorageError, match="did not answer: Connection refused") as caught:
        load_study("any")
    assert caught.value.retryable
