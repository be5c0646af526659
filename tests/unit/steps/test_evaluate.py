"""Evaluation of the saved model: what it logs, what it refuses, and what a second try finds."""

import logging

import pytest

from cifar_tasks.data.loading import load_split
from cifar_tasks.data.versions import load_version
from cifar_tasks.errors import IntegrityError
from cifar_tasks.settings import Settings
from cifar_tasks.steps import evaluate as step
from cifar_tasks.steps.evaluate import evaluate_model
from cifar_tasks.steps.payloads import TrainedModel
from cifar_tasks.tracking.evaluations import read_evaluation, read_probabilities
from tests.unit.steps.conftest import Services

CLASSES = 2
"""Of the data."""


def test_the_scores_are_those_of_the_saved_model_on_the_test_images(services: Services, trained, monkeypatch, caplog):
    monkeypatch.setattr(step, "CLASSES_IN_LOG", CLASSES)
    with caplog.at_level(logging.INFO):
        evaluated = evaluate_model(trained)
    version = load_version(services.store, trained.plan.data.dataset_uri)
    test = load_split(services.store, version, "test", Settings().home / "cache")
    evaluation = read_evaluation(services.store, evaluated.test_set, trained.saved.sha256)
    predicted = read_probabilities(services.store, evaluation).argmax(axis=1)
    accuracy = float((predicted == test.labels).mean())
    assert evaluated.test_accuracy == evaluation.accuracy == accuracy

    run = services.client.get_run(trained.run_id)
    assert run.info.status == "FINISHED"
    metrics = run.data.metrics
    assert metrics["accuracy"] == metrics["test_accuracy"] == accuracy
    assert metrics["test_loss"] == evaluated.test_loss == evaluation.loss
    for name, altered in evaluation.robustness.accuracies.items():
        assert metrics[f"test_accuracy_{name}"] == altered
    assert {"test_macro_precision", "test_macro_recall", "test_macro_f1-score"} <= metrics.keys()
    assert f"cnn: test accuracy {100 * accuracy:.2f} % on {len(test)} images" in caplog.messages
    assert any("precision" in message for message in caplog.messages)


def test_a_second_try_finds_the_evaluation(trained, monkeypatch, caplog):
    with caplog.at_level(logging.INFO):
        evaluated = evaluate_model(trained)
        assert any("precision" in message for message in caplog.messages)
        monkeypatch.setattr(step, "open_model", lambda *arguments: pytest.fail("it is evaluated again"))
        assert evaluate_model(trained) == evaluated
    assert "evaluated already" in caplog.messages


def test_the_table_of_many_classes_is_not_in_the_log(trained, monkeypatch, caplog):
    monkeypatch.setattr(step, "CLASSES_IN_LOG", CLASSES - 1)
    with caplog.at_level(logging.INFO):
        evaluate_model(trained)
    assert not any("precision" in message for message in caplog.messages)


@pytest.mark.parametrize("difference", [-0.5, 0.5])
def test_a_saved_model_that_scores_otherwise_than_training_logged_is_refused(
    services: Services, trained: TrainedModel, difference: float
):
    other = trained.model_copy(update={"validation_accuracy": trained.validation_accuracy + difference})
    with pytest.raises(IntegrityError, match=r"what was saved is not what was trained\. It is not registered"):
        evaluate_model(other)
    assert services.client.get_run(trained.run_id).info.status == "FAILED"
    assert not list(services.store.keys("evaluations/"))
