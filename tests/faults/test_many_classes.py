"""A whole run with 1,000 classes."""

from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from cifar_tasks.cli.local_run import run_workflow
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import model_registry, runs
from tests.faults.test_any_names import class_folders
from tests.trainings import child_run, request


@pytest.fixture
def client(s3_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.setenv("CIFAR_BUCKET", s3_store.bucket)
    return runs.mlflow_client()


def test_1000_classes_whose_names_fill_no_tag_are_trained_reported_and_promoted(client, tmp_path):
    names = [f"{number:04} {'long name ' * 12}." for number in range(1000)]
    source = class_folders(tmp_path / "thousand", names, train=2)
    overrides = {"epochs": 1, "batch_size": 256}
    _, promotion = run_workflow(
        "thousand", request(source, registered_model="thousand", image_size=16, overrides=overrides)
    )
    assert (promotion.action, promotion.champion) == ("promote", 1)
    version = model_registry.version_with_alias(client, "thousand", "champion")
    assert version is not None
    assert model_registry.CLASSES not in version.tags
    assert model_registry.class_names(version) == tuple(names)
    assert mlflow.models.get_model_info(version.source).metadata["classes"] == names
    (parent,) = child_run(client, "cli/thousand", "all")
    page = Path(client.download_artifacts(parent.info.run_id, "report.html", str(tmp_path)))
    assert page.stat().st_size < 5_000_000
