"""Promotions about which a person is asked."""

import re
from datetime import UTC, datetime

import pytest

from cifar_tasks.settings import Settings
from cifar_tasks.steps.promote import propose, record
from cifar_tasks.steps.promotion_payloads import Answer
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking.approval_figures import read_figure
from tests.promotions import aliases, log_of, promote, proposed, registered_as

YES = Answer(approved=True, by="ada", at=datetime(2026, 1, 2, 3, 4, tzinfo=UTC))
NO = Answer(approved=False, by="bob", at=datetime(2026, 1, 2, 3, 4, tzinfo=UTC), reason="unfair\nto cats ")
NOBODY = Answer(approved=False, by=None)


@pytest.fixture
def name(new_name: str) -> str:
    return new_name


def test_a_run_that_was_cleared_after_its_decision_asks_nobody_and_keeps_it(client, name, weak, strong):
    promote(registered_as(client, weak, name))
    proposal = proposed(registered_as(client, strong, name), mode="approve")
    assert proposal.needs_approval
    assert record(proposal, NO).action == "reject"
    again = propose(proposal.request, proposal.workflow)
    assert not again.needs_approval
    assert again.reasons[0].startswith(
        "entry 2 of the promotion log has the decision of this run; to decide again, start"
    )
    assert record(again, None).action == "reject"
    assert log_of(name).last.number == 2


def test_decisions_while_a_person_is_asked_count_as_uses_of_the_test_set(client, name, weak, strong):
    promote(registered_as(client, weak, name))
    waiting = proposed(registered_as(client, strong, name), mode="approve")
    meanwhile = promote(registered_as(client, weak, name))
    assert record(waiting, YES).action == "promote"
    last = log_of(name).last
    assert last.uses > log_of(name).entries[meanwhile.number - 1].uses


@pytest.mark.parametrize(
    ("answer", "action", "reason"),
    [
        (YES, "promote", "ada approved it at 2026-01-02 03:04 UTC"),
        (NO, "reject", "bob rejected it at 2026-01-02 03:04 UTC: unfair to cats"),
        (NOBODY, "reject", "nobody answered in time"),
        (None, "keep", "nobody was asked"),
    ],
    ids=["yes", "no", "nobody", "none"],
)
def test_in_the_mode_approve_a_person_decides(client, name, weak, strong, answer, action, reason):
    promote(registered_as(client, weak, name))
    promotion = promote(registered_as(client, strong, name), answer, mode="approve")
    assert promotion.action == action
    assert promotion.reasons[-1].startswith(reason)
    entry = log_of(name).last
    assert (entry.who, entry.answer_reason) == (answer and answer.by, "unfair to cats" if answer is NO else "")
    assert entry.answered == (answer and answer.at)
    assert reason in client.get_model_version(name, "2").description
    moved = {"champion": 2, "previous": 1} if action == "promote" else {"champion": 1, "challenger": 2}
    assert aliases(client, name) == moved


def test_a_first_version_that_was_rejected_is_promoted_when_it_is_approved_later(client, name, strong, weak):
    first = registered_as(client, strong, name)
    assert promote(first, NO, mode="approve").action == "reject"
    assert aliases(client, name) == {"challenger": 1}
    assert promote(first, YES, mode="approve").action == "promote"
    assert aliases(client, name) == {"champion": 1, "challenger": 1}  # an alias is never deleted
    assert promote(registered_as(client, weak, name)).action == "keep"
    assert aliases(client, name) == {"champion": 1, "challenger": 2}


def test_the_person_who_is_asked_sees_one_figure_of_the_comparison_also_after_a_retry(client, name, weak, strong):
    promote(registered_as(client, weak, name))
    proposal = proposed(registered_as(client, strong, name), mode="approve")
    (figure,) = re.findall(r"!\[[^]]*\]\(models-page/figures/(\w+)\.png\)", proposal.markdown)
    assert read_figure(S3Store(Settings().bucket), figure).startswith(b"\x89PNG")
    again = propose(proposal.request, proposal.workflow)
    assert (figure in again.markdown, again.comparison_url) == (True, proposal.comparison_url)


def test_a_second_answer_and_a_retry_change_nothing(client, name, weak, strong):
    promote(registered_as(client, weak, name))
    proposal = proposed(registered_as(client, strong, name), mode="approve")
    first = record(proposal, NO)
    for again in (NO, YES, NOBODY):
        assert record(proposal, again) == first
    assert len(log_of(name).entries) == 2
    assert aliases(client, name) == {"champion": 1, "challenger": 2}


def test_no_one_is_asked_if_the_evidence_is_against_it(client, name, weak, strong):
    promote(registered_as(client, strong, name))
    proposal = proposed(registered_as(client, weak, name), mode="approve")
    assert not proposal.needs_approval
    assert "![" not in proposal.markdown
    assert record(proposal, None).action == "keep"


def test_an_approval_of_another_comparison_promotes_nothing(client, name, weak, strong):
    promote(registered_as(client, weak, name))
    slow, fast = (proposed(registered_as(client, strong, name), mode="approve") for _ in range(2))
    assert record(fast, YES).champion == 3
    late = record(slow, YES)
    assert (late.action, late.champion) == ("keep", 3)
    assert late.reasons[-1].startswith("the champion is version 3 since then; to decide again, start the DAG")
