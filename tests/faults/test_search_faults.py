"""What a search makes of workers that are killed, frozen or stopped, and of services that are lost."""

import signal
import time
from pathlib import Path

import pytest

from cifar_tasks.config import with_values
from cifar_tasks.errors import LeaseLost, SearchError, TrackingError
from cifar_tasks.steps.create_studies import create_studies
from cifar_tasks.steps.payloads import PreparedData
from cifar_tasks.steps.run_trials import run_trials
from cifar_tasks.steps.select_params import select_params
from cifar_tasks.training.callbacks import Snapshot
from cifar_tasks.tuning.study import count_ended, load_study
from cifar_tasks.tuning.trial import TrialCallback
from tests.conftest import RunningStack, connect
from tests.searches import first_epoch_ended, in_background, plans_for, states, workers_for
from tests.trainings import prepared
from tests.waiting import wait_until


@pytest.fixture
def short_heartbeat(tracked: RunningStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial is lost after three seconds."""
    monkeypatch.setenv("CIFAR_TRIAL_HEARTBEAT", "1")


@pytest.fixture(scope="module")
def data(backend: RunningStack, pictures: Path) -> PreparedData:
    with pytest.MonkeyPatch.context() as patch:
        connect(patch, backend.environment)
        return prepared(pictures, "search-faults")


def test_a_trial_whose_worker_is_killed_is_retried_once_by_another_in_the_same_mlflow_run(
    data, client, short_heartbeat
):
    first, second = workers_for(data, 6, trials=2)
    task = in_background(first)
    wait_until(lambda: first_epoch_ended(first))
    task.child().send_signal(signal.SIGKILL)
    task.join()
    assert states(first) == ["RUNNING"]
    time.sleep(3.5)
    assert run_trials(second).trials == 2
    study = load_study(first.study)
    assert states(first) == ["FAIL", "COMPLETE", "COMPLETE"]
    assert study.trials[1].params == study.trials[0].params
    assert count_ended(study) == 2
    found = {trial.user_attrs["mlflow_run_id"] for trial in study.trials}
    assert len(found) == 2
    assert {client.get_run(run_id).info.status for run_id in found} == {"FINISHED"}


def test_a_worker_that_wakes_after_its_trial_was_given_to_another_ends_without_a_result(data, client, short_heartbeat):
    first, second = workers_for(data, 7, epochs=4, trials=1)
    task = in_background(first)
    wait_until(lambda: first_epoch_ended(first))
    task.child().send_signal(signal.SIGSTOP)
    time.sleep(4.5)
    assert run_trials(second).trials == 1
    task.child().send_signal(signal.SIGCONT)
    task.join()
    assert isinstance(task.error, LeaseLost)
    trials = load_study(first.study).trials
    assert [trial.state.name for trial in trials] == ["FAIL", "COMPLETE"]
    assert client.get_run(trials[1].user_attrs["mlflow_run_id"]).info.status == "FINISHED"


def test_a_stopped_search_continues_where_it_was(data, client, short_heartbeat):
    worker = workers_for(data, 8, trials=2)[0]
    task = in_background(worker)
    wait_until(lambda: first_epoch_ended(worker))
    task.child().send_signal(signal.SIGTERM)
    task.join()
    (stopped,) = load_study(worker.study).trials
    assert client.get_run(stopped.user_attrs["mlflow_run_id"]).info.status == "KILLED"
    time.sleep(3.5)
    assert run_trials(worker).trials == 2
    assert states(worker) == ["FAIL", "COMPLETE", "COMPLETE"]
    assert load_study(worker.study).trials[1].params == stopped.params


def test_a_worker_that_loses_mlflow_ends_with_an_error_worth_a_retry_and_its_trial_is_retried(
    data, client, short_heartbeat, monkeypatch
):
    (worker, _) = workers_for(data, 9, trials=1)
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        patch.setenv("NO_PROXY", "")
        patch.setenv("no_proxy", "")

        report = TrialCallback.on_epoch_end

        def report_and_lead_requests_nowhere(callback: TrialCallback, snapshot: Snapshot) -> None:
            report(callback, snapshot)
            patch.setenv("http_proxy", "http://127.0.0.1:9")

        patch.setattr(TrialCallback, "on_epoch_end", report_and_lead_requests_nowhere)
        with pytest.raises(TrackingError) as lost:
            run_trials(worker)
    assert lost.value.retryable
    assert states(worker) == ["RUNNING"]
    assert first_epoch_ended(worker)
    time.sleep(3.5)
    assert run_trials(worker).trials == 1
    assert states(worker) == ["FAIL", "COMPLETE"]
    (run_id,) = {trial.user_attrs["mlflow_run_id"] for trial in load_study(worker.study).trials}
    assert client.get_run(run_id).info.status == "FINISHED"


def test_trials_that_fail_are_failed_trials_and_their_runs_say_why(data, client):
    worker = workers_for(data, 3, trials=4)[0]
    study = load_study(worker.study)
    study.enqueue_trial({"learning_rate": 1e30})
    study.enqueue_trial({"hidden_units": 18 * 10**9})
    assert run_trials(worker).trials == 4
    assert states(worker) == ["COMPLETE", "FAIL", "FAIL", "COMPLETE"]
    for trial, reason in zip(study.trials[1:3], ("the loss is", "can't allocate memory"), strict=True):
        assert reason in trial.user_attrs["error"]
        run = client.get_run(trial.user_attrs["mlflow_run_id"])
        assert run.info.status == "FAILED"
        assert (run.data.tags["cifar.state"], run.data.tags["cifar.error"]) == ("FAIL", trial.user_attrs["error"])


def test_if_every_trial_fails_the_selection_says_why_the_first_did(data, client):
    plans = plans_for(data, 4, trials=2)
    diverging = with_values(plans[0].config, {"learning_rate": 1e30})
    plans = [plans[0].model_copy(update={"config": diverging, "fixed": [*plans[0].fixed, "learning_rate"]})]
    result = run_trials(create_studies(plans)[0])
    with pytest.raises(SearchError, match=r"2 failed.*the loss is"):
        select_params(plans, [result])
    assert client.get_run(result.study_run_id).info.status == "FAILED"
    assert "trials.csv" in {entry.path for entry in client.list_artifacts(result.study_run_id)}
