"""The study that workers share, on the real database, without a training; and the pages that show it."""

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import requests
from optuna.trial import TrialState

from cifar_tasks.deployment.stack.environment import HOST
from cifar_tasks.deployment.stack.temporary import free_port
from cifar_tasks.errors import ConfigError
from cifar_tasks.settings import Settings
from cifar_tasks.tuning import SPACES, Budget, SharedStudy, Trained
from tests.trainings import wait_until


def test_many_threads_claim_each_trial_once(tracked):
    SharedStudy("claims", create=True)
    claimed: list[int] = []

    def work(number: int) -> None:
        study = SharedStudy("claims", seed=number)
        while (trial := study.claim(f"w{number}", SPACES["cnn"](), Budget(12))) is not None:
            claimed.append(trial.number)
            study.complete(trial, Trained(0.1, trial.number, str(trial.number)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == list(range(12))


def test_a_worker_taken_for_dead_has_its_late_result_dropped(tracked, caplog):
    study, space = SharedStudy("late", create=True), SPACES["cnn"]()
    trial = study.claim("w1", space, Budget(1))
    study.take_back("w1")
    study.complete(trial, Trained(0.9, 0.1, "late"))
    assert study.trials[0].state is TrialState.FAIL
    assert "was given to another worker" in caplog.text
    again = study.claim("w2", space, Budget(1))
    assert (again.number, again.params) == (1, trial.params)


def test_a_trial_whose_worker_died_before_its_first_sign_of_life_keeps_nobody_waiting(tracked):
    study, space = SharedStudy("stillborn", create=True), SPACES["cnn"]()
    orphan = study.study.ask(space)
    again = study.claim("w2", space, Budget(1))
    assert study.trials[orphan.number].state is TrialState.FAIL
    assert again.params == orphan.params
    study.complete(again, Trained(0.5, 0.5, "found"))
    assert study.claim("w2", space, Budget(1)) is None


def test_a_search_without_a_database_says_what_to_set(tracked, monkeypatch):
    monkeypatch.delenv("CIFAR_STUDIES_URL")
    with pytest.raises(ConfigError, match="CIFAR_STUDIES_URL"):
        SharedStudy("none")


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


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.ConnectionError:
        return False


def test_optuna_s_dashboard_shows_the_studies_until_it_is_interrupted(tracked):
    study = SharedStudy("shown", create=True)
    study.complete(study.claim("w1", SPACES["cnn"](), Budget(1)), Trained(0.75, 0.9, "shown"))
    port = free_port()
    with dashboard(port) as process:
        wait_until(lambda: answers(f"http://{HOST}:{port}/dashboard/"))
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
