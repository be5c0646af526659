"""Names of classes, data sets and runs are data to every part of a run."""

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from cifar_tasks.cli.local_run import run_workflow
from cifar_tasks.cli.predict import predict
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import model_registry, runs
from tests.conftest import picture
from tests.names import FOLDER_NAMES
from tests.trainings import child_run, request
from tests.unit.steps.test_report import Page

RUN = "<i>'run'</i> \"$a_$\" `x` 🐱"
DATA = "<b> data $a_$ [x](y) `z` 猫"


@pytest.fixture
def client(s3_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.setenv("CIFAR_BUCKET", s3_store.bucket)
    return runs.mlflow_client()


def class_folders(root: Path, classes: Sequence[str], train: int) -> Path:
    """This many training images and one test image of each class."""
    random = np.random.default_rng(0)
    for number, name in enumerate(classes):
        for image in range(train + 1):
            folder = root / ("test" if image == train else "train") / name
            folder.mkdir(parents=True, exist_ok=True)
            colour = (number * 37 % 255, number * 91 % 255, number * 53 % 255)
            (folder / f"{image}.png").write_bytes(picture(colour, random))
    return root


def artifact(client: MlflowClient, run_id: str, path: str, folder: Path) -> str:
    return Path(client.download_artifacts(run_id, path, str(folder))).read_text()


def test_a_run_of_any_names_ends_with_a_report_a_version_and_predictions(client, tmp_path):
    source = class_folders(tmp_path / DATA, FOLDER_NAMES, train=4)
    overrides = {"epochs": 1, "batch_size": 32}
    run_workflow(RUN, request(source, registered_model="any names", image_size=16, overrides=overrides))
    (parent,), (child,) = (child_run(client, f"cli/{RUN}", kind) for kind in ("all", "cnn"))
    assert parent.info.run_name == RUN
    assert {entry.dataset.name for entry in parent.inputs.dataset_inputs} == {DATA}
    classes = tuple(sorted(unicodedata.normalize("NFC", name) for name in FOLDER_NAMES))

    scores = json.loads(artifact(client, child.info.run_id, "evaluation/classification_report.json", tmp_path))
    assert tuple(scores["classes"]) == classes
    page = Page(artifact(client, parent.info.run_id, "report.html", tmp_path))
    assert {tag for tag, _ in page.tags}.isdisjoint({"b", "i", "script"})
    assert all((attributes["src"] or "").startswith("data:") for tag, attributes in page.tags if tag == "img")

    version = model_registry.version_with_alias(client, "any names", "champion")
    assert version is not None
    assert model_registry.class_names(version) == classes
    for text in (parent.data.tags[runs.NOTE], child.data.tags[runs.NOTE], version.description):
        assert "&#60;b&#62; data &#36;a&#95;&#36;" in text
    picture_file = tmp_path / FOLDER_NAMES[0]
    picture_file.write_bytes(picture((40, 60, 200), np.random.default_rng(0)))
    (prediction,) = predict([picture_file], "any names").found
    assert prediction.label in classes
