"""Steps refuse a stored model that was altered, and tell a storage that is gone."""

from functools import partial

import pytest

from cifar_tasks.errors import IntegrityError, StorageError
from cifar_tasks.steps.evaluate import evaluate_model
from cifar_tasks.steps.plan import plan_training
from cifar_tasks.steps.train import train_model
from cifar_tasks.storage import s3
from cifar_tasks.storage.s3 import S3Store
from tests.trainings import child_run, prepared, train_plan


def test_a_stored_model_that_was_altered_is_not_evaluated(client, pictures):
    data = prepared(pictures, "altered")
    trained = train_model(train_plan(data, epochs=1))
    artifacts_of = S3Store("mlflow")
    (program,) = [key for key in artifacts_of.keys("") if key.endswith("model.pt2") and trained.saved.model_id in key]
    artifacts_of.put(program, artifacts_of.get(program)[:-1000])
    with pytest.raises(IntegrityError, match="is damaged"):
        evaluate_model(trained)


def test_a_model_that_scores_otherwise_than_in_training_fails_the_run(client, pictures):
    """The report's second defect: 95.72 % in training, 80 % in evaluation."""
    data = prepared(pictures, "disagrees")
    trained = train_model(train_plan(data, epochs=1))
    with pytest.raises(IntegrityError, match="what was saved is not what was trained"):
        evaluate_model(trained.model_copy(update={"validation_accuracy": trained.validation_accuracy - 0.1572}))
    (run,) = child_run(client, "test/disagrees")
    assert run.info.status == "FAILED"
    assert "test_accuracy" not in run.data.metrics


def test_storage_that_is_gone_is_an_error_worth_a_retry(client, pictures, monkeypatch):
    data = prepared(pictures, "storage-gone")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setattr(s3, "s3_client", partial(s3.s3_client, attempts=1))
    with pytest.raises(StorageError) as caught:
        plan_training(data)
    assert caught.value.retryable
