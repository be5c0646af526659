"""What MLflow shows of a decision: names are text, and nothing is longer than MLflow keeps."""

from datetime import UTC, datetime

import pytest

from cifar_tasks.evaluation.names import printable
from cifar_tasks.storage.promotion_log import Entry
from cifar_tasks.tracking.decisions import MAX_DESCRIPTION, SECTION, describe_decision, keeping_decision, with_section
from tests.names import NASTY_NAMES

ENTRY = Entry(
    registered_model="model",
    number=3,
    previous_sha256=None,
    time=datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
    action="promote",
    candidate=2,
    champion=2,
    previous=1,
    challenger=None,
    who="ada",
    reason="a better one",
    reasons=("version 2 replaces version 1", "test accuracy 90.00% against 80.00%"),
)


def test_a_decision_is_told_with_person_reason_and_evidence() -> None:
    assert describe_decision(ENTRY).splitlines() == [
        "Entry 3 of the promotion log, 2026-01-02 03:04 UTC: **promote** by ada: a better one",
        "",
        "- version 2 replaces version 1",
        "- test accuracy 90.00% against 80.00%",
    ]


@pytest.mark.parametrize("name", NASTY_NAMES)
def test_what_people_wrote_is_text(name: str) -> None:
    text = describe_decision(ENTRY.model_copy(update={"who": name, "reason": name, "reasons": (name,)}))
    assert name not in text.replace("**promote**", "") or name == printable(name)
    assert len(text.splitlines()) == 3


def test_the_next_decision_takes_the_place_of_the_one_before() -> None:
    first = with_section("about the version", "first", 1000)
    assert first == f"about the version{SECTION}first"
    assert with_section(first, "second", 1000) == f"about the version{SECTION}second"


def test_a_new_description_keeps_the_decision_of_the_one_before() -> None:
    decided = with_section("of the first try", "decision", 1000)
    assert keeping_decision("of the retry", decided) == f"of the retry{SECTION}decision"
    assert keeping_decision("of the retry", "of the first try") == "of the retry"


def test_a_description_that_is_too_long_is_cut_before_the_decision() -> None:
    text = with_section("a" * 6000, "decision", MAX_DESCRIPTION)
    assert (len(text), text.endswith(f"{SECTION}decision")) == (MAX_DESCRIPTION, True)
    assert len(with_section("a", "b" * 9000, MAX_DESCRIPTION)) == MAX_DESCRIPTION
