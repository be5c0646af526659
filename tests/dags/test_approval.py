"""The task that waits for a person: what becomes of an answer, and of a rejection without a reason."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import approval

AT = datetime(2026, 11, 26, 12, tzinfo=UTC)


class AskedAgain(Exception):
    pass


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What the note of the DAG run shows; the task that asks again raises `AskedAgain`."""

    def execute(task: approval.Approval, context: Any) -> None:
        raise AskedAgain

    shown: list[list[str]] = []
    monkeypatch.setattr(approval, "show_in_note", shown.append)
    monkeypatch.setattr(approval.Approval, "execute", execute)
    return shown


def answered(option: str, person: str | None, reason: str | None) -> Any:
    task = approval.approval("Approve", task_id="approve", subject="Promote it?")
    event = {
        "chosen_options": [option],
        "responded_by_user": person and {"id": "7", "name": person},
        "responded_at": AT,
        "params_input": {} if reason is None else {approval.REASON: reason},
    }
    return approval.answer_fields(task.execute_complete({}, event))


@pytest.mark.parametrize("reason", [None, "", " "])
def test_who_rejects_without_a_reason_is_asked_again_and_the_note_says_so(notes, reason):
    with pytest.raises(AskedAgain):
        answered("Reject", "ada", reason)
    assert notes == [["ada rejected it without a reason: the task approve asks again"]]


@pytest.mark.parametrize(
    ("option", "person", "reason", "kept"),
    [
        ("Reject", "ada", " too slow ", "too slow"),
        ("Approve", "ada", None, ""),
        ("Approve", "ada", "as good", "as good"),
        ("Reject", None, "", ""),
    ],
    ids=["rejected", "approved without a reason", "approved", "no answer in time"],
)
def test_another_answer_is_kept_with_its_person_time_and_reason(notes, option, person, reason, kept):
    assert answered(option, person, reason) == {"by": person, "at": AT.isoformat(), "reason": kept}
    assert notes == []


def test_no_answer_in_time_is_a_no():
    task = approval.approval("Approve", task_id="approve", subject="Promote it?")
    assert (task.options, task.defaults) == (["Approve", "Reject"], ["Reject"])
    assert task.response_timeout == timedelta(hours=24)
