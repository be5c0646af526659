"""Runs that would train the same at once: one trains, the others wait and are skipped, or train if it failed."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow import MlflowClient

from cifar_tasks.settings import Settings
from cifar_tasks.steps.payloads import PreparedData, WorkflowRun
from cifar_tasks.steps.prepare import prepare_data
from cifar_tasks.steps.report import end_workflow
from cifar_tasks.tracking import runs
from tests.trainings import request, workflow
from tests.waiting import wait_until

WAITING = "waiting for test/first"


def run(name: str, pictures: Path) -> "subprocess.Popen[str]":
    words = ["run", "--source", str(pictures), "--models", "cnn", "--set", "epochs=1", "--registered-model", "at-once"]
    command = [sys.executable, "-m", "cifar_tasks.cli", *words, "--name", name, "--promotion", "never"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(os.environ))


def parents(client: MlflowClient, prefix: str) -> dict[str, str]:
    """Names and states of the parent runs of workflow runs whose ids begin so."""
    experiment = runs.experiment_id(client, Settings().experiment)
    found = runs.find_runs(client, experiment, {runs.MODEL: "all"})
    return {r.info.run_name: r.info.status for r in found if r.data.tags[runs.WORKFLOW].startswith(prefix)}


@pytest.mark.timeout(300)
def test_of_two_runs_on_the_command_line_at_once_one_trains_and_the_other_is_skipped_with_its_version(
    client: MlflowClient, pictures: Path
) -> None:
    both = {name: run(name, pictures) for name in ("one", "other")}
    told = {name: each.communicate(timeout=240)[0] for name, each in both.items()}
    assert [each.returncode for each in both.values()] == [0, 0], told
    assert len(client.search_model_versions("name = 'at-once'")) == 1
    (trained,) = parents(client, "cli/").keys() & both.keys()  # other tests have runs of their own
    (skipped,) = {"one", "other"} - {trained}
    assert f"waiting for cli/{trained}, which trains the same now" in told[skipped]
    assert "nothing to train: version 1 (cnn) of at-once: same dataset version" in told[skipped]
    assert "nothing to train" not in told[trained]


@pytest.fixture
def at_once(client: MlflowClient, pictures: Path, caplog: pytest.LogCaptureFixture):
    """A run whose training goes on, and another one that would train the same and waits."""

    def prepare(name: str, **changes: object) -> PreparedData:
        return prepare_data(request(pictures, registered_model="waits", **{"force": False, **changes}), workflow(name))

    prepare("first")
    with ThreadPoolExecutor() as threads:
        second = threads.submit(prepare, "second")
        try:
            wait_until(lambda: WAITING in caplog.text, 60)
            yield prepare, second
        finally:
            for name in ("first", "second", "third"):
                end_workflow(workflow(name), "FAILED")


def test_a_run_waits_for_one_that_trains_the_same_and_trains_if_that_one_failed(client: MlflowClient, at_once) -> None:
    prepare, second = at_once
    time.sleep(4)  # it looks every 3 s
    assert not second.done()
    assert set(parents(client, "test/").items()) >= {("first", "RUNNING")}
    assert "second" not in parents(client, "test/")
    prepare("first")  # a retry
    assert prepare("third", force=True).workflow.name == "third"
    end_workflow(workflow("third"), "FAILED")
    end_workflow(workflow("first"), "FAILED")
    assert second.result(60).workflow.name == "second"
    assert parents(client, "test/")["second"] == "RUNNING"


def test_a_run_of_the_command_line_that_was_killed_is_not_waited_for(client: MlflowClient, pictures: Path) -> None:
    asked = request(pictures, registered_model="killed", force=False)
    prepare_data(asked, WorkflowRun(id="cli/killed", name="killed"))  # holds no lease, as one that was killed
    assert prepare_data(asked, workflow("after")).workflow.name == "after"
    assert parents(client, "cli/killed") == {"killed": "KILLED"}
    end_workflow(workflow("after"), "FAILED")
