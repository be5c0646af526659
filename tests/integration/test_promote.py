"""Promotion and rollback on real services: what is decided, what the log keeps, and which aliases move."""

import getpass
import json
import re
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from cifar_tasks.cli.main import app
from cifar_tasks.errors import ConfigError, IntegrityError
from cifar_tasks.promotion.limits import Limits
from cifar_tasks.settings import Settings
from cifar_tasks.steps.evaluate import evaluate_model
from cifar_tasks.steps.payloads import EvaluatedModel
from cifar_tasks.steps.process import run_step
from cifar_tasks.steps.promote import propose, record
from cifar_tasks.steps.promotion_payloads import Answer
from cifar_tasks.steps.train import train_model
from cifar_tasks.storage.s3 import S3Store, sha256_hex
from cifar_tasks.tracking.approval_figures import read_figure
from cifar_tasks.tracking.decisions import SECTION
from cifar_tasks.tracking.evaluations import StoredEvaluation, read_evaluation
from tests.conftest import COLOURS, RunningStack, connect, picture
from tests.promotions import aliases, log_of, promote, proposed, registered_as, rolled_back
from tests.trainings import as_json, prepared, train_plan, workflow

YES = Answer(approved=True, by="ada", at=datetime(2026, 1, 2, 3, 4, tzinfo=UTC))
NO = Answer(approved=False, by="bob", at=datetime(2026, 1, 2, 3, 4, tzinfo=UTC), reason="unfair\nto cats ")
NOBODY = Answer(approved=False, by=None)


@pytest.fixture(scope="module")
def models(backend: RunningStack, pictures: Path) -> tuple[EvaluatedModel, EvaluatedModel]:
    """One that has learnt nothing, and one that knows nearly all test images."""
    with pytest.MonkeyPatch.context() as patch:
        connect(patch, backend.environment)
        data = prepared(pictures, "promote")
        weak, strong = (
            evaluate_model(train_model(train_plan(data, **values)))
            for values in ({"epochs": 1, "learning_rate": 1e-6}, {"epochs": 3})
        )
        assert (weak.test_accuracy < 0.7, strong.test_accuracy > 0.9) == (True, True)
        return weak, strong


@pytest.fixture
def weak(models: tuple[EvaluatedModel, EvaluatedModel]) -> EvaluatedModel:
    return models[0]


@pytest.fixture
def strong(models: tuple[EvaluatedModel, EvaluatedModel]) -> EvaluatedModel:
    return models[1]


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return re.sub(r"\W", "-", request.node.name)


def test_a_better_version_takes_the_champion_s_place_and_the_old_one_is_previous(client, name, weak, strong):
    first = promote(registered_as(client, weak, name))
    assert (first.action, first.champion, first.previous, first.number) == ("promote", 1, None, 1)
    promotion = promote(registered_as(client, strong, name))
    assert (promotion.action, promotion.champion, promotion.previous) == ("promote", 2, 1)
    assert aliases(client, name) == {"champion": 2, "previous": 1}
    entry = log_of(name).last
    assert (entry.number, entry.candidate, entry.mode, entry.test_set) == (2, 2, "auto", strong.test_set)
    assert entry.decision["comparison"]["candidate_accuracy"] == strong.test_accuracy
    assert entry.decision["limits"] == Limits().model_dump()
    stored = [ref for found in entry.decision["evaluated"] for ref in found.values()]
    assert len(stored) == 4
    assert all(S3Store(Settings().bucket).get(ref["key"], ref["sha256"]) for ref in stored)
    assert entry.uses > log_of(name).entries[0].uses


def test_the_version_and_the_parent_run_of_its_training_show_the_last_decision_once(client, name, weak, strong):
    promote(registered_as(client, strong, name))
    promotion = promote(registered_as(client, weak, name))
    promote(registered_as(client, weak, name))
    version = client.get_model_version(name, "2")
    decision = json.loads(version.tags["cifar.decision"])
    assert (decision["number"], decision["action"], decision["reasons"]) == (2, "keep", promotion.reasons)
    assert version.description.startswith("Test accuracy")
    assert "Entry 2 of the promotion log" in version.description
    parent = client.get_run(weak.trained.plan.data.parent_run_id)
    note = parent.data.tags["mlflow.note.content"]
    assert note.count(SECTION.strip()) == 1
    assert "Entry 3 of the promotion log" in note
    kept = json.loads(Path(client.download_artifacts(parent.info.run_id, "promotion.json")).read_text())
    assert (kept["number"], kept["candidate"]) == (3, 3)


def test_a_version_that_is_not_better_is_challenger_and_the_champion_stays(client, name, weak, strong):
    promote(registered_as(client, strong, name))
    for evaluated in (strong, weak):
        registered = registered_as(client, evaluated, name)
        assert promote(registered).action == "keep"
        assert aliases(client, name) == {"champion": 1, "challenger": registered.version}


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


def test_a_challenger_that_is_promoted_is_challenger_no_more(client, name, weak, strong):
    promote(registered_as(client, weak, name))
    better = registered_as(client, strong, name)
    assert promote(better, mode="never").action == "keep"
    assert aliases(client, name) == {"champion": 1, "challenger": 2}
    promote(better)
    assert aliases(client, name) == {"champion": 2, "challenger": 1, "previous": 1}


def test_a_version_that_is_the_champion_already_stays_so(client, name, strong):
    registered = registered_as(client, strong, name)
    promote(registered)
    promotion = promote(registered)
    assert (promotion.action, promotion.champion, promotion.challenger) == ("keep", 1, None)
    assert aliases(client, name) == {"champion": 1}


@pytest.mark.parametrize(
    ("answer", "action", "reason"),
    [
        (YES, "promote", "ada approved it at 2026-01-02 03:04 UTC"),
        (NO, "reject", "bob rejected it at 2026-01-02 03:04 UTC: unfair to cats"),
        (NOBODY, "reject", "nobody answered in time"),
        (None, "reject", "nobody was asked"),
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
    assert reason in client.get_model_version(name, "2").description
    moved = {"champion": 2, "previous": 1} if action == "promote" else {"champion": 1, "challenger": 2}
    assert aliases(client, name) == moved


def test_the_person_who_is_asked_sees_one_figure_of_the_comparison_also_after_a_retry(client, name, weak, strong):
    promote(registered_as(client, weak, name))
    proposal = proposed(registered_as(client, strong, name), mode="approve")
    (figure,) = re.findall(r"!\[[^]]*\]\(models-page/figures/(\w+)\.png\)", proposal.markdown)
    assert read_figure(S3Store(Settings().bucket), figure).startswith(b"\x89PNG")
    again = propose(proposal.request, proposal.workflow)
    assert (figure in again.markdown, again.comparison_url) == (True, proposal.comparison_url)


def test_the_page_of_a_comparison_has_the_same_bytes_in_s3_and_in_mlflow(client, name, weak, strong):
    promote(registered_as(client, weak, name))
    proposal = proposed(registered_as(client, strong, name))
    page = f"comparisons/{sha256_hex(proposal.workflow.id.encode())[:16]}.html"
    kept = S3Store(Settings().bucket).get(f"promotions/{name}/{page}")
    run_id = client.get_model_version(name, "2").run_id
    assert Path(client.download_artifacts(run_id, page)).read_bytes() == kept
    assert f"Promotion of version 2 of {name}" in kept.decode()
    assert run_id in proposal.comparison_url
    assert f"[The whole comparison]({proposal.comparison_url})" in proposal.markdown


def test_a_proposal_from_stored_probabilities_takes_less_than_two_seconds_and_loads_no_torch(
    client, name, weak, strong
):
    """With the figure for a person. The test with 10,000 images is a benchmark."""
    promote(registered_as(client, weak, name))
    registered = registered_as(client, strong, name)
    asked = {"registered_model": name, "version": registered.version, "mode": "approve", "limits": {}}
    took = run_step("tests.propose_alone:propose_alone", request=asked, workflow=as_json(workflow(name)))
    assert took["loaded"] == ["scipy"]
    assert took["seconds"] < 2


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


def test_force_promotes_against_the_evidence_and_needs_a_reason(client, name, weak, strong):
    promote(registered_as(client, strong, name))
    other = registered_as(client, weak, name)
    with pytest.raises(ConfigError, match="needs a reason"):
        proposed(other, mode="force")
    proposal = proposed(other, mode="force", reason="the customer asked for it")
    started = proposal.workflow.model_copy(update={"by": "ada"})
    assert record(proposal.model_copy(update={"workflow": started}), None).champion == 2
    assert (log_of(name).last.reason, log_of(name).last.who) == ("the customer asked for it", "ada")


def test_a_first_version_meets_the_floors_or_there_is_no_champion(client, name, weak):
    promotion = promote(registered_as(client, weak, name), limits=Limits(min_accuracy=0.95))
    assert (promotion.action, promotion.champion) == ("keep", None)
    assert "champion" not in aliases(client, name)


def test_a_candidate_is_compared_with_the_champion_that_another_run_made_meanwhile(client, name, weak, strong):
    promote(registered_as(client, weak, name))
    slow, fast = (proposed(registered_as(client, strong, name)) for _ in range(2))
    assert record(fast, None).champion == 3
    late = record(slow, None)
    assert (late.action, late.champion, late.challenger) == ("keep", 3, 2)
    assert log_of(name).last.decision["champion"]["version"] == 3


def test_an_approval_of_another_comparison_promotes_nothing(client, name, weak, strong):
    promote(registered_as(client, weak, name))
    slow, fast = (proposed(registered_as(client, strong, name), mode="approve") for _ in range(2))
    assert record(fast, YES).champion == 3
    late = record(slow, YES)
    assert (late.action, late.champion) == ("keep", 3)
    assert late.reasons[-1].startswith("the champion is version 3 since then; to decide again, start the DAG")


def test_a_champion_that_a_person_set_is_logged_and_compared_with(client, name, weak, strong):
    promote(registered_as(client, strong, name))
    registered_as(client, weak, name)
    client.set_registered_model_alias(name, "champion", "2")
    promotion = promote(registered_as(client, strong, name))
    assert [entry.action for entry in log_of(name).entries] == ["promote", "manual", "promote"]
    assert aliases(client, name) == {"champion": promotion.candidate, "previous": 2}


def test_a_champion_of_other_test_images_is_scored_on_those_of_the_run(client, name, strong, tmp_path):
    exchanged, random = tmp_path / "exchanged.zip", np.random.default_rng(5)
    with zipfile.ZipFile(exchanged, "w") as archive:
        for label, colour in zip(COLOURS, reversed(COLOURS.values()), strict=True):
            for split, count in (("train", 10), ("test", 10)):
                for number in range(count):
                    archive.writestr(f"{split}/{label}/{number}.png", picture(colour, random))
    promote(registered_as(client, strong, name))
    plan = strong.trained.plan.model_copy(update={"data": prepared(exchanged, "promote-exchanged")})
    trained = strong.trained.model_copy(update={"plan": plan})
    promote(registered_as(client, strong.model_copy(update={"trained": trained}), name))
    compared = log_of(name).last.decision
    assert compared["comparison"]["images"] == 30
    assert compared["champion"]["accuracy"] == pytest.approx(1 / 3, abs=0.1)


class TestRollback:
    def test_the_previous_champion_is_the_champion_again(self, client, name, weak, strong):
        promote(registered_as(client, weak, name))
        promote(registered_as(client, strong, name))
        promotion = rolled_back(name, reason=" it is slow ", by="ada")
        assert (promotion.action, promotion.champion, promotion.previous) == ("rollback", 1, 2)
        assert aliases(client, name) == {"champion": 1, "previous": 2}
        entry = log_of(name).last
        assert (entry.who, entry.reason, entry.candidate) == ("ada", "it is slow", 1)
        assert entry.reasons[0] == "version 1 is the champion again, in place of version 2"
        assert "it classifies 60 test images as it did" in entry.reasons[1]
        assert json.loads(client.get_model_version(name, "1").tags["cifar.decision"])["action"] == "rollback"
        assert rolled_back(name).champion == 2

    def test_what_cannot_be_rolled_back_to_is_named(self, client, name, weak):
        promote(registered_as(client, weak, name))
        problems = {None: "names no champion before", 1: "champion already", 7: "deleted or renamed"}
        for version, problem in problems.items():
            with pytest.raises(ConfigError, match=problem):
                rolled_back(name, version)
        with pytest.raises(ConfigError, match="no registered model none-such"):
            rolled_back("none-such")
        with pytest.raises(ConfigError, match="give the reason"):
            rolled_back(name, reason="  ")
        assert len(log_of(name).entries) == 1

    @pytest.mark.parametrize("what", ["evaluation", "probabilities"])
    @pytest.mark.parametrize("fault", ["deleted", "altered"])
    def test_without_its_stored_probabilities_nothing_moves(self, client, name, weak, strong, what, fault):
        promote(registered_as(client, weak, name))
        promote(registered_as(client, strong, name))
        store = S3Store(Settings().bucket)
        version = client.get_model_version(name, "1")
        evaluation = read_evaluation(store, version.tags["cifar.test_set"], weak.trained.saved.sha256)
        key = {"evaluation": evaluation_key(evaluation), "probabilities": evaluation.probabilities.key}[what]
        before = store.get(key)
        if fault == "deleted":
            store.delete(key)
        else:
            store.put(key, b"x" + before[1:])
        try:
            with pytest.raises(IntegrityError, match="nothing tells whether the model still answers as it did"):
                rolled_back(name)
        finally:
            store.put(key, before)  # the models of this file are shared
        assert aliases(client, name)["champion"] == 2
        assert len(log_of(name).entries) == 2


class TestCommands:
    def test_promotions_lists_who_was_champion_when_and_why(self, client, name, weak):
        promote(registered_as(client, weak, name))
        client.set_registered_model_alias(name, "challenger", "1")
        repaired = cifar("promotions", "repair", "--registered-model", name)
        assert "Entry 2 of the promotion log: the alias challenger is at version 1." in repaired.output
        again = cifar("promotions", "repair", "--registered-model", name)
        assert "The aliases follow the promotion log already." in again.output
        header, first, second = cifar("promotions", "--registered-model", name).output.splitlines()
        assert header.split() == ["entry", "time", "(UTC)", "decision", "version", "champion", "by", "reason"]
        assert first.split()[3:6] == ["promote", "1", "1"]
        assert "is the first champion" in first
        assert "somebody in MLflow" in second
        promote(registered_as(client, weak, name), mode="never")
        shown = " ".join(cifar("promotions", "--registered-model", name).output.split())
        assert len(log_of(name).last.reasons) > 1
        assert "; ".join(log_of(name).last.reasons) in shown
        kept = json.loads(cifar("promotions", "--registered-model", name, "--json").output)
        assert [entry["action"] for entry in kept] == ["promote", "manual", "keep"]
        assert kept[0]["decision"]["candidate"]["accuracy"] == weak.test_accuracy

    def test_rollback_says_what_it_verified_and_logs_the_person(self, client, name, weak):
        for _ in range(2):
            promote(registered_as(client, weak, name), mode="force", reason="a test")
        done = cifar("rollback", "--registered-model", name, "--reason", "slow on [old] phones")
        assert "version 1 is the champion again, in place of version 2" in done.output
        assert "reason given: slow on [old] phones" in done.output
        assert "Entry 3 of the promotion log" in done.output
        assert log_of(name).last.who == getpass.getuser()


def evaluation_key(evaluation: StoredEvaluation) -> str:
    return f"{evaluation.probabilities.key.rpartition('/')[0]}/evaluation.json"


def cifar(*words: str) -> Result:
    done = CliRunner().invoke(app, words, env={"COLUMNS": "250"})
    assert done.exit_code == 0, done.output
    return done
