"""What the terminal shows of a run."""

import io
from types import SimpleNamespace
from typing import Any

from cifar_tasks.cli.demo import Watcher, access_to_deployment, print_summary
from pydantic import SecretStr
from rich.console import Console

from cifar_tasks.settings import Settings

ROW = {
    "model": "cnn",
    "parameters": 2_429_270,
    "epochs": 4,
    "validation_accuracy": 0.6465,
    "test_accuracy": 0.6712,
    "version": 2,
    "aliases": ["champion"],
}
SUMMARY = {
    "rows": [ROW],
    "banner": "PLACEHOLDER DATA",
    "reasons": ["version 2 is the first champion"],
    "report_url": "http://127.0.0.1:5000/#/report",
    "mlflow_url": "http://127.0.0.1:5000/#/run",
    "compare_url": "http://127.0.0.1:5000/#/compare",
    "airflow_url": "http://127.0.0.1:8080/run",
}


def printed(width: int, show: Any) -> str:
    console = Console(file=io.StringIO(), width=width)
    show(console)
    return console.file.getvalue()


def task(task_id: str, **fields: Any) -> SimpleNamespace:
    defaults = {"map_index": -1, "rendered_map_index": None, "state": None, "duration": None, "id": task_id}
    return SimpleNamespace(task_id=task_id, **{**defaults, **fields})


def test_the_summary_shows_numbers_banner_reasons_and_every_link_unbroken(tmp_path):
    text = printed(80, lambda console: print_summary(console, SUMMARY, {"Stop": f"make down {tmp_path}/[x]"}))
    for wanted in ("2,429,270", "64.65%", "67.12%", "champion", "PLACEHOLDER DATA", "first champion", "make down"):
        assert wanted in text
    for name in ("report_url", "mlflow_url", "compare_url", "airflow_url"):
        assert f" {SUMMARY[name]}\n" in text
    assert f"{tmp_path}/[x]\n" in text


def test_a_mapped_task_is_shown_with_the_name_of_its_model():
    mapped = task("model.register", map_index=1, rendered_map_index="resnet50", state=SimpleNamespace(value="success"))
    watcher = Watcher(Console(), run=None)
    text = printed(100, lambda console: console.print(watcher._table([task("prepare"), mapped])))
    assert "model.register [resnet50]" in text
    assert "waiting" in text


def test_a_deployment_is_used_only_where_both_its_address_and_its_password_are_known():
    password = SecretStr("s3cret-of-the-admin")
    assert access_to_deployment(Settings(airflow_api="http://airflow:8080")) is None
    assert access_to_deployment(Settings(airflow_password=password)) is None
    access = access_to_deployment(Settings(airflow_api="http://airflow:8080", airflow_password=password))
    assert access is not None
    assert (access.url, access.password) == ("http://airflow:8080", "s3cret-of-the-admin")
    assert "s3cret" not in repr(access)
