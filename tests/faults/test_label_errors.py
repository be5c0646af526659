"""A champion finds wrong labels in the next delivery, and its runs name the delivery that it was trained on."""

import json
import zipfile

import numpy as np

from cifar_tasks.settings import Settings
from cifar_tasks.steps.dataset_line import accept_version, prepare_version
from cifar_tasks.steps.evaluate import evaluate_model
from cifar_tasks.steps.register import register_model
from cifar_tasks.steps.report import report
from cifar_tasks.steps.train import train_model
from cifar_tasks.steps.validate_dataset import validate_dataset
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking.runs import NOTE
from tests.conftest import COLOURS
from tests.conftest import picture as coloured
from tests.integration.test_validate_dataset import workflow
from tests.promotions import promote
from tests.trainings import prepared, train_plan


def test_a_champion_names_its_delivery_and_looks_for_wrong_labels_in_the_next_one_unless_its_model_was_deleted(
    client, monkeypatch, tmp_path, pictures
):
    """Its own line: 60 images of each of three colours, then thirty blue ones in the folder of the red ones."""
    root = tmp_path / "colours"
    with zipfile.ZipFile(pictures) as archive:
        archive.extractall(root)
    line = {"source": str(root), "settle_seconds": 0}
    monkeypatch.setenv("CIFAR_DATASET_LINES", json.dumps({"colours": line}))
    monkeypatch.setenv("CIFAR_REGISTERED_MODEL", "colours")
    accept_version(prepare_version("colours"), workflow(11))
    plan = train_plan(prepared("line:colours", "colours", registered_model="colours"))
    delivery, parent = "[Delivery](http://localhost/run)", plan.data.parent_run_id
    assert delivery in client.get_run(parent).data.tags[NOTE]
    registered = register_model(evaluate_model(train_model(plan)))
    assert delivery in client.get_model_version("colours", str(registered.version)).description
    report([registered], [plan])
    assert delivery in client.get_run(parent).data.tags[NOTE]
    assert promote(registered).action == "promote"
    random = np.random.default_rng(7)
    for number in range(40):
        name, colour = ("red", "blue") if number < 30 else ("green", "green")
        (root / f"train/{name}/more{number}.png").write_bytes(coloured(COLOURS[colour], random))
    validated = validate_dataset(prepare_version("colours"), workflow(12))
    wrong = [reason for reason in validated.reasons if reason.startswith("label errors (version 1)")]
    assert len(wrong) == 1
    digest = validated.prepared.dataset.digest
    kept = json.loads(S3Store(Settings().bucket).get(f"lines/colours/reports/{digest[:16]}.json"))
    assert {each["why"] for each in kept["suspicious"][:15]} == {"looks like blue"}

    model = client.get_model_version("colours", "1").source.rpartition("/")[2]
    stored = S3Store("mlflow")
    for key in [key for key in stored.keys("") if model in key]:
        stored.delete(key)
    again = validate_dataset(prepare_version("colours"), workflow(13))
    assert again.reasons == [reason for reason in validated.reasons if reason not in wrong]
