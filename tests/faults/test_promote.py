"""Promotion on real services: what is decided, what the log keeps, and which aliases move."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cifar_tasks.errors import ConfigError
from cifar_tasks.promotion.limits import Limits
from cifar_tasks.settings import Settings
from cifar_tasks.steps.process import run_step
from cifar_tasks.steps.promote import record
from cifar_tasks.storage.s3 import S3Store, sha256_hex
from cifar_tasks.tracking.decisions import SECTION
from tests.conftest import COLOURS, picture
from tests.promotions import aliases, cifar, log_of, promote, proposed, registered_as
from tests.trainings import as_json, prepared, workflow


@pytest.fixture
def name(new_name: str) -> str:
    return new_name


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
    folder = f"evaluation-{log_of(name).last.test_set[:16]}"
    champion = client.get_model_version(name, "1").run_id
    kept = {file.path.partition("/")[2] for file in client.list_artifacts(champion, folder)}
    assert kept == {
        "classification_report.json",
        "classification_report.txt",
        "confused_images.png",
        "confusion_matrix.json",
        "confusion_matrix.png",
        "reliability.png",
        "test_images.png",
    }


def test_promotions_lists_who_was_champion_when_and_why(client, name, weak):
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
