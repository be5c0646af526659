"""A dataset line in Airflow: what is new becomes one version with one event, whoever checks it how often."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import pytest
from airflow_client.client.api.asset_api import AssetApi
from airflow_client.client.api.dag_api import DAGApi
from airflow_client.client.api.dag_run_api import DagRunApi
from airflow_client.client.api.task_instance_api import TaskInstanceApi
from airflow_client.client.models.create_asset_events_body import CreateAssetEventsBody
from airflow_client.client.models.dag_patch_body import DAGPatchBody
from airflow_client.client.models.update_hitl_detail_payload import UpdateHITLDetailPayload

from benchmarks.temporary_stack import temporary_home
from cifar_tasks.cli.dag_run import ENDED, DagRun, trigger
from cifar_tasks.cli.watch import AWAITING_INPUT
from cifar_tasks.data.lines.line_log import LineLog, read_line_log
from cifar_tasks.deployment import stack as embedded
from cifar_tasks.deployment.airflow_api import DAG as TRAINING_DAG
from cifar_tasks.deployment.airflow_api import airflow, find_dag
from cifar_tasks.storage.s3 import S3Store, s3_client
from tests.conftest import connect
from tests.dataset_lines import CLASSES, accept, picture, prepared
from tests.waiting import wait_until

DAG = "cifar10_dataset"
LENIENT = {"max_class_psi": 99, "max_ks": 1, "max_extreme": 1, "max_copies": 1, "max_label_errors": 1}
"""Of what is checked of a delivery only grey images matter here."""
SETTLING_SECONDS = 3
"""Airflow asks a second time where an answer comes before the scheduler knows that the task is parked."""


@dataclass(frozen=True)
class Watched:
    """A stack that watches the prefix `s3://team/pets`, and a client of its Airflow."""

    client: Any
    source: S3Store
    store: S3Store

    def deliver(self, name: str, number: int, mode: str = "RGB") -> None:
        buffer = BytesIO()
        picture(number).convert(mode).save(buffer, "PNG")
        self.source.put(f"pets/{name}", buffer.getvalue())

    def complete(self) -> None:
        time.sleep(1.1)  # S3 tells whole seconds
        self.source.put("pets/_COMPLETE", b"")

    def check(self, line: str | None = "pets") -> DagRun:
        return trigger(self.client, {"line": line}, DAG)

    def ended(self, run: DagRun) -> dict[str, str]:
        wait_until(lambda: run.state() in ENDED, 300)
        assert run.state() == "success", [(task.task_id, task.state) for task in run.tasks()]
        return {task.task_id: task.state.value for task in run.tasks()}

    def log(self) -> LineLog:
        return read_line_log(self.store, "pets")

    def events(self) -> list[dict[str, Any]]:
        events = AssetApi(self.client).get_asset_events(name_pattern="dataset_line_pets").asset_events
        return [event.extra for event in events]

    def runs(self) -> list[str]:
        return [run.dag_run_id for run in DagRunApi(self.client).get_dag_runs(DAG, limit=100).dag_runs]


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    with temporary_home() as home, pytest.MonkeyPatch.context() as patch:
        line = {"source": "s3://team/pets", "marker": "_COMPLETE"}
        digits = {"source": "digits", "settle_seconds": 0}
        patch.setenv("CIFAR_DATASET_LINES", json.dumps({"pets": line, "digits": digits}))
        patch.setenv("CIFAR_DATASET_LIMITS", json.dumps(LENIENT))
        embedded.up(home, print)
        connect(patch, embedded.environment(home))
        s3 = s3_client()
        s3.create_bucket(Bucket="team")
        url = embedded.environment(home)["CIFAR_AIRFLOW_URL"]
        with airflow(url, embedded.AIRFLOW_USER, embedded.airflow_password(home), 120) as client:
            wait_until(lambda: find_dag(client, TRAINING_DAG) is not None, 120)
            DAGApi(client).patch_dag(TRAINING_DAG, DAGPatchBody(is_paused=True))  # an event would start a training
            watched = Watched(client, S3Store("team", s3), S3Store("cifar"))
            for label, name in enumerate(CLASSES):
                for number in range(20):
                    watched.deliver(f"train/{name}/{number:03}.png", 1000 * label + number)
                for number in range(5):
                    watched.deliver(f"test/{name}/{number:03}.png", 1_000_000 + 1000 * label + number)
            watched.complete()
            assert watched.ended(watched.check())["announce"] == "success"
            yield watched


def test_a_version_has_an_entry_and_one_event_and_the_next_check_finds_nothing_new(watched: Watched) -> None:
    entry = watched.log().entry_in_use()
    before = watched.events()
    assert [(each["entry"], each["digest"]) for each in before][-1:] == [(entry.number, entry.dataset.digest)]
    run = watched.check()
    states = watched.ended(run)
    assert (states["check_source"], states["accept"], states["announce"]) == ("skipped",) * 3
    assert "nothing new" in DagRunApi(watched.client).get_dag_run(DAG, run.run_id).note
    assert watched.events() == before


def test_a_delivery_without_its_marker_is_waited_for_and_two_watches_make_one_version_with_one_event(
    watched: Watched,
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


def test_an_event_from_outside_checks_every_line_in_a_run_of_its_own(watched: Watched) -> None:
    assets = AssetApi(watched.client)
    found = assets.get_assets(name_pattern="dataset_source_pets").assets
    before = set(watched.runs())
    assets.create_asset_event(CreateAssetEventsBody(asset_id=found[0].id, extra={"by": "labelling tool"}))
    wait_until(lambda: len(set(watched.runs()) - before) == 3, 120)
    for run in set(watched.runs()) - before:
        watched.ended(DagRun(watched.client, run, DAG))
    assert read_line_log(watched.store, "digits").in_use() is not None


def test_a_version_whose_run_ended_before_its_event_has_it_after_the_next_check(watched: Watched) -> None:
    """As a person's release does, or a run that was deleted between the entry and the event."""
    for number in range(4):
        watched.deliver(f"train/bee/b{number}.png", 6000 + number)
    accept(watched.store, prepared(watched.store, "s3://team/pets", marker="_COMPLETE"))
    events = len(watched.events())
    watched.complete()
    watched.ended(watched.check())
    assert len(watched.events()) == events + 1
    assert watched.events()[-1]["entry"] == watched.log().last.number
    watched.ended(watched.check())
    assert len(watched.events()) == events + 1


def test_grey_images_are_quarantined_without_an_event_until_a_person_releases_the_version(watched: Watched) -> None:
    entries, events = len(watched.log().entries), len(watched.events())
    for number in range(10):
        watched.deliver(f"train/{CLASSES[number % 2]}/grey{number}.png", 7000 + number, "L")
    watched.complete()
    run = watched.check()
    wait_until(lambda: ("approve", AWAITING_INPUT) in {(task.task_id, task.state) for task in run.tasks()}, 300)
    quarantined = watched.log().last
    assert (quarantined.kind, quarantined.number) == ("quarantined", entries + 1)
    assert any(reason.startswith("grey images") for reason in quarantined.reasons)
    assert watched.log().in_use() != quarantined.dataset
    assert len(watched.events()) == events
    assert "grey images" in DagRunApi(watched.client).get_dag_run(DAG, run.run_id).note
    time.sleep(SETTLING_SECONDS)
    payload = UpdateHITLDetailPayload(chosen_options=["Release"], params_input={"reason": "an old camera"})
    TaskInstanceApi(watched.client).update_hitl_detail(DAG, run.run_id, "approve", -1, payload)
    states = watched.ended(run)
    assert (states["accept"], states["decide"], states["announce"]) == ("skipped", "success", "success")
    released = watched.log().last
    assert (released.kind, released.reason, released.dataset) == ("released", "an old camera", quarantined.dataset)
    assert released.by
    assert watched.events()[-1]["entry"] == released.number
