"""The promotion step on a real registry: which aliases move, in which order, and when the champion is scored again."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from cifar_tasks.steps.evaluate import evaluate_model
from cifar_tasks.steps.payloads import EvaluatedModel, RegisteredModel
from cifar_tasks.steps.register import register_model
from cifar_tasks.steps.train import train_model
from tests.conftest import COLOURS, RunningStack, connect, picture
from tests.promotions import promote
from tests.trainings import prepared, train_plan

Register = Callable[..., RegisteredModel]


@pytest.fixture(scope="module")
def evaluated(backend: RunningStack, pictures: Path) -> EvaluatedModel:
    """One model that was trained; versions of it differ in what their tags say."""
    with pytest.MonkeyPatch.context() as patch:
        connect(patch, backend.environment)
        return evaluate_model(train_model(train_plan(prepared(pictures, "promote"))))


@pytest.fixture
def register(client: MlflowClient, evaluated: EvaluatedModel, request: pytest.FixtureRequest) -> Register:
    """A function that registers one more version, in a registered model of the test."""

    def one_more(accuracy: float, base: EvaluatedModel = evaluated) -> RegisteredModel:
        data = base.trained.plan.data
        asked = data.request.model_copy(update={"registered_model": request.node.name})
        plan = base.trained.plan.model_copy(update={"data": data.model_copy(update={"request": asked})})
        run_id = client.create_run(data.experiment_id).info.run_id
        trained = base.trained.model_copy(update={"plan": plan, "run_id": run_id})
        return register_model(base.model_copy(update={"trained": trained, "test_accuracy": accuracy}))

    return one_more


def aliases(client: MlflowClient, version: RegisteredModel) -> dict[str, int]:
    return {alias: int(n) for alias, n in client.get_registered_model(version.name).aliases.items()}


def test_a_better_version_takes_the_champion_s_place_and_the_old_one_is_previous(client, register):
    promote(register(0.5))
    second = register(0.6)
    promotion = promote(second)
    assert (promotion.champion, promotion.previous, promotion.challenger) == (2, 1, None)
    assert aliases(client, second) == {"champion": 2, "previous": 1}
    decision = json.loads(client.get_model_version(second.name, "2").tags["cifar.decision"])
    assert (decision["number"], decision["action"]) == (2, "promote")
    assert "60.00% against 50.00%" in promotion.reasons[-1]


def test_a_version_that_is_not_better_is_challenger_and_the_champion_stays(client, register):
    promote(register(0.6))
    for accuracy in (0.6, 0.5):
        challenger = register(accuracy)
        promote(challenger)
        assert aliases(client, challenger) == {"champion": 1, "challenger": challenger.version}


def test_a_champion_of_other_test_images_is_scored_on_those_of_the_run(client, register, evaluated, tmp_path):
    """Its tag says 99 %, which it does not reach on images whose labels are exchanged."""
    promote(register(0.99))
    exchanged, random = tmp_path / "exchanged.zip", np.random.default_rng(5)
    with zipfile.ZipFile(exchanged, "w") as archive:
        for name, colour in zip(COLOURS, reversed(COLOURS.values()), strict=True):
            for split, count in (("train", 10), ("test", 10)):
                for number in range(count):
                    archive.writestr(f"{split}/{name}/{number}.png", picture(colour, random))
    other = prepared(exchanged, "promote-exchanged")
    plan = evaluated.trained.plan.model_copy(update={"data": other})
    trained = evaluated.trained.model_copy(update={"plan": plan})
    second = register(0.6, evaluated.model_copy(update={"trained": trained}))
    promotion = promote(second)
    assert promotion.champion == second.version
    assert "60.00% against 33" in promotion.reasons[-1]
