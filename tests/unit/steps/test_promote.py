"""Promotion of two versions of one model: what is proposed and recorded, and what becomes of a damaged champion."""

import json
import logging

import pytest

from cifar_tasks.data.versions import load_version
from cifar_tasks.errors import ConfigError, IntegrityError
from cifar_tasks.steps.payloads import EvaluatedModel, RegisteredModel
from cifar_tasks.steps.promote import propose, record
from cifar_tasks.steps.promotion_payloads import Answer
from cifar_tasks.storage.promotion_log import read_log
from cifar_tasks.storage.s3 import sha256_hex
from cifar_tasks.tracking import runs
from cifar_tasks.tracking.decisions import DECISION, SECTION
from cifar_tasks.tracking.evaluations import read_evaluation
from cifar_tasks.tracking.model_registry import CLASSES
from cifar_tasks.tracking.version_evidence import TEST_SET, common_evaluations, gather_evidence
from tests.promotions import aliases, promote, proposed, registered_as
from tests.unit.steps.conftest import Services


@pytest.fixture
def first(services: Services, evaluated: EvaluatedModel) -> RegisteredModel:
    """The champion."""
    registered = registered_as(services.client, evaluated, services.registered_model)
    assert promote(registered).champion == 1
    return registered


@pytest.fixture
def second(services: Services, evaluated: EvaluatedModel, first: RegisteredModel) -> RegisteredModel:
    """The candidate: the same model once more."""
    return registered_as(services.client, evaluated, services.registered_model)


def test_a_version_that_is_as_good_is_compared_logged_and_does_not_become_the_champion(
    services: Services, evaluated: EvaluatedModel, second: RegisteredModel, caplog: pytest.LogCaptureFixture
):
    proposal = proposed(second)
    assert (proposal.champion, proposal.promote, proposal.needs_approval) == (1, False, False)
    run = services.client.get_run(services.client.get_model_version(second.name, "2").run_id)
    assert proposal.mlflow_url == runs.run_url(run.info.run_id, run.info.experiment_id)
    with caplog.at_level(logging.INFO):
        done = record(proposal, None)
    assert caplog.messages[-len(done.reasons) - 1 :] == [
        f"entry 2 of the promotion log of {second.name}: keep",
        *done.reasons,
    ]
    assert record(proposal, None) == done  # a retry finds the entry
    assert (done.number, done.action, done.champion, done.challenger) == (2, "keep", 1, 2)
    assert aliases(services.client, second.name) == {"champion": 1, "challenger": 2}
    entries = read_log(services.store, second.name).entries
    assert [(entry.uses, entry.who) for entry in entries] == [(1, None), (2, None)]  # the evidence has decided
    *_, entry = entries
    compared = entry.decision["comparison"]
    assert (compared["only_candidate_right"], compared["only_champion_right"]) == (0, 0)
    assert compared["candidate_accuracy"] == compared["champion_accuracy"] == evaluated.test_accuracy
    assert len(entry.decision["evaluated"]) == 2


def test_the_version_and_its_training_show_the_decision(
    services: Services, evaluated: EvaluatedModel, first: RegisteredModel
):
    version = services.client.get_model_version(first.name, "1")
    decision = json.loads(version.tags[DECISION])
    assert (decision["number"], decision["action"], decision["mode"]) == (1, "promote", "auto")
    assert f"{SECTION}Entry 1 of the promotion log, " in version.description
    parent = services.client.get_run(evaluated.trained.plan.data.parent_run_id)
    assert "Entry 1 of the promotion log" in parent.data.tags["mlflow.note.content"]
    assert "promotion.json" in {entry.path for entry in services.client.list_artifacts(parent.info.run_id)}


def test_the_page_that_a_run_decided_with_stays_if_the_run_is_cleared(
    services: Services, evaluated: EvaluatedModel, second: RegisteredModel
):
    proposal = proposed(second)
    folder = f"promotions/{second.name}/comparisons/"
    page = f"{folder}{sha256_hex(proposal.workflow.id.encode())[:16]}.html"
    before = services.store.get(page)
    assert f"Promotion of version 2 of {second.name}" in before.decode()
    assert f"[The whole comparison]({proposal.comparison_url})" in proposal.markdown
    record(proposal, None)
    again = propose(proposal.request, proposal.workflow)
    assert again.reasons[0].startswith("entry 2 of the promotion log has the decision of this run")
    assert again.comparison_url == proposal.comparison_url
    assert services.store.get(page) == before
    other = registered_as(services.client, evaluated, second.name)
    another = propose(proposal.request.model_copy(update={"version": other.version}), proposal.workflow)
    assert (another.comparison_url, "The whole comparison" in another.markdown) == (None, False)
    assert services.store.get(page) == before


@pytest.mark.parametrize(
    ("answer", "action", "champion", "said"),
    [
        (Answer(approved=True, by="bob"), "promote", 1, "bob approved it"),
        (Answer(approved=False, by="bob", reason="too  slow"), "reject", None, "bob rejected it: too slow"),
        (Answer(approved=False, by=None), "reject", None, "nobody answered in time"),
        (Answer(approved=True, by=None), "promote", 1, "it was approved"),
        (None, "keep", None, "nobody was asked"),
    ],
)
def test_a_person_s_answer_decides_where_one_is_asked(
    services: Services, evaluated: EvaluatedModel, answer: Answer | None, action: str, champion: int | None, said: str
):
    registered = registered_as(services.client, evaluated, services.registered_model)
    proposal = proposed(registered, mode="approve")
    assert (proposal.promote, proposal.needs_approval) == (True, True)
    done = record(proposal, answer)
    assert (done.action, done.champion) == (action, champion)
    assert done.reasons[-1].startswith(said)
    assert read_log(services.store, registered.name).last.who == (answer and answer.by)


def test_a_person_who_forces_a_promotion_is_in_the_log(services: Services, second: RegisteredModel):
    proposal = proposed(second, mode="force", reason="the customer asked for it")
    started = proposal.workflow.model_copy(update={"by": "ada"})
    assert record(proposal.model_copy(update={"workflow": started}), None).champion == 2
    last = read_log(services.store, second.name).last
    assert (last.mode, last.who, last.reason) == ("force", "ada", "the customer asked for it")


def test_an_approval_does_not_count_if_the_champion_is_another_one_by_then(
    services: Services, evaluated: EvaluatedModel
):
    waiting, other = (registered_as(services.client, evaluated, services.registered_model) for _ in range(2))
    proposal = proposed(waiting, mode="approve")
    promote(other)
    done = record(proposal, Answer(approved=True, by="bob"))
    assert (done.action, done.champion) == ("keep", 2)
    assert done.reasons[-1].startswith("the champion is version 2 since then")


def test_a_champion_that_was_deleted_is_replaced(services: Services, second: RegisteredModel):
    services.client.delete_model_version(second.name, "1")
    done = promote(second)
    assert (done.action, done.champion, done.previous) == ("promote", 2, None)


@pytest.mark.parametrize(
    ("tag", "problem"),
    [
        ("cifar.dataset_uri", "has no tag cifar.dataset_uri"),
        ("cifar.model", "has no tag cifar.model"),
        ("cifar.model_sha256", "cifar.model_sha256"),
        ("cifar.classes", "the tag cifar.classes of version 1 "),
    ],
)
def test_a_champion_whose_tags_were_changed_stays(services: Services, second: RegisteredModel, tag: str, problem: str):
    if tag == CLASSES:  # without this one the names are read from the model
        services.client.set_model_version_tag(second.name, "1", tag, "ant, bee")
    else:
        services.client.delete_model_version_tag(second.name, "1", tag)
    done = promote(second)
    assert (done.action, done.champion) == ("keep", 1)
    assert problem in " ".join(done.reasons)


def test_a_candidate_whose_tag_was_deleted_is_refused(services: Services, second: RegisteredModel):
    services.client.delete_model_version_tag(second.name, "2", "cifar.dataset_uri")
    with pytest.raises(IntegrityError, match=r"version 2 of .* has no tag cifar\.dataset_uri"):
        proposed(second)
    assert len(read_log(services.store, second.name).entries) == 1


def test_a_champion_is_not_compared_with_itself(services: Services, first: RegisteredModel):
    evidence = gather_evidence(services.client, services.store, first.name, 1, 1, 0.95)
    assert (evidence.comparison, evidence.champion) == (None, evidence.candidate)
    alone = gather_evidence(services.client, services.store, first.name, 1, None, 0.95)
    assert (alone.comparison, alone.champion) == (None, None)


def test_what_is_scored_is_what_the_evaluation_has_stored(
    services: Services, evaluated: EvaluatedModel, first: RegisteredModel
):
    found = gather_evidence(services.client, services.store, first.name, 1, None, 0.95)
    evaluation = read_evaluation(services.store, evaluated.test_set, evaluated.trained.saved.sha256)
    data = load_version(services.store, evaluated.trained.plan.data.dataset_uri)
    assert found.evaluations == (evaluation, None)
    scored = found.candidate
    assert (scored.version, scored.model, scored.classes) == (1, "cnn", data.classes)
    assert (scored.accuracy, scored.test_set, scored.placeholder) == (evaluation.accuracy, evaluated.test_set, False)
    assert scored.calibration_error == evaluation.calibration.expected_error


def test_two_versions_are_compared_by_their_evaluations_on_the_same_images(
    services: Services, evaluated: EvaluatedModel, second: RegisteredModel
):
    name, client = second.name, services.client

    def versions() -> list:
        return [client.get_model_version(name, number) for number in ("1", "2")]

    both = common_evaluations(services.store, versions())
    assert both[0] == both[1] == read_evaluation(services.store, evaluated.test_set, evaluated.trained.saved.sha256)
    client.delete_model_version_tag(name, "1", TEST_SET)
    assert common_evaluations(services.store, versions()) == both
    client.delete_model_version_tag(name, "2", TEST_SET)
    with pytest.raises(ConfigError, match=r"version 1 of .* was registered without an evaluation"):
        common_evaluations(services.store, versions())
    for number in ("1", "2"):
        client.set_model_version_tag(name, number, TEST_SET, f"of other images {number}")
    with pytest.raises(ConfigError, match="were evaluated on different test images"):
        common_evaluations(services.store, versions())
    client.set_model_version_tag(name, "1", "cifar.classes", '["cat", "dog"]')
    with pytest.raises(ConfigError, match="know different classes"):
        common_evaluations(services.store, versions())
