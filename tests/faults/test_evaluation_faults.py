"""An evaluation that is killed, and a saved model that was altered before it."""

import signal

import pytest

from cifar_tasks.errors import IntegrityError, WorkerLost
from cifar_tasks.settings import Settings
from cifar_tasks.steps.evaluate import evaluate_model
from cifar_tasks.steps.train import train_model
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking.evaluations import read_evaluation, read_probabilities
from cifar_tasks.tracking.saved_model import PROGRAM
from tests.trainings import Background, as_json, child_run, prepared, train_plan
from tests.waiting import wait_until


def test_an_evaluation_killed_before_its_last_object_is_made_again_in_the_same_run(client, pictures):
    trained = train_model(train_plan(prepared(pictures, "evaluation-killed"), epochs=1))
    step = Background("tests.trainings:evaluate_and_hang_before_the_evaluation_is_written", trained=as_json(trained))
    wait_until(lambda: "hanging" in step.lines, 180)
    step.child().send_signal(signal.SIGKILL)
    step.join()
    assert isinstance(step.error, WorkerLost)
    store, evaluated = S3Store(Settings().bucket), evaluate_model(trained)
    evaluation = read_evaluation(store, evaluated.test_set, trained.saved.sha256)
    assert read_probabilities(store, evaluation).shape == (60, 3)
    (run,) = child_run(client, "test/evaluation-killed")
    assert (run.info.run_id, run.info.status) == (trained.run_id, "FINISHED")
    assert len(client.get_metric_history(trained.run_id, "test_accuracy")) == 1


def test_a_saved_model_that_was_altered_is_not_evaluated(client, pictures):
    trained = train_model(train_plan(prepared(pictures, "evaluation-altered"), epochs=1, seed=9))
    files, name = S3Store("mlflow"), str(PROGRAM)
    (key,) = (key for key in files.keys("") if trained.saved.model_id in key and key.endswith(name))
    files.put(key, files.get(key)[:-1] + b"x")
    with pytest.raises(IntegrityError, match=r"is damaged: SHA-256"):
        evaluate_model(trained)
    (run,) = child_run(client, "test/evaluation-altered")
    assert run.info.status == "FAILED"
