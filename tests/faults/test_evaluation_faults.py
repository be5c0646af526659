"""An evaluation that is killed, and one whose test images are damaged."""

import itertools
import shutil
import signal
import zipfile
from pathlib import Path

import numpy as np

from cifar_tasks.data.versions import load_version, shards_of
from cifar_tasks.errors import WorkerLost
from cifar_tasks.promotion.evidence import Unscored
from cifar_tasks.settings import Settings
from cifar_tasks.steps.evaluate import evaluate_model
from cifar_tasks.steps.payloads import RegisteredModel
from cifar_tasks.steps.register import register_model
from cifar_tasks.steps.train import train_model
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking.evaluations import read_evaluation, read_probabilities
from cifar_tasks.tracking.version_evidence import gather_evidence
from tests.conftest import COLOURS, picture
from tests.trainings import Background, as_json, child_run, prepared, train_plan
from tests.waiting import wait_until


def test_an_evaluation_killed_before_its_last_object_is_made_again_in_the_same_run(client, pictures):
    # A seed of its own: an equal model of another test would have its evaluation already.
    trained = train_model(train_plan(prepared(pictures, "evaluation-killed"), epochs=1, seed=31))
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


def test_damaged_test_images_do_not_cost_the_champion_its_place(client, pictures, tmp_path):
    def registered(source: Path, name: str) -> RegisteredModel:
        data = prepared(source, name, registered_model="damaged-images")
        return register_model(evaluate_model(train_model(train_plan(data, epochs=1))))

    others, random = tmp_path / "others.zip", np.random.default_rng(3)
    with zipfile.ZipFile(others, "w") as archive:
        for (name, colour), number in itertools.product(COLOURS.items(), range(20)):
            archive.writestr(f"{('train', 'test')[number % 2]}/{name}/{number}.png", picture(colour, random))
    champion, candidate = registered(pictures, "damaged-images"), registered(others, "damaged-images-too")
    store = S3Store(Settings().bucket)
    version = load_version(store, candidate.evaluated.trained.plan.data.dataset_uri)
    for ref in shards_of(store, version)["test-images"]:
        store.delete(ref.key)
    shutil.rmtree(Settings().home / "cache" / version.digest[:16])
    evidence = gather_evidence(client, store, candidate.name, candidate.version, champion.version, 0.95)
    assert isinstance(evidence.champion, Unscored)
    assert "test-images" in evidence.champion.reason
    assert not evidence.champion.gone
