"""Fixtures of several files: the browser, for pages that are slow or wait for a person, and models to promote."""

import os
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


@pytest.fixture(scope="session")
def weak_and_strong(backend: RunningStack, pictures: Path) -> tuple[EvaluatedModel, EvaluatedModel]:
    with pytest.MonkeyPatch.context() as patch:
        connect(patch, backend.environment)
        data = prepared(pictures, f"weak-and-strong-{os.getpid()}")  # of each worker, which run at once
        weak, strong = (
            evaluate_model(train_model(train_plan(data, **values)))
            for values in ({"epochs": 1, "learning_rate": 1e-6}, {"epochs": 3})
        )
        assert (weak.test_accuracy < 0.7, strong.test_accuracy > 0.9) == (True, True)
        return weak, strong


@pytest.fixture
def weak(weak_and_strong: tuple[EvaluatedModel, EvaluatedModel]) -> EvaluatedModel:
    """A model that has learnt nothing."""
    return weak_and_strong[0]


@pytest.fixture
def strong(weak_and_strong: tuple[EvaluatedModel, EvaluatedModel]) -> EvaluatedModel:
    """A model that knows nearly all test images."""
    return weak_and_strong[1]


@pytest.fixture
def new_name(request: pytest.FixtureRequest) -> str:
    """Of a registered model without versions."""
    return re.sub(r"\W", "-", request.node.name)[-90:].strip("-_")


@pytest.fixture
def name(client: MlflowClient, evaluated: EvaluatedModel, new_name: str) -> str:
    """A registered model of which version 1 is the champion."""
    promote(registered_as(client, evaluated, new_name))
    return new_name
