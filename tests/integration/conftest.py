"""The page "Models" on a real registry and real object storage; Airflow's log-in is replaced here."""

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from cifar_tasks.data.preparation import prepare
from cifar_tasks.settings import PROJECT, Settings
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking.evaluations import ensure_evaluated
from cifar_tasks.tracking.saved_model import DIGEST_TAG, OpenedModel, SavedModel
from tests.conftest import RunningStack
from tests.models_page_app import NASTY, Brightness, Registered
from tests.unit.data.sources import NoiseSource, quiet

sys.path.append(str(PROJECT / "plugins"))  # as Airflow does

from models_page import reading, version_table
from models_page.routes import create_app


@pytest.fixture
def registered(client, tracked: RunningStack, tmp_path: Path) -> Registered:
    store, name = S3Store(Settings().bucket), f"page-{uuid.uuid4().hex[:8]}"
    data = prepare(NoiseSource(), store, 0, quiet)
    client.create_registered_model(name)
    for number, threshold in enumerate((0.4, 0.5, 0.6), start=1):
        saved = SavedModel(f"models:/m-{uuid.uuid4().hex}", uuid.uuid4().hex * 2)
        found = ensure_evaluated(store, saved, data, tmp_path, opened=OpenedModel(Brightness(threshold), 2_000_000))
        tags = {
            DIGEST_TAG: saved.sha256,
            "cifar.model": NASTY if number == 3 else "cnn",
            "cifar.dataset": data.digest,
            "cifar.test_set": found.test_set.digest,
            "cifar.test_images": str(found.test_set.images),
            "cifar.test_accuracy": str(found.accuracy),
            "cifar.validation_accuracy": str(0.9 - number / 100),
            "cifar.workflow": f"cifar10_training/run-{number}",
        }
        client.create_model_version(name, source=f"s3://models/{number}", tags=tags)
    client.set_registered_model_alias(name, "champion", "2")
    return Registered(name, data)


@pytest.fixture
def page(tracked: RunningStack) -> Iterator[TestClient]:
    """The app, for a person who may read the DAG."""
    for cached in (version_table.versions, version_table.registered_models):
        cached.clear()
    reading._away.clear()
    with TestClient(create_app(lambda: None), raise_server_exceptions=True) as client:
        yield client
