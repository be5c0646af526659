"""The dataset DAG as Airflow reads it: its form, its schedule, and its tasks."""

import json
from datetime import UTC, datetime

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

import cifar10_dataset
from approval import REASON
from cifar_tasks.steps.line_payloads import Verdict
from tests.dags.parsing import parse_elsewhere

TWO = json.dumps({"pets": {"source": "/pets", "settle_seconds": 3600}, "cars": {"source": "s3://team/cars"}})
DESCRIBE = """
import re
import cifar10_dataset
from approval import REASON
from airflow.serialization.serialized_objects import DagSerialization
dag = cifar10_dataset.cifar10_dataset()
timetable = json.dumps(DagSerialization.to_dict(dag)["dag"]["timetable"])
found = {"assets": sorted(set(re.findall("dataset_source_[a-z]+", timetable))), "cron": "*/5 * * * *" in timetable,
         "lines": dag.params.get_param("line").schema["examples"], "line": dag.params.get_param("line").value,
         "event_only": dag.params["event_only"],
         "inlets": sorted(asset.name for asset in dag.get_task("announce").inlets),
         "prepared_again_after": dag.get_task("prepare_version").retry_delay.total_seconds(),
         "at_most": dag.get_task("prepare_version").max_retry_delay.total_seconds()}
"""


def described(**variables: str) -> dict[str, object]:
    return json.loads(parse_elsewhere(f"{DESCRIBE}\nprint(json.dumps(found))", **variables))


def test_without_lines_the_dag_is_there_and_runs_only_when_triggered():
    found = described()
    assert (found.pop("prepared_again_after"), found.pop("at_most")) == (10, 600)
    assert found == {"assets": [], "cron": False, "lines": [], "line": None, "event_only": False, "inlets": []}


def test_lines_are_checked_by_the_schedule_and_by_events_from_outside():
    found = described(CIFAR_DATASET_LINES=TWO, CIFAR_DATASET_SCHEDULE="*/5 * * * *")
    assert found["assets"] == ["dataset_source_cars", "dataset_source_pets"]
    assert found["cron"]
    assert (found["lines"], found["line"]) == (["pets", "cars"], None)
    assert found["inlets"] == ["dataset_line_cars", "dataset_line_pets"]
    assert 3600 < found["prepared_again_after"] < found["at_most"]  # of the line that settles longest
    assert described(CIFAR_DATASET_LINES=TWO)["assets"] == found["assets"]


def test_the_form_has_the_only_line():
    assert described(CIFAR_DATASET_LINES='{"pets": {"source": "digits"}}')["line"] == "pets"


@pytest.fixture
def task(monkeypatch):
    """Calls a task of the DAG in a run for a line, with a step that returns a value; notes and steps are kept."""
    dag = cifar10_dataset.cifar10_dataset()
    kept = {"notes": [], "steps": []}
    monkeypatch.setattr(cifar10_dataset, "workflow_run", lambda: {"id": "dag/run", "name": "run"})
    monkeypatch.setattr(cifar10_dataset, "show_in_note", kept["notes"].extend)

    def call(name: str, result: object, *given: object, line="pets", event=False, **named: object):
        def step(step_name: str, **arguments: object) -> object:
            kept["steps"].append((step_name, arguments))
            return result

        params = {"line": line, "event_only": event}
        monkeypatch.setattr(cifar10_dataset, "run_task_step", step)
        monkeypatch.setattr(cifar10_dataset, "get_current_context", lambda: {"params": params})
        return dag.get_task(name).python_callable(*given, **named)

    call.kept = kept
    return call


def test_a_run_without_a_line_starts_a_run_for_each(task):
    assert task("branch_on_line", None, line=None) == "start_lines"
    assert task("branch_on_line", None) == "check_source"


def test_a_run_for_the_event_only_checks_nothing_and_names_its_line(task):
    assert task("branch_on_line", None, event=True) == "announce"
    with pytest.raises(AirflowFailException, match="event_only needs a dataset line"):
        task("branch_on_line", None, line=None, event=True)


def test_nothing_new_is_skipped_with_the_reason_in_the_note(task):
    with pytest.raises(AirflowSkipException, match="nothing new"):
        task("check_source", {"status": "unchanged", "reason": "nothing new"})
    assert task.kept["notes"] == ["nothing new"]
    task("check_source", {"status": "waiting", "reason": "not yet"})
    assert task.kept["steps"][0] == (
        "dataset_line:check_source",
        {"line": "pets", "workflow": {"id": "dag/run", "name": "run"}},
    )


def test_a_delivery_is_waited_for_until_it_is_complete_or_a_later_run_waits(task):
    for status, done in (("waiting", False), ("complete", True)):
        assert bool(task("wait_for_delivery", {"status": status, "reason": ""})) is done
    with pytest.raises(AirflowSkipException, match="later"):
        task("wait_for_delivery", {"status": "superseded", "reason": "a later run waits"})


def test_images_of_the_version_in_use_are_no_new_version(task):
    with pytest.raises(AirflowSkipException, match="those of the version in use"):
        task("prepare_version", {"changed": False, "diff": {"unreadable": 0, "dropped": 0}})
    with pytest.raises(AirflowSkipException, match="use; 40 new files cannot be read; 2 new files equal or resemble"):
        task("prepare_version", {"changed": False, "diff": {"unreadable": 40, "dropped": 2}})
    assert task("prepare_version", {"changed": True}) == {"changed": True}


def test_a_version_that_fails_a_check_is_quarantined_with_its_reasons_in_the_note(task):
    assert task("branch_on_validation", None, {"passed": True}) == "accept"
    validated = {"passed": False, "prepared": {}}
    assert task("branch_on_validation", None, validated) == "quarantine"
    task("quarantine", {"number": 3, "kind": "quarantined", "reasons": ["brightness: 0.3"]}, validated)
    assert task.kept["notes"] == ["entry 3: quarantined", "brightness: 0.3"]
    assert task.kept["steps"][-1][0] == "validate_dataset:quarantine_version"


@pytest.mark.parametrize(
    ("option", "person", "release"),
    [("Release", "ann", True), ("Reject", "ann", False), ("Reject", None, False)],
    ids=["released", "rejected", "nobody answered"],
)
def test_the_answer_of_a_person_reaches_the_step_with_name_and_reason(task, option, person, release):
    response = {
        "chosen_options": [option],
        "responded_by_user": person and {"id": "1", "name": person},
        "responded_at": datetime(2026, 1, 1, tzinfo=UTC),
        "params_input": {REASON: "new camera"} if person else {},
    }
    task("decide", {"number": 4, "kind": "released"}, {"prepared": {}}, response)
    step, arguments = task.kept["steps"][-1]
    assert step == "validate_dataset:record_verdict"
    expected = Verdict(release=release, by=person, reason="new camera" if person else "", at=response["responded_at"])
    assert Verdict.model_validate(arguments["verdict"]) == expected


def test_quarantine_and_approval_lie_on_the_other_branch_than_accept():
    dag = cifar10_dataset.cifar10_dataset()
    assert dag.get_task("branch_on_validation").downstream_task_ids == {"accept", "quarantine"}
    assert dag.get_task("quarantine").downstream_task_ids == {"approve"}
    assert dag.get_task("decide").upstream_task_ids == {"approve", "validate"}
    assert dag.get_task("announce").upstream_task_ids == {"accept", "decide", "branch_on_line"}
    assert dag.get_task("approve").defaults == ["Reject"]


class Events(list):
    """As Airflow gives them: an event has what was said about it."""

    def __getitem__(self, key):
        return self

    def ascending(self, up):
        return self

    def limit(self, count):
        return self


class Event:
    def __init__(self, **extra):
        self.extra = extra


class Outlet(dict):
    def __missing__(self, key):
        self[key] = self
        return self

    def add(self, asset, extra):
        self.added = (asset.name, extra)


ENTRY = {"kind": "accepted", "number": 4, "dataset": {"digest": "d", "uri": "s3://d", "counts": {"train": {"a": 1}}}}


@pytest.mark.parametrize(
    ("entry", "events"),
    [
        (None, []),
        (ENTRY, [Event(entry=3, digest="c"), Event(entry=4, digest="d")]),
    ],
    ids=["no version", "announced already"],
)
def test_no_event_without_a_version_that_has_none_yet(task, entry, events):
    outlet = Outlet()
    with pytest.raises(AirflowSkipException):
        task("announce", entry, inlet_events=Events(events), outlet_events=outlet)
    assert not hasattr(outlet, "added")


@pytest.mark.parametrize("kind", ["accepted", "released", "rolled_back"])
def test_a_version_that_comes_into_use_has_an_event_with_line_digest_and_counts(task, kind):
    outlet = Outlet()
    events = Events([Event(entry=3, digest="d"), Event(), Event(entry=4, digest="of a log that was moved away")])
    task("announce", {**ENTRY, "kind": kind}, inlet_events=events, outlet_events=outlet)
    extra = {"line": "pets", "entry": 4, "digest": "d", "uri": "s3://d", "counts": {"train": {"a": 1}}}
    assert outlet.added == ("dataset_line_pets", extra)
