"""A month of a dataset line in fast motion, on a stack of its own: what Airflow, MLflow, S3 and the promotion log say.

The tests are one story. Each goes on where the one before has ended.
"""

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow_client.client.api.asset_api import AssetApi
from airflow_client.client.api.dag_run_api import DagRunApi
from airflow_client.client.models.create_asset_events_body import CreateAssetEventsBody
from PIL import Image
from typer.testing import CliRunner

from benchmarks.temporary_stack import temporary_home
from cifar_tasks.cli.dag_run import ENDED, trigger
from cifar_tasks.cli.main import app
from cifar_tasks.data.lines.line_index import read_index
from cifar_tasks.deployment import stack as embedded
from cifar_tasks.deployment.dag_ids import DATASET_DAG, PROMOTION_DAG, ROLLBACK_DAG
from cifar_tasks.settings import Settings
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import runs
from tests.conftest import COLOURS, picture
from tests.month import LINE, MODEL, PREFIX, Month
from tests.waiting import wait_until
from tests.watched_line import MARKER, RUN_SECONDS, started_airflow

COLOURED = {"source": f"s3://cifar/{PREFIX}", "image_size": 16, "marker": MARKER, "settle_seconds": 5}
SETTINGS = {
    "DATASET_LINES": json.dumps({LINE: COLOURED}),
    "SOURCE": f"line:{LINE}",
    "MODELS": "cnn",
    # Half a year away. Airflow makes the run of a new schedule at once if its last date is not long ago.
    "SCHEDULE": f"0 0 1 {(datetime.now(UTC).month + 5) % 12 + 1} *",
    "REGISTERED_MODEL": MODEL,
}

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def month() -> Iterator[Month]:
    with temporary_home() as home, pytest.MonkeyPatch.context() as patch:
        for name, value in SETTINGS.items():
            patch.setenv(f"CIFAR_{name}", value)
        with started_airflow(home, patch) as client:
            store = S3Store(Settings().bucket)
            yield Month(client, store, store, LINE, PREFIX, runs.mlflow_client())


def test_the_first_delivery_is_trained_and_its_model_is_the_champion(month: Month) -> None:
    month.upload(40)
    month.upload(10, "test")
    entry = month.accepted()
    assert (entry.number, entry.kind, entry.diff.new) == (1, "accepted", 120)
    assert [(event["entry"], event["digest"]) for event in month.events()] == [(1, entry.dataset.digest)]
    states = month.ended(month.training(1))
    assert month.sources(month.training(1)) == [1]
    assert (states["prepare"], states["report"], states["promote"]) == ("success", "success", "success")
    assert [(each.action, each.champion) for each in month.decisions(1)] == [("promote", 1)]
    wait_until(lambda: month.champion() == 1)
    (version,) = month.versions()
    assert version.tags["cifar.dataset"] == entry.dataset.digest
    assert (version.tags["cifar.line"], version.tags["cifar.line_entry"]) == (LINE, "1")
    assert f"/dags/{DATASET_DAG}/runs/" in version.tags["cifar.line_url"]
    assert [report.data.tags["cifar.quality"] for report in month.reports(entry)] == ["passed"]


def test_nothing_new_is_skipped_within_seconds_and_leaves_nothing(month: Month) -> None:
    before = month.counts()
    check = month.check()
    states = month.ended(check)
    assert {states[task] for task in ("check_source", "prepare_version", "accept", "announce")} == {"skipped"}
    assert "nothing new" in month.note(check)
    training = trigger(month.client, {})
    assert set(month.ended(training).values()) == {"skipped"}
    assert f"version 1 (cnn) of {MODEL}: same dataset version" in month.note(training)
    for run in (check, training):
        found = DagRunApi(month.client).get_dag_run(run.dag_id, run.run_id)
        assert (found.end_date - found.start_date).total_seconds() < 60
    assert month.changed(before) == {}


def test_500_new_images_are_trained_and_more_that_come_meanwhile_are_trained_after_them(month: Month) -> None:
    """The second delivery is checked before it is uploaded in full, and has two images of the test set."""
    month.upload(167)
    second = month.accepted()
    assert (second.number, second.kind, second.diff.new, second.diff.gone) == (2, "accepted", 501, 0)
    training = month.training(2)
    assert training.state() not in ENDED
    copies = {f"{PREFIX}/train/{colour}/copy.png" for colour in ("red", "blue")}
    for copy in copies:
        original = next(iter(month.store.keys(f"{PREFIX}/test/{copy.split('/')[-2]}/")))
        month.store.put(copy, month.store.get(original))
    month.upload(100)
    waiting = month.check()
    wait_until(lambda: month.states(waiting).get("wait_for_delivery") == "up_for_reschedule", RUN_SECONDS)
    assert len(month.log().entries) == 2
    month.upload(66)
    assert training.state() not in ENDED
    month.complete()
    states = month.ended(waiting)
    assert (states["wait_for_delivery"], states["accept"]) == ("success", "success")
    third = month.log().entries[-1]
    assert (third.number, third.diff.new, third.diff.dropped) == (3, 498, 2)
    assert {left.name for left in read_index(month.store, third.dataset).dropped} == {
        copy.removeprefix(f"{PREFIX}/") for copy in copies
    }
    assert third.dataset.counts["test"] == second.dataset.counts["test"] == dict.fromkeys(COLOURS, 10)


def test_events_that_come_while_a_run_trains_start_one_run_that_finds_nothing_to_train(month: Month) -> None:
    training = month.training(3)
    wait_until(lambda: training.state() == "running", RUN_SECONDS)
    assets = AssetApi(month.client)
    (asset,) = assets.get_assets(name_pattern=f"dataset_line_{LINE}").assets
    for _ in range(3):
        assets.create_asset_event(CreateAssetEventsBody(asset_id=asset.id, extra={"line": LINE}))
    assert month.ended(training)["report"] == "success"
    assert set(month.ended(month.training(4)).values()) == {"skipped"}
    first, *others = month.trainings()
    assert len(others) == 3
    for later in others:  # one at a time
        assert later.start_date >= first.end_date
        first = later
    assert [each.tags["cifar.dataset"] for each in month.versions()] == [
        entry.dataset.digest for entry in month.log().entries
    ]
    _, *compared = month.decisions(3)
    assert [(each.candidate, each.uses) for each in compared] == [(2, 2), (3, 3)]  # of one frozen test set
    assert {each.test_set for each in month.decisions()} == {compared[0].test_set}
    assert {each.action for each in compared} <= {"promote", "keep"}
    assert month.champion() == compared[-1].champion


def test_wrong_labels_are_quarantined_and_a_person_rejects_them(month: Month) -> None:
    before, names = month.counts(), month.upload(100)
    colours = list(COLOURS)
    for name in names[::10] + names[1::10] + names[2::10]:  # 30 %
        other = colours[colours.index(name.split("/")[1]) - 1]
        month.put(name, picture(COLOURS[other], month.random))
    run, entry = month.quarantined()
    assert {reason.split(" (")[0] for reason in entry.reasons} == {"label errors"}
    states = month.answer(run, "Reject", "labels are swapped")
    assert states["announce"] == "skipped"
    last = month.log().entries[-1]
    assert (last.kind, last.by, last.reason) == ("rejected", embedded.AIRFLOW_USER, "labels are swapped")
    assert month.log().entry_in_use().number == 3
    assert month.changed(before) == {"entries": 2}
    for name in names:
        month.source.delete(f"{PREFIX}/{name}")


def test_grey_pictures_are_quarantined_and_trained_once_a_person_releases_them(month: Month) -> None:
    before = month.counts()
    for name in month.upload(20):
        grey = Image.open(io.BytesIO(picture(COLOURS[name.split("/")[1]], month.random))).convert("L")
        month.put(name, as_png(grey))
    run, quarantined = month.quarantined()
    assert "grey images" in {reason.split(":")[0] for reason in quarantined.reasons}
    assert month.changed(before) == {"entries": 1}
    assert month.answer(run, "Release", "an old camera")["announce"] == "success"
    entry = month.log().entry_in_use()
    assert (entry.kind, entry.by, entry.reason) == ("released", embedded.AIRFLOW_USER, "an old camera")
    assert (entry.dataset, entry.diff.new) == (quarantined.dataset, 60)
    assert month.ended(month.training(5))["report"] == "success"
    assert month.decisions(4)[-1].candidate == 4
    assert month.versions()[-1].tags["cifar.dataset"] == entry.dataset.digest
    one_each = dict.fromkeys(("events", "trainings", "mlflow runs", "versions", "decisions"), 1)
    assert month.changed(before) == {"entries": 2} | one_each


def test_a_rollback_on_the_command_line_starts_a_run_that_trains_nothing_a_second_time(month: Month) -> None:
    before, newest, third = month.counts(), month.log().in_use(), month.log().entries[2]
    command = CliRunner().invoke(app, ["data", "rollback", LINE, "--reason", "the old camera was bad"])
    assert command.exit_code == 0, command.output
    entry = month.log().entry_in_use()
    assert (entry.kind, entry.dataset, entry.reason) == ("rolled_back", third.dataset, "the old camera was bad")
    assert entry.dataset != newest
    training = month.training(6)
    assert (month.events()[-1]["entry"], month.events()[-1]["digest"]) == (entry.number, third.dataset.digest)
    assert set(month.ended(training).values()) == {"skipped"}
    assert f"version 3 (cnn) of {MODEL}: same dataset version" in month.note(training)
    assert month.ended(month.check())["announce"] == "skipped"
    assert month.changed(before) == {"entries": 1, "events": 1, "trainings": 1}


def test_a_champion_that_was_rolled_back_does_not_come_back_with_the_next_run(month: Month) -> None:
    if month.champion() != 4:
        promote: dict[str, Any] = {"registered_model": MODEL, "version": 4, "mode": "force", "reason": "for now"}
        month.ended(trigger(month.client, promote, PROMOTION_DAG))
    wait_until(lambda: month.champion() == 4)
    before = month.counts()
    month.ended(trigger(month.client, {"registered_model": MODEL, "reason": "worse in use"}, ROLLBACK_DAG))
    last = month.decisions()[-1]
    assert (last.action, last.reason, last.champion) == ("rollback", "worse in use", month.champion())
    assert month.champion() < 4
    training = trigger(month.client, {"dataset_version": "7"})
    assert set(month.ended(training).values()) == {"skipped"}
    assert f"the champion is version {month.champion()}" in month.note(training)
    assert month.changed(before) == {"decisions": 1}


def as_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
