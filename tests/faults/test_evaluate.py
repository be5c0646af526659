"""The evaluation step on real storage and MLflow: what it leaves, and what a retry finds."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from cifar_tasks.data.versions import load_version
from cifar_tasks.errors import IntegrityError
from cifar_tasks.settings import Settings
from cifar_tasks.steps.evaluate import evaluate_model
from cifar_tasks.steps.payloads import TrainedModel
from cifar_tasks.steps.register import register_model
from cifar_tasks.steps.train import train_model
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import evaluations
from cifar_tasks.tracking.evaluations import StoredEvaluation, ensure_evaluated, read_evaluation, read_probabilities
from tests.conftest import RunningStack, connect
from tests.trainings import prepared, train_plan


@pytest.fixture(scope="module")
def trained(backend: RunningStack, pictures: Path) -> TrainedModel:
    with pytest.MonkeyPatch.context() as patch:
        connect(patch, backend.environment)
        return train_model(train_plan(prepared(pictures, "evaluate", registered_model="evaluate"), epochs=1))


@pytest.fixture
def store(client: MlflowClient) -> S3Store:
    return S3Store(Settings().bucket)


def stored(store: S3Store, trained: TrainedModel) -> StoredEvaluation:
    evaluated = evaluate_model(trained)
    found = read_evaluation(store, evaluated.test_set, trained.saved.sha256)
    assert found
    return found


def scored_again(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What models are scored from now on."""
    models, score = [], evaluations.score_model

    def score_and_note(model, *arguments):
        models.append(model)
        return score(model, *arguments)

    monkeypatch.setattr(evaluations, "score_model", score_and_note)
    return models


def test_all_scores_are_metrics_of_the_run_and_of_the_model(client, store, trained):
    evaluation = stored(store, trained)
    metrics = client.get_run(trained.run_id).data.metrics
    assert metrics["test_accuracy"] == evaluation.accuracy
    assert metrics["test_calibration_error"] == evaluation.calibration.expected_error
    assert metrics["test_brier_score"] == evaluation.calibration.brier
    for name in ("flipped", "shifted", "noisy", "blurred", "jpeg"):
        assert metrics[f"test_accuracy_{name}"] == evaluation.robustness.accuracies[name]
    assert metrics["test_accuracy_altered"] == evaluation.robustness.mean
    assert metrics["test_latency_ms"] == evaluation.latency.single_ms
    assert metrics["test_latency_batch_ms"] == evaluation.latency.batch_ms
    assert metrics["test_images_per_second"] == evaluation.latency.images_per_second
    assert metrics["model_size_mb"] == evaluation.size_mb > 1
    of_the_model = {metric.key for metric in client.get_logged_model(trained.saved.model_id).metrics}
    assert {"test_brier_score", "test_accuracy_jpeg", "test_latency_ms", "model_size_mb"} <= of_the_model


def test_the_version_tells_its_scores_in_tags_and_description(client, store, trained):
    evaluation = stored(store, trained)
    registered = register_model(evaluate_model(trained))
    version = client.get_model_version(registered.name, str(registered.version))
    assert version.tags["cifar.test_set"] == evaluation.test_set.digest
    assert float(version.tags["cifar.calibration_error"]) == evaluation.calibration.expected_error
    assert float(version.tags["cifar.size_mb"]) == evaluation.size_mb
    assert version.tags["cifar.latency_measured_on"] == evaluation.latency.hardware
    for part in ("Calibration error", f"{evaluation.size_mb:.1f} MB", "ms for one image", "flipped"):
        assert part in version.description


def test_a_retry_after_a_kill_logs_the_same_scores_and_does_not_score_again(client, store, trained, monkeypatch):
    evaluation = stored(store, trained)
    store.delete(f"{trained.prefix}/evaluated.json")
    models = scored_again(monkeypatch)
    assert evaluate_model(trained).test_accuracy == evaluation.accuracy
    assert models == []
    assert store.exists(f"{trained.prefix}/evaluated.json")


def test_a_deleted_evaluation_stops_the_registration_and_is_made_again_by_the_step(store, trained, monkeypatch):
    evaluated, evaluation = evaluate_model(trained), stored(store, trained)
    for key in list(store.keys(f"evaluations/{evaluation.test_set.digest[:16]}/{trained.saved.sha256[:16]}/")):
        store.delete(key)
    with pytest.raises(IntegrityError, match=r"was deleted from s3://.*Run the task evaluate again"):
        register_model(evaluated)
    models = scored_again(monkeypatch)
    assert evaluate_model(trained) == evaluated
    assert len(models) == 1
    assert register_model(evaluated).version == 1


@pytest.mark.parametrize("part", ["evaluation", "labels", "probabilities"])
def test_a_damaged_evaluation_is_made_again_by_the_step(store, trained, monkeypatch, part):
    evaluated, evaluation = evaluate_model(trained), stored(store, trained)
    folder = f"evaluations/{evaluation.test_set.digest[:16]}/"
    key = {
        "evaluation": f"{folder}{trained.saved.sha256[:16]}/evaluation.json",
        "labels": evaluation.labels.key,
        "probabilities": evaluation.probabilities.key,
    }[part]
    store.put(key, store.get(key)[:-5])
    models = scored_again(monkeypatch)
    assert evaluate_model(trained) == evaluated
    assert len(models) == 1
    assert read_probabilities(store, stored(store, trained)).shape == (60, 3)


def test_a_model_is_opened_only_if_it_was_not_evaluated(store, trained, monkeypatch):
    """As for a champion whose evaluation is asked for by the promotion."""
    evaluation = stored(store, trained)
    version = load_version(store, evaluation.test_set.dataset_uri)
    opened, open_model = [], evaluations.open_model
    monkeypatch.setattr(evaluations, "open_model", lambda *a: opened.append(a) or open_model(*a))
    cache = Settings().home / "cache"
    assert ensure_evaluated(store, trained.saved, version, cache) == evaluation
    assert opened == []
    store.delete(evaluation.probabilities.key)
    again = ensure_evaluated(store, trained.saved, version, cache)
    assert len(opened) == 1
    assert again.probabilities == evaluation.probabilities
    assert read_probabilities(store, again).shape == (60, 3)
