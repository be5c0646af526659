"""A dataset line in Airflow: what is new becomes one version with one event, whoever checks it how often."""

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
import requests
from airflow_client.client.api.asset_api import AssetApi
from airflow_client.client.api.dag_api import DAGApi
from airflow_client.client.api.dag_run_api import DagRunApi
from airflow_client.client.api.task_instance_api import TaskInstanceApi
from airflow_client.client.models.create_asset_events_body import CreateAssetEventsBody
from airflow_client.client.models.dag_patch_body import DAGPatchBody
from PIL import Image
from typer.testing import CliRunner

from benchmarks.temporary_stack import temporary_home
from cifar_tasks.cli.dag_run import DagRun, trigger
from cifar_tasks.cli.main import app
from cifar_tasks.cli.watch import AWAITING_INPUT
from cifar_tasks.data.lines.line_log import read_line_log
from cifar_tasks.data.versions import whole_version
from cifar_tasks.deployment.dag_ids import DATASET_DAG, TRAINING_DAG
from cifar_tasks.deployment.stack.supervisord import marked
from cifar_tasks.settings import Settings
from cifar_tasks.storage.s3 import S3Store, s3_client
from cifar_tasks.tracking import runs
from tests.dataset_lines import CLASSES, accept, picture, prepared
from tests.waiting import wait_until
from tests.watched_line import LENIENT, MARKER, RUN_SECONDS, SETTLING_SECONDS, WatchedLine, started_airflow


@dataclass(frozen=True)
class Pets(WatchedLine):
    home: Path
    """Of its stack."""

    def deliver(self, name: str, number: int, mode: str = "RGB") -> None:
        buffer = BytesIO()
        picture(number).convert(mode).save(buffer, "PNG")
        self.put(name, buffer.getvalue())

    def runs(self) -> list[str]:
        return [run.dag_run_id for run in DagRunApi(self.client).get_dag_runs(DATASET_DAG, limit=100).dag_runs]


@pytest.fixture(scope="module")
def watched() -> Iterator[Pets]:
    with temporary_home() as home, pytest.MonkeyPatch.context() as patch:
        line = {"source": "s3://team/pets", "marker": MARKER, "settle_seconds": 0}
        digits = {"source": "digits", "settle_seconds": 0}
        patch.setenv("CIFAR_DATASET_LINES", json.dumps({"pets": line, "digits": digits}))
        patch.setenv("CIFAR_DATASET_LIMITS", json.dumps(LENIENT))
        with started_airflow(home, patch, TRAINING_DAG) as client:
            s3 = s3_client()
            s3.create_bucket(Bucket="team")
            DAGApi(client).patch_dag(TRAINING_DAG, DAGPatchBody(is_paused=True))  # an event would start a training
            watched = Pets(client, S3Store("team", s3), S3Store("cifar"), "pets", "pets", home)
            for label, name in enumerate(CLASSES):
                for number in range(20):
                    watched.deliver(f"train/{name}/{number:03}.png", 1000 * label + number)
                for number in range(5):
                    watched.deliver(f"test/{name}/{number:03}.png", 1_000_000 + 1000 * label + number)
            watched.complete()
            assert watched.ended(watched.check())["announce"] == "success"
            yield watched


def test_a_version_has_an_entry_and_one_event_and_the_next_check_finds_nothing_new(watched: Pets) -> None:
    entry = watched.log().entry_in_use()
    before = watched.events()
    assert [(each["entry"], each["digest"]) for each in before][-1:] == [(entry.number, entry.dataset.digest)]
    run = watched.check()
    states = watched.ended(run)
    assert (states["check_source"], states["accept"], states["announce"]) == ("skipped",) * 3
    assert "nothing new" in watched.note(run)
    assert watched.events() == before


def test_a_delivery_without_its_marker_is_waited_for_and_two_watches_make_one_version_with_one_event(
    watched: Pets,
) -> None:
    entries, events = len(watched.log().entries), len(watched.events())
    for number in range(8):
        watched.deliver(f"train/ant/a{number}.png", 5000 + number)
    first, second = watched.check(), watched.check()

    def states() -> list[str]:
        return [task.state.value for run in (first, second) for task in run.tasks() if task.state]

    wait_until(lambda: "up_for_reschedule" in states(), 240)  # of the run that looked last
    assert len(watched.log().entries) == entries
    watched.complete()
    assert {run["prepare_version"] for run in map(watched.ended, (first, second))} <= {"success", "skipped"}
    entry = watched.log().entry_in_use()
    assert (len(watched.log().entries), entry.diff.new) == (entries + 1, 8)
    assert len(watched.events()) == events + 1
    assert watched.events()[-1]["counts"]["test"] == {"ant": 5, "bee": 5}


def test_an_event_from_outside_checks_every_line_in_a_run_of_its_own(watched: Pets) -> None:
    assets = AssetApi(watched.client)
    found = assets.get_assets(name_pattern="dataset_source_pets").assets
    before = set(watched.runs())
    assets.create_asset_event(CreateAssetEventsBody(asset_id=found[0].id, extra={"by": "labelling tool"}))
    wait_until(lambda: len(set(watched.runs()) - before) == 3, 120)
    for run in set(watched.runs()) - before:
        watched.ended(DagRun(watched.client, run, DATASET_DAG))
    assert read_line_log(watched.store, "digits").in_use() is not None


def test_a_version_whose_run_ended_before_its_event_has_it_after_the_next_check(watched: Pets) -> None:
    """As a person's release does, or a run that was deleted between the entry and the event."""
    for number in range(4):
        watched.deliver(f"train/bee/b{number}.png", 6000 + number)
    accept(watched.store, prepared(watched.store, "s3://team/pets", marker=MARKER))
    events = len(watched.events())
    watched.complete()
    watched.ended(watched.check())
    assert len(watched.events()) == events + 1
    assert watched.events()[-1]["entry"] == watched.log().last.number
    watched.ended(watched.check())
    assert len(watched.events()) == events + 1


def told(*words: str) -> str:
    command = CliRunner().invoke(app, ["data", *words])
    assert command.exit_code == 0, command.output
    return command.output


def test_what_a_person_brings_into_use_on_the_command_line_has_one_event_at_once_and_nothing_is_checked(
    watched: Pets,
) -> None:
    before = len(watched.events())
    watched.deliver("train/ant/to be rolled back.png", 6100)
    accept(watched.store, prepared(watched.store, "s3://team/pets", marker=MARKER))
    watched.deliver("train/ant/not complete.png", 6101)
    for command, kind in ("rollback", "rolled_back"), ("release", "released"):
        if command == "release":
            accept(watched.store, prepared(watched.store, "s3://team/pets", marker=MARKER), "quarantined")
        waiter = watched.store.get("lines/pets/watch/waiter.json")
        output = told(command, "pets", "--reason", "looked at")
        entry = watched.log().entry_in_use()
        assert (entry, entry.kind) == (watched.log().last, kind)
        (run_id,) = (name for name in watched.runs() if output.count(f"/dags/{DATASET_DAG}/runs/{quote(name)}"))
        states = watched.ended(DagRun(watched.client, run_id, DATASET_DAG))
        assert states.pop("branch_on_line") == states.pop("announce") == "success"
        assert set(states.values()) == {"skipped"}
        assert watched.store.get("lines/pets/watch/waiter.json") == waiter
        before += 1
        assert len(watched.events()) == before
        event = watched.events()[-1]
        assert event == {
            "line": "pets",
            "entry": entry.number,
            "digest": entry.dataset.digest,
            "uri": entry.dataset.uri,
            "counts": entry.dataset.counts,
        }
    again = trigger(watched.client, {"line": "pets", "event_only": True}, DATASET_DAG)
    assert watched.ended(again)["announce"] == "skipped"
    watched.complete()
    assert watched.ended(watched.check())["announce"] == "skipped"
    assert len(watched.events()) == before


def test_a_decision_while_the_dag_is_paused_stands_and_has_its_event_from_the_next_check(watched: Pets) -> None:
    watched.deliver("train/ant/paused.png", 6102)
    watched.complete()
    watched.ended(watched.check())
    dags, before = DAGApi(watched.client), len(watched.events())
    dags.patch_dag(DATASET_DAG, DAGPatchBody(is_paused=True))
    try:
        assert "is not sent: the DAG cifar10_dataset is paused" in told("rollback", "pets", "--reason", "for a while")
    finally:
        dags.patch_dag(DATASET_DAG, DAGPatchBody(is_paused=False))
    entry = watched.log().entry_in_use()
    assert (entry.kind, len(watched.events())) == ("rolled_back", before)
    watched.ended(watched.check())
    assert [event["entry"] for event in watched.events()[before:]] == [entry.number]


def shown(watched: WatchedLine, markdown: str) -> Image.Image:
    """The picture that Airflow's UI shows of it."""
    (address,) = re.findall(r"!\[[^]]*\]\(([^)]+)\)", markdown)
    api = watched.client.configuration
    login = {"Authorization": f"Bearer {api.access_token}"}
    response = requests.get(f"{api.host.rstrip('/')}/{address}", headers=login, timeout=60)
    assert response.status_code == 200
    return Image.open(BytesIO(response.content))


def test_grey_images_are_quarantined_without_an_event_until_a_person_releases_the_version(watched: Pets) -> None:
    entries, events = len(watched.log().entries), len(watched.events())
    for number in range(10):
        watched.deliver(f"train/{CLASSES[number % 2]}/grey{number}.png", 7000 + number, "L")
    watched.complete()
    run = watched.waiting_for_a_person()
    quarantined = watched.log().last
    assert (quarantined.kind, quarantined.number) == ("quarantined", entries + 1)
    assert any(reason.startswith("grey images") for reason in quarantined.reasons)
    assert watched.log().in_use() != quarantined.dataset
    assert len(watched.events()) == events
    assert "grey images" in watched.note(run)
    asked = TaskInstanceApi(watched.client).get_hitl_detail(DATASET_DAG, run.run_id, "approve", -1)
    assert shown(watched, asked.body).width == 900, "three pixels for each one that Airflow shows"
    states = watched.answer(run, "Release", "an old camera")
    assert (states["accept"], states["decide"], states["announce"]) == ("skipped", "success", "success")
    released = watched.log().last
    assert (released.kind, released.reason, released.dataset) == ("released", "an old camera", quarantined.dataset)
    assert released.by
    assert watched.events()[-1]["entry"] == released.number


def test_a_run_whose_tasks_are_all_killed_in_the_middle_makes_one_version_with_one_event(watched: Pets) -> None:
    """Airflow's process of the task is killed with that of its step, as the machine does when memory runs out."""
    before, events = watched.log(), watched.events()
    for number in range(6):
        watched.deliver(f"train/ant/k{number}.png", 8000 + number)
    watched.complete()
    shards, reports = (set(watched.store.keys(f"lines/pets/{what}/")) for what in ("shards", "reports"))
    run = watched.check()

    def begun() -> bool:
        return watched.store.get("lines/pets/watch/waiter.json") == f'"{DATASET_DAG}/{run.run_id}"'.encode()

    kill_in_the_middle(watched.home, "dataset_line:check_source", begun)
    kill_in_the_middle(
        watched.home,
        "dataset_line:prepare_version",
        lambda: set(watched.store.keys("lines/pets/shards/")) > shards,
    )
    kill_in_the_middle(
        watched.home,
        "validate_dataset:validate_dataset",
        lambda: set(watched.store.keys("lines/pets/reports/")) > reports,
    )
    assert watched.log() == before
    kill_in_the_middle(watched.home, "dataset_line:accept_version", lambda: watched.log() != before)
    states = watched.ended(run)
    assert (states["accept"], states["announce"]) == ("success", "success")
    tries = {str(task.task_id): task.try_number for task in run.tasks()}
    assert [tries[task] for task in ("check_source", "prepare_version", "validate", "accept")] == [2] * 4
    entry = watched.log().last
    assert (watched.log().entries[:-1], entry.kind, entry.diff.new) == (before.entries, "accepted", 6)
    assert whole_version(watched.store, entry.dataset.digest, "pets")
    assert [event["entry"] for event in watched.events()] == [*(event["entry"] for event in events), entry.number]
    client = runs.mlflow_client()
    experiment = runs.experiment_id(client, f"{Settings().experiment}-lines")
    (report,) = runs.find_runs(client, experiment, {"cifar.dataset": entry.dataset.digest})
    assert report.info.status == "FINISHED"
    assert watched.ended(watched.check())["announce"] == "skipped"


def test_a_run_that_is_killed_while_it_waits_quarantines_decides_and_announces_has_one_entry_of_each_and_one_event(
    watched: Pets,
) -> None:
    before, events = watched.log(), watched.events()
    for number in range(10):
        watched.deliver(f"train/{CLASSES[number % 2]}/killed{number}.png", 9000 + number, "L")
    watched.complete()
    run = watched.check()
    kill_in_the_middle(watched.home, "dataset_line:await_delivery", lambda: True)
    kill_in_the_middle(watched.home, "validate_dataset:quarantine_version", lambda: watched.log() != before)
    assert (watched.log().entry_in_use(), watched.events()) == (before.entry_in_use(), events)
    wait_until(lambda: watched.states(run).get("approve") == AWAITING_INPUT, RUN_SECONDS)
    time.sleep(SETTLING_SECONDS)
    watched.respond(run, "Release", "an old camera")
    kill_in_the_middle(watched.home, "validate_dataset:record_verdict", lambda: watched.log().last.kind == "released")
    kill_in_the_middle(watched.home, "dataset_line:version_in_use", lambda: True)
    assert watched.events() == events
    assert watched.ended(run)["announce"] == "success"
    tries = {str(task.task_id): task.try_number for task in run.tasks()}
    assert [tries[task] for task in ("wait_for_delivery", "quarantine", "decide", "announce")] == [2] * 4
    *earlier, quarantined, released = watched.log().entries
    assert (tuple(earlier), quarantined.kind, released.kind) == (before.entries, "quarantined", "released")
    assert released.dataset == quarantined.dataset
    assert whole_version(watched.store, released.dataset.digest, "pets")
    assert [event["entry"] for event in watched.events()] == [*(event["entry"] for event in events), released.number]
    assert watched.ended(watched.check())["announce"] == "skipped"


def kill_in_the_middle(home: Path, step: str, happened: Callable[[], bool]) -> None:
    """SIGKILL for a step and the task that has started it. Until it happened the step runs in slices of a moment."""
    found: list[psutil.Process] = []

    def is_running() -> bool:
        with suppress(psutil.NoSuchProcess):  # another one has ended
            found[:] = [process for process in marked(home) if f"cifar_tasks.steps.{step}" in process.cmdline()]
        return bool(found)

    wait_until(is_running, RUN_SECONDS)
    (process,) = found
    while not happened():
        process.resume()
        time.sleep(0.01)
        process.suspend()
    process.parent().kill()
    process.kill()
