"""The page "Models" on a real registry and real object storage; Airflow's log-in is replaced here."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from cifar_tasks.settings import PROJECT
from tests.conftest import RunningStack
from tests.models_page_app import Registered, register
from tests.unit.data.sources import NoiseSource

sys.path.append(str(PROJECT / "plugins"))  # as Airflow does

from models_page import class_recalls, pairs, promotion_history, reading, trainings, version_table
from models_page.routes import create_app


@pytest.fixture
def registered(client, tracked: RunningStack, tmp_path: Path) -> Registered:
    return register(client, tmp_path, NoiseSource())


@pytest.fixture
def nothing_read() -> None:
    """As after a start: nothing is cached, no server was away."""
    for module in (class_recalls, pairs, promotion_history, trainings, version_table):
        for cached in vars(module).values():
            if isinstance(cached, reading.Cached):
                cached.clear()
    reading._away.clear()


@pytest.fixture
def page(nothing_read: None, tracked: RunningStack) -> Iterator[TestClient]:
    """The app, for a person who may read the DAG."""
    with TestClient(create_app(lambda: None), raise_server_exceptions=True) as client:
        yield client
