"""Rollback: an earlier version is verified before it becomes the champion again."""

import pytest

from cifar_tasks.errors import ConfigError, IntegrityError
from cifar_tasks.steps.payloads import EvaluatedModel
from cifar_tasks.steps.promotion_payloads import RollbackRequest
from cifar_tasks.steps.rollback import TOLERANCE, roll_back
from cifar_tasks.storage.promotion_log import read_log
from tests.promotions import FORCE, aliases, promote, registered_as, rolled_back
from tests.trainings import workflow
from tests.unit.steps.conftest import Services


@pytest.fixture
def name(services: Services, evaluated: EvaluatedModel) -> str:
    """Of a registered model of which version 2 is the champion, after version 1."""
    for _ in range(2):
        promote(registered_as(services.client, evaluated, services.registered_model), **FORCE)
    return services.registered_model


@pytest.mark.parametrize("version", [None, 1])
def test_the_version_before_is_the_champion_again_and_a_retry_finds_its_entry(
    services: Services, name: str, evaluated: EvaluatedModel, version: int | None
):
    asked = RollbackRequest(registered_model=name, version=version, reason=" it is slow ")
    started = workflow("back").model_copy(update={"by": "ada"})
    done = roll_back(asked, started)
    assert roll_back(asked, started) == done
    assert (done.action, done.champion, done.previous) == ("rollback", 1, 2)
    assert aliases(services.client, name)["champion"] == 1
    *_, last = read_log(services.store, name).entries
    assert (last.number, last.who, last.reason) == (3, "ada", "it is slow")
    assert last.reasons == (
        "version 1 is the champion again, in place of version 2",
        f"verified: its files have the SHA-256 {evaluated.trained.saved.sha256[:12]}…, "
        "and it classifies 20 test images as it did",
        "reason given: it is slow",
    )


def test_the_champion_itself_is_refused(services: Services, name: str):
    with pytest.raises(ConfigError, match=r"version 2 of .* is the champion already"):
        rolled_back(name, 2)
    assert len(read_log(services.store, name).entries) == 2


@pytest.mark.parametrize(("gap", "refused"), [(0.5 * TOLERANCE, False), (1.5 * TOLERANCE, True)])
def test_a_model_that_answers_otherwise_than_it_did_is_refused(
    services: Services, name: str, monkeypatch: pytest.MonkeyPatch, gap: float, refused: bool
):
    """`gap`: of the probability of the first test image."""
    from cifar_tasks.evaluation import calibration

    to_float16 = calibration.to_float16

    def moved(values):
        probabilities = to_float16(values).copy()
        probabilities[0, 0] += gap if probabilities[0, 0] < 0.5 else -gap
        return probabilities

    monkeypatch.setattr(calibration, "to_float16", moved)
    if refused:
        with pytest.raises(IntegrityError, match="does not compute its stored probabilities: on 20 test images"):
            rolled_back(name)
    else:
        rolled_back(name)
    assert aliases(services.client, name)["champion"] == (2 if refused else 1)


def test_without_stored_probabilities_nothing_moves(services: Services, name: str):
    for key in list(services.store.keys("evaluations/")):
        services.store.delete(key)
    with pytest.raises(IntegrityError, match=r"has no stored probabilities.*mode never; or choose another version"):
        rolled_back(name)
    assert aliases(services.client, name)["champion"] == 2
