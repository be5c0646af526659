"""Fixtures of several files: the browser, for pages that are slow or wait for a person, and a champion."""

import re
from pathlib import Path

import pytest
from mlflow import MlflowClient

from cifar_tasks.steps.evaluate import evaluate_model
from cifar_tasks.steps.payloads import EvaluatedModel
from cifar_tasks.steps.train import train_model
from tests.browser.conftest import keep, page
from tests.conftest import RunningStack, connect
from tests.promotions import promote, registered_as
from tests.trainings import prepared, train_plan

__all__ = ["evaluated", "keep", "name", "page"]


@pytest.fixture(scope="module")
def evaluated(backend: RunningStack, pictures: Path, request: pytest.FixtureRequest) -> EvaluatedModel:
    """One model; each test registers versions of it, and the mode force moves the champion."""
    with pytest.MonkeyPatch.context() as patch:
        connect(patch, backend.environment)
        # Files run at once, on one MLflow.
        data = prepared(pictures, request.module.__name__)
        return evaluate_model(train_model(train_plan(data, epochs=1)))


@pytest.fixture
def name(client: MlflowClient, evaluated: EvaluatedModel, request: pytest.FixtureRequest) -> str:
    """A registered model of which version 1 is the champion."""
    name = re.sub(r"\W", "-", request.node.name)[-90:].strip("-_")
    promote(registered_as(client, evaluated, name))
    return name
