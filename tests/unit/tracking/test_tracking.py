"""Links lead to where a person finds MLflow."""

import pytest

from cifar_tasks.tracking import runs


def test_links_lead_to_the_server_that_the_tasks_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert runs.run_url("run", "1").startswith("http://127.0.0.1:5000/#/experiments/1/runs/run?")


def test_links_lead_to_the_address_for_people_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    monkeypatch.setenv("CIFAR_MLFLOW_URL", "https://mlflow.example.com/")
    for url in (runs.run_url("run", "1"), runs.version_url("name", 2), runs.compare_url(["run"], "1")):
        assert url.startswith("https://mlflow.example.com/#/")
