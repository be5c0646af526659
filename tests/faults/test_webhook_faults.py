"""SeaweedFS calls the webhook of dataset lines, in a stack: every object counts, and no burst makes a burst of runs."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from airflow_client.client.api.dag_api import DAGApi
from airflow_client.client.api.dag_run_api import DagRunApi
from airflow_client.client.api.event_log_api import EventLogApi
from airflow_client.client.models.dag_patch_body import DAGPatchBody

from benchmarks.temporary_stack import temporary_home
from cifar_tasks.cli.dag_run import ENDED, DagRun
from cifar_tasks.data.lines.line_index import read_index
from cifar_tasks.data.lines.line_log import read_line_log
from cifar_tasks.deployment import stack as embedded
from cifar_tasks.deployment.dag_ids import DATASET_DAG, TRAINING_DAG
from cifar_tasks.deployment.stack.environment import started_with
from cifar_tasks.deployment.stack.supervisord import log_path
from cifar_tasks.storage.s3 import S3Store, s3_client
from tests.dataset_lines import CLASSES, picture
from tests.integration.test_stack import pids
from tests.waiting import wait_for_end, wait_until
from tests.watched_line import LENIENT, started_airflow

TOKEN = "webhook-of-a-test-" * 2
NOTIFICATION = """
[notification.webhook]
enabled = true
endpoint = "http://127.0.0.1:{port}/dataset-lines/changed"
bearer_token = "{token}"
path_prefixes = ["/buckets/team/pets/"]
"""


@dataclass(frozen=True)
class Notified:
    """A stack whose SeaweedFS has a `notification.toml`; nothing else starts a check of `s3://team/pets`."""

    home: Path
    url: str
    client: Any
    source: S3Store
    store: S3Store

    def deliver(self, *numbers: int) -> None:
        def put(number: int) -> None:
            buffer = BytesIO()
            picture(number).save(buffer, "PNG")
            self.source.put(f"pets/{_name(number)}", buffer.getvalue())

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(put, numbers))

    def runs(self) -> dict[str, str]:
        return {
            run.dag_run_id: run.state.value
            for run in DagRunApi(self.client).get_dag_runs(DATASET_DAG, limit=100).dag_runs
        }

    def entries(self) -> int:
        return len(read_line_log(self.store, "pets").entries)

    def wait_for(self, *numbers: int) -> None:
        """Until the version in use has these images, and all runs have ended."""

        def are_there() -> bool:
            time.sleep(1)  # reading takes time that the runs need
            entry = read_line_log(self.store, "pets").entry_in_use()
            images = {row.name for row in read_index(self.store, entry.dataset).images} if entry else set()
            return {_name(number) for number in numbers} <= images

        wait_until(are_there, 300)
        while active := [run for run, state in self.runs().items() if state not in ENDED]:
            wait_for_end(DagRun(self.client, active[0], DATASET_DAG), 300)
        assert set(self.runs().values()) <= {"success"}

    def pause(self, paused: bool, dag: str = DATASET_DAG) -> None:
        DAGApi(self.client).patch_dag(dag, DAGPatchBody(is_paused=paused))

    def notify(self, key: str = "/buckets/team/pets/ant/0000.png") -> requests.Response:
        login = {"Authorization": f"Bearer {TOKEN}"}
        return requests.post(f"{self.url}/dataset-lines/changed", json={"key": key}, headers=login, timeout=60)


def _name(number: int) -> str:
    return f"{CLASSES[number % 2]}/{number:04}.png"


@pytest.fixture(scope="module")
def notified() -> Iterator[Notified]:
    with temporary_home() as home, pytest.MonkeyPatch.context() as patch:
        lines = {
            "pets": {"source": "s3://team/pets", "settle_seconds": 5},
            "digits": {"source": "digits", "settle_seconds": 5},
        }
        patch.setenv("CIFAR_DATASET_LINES", json.dumps(lines))
        patch.setenv("CIFAR_DATASET_LIMITS", json.dumps(LENIENT))
        patch.setenv("CIFAR_WEBHOOK_TOKEN", TOKEN)
        patch.setenv("HOME", str(home))  # where SeaweedFS looks for its configuration
        toml = home / ".seaweedfs" / "notification.toml"
        toml.parent.mkdir()
        toml.write_text(NOTIFICATION.format(port=started_with(home).airflow_port, token=TOKEN))
        with started_airflow(home, patch, TRAINING_DAG, DATASET_DAG) as client:
            s3 = s3_client()
            s3.create_bucket(Bucket="team")
            url = embedded.environment(home)["CIFAR_AIRFLOW_URL"]
            notified = Notified(home, url, client, S3Store("team", s3), S3Store("cifar"))
            notified.pause(True, TRAINING_DAG)  # a version would start a training
            notified.deliver(*range(60))
            notified.wait_for(*range(60))
            yield notified


def test_what_is_written_to_seaweedfs_becomes_one_version_without_a_schedule(notified: Notified) -> None:
    before, entries = notified.runs().keys(), notified.entries()
    notified.deliver(*range(300, 340))
    notified.wait_for(*range(300, 340))
    assert notified.entries() == entries + 1
    started = notified.runs().keys() - before
    assert 1 <= len(started) <= 4
    for run in started:  # Airflow's own log of what users do
        assert run.startswith("webhook__pets__")
        (logged,) = EventLogApi(notified.client).get_event_logs(run_id=run, event="trigger_dag_run").event_logs
        assert (logged.owner, logged.dag_id) == ("webhook", DATASET_DAG)
        assert DagRunApi(notified.client).get_dag_run(DATASET_DAG, run).triggering_user_name == "webhook"


def test_a_thousand_notifications_start_one_run(notified: Notified) -> None:
    before = notified.runs().keys()
    notified.pause(True)
    with ThreadPoolExecutor(16) as threads:
        answers = [answer.status_code for answer in threads.map(lambda _: notified.notify(), range(1000))]
    waiting = notified.runs().keys() - before
    notified.pause(False)
    assert (set(answers), len(waiting)) == ({202}, 1)
    notified.wait_for()
    assert len(notified.runs().keys() - before) == 1
    assert notified.notify("/buckets/team/birds/1.png").status_code == 204
    assert len(notified.runs().keys() - before) == 1


def test_an_upload_that_goes_on_while_runs_list_the_source_is_whole_in_the_end(notified: Notified) -> None:
    before, began = notified.runs().keys(), time.monotonic()
    for number in range(100, 200):
        notified.deliver(number)
        time.sleep(0.3)
    notified.wait_for(*range(100, 200))
    most = 2 + (time.monotonic() - began) / 10
    assert 1 <= len(notified.runs().keys() - before) <= most


def test_what_was_written_while_airflow_was_down_is_found_when_it_is_back(notified: Notified) -> None:
    before, log = notified.runs().keys(), log_path(notified.home, "s3")
    api_server = psutil.Process(pids(notified.home)["airflow-api-server"])
    processes = [api_server, *api_server.children(recursive=True)]
    for process in processes:
        process.kill()
    psutil.wait_procs(processes, timeout=20)
    notified.deliver(*range(200, 210))
    # SeaweedFS 4.48 gives up at the first failure, whatever `max_retries` is.
    wait_until(lambda: log.read_text().count("received dead letter message") >= 10, 60)
    embedded.up(notified.home, print)
    notified.wait_for(*range(200, 210))
    assert 1 <= len(notified.runs().keys() - before) <= 3


def test_the_token_is_in_no_log(notified: Notified) -> None:
    logs = [path for path in (notified.home / "logs").rglob("*") if path.is_file()]
    assert len(logs) > 5
    assert [path for path in logs if TOKEN in path.read_text(errors="replace")] == []
