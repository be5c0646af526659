"""Studies on the real database: budgets met exactly, workers that die, trials that fail, results that are kept."""

import csv
import io
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from mlflow.utils.rest_utils import MlflowHostCreds
from optuna.trial import TrialState
from typer.testing import CliRunner

from cifar_tasks.cli.main import app
from cifar_tasks.config import TrainConfig, config_from_dict
from cifar_tasks.errors import ConfigError, SearchError, Stopped, TrackingError
from cifar_tasks.steps import search, tune
from cifar_tasks.steps.evaluate import evaluate_model
from cifar_tasks.steps.prepare import plan_training, prepare_data
from cifar_tasks.steps.promote import register_model
from cifar_tasks.steps.train import train_model
from cifar_tasks.tracking import runs
from cifar_tasks.tuning import Budget, SharedStudy, Trained, studies
from cifar_tasks.tuning import study as study_module
from tests.conftest import RunningStack
from tests.trainings import Background, wait_until, workflow

SEARCH = "cifar_tasks.steps.search:train_trials"
FORM = {"tune": "cnn", "profile": "demo", "trials": 4, "search_minutes": None, "search_workers": 2}


@pytest.fixture
def client(tracked: RunningStack) -> MlflowClient:
    return runs.mlflow_client()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers take each other for dead after seconds."""
    monkeypatch.setattr(study_module, "GRACE_SECONDS", 2)
    monkeypatch.setattr(study_module, "WAIT_SECONDS", 0.2)


def opened(name: str, pictures: Path, seed: int, **form: Any) -> tuple[list[Any], list[Any], dict[str, Any]]:
    """Lanes, what the workers are told, and the data, of a study of its own: `seed` makes it another."""
    data = prepare_data(str(pictures), 0, workflow(name))
    lanes = plan_training(data, "cnn", "demo", {"epochs": 2, "batch_size": 32, "seed": seed})
    return lanes, tune.open_studies(lanes, data, {**FORM, **form}), data


def states(study: str) -> list[str]:
    return [trial.state.name for trial in SharedStudy(study).trials]


@pytest.fixture(scope="module")
def searched(backend: RunningStack, pictures: Path) -> dict[str, Any]:
    """One search, whole: two workers beside each other, choice, final training, registration."""
    from tests.conftest import connect

    with pytest.MonkeyPatch.context() as patch:
        connect(patch, backend.environment)
        lanes, work, data = opened("search", pictures, seed=1, trials=5)
        workers = [Background(SEARCH, work=each, data=data) for each in work]
        for worker in workers:
            worker.join()
            assert worker.error is None, worker.lines
        (lane,) = tune.choose(lanes, [{"model": "cnn", "study": work[0]["study"]}], data, "searched")
        trained = train_model(lane["config"], data, workflow("search"), lane["origin"])
        registered = register_model(evaluate_model(trained, data), data, "searched")
        return {"lane": lane, "plan": lanes, "study": work[0]["study"], "data": data, "registered": registered}


def test_two_workers_share_a_budget_and_meet_it_exactly(searched, tracked):
    trials = SharedStudy(searched["study"]).trials
    assert len(trials) == 5
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert {trial.user_attrs["worker"].partition(" of run ")[0] for trial in trials} == {"cnn 1", "cnn 2"}


def test_the_recipe_is_the_first_trial_and_each_trial_has_its_own_model(searched, tracked):
    trials = SharedStudy(searched["study"]).trials
    assert trials[0].params["learning_rate"] == searched["plan"][0]["config"]["learning_rate"]
    for name in ("weights_sha256", "validation_loss"):
        assert len({trial.user_attrs[name] for trial in trials}) == len(trials)


def test_what_the_user_fixed_is_not_searched(searched, tracked):
    assert "batch_size" not in SharedStudy(searched["study"]).trials[0].params
    assert searched["lane"]["config"]["batch_size"] == 32


def test_the_final_training_takes_the_best_parameters_and_says_whence(searched, client):
    best, _ = SharedStudy(searched["study"]).best()
    assert searched["lane"]["config"].items() >= best.params.items()
    tags = client.get_run(searched["registered"]["run_id"]).data.tags
    assert (tags["cifar.study"], tags["cifar.trial"]) == (searched["study"], str(best.number))


def test_the_study_has_a_run_with_a_child_a_trial_table_and_charts(searched, client):
    study = SharedStudy(searched["study"])
    parent = client.get_run(study.study.user_attrs["mlflow_run_id"])
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["mlflow.parentRunId"] == searched["data"]["parent_run_id"]
    files = {entry.path for entry in client.list_artifacts(parent.info.run_id)}
    pictures = {"optimisation_history.png", "parallel_coordinate.png", "slices.png"}
    assert {"search.html", "trials.csv", "trials.json"} | pictures <= files
    path = client.download_artifacts(parent.info.run_id, "trials.csv")
    rows = list(csv.DictReader(io.StringIO(Path(path).read_text())))
    assert [row["trial"] for row in rows] == [str(number) for number in range(5)]
    for trial in study.trials:
        child = client.get_run(trial.user_attrs["mlflow_run_id"])
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.tags["cifar.state"] == trial.state.name
        assert child.data.params["learning_rate"] == str(trial.params["learning_rate"])
        curve = client.get_metric_history(child.info.run_id, "validation_accuracy")
        assert {point.step: point.value for point in curve} == trial.intermediate_values


def test_a_run_without_search_goes_on_with_the_best_that_is_known_for_the_data(searched, client):
    (lane,) = tune.remember(searched["plan"], searched["data"], "searched")
    assert lane["config"] == searched["lane"]["config"]
    assert lane["origin"]["text"].startswith("version 1, study ")
    (other,) = tune.remember(searched["plan"], searched["data"], "somebody-elses")
    assert other == searched["plan"][0]


def test_a_study_goes_on_where_it_was_when_it_is_asked_for_again(searched, pictures, tracked):
    _, work, _ = opened("search-again", pictures, seed=1, trials=5)
    assert work[0]["study"] == searched["study"]
    assert SharedStudy(searched["study"]).claim("cnn 1", {}, Budget(**work[0]["budget"])) is None


def test_a_search_for_a_model_that_is_not_trained_is_refused(searched, tracked):
    with pytest.raises(ConfigError, match="tune is resnet50"):
        tune.open_studies(searched["plan"], searched["data"], {**FORM, "tune": "resnet50"})


def test_studies_are_listed_with_their_best(searched, tracked):
    (found,) = [study for study in studies() if study.study_name == searched["study"]]
    assert found.n_trials == 5
    assert found.best_trial.number == SharedStudy(searched["study"]).best()[0].number


def test_the_command_lists_studies_and_hides_the_database_s_password(searched, tracked):
    shown = CliRunner().invoke(app, ["studies"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    assert searched["study"] in shown.output
    assert "learning_rate" in shown.output
    assert "postgresql" not in shown.output


def test_a_trial_whose_worker_is_killed_is_tried_once_more_by_another(pictures, client, impatient):
    _, work, data = opened("killed-worker", pictures, seed=2, trials=3)
    worker = Background(SEARCH, work=work[0], data=data)
    wait_until(lambda: any("trial 0: epoch 1" in line for line in worker.lines))
    worker.child().send_signal(signal.SIGKILL)
    worker.join()
    done = search.train_trials(work[1], data)
    trials = SharedStudy(work[0]["study"]).trials
    assert trials[0].state is TrialState.FAIL
    (again,) = [trial for trial in trials if study_module.is_retry(trial)]
    assert again.params == trials[0].params
    assert again.state in (TrialState.COMPLETE, TrialState.PRUNED)
    assert study_module.begun(trials) == 3
    assert done["trials"] == 3


def test_a_run_leaves_the_trials_of_another_run_s_worker_of_the_same_name_alone(pictures, client):
    _, work, data = opened("first-of-two", pictures, seed=12, trials=2)
    _, again, others = opened("second-of-two", pictures, seed=12, trials=2)
    assert work[0]["study"] == again[0]["study"]
    study, space = SharedStudy(work[0]["study"]), tune.searched(config_from_dict(work[0]["config"]), work[0]["fixed"])
    mine = study.claim(search.worker_name(work[0], data), space, Budget(2))
    with study.keeping(mine):
        other = Background(SEARCH, work=again[0], data=others)
        wait_until(lambda: any("epoch 1" in line for line in other.lines))
        assert study.trials[mine.number].state is TrialState.RUNNING
        study.complete(mine, Trained(0.5, 1.0, "d1gest"))
        other.join()
    assert [trial.state.is_finished() for trial in study.trials] == [True, True]
    assert study_module.begun(study.trials) == 2


def diverging(start: Any, config: TrainConfig, *arguments: Any) -> Any:
    return start(replace(config, learning_rate=1e30), *arguments)


def too_large_for_the_gpu(start: Any, config: TrainConfig, *arguments: Any) -> Any:
    model, *others = start(config, *arguments)

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    model.register_forward_pre_hook(full)
    return model, *others


@pytest.mark.parametrize(
    ("fault", "told", "seed"),
    [(diverging, "the loss is", 5), (too_large_for_the_gpu, "GPU's memory does not hold a batch of 1 images", 10)],
)
def test_a_trial_that_fails_is_one_failed_trial_and_its_run_says_why(pictures, client, monkeypatch, fault, told, seed):
    _, work, data = opened(f"one-fails-{seed}", pictures, seed=seed, trials=3)
    start = search.start_model

    def second_fails(config: TrainConfig, *arguments: Any) -> Any:
        begun = len(SharedStudy(work[0]["study"]).trials)
        return fault(start, config, *arguments) if begun == 2 else start(config, *arguments)

    monkeypatch.setattr(search, "start_model", second_fails)
    search.train_trials(work[0], data)
    trials = SharedStudy(work[0]["study"]).trials
    assert [trial.state is TrialState.FAIL for trial in trials] == [False, True, False]
    assert told in trials[1].user_attrs["error"]
    tags = client.get_run(trials[1].user_attrs["mlflow_run_id"]).data.tags
    assert (tags["cifar.state"], tags["cifar.error"]) == ("FAIL", trials[1].user_attrs["error"])


def test_a_trial_that_lost_mlflow_is_put_back_and_not_counted_as_failed(pictures, client, monkeypatch):
    _, work, data = opened("no-mlflow", pictures, seed=9, trials=1)
    start, environment = search.start_model, {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}

    def without_server(*arguments: Any) -> Any:
        monkeypatch.setattr(client._tracking_client.store, "get_host_creds", unreachable)
        return start(*arguments)

    def unreachable() -> MlflowHostCreds:
        return MlflowHostCreds(host="http://127.0.0.1:9")

    with monkeypatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr(search, "start_model", without_server)
        patch.setattr(runs, "mlflow_client", lambda: client)
        with pytest.raises(TrackingError):
            search.train_trials(work[0], data)
    assert states(work[0]["study"]) == ["FAIL", "WAITING"]


def test_if_all_trials_fail_the_first_cause_is_told(pictures, client, monkeypatch):
    lanes, work, data = opened("all-diverge", pictures, seed=6, trials=2)
    work[0]["config"]["learning_rate"] = 1e30
    work[0]["fixed"].append("learning_rate")
    worked = search.train_trials(work[0], data)
    with pytest.raises(SearchError, match=r"2 failed.*the loss is"):
        tune.choose(lanes, [worked], data, "nobody")


def test_a_search_that_scores_one_model_for_all_trials_fails(pictures, client, monkeypatch):
    """The report's defect: ten configurations, one accuracy."""
    _, work, data = opened("one-model", pictures, seed=7, trials=3)
    monkeypatch.setattr(search, "trained", lambda state: Trained(0.8303, 0.51, "d1gest"))
    with pytest.raises(SearchError, match="trials 0 and 1 have different parameters and the same"):
        search.train_trials(work[0], data)


def test_a_stopped_search_goes_on_where_it_was(pictures, client, monkeypatch):
    _, work, data = opened("stop", pictures, seed=8, trials=2)
    fit, begun = search.fit_in_parts, []

    def stop_in_the_second(*arguments: Any) -> Any:
        begun.append(1)
        if len(begun) == 2:
            raise Stopped
        return fit(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(search, "fit_in_parts", stop_in_the_second)
        with pytest.raises(Stopped):
            search.train_trials(work[0], data)
    assert states(work[0]["study"]) == ["COMPLETE", "FAIL", "WAITING"]
    first, second, _ = SharedStudy(work[0]["study"]).trials
    assert client.get_run(second.user_attrs["mlflow_run_id"]).info.status == "KILLED"
    assert search.train_trials(work[0], data)["trials"] == 1
    trials = SharedStudy(work[0]["study"]).trials
    assert trials[0] == first
    assert trials[2].params == second.params
    assert trials[2].state in (TrialState.COMPLETE, TrialState.PRUNED)
