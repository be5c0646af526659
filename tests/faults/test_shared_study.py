"""The study that workers share, on the real database, without a training; and the pages that show it."""

import contextlib
import itertools
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
import requests
from optuna import Study
from optuna.trial import Trial, TrialState

from benchmarks.temporary_stack import free_port
from cifar_tasks.deployment.stack.environment import HOST
from cifar_tasks.errors import ConfigError, SearchError, StorageError
from cifar_tasks.models import get_model
from cifar_tasks.settings import Settings
from cifar_tasks.tuning.space import free_space, suggest
from cifar_tasks.tuning.study import all_studies, create_study, load_study, optimize
from cifar_tasks.tuning.trial import trial_errors
from tests.waiting import wait_until

SPACE = free_space(get_model("cnn").config("demo"))


def objective(outcome: Callable[[Trial], object]) -> Callable[[Trial], float]:
    """A trial of `SPACE` with a result of its own; `outcome` may sleep or raise before it has one."""

    def train(trial: Trial) -> float:
        with trial_errors(trial):
            suggest(trial, SPACE)
            outcome(trial)
            trial.set_user_attr("validation_loss", trial.number)
            return 0.5 + trial.number / 1000

    return train


def failing(error: BaseException) -> Callable[[Trial], object]:
    def fail(trial: Trial) -> None:
        raise error

    return fail


def states(study: Study) -> list[str]:
    return [trial.state.name for trial in study.trials]


at_once = objective(lambda _: None)


def test_four_workers_at_once_end_at_most_three_trials_more_than_the_budget(tracked):
    create_study("shared")
    counts: list[int] = []
    all_began = threading.Barrier(4)

    def work(seed: int) -> None:
        study, trials = load_study("shared", seed), itertools.count()
        wait_for_others = lambda _: all_began.wait(60) if next(trials) == 0 else time.sleep(0.2)  # noqa: E731
        counts.append(optimize(study, objective(wait_for_others), 12))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trials = load_study("shared").trials
    assert 12 <= len(trials) <= 15
    assert sum(counts) == len(trials)
    assert all(counts)
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert len({str(trial.params) for trial in trials}) == len(trials)


def test_a_worker_that_starts_when_the_budget_is_spent_runs_nothing(tracked):
    study = create_study("spent")
    assert optimize(study, at_once, 2) == 2
    assert optimize(load_study("spent", 1), at_once, 2) == 0
    assert optimize(load_study("spent", 1), at_once, 3) == 1


def test_no_trial_begins_after_the_deadline(tracked):
    study = create_study("deadline")
    assert optimize(study, at_once, 3, time.time() - 1) == 0
    deadline = time.time() + 3
    assert 1 <= optimize(study, objective(lambda _: time.sleep(1)), 1000, deadline) <= 3


def test_a_worker_that_starts_again_draws_other_values_than_before(tracked):
    create_study("again")
    optimize(load_study("again", seed=1), at_once, 1)
    optimize(load_study("again", seed=1), at_once, 2)
    first, second = load_study("again").trials
    assert first.params.keys() == second.params.keys()
    assert first.params["learning_rate"] != second.params["learning_rate"]


def test_a_trial_that_fails_by_itself_is_one_failed_trial_and_the_search_continues(tracked):
    def second_fails(trial: Trial) -> None:
        if trial.number == 1:
            raise RuntimeError("out of memory")

    study = create_study("one-fails")
    assert optimize(study, objective(second_fails), 3) == 3
    assert states(study) == ["COMPLETE", "FAIL", "COMPLETE"]
    assert study.trials[1].user_attrs["error"] == "RuntimeError: out of memory"


def test_a_search_that_scores_one_model_for_all_trials_ends_with_the_second(tracked):
    def one_model(trial: Trial) -> float:
        suggest(trial, SPACE)
        trial.set_user_attr("weights_sha256", "d1gest")
        return 0.8303

    study = create_study("one-model")
    with pytest.raises(SearchError, match="trials 0 and 1 have different hyperparameters and the same digest"):
        optimize(study, one_model, 10)
    assert len(study.trials) == 2


@contextlib.contextmanager
def gateway(port: int) -> Iterator[tuple[int, Callable[[], None]]]:
    """A port in front of another one, and a function that cuts all connections and accepts no more."""
    listener, ends = socket.create_server((HOST, 0)), list[socket.socket]()

    def forward() -> None:
        with contextlib.suppress(OSError, ValueError):  # of sockets that `cut` has closed
            while True:
                for ready in select.select([listener, *ends], [], [], 0.1)[0]:
                    if ready is listener:
                        ends.extend((listener.accept()[0], socket.create_connection((HOST, port))))
                    else:
                        ends[ends.index(ready) ^ 1].sendall(ready.recv(65536))

    def cut() -> None:
        for end in (listener, *ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    thread = threading.Thread(target=forward)
    thread.start()
    try:
        yield listener.getsockname()[1], cut
    finally:
        cut()
        thread.join()


@pytest.mark.parametrize(("moment", "left"), [("in its trial", "RUNNING"), ("after its trial", "COMPLETE")])
def test_a_worker_that_loses_the_database_ends_with_an_error_worth_a_retry(tracked, monkeypatch, moment, left):
    url = Settings().studies_url.get_secret_value()
    port = urlsplit(url).port
    with gateway(port) as (other_port, cut):
        monkeypatch.setenv("CIFAR_STUDIES_URL", url.replace(f":{port}/", f":{other_port}/"))
        study = create_study(f"database lost {moment}")
        train = objective(lambda _: cut() if left == "RUNNING" else None)
        with pytest.raises(StorageError, match="CIFAR_STUDIES_URL") as lost:
            optimize(study, train, 2, callbacks=[lambda *_: cut()])
    assert lost.value.retryable
    monkeypatch.setenv("CIFAR_STUDIES_URL", url)
    assert states(load_study(study.study_name)) == [left]


def test_studies_are_listed_with_the_newest_first(tracked):
    for name in ("older", "newer"):
        optimize(create_study(name), at_once, 1)
    names = [study.study_name for study in all_studies()]
    assert names.index("newer") < names.index("older")


def test_a_search_without_a_database_says_what_to_set(tracked, monkeypatch):
    monkeypatch.delenv("CIFAR_STUDIES_URL")
    with pytest.raises(ConfigError, match="CIFAR_STUDIES_URL"):
        load_study("none")


def test_the_database_s_password_is_in_no_text_of_the_settings(tracked):
    password = Settings().studies_url.get_secret_value().partition("@")[0].rpartition(":")[2]
    assert len(password) > 20
    assert password not in repr(Settings())


@contextlib.contextmanager
def dashboard(port: int) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "cifar_tasks.cli", "dashboard", "--port", str(port)]
    process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def is_up(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.ConnectionError:
        return False


def test_optuna_s_dashboard_shows_the_studies_until_it_is_interrupted(tracked):
    optimize(create_study("shown"), lambda _: 0.75, 1)
    port = free_port()
    with dashboard(port) as process:
        wait_until(lambda: is_up(f"http://{HOST}:{port}/dashboard/"))
        listed = requests.get(f"http://{HOST}:{port}/api/studies", timeout=30).json()
        (shown,) = [entry for entry in listed["study_summaries"] if entry["study_name"] == "shown"]
        details = requests.get(f"http://{HOST}:{port}/api/studies/{shown['study_id']}", timeout=30).json()
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    assert [trial["values"] for trial in details["trials"]] == [[0.75]]
    assert f"http://{HOST}:{port}/dashboard" in output
    assert "Traceback" not in output
    assert "postgresql" not in output


def test_a_dashboard_on_a_port_in_use_says_which_to_change(tracked):
    port = int(tracked.mlflow_url.rpartition(":")[2])
    with dashboard(port) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"port {port} is in use" in output
    assert "--port" in output
    assert "Traceback" not in output
