"""The route of the webhook of dataset lines. Runs in Airflow are replaced here: tests/faults/test_webhook_faults.py."""

import json
import sys
from collections.abc import Sequence

import pytest
from fastapi.testclient import TestClient

from cifar_tasks.settings import PROJECT

sys.path.append(str(PROJECT / "plugins"))  # as Airflow does

from line_webhook.receiver import MAX_BYTES, create_receiver

TOKEN = "t" * 24
LINES = {"pets": {"source": "s3://team/pets"}, "birds": {"source": "s3://team/birds", "marker": "_COMPLETE"}}
PETS = {"key": "/buckets/team/pets/cat/1.png"}


class Started:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, lines: Sequence[str]) -> dict[str, str]:
        if "birds" in lines:
            raise LookupError("Airflow has not read the DAG yet.")
        self.lines += lines
        return dict.fromkeys(lines, "started run 1")


@pytest.fixture
def started() -> Started:
    return Started()


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, started: Started) -> TestClient:
    monkeypatch.setenv("CIFAR_DATASET_LINES", json.dumps(LINES))
    monkeypatch.setenv("CIFAR_WEBHOOK_TOKEN", TOKEN)
    return TestClient(create_receiver(started), headers={"Authorization": f"Bearer {TOKEN}"})


def test_an_object_of_a_line_starts_its_check(client: TestClient, started: Started) -> None:
    answer = client.post("/changed", json=PETS)
    assert (answer.status_code, answer.json()) == (202, {"pets": "started run 1"})
    assert started.lines == ["pets"]


@pytest.mark.parametrize("key", ["/buckets/other/cat/1.png", "/buckets/team/birds/cat/1.png"])
def test_an_object_of_no_line_does_nothing(client: TestClient, started: Started, key: str) -> None:
    answer = client.post("/changed", json={"key": key})
    assert (answer.status_code, answer.content, started.lines) == (204, b"", [])


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", f"Bearer {TOKEN[1:]}", f"Bearer {TOKEN}t", f"Basic {TOKEN}", TOKEN, "Bearer ü", "Bearer null"],
)
def test_another_token_is_refused(client: TestClient, started: Started, header: str) -> None:
    answer = client.post("/changed", json=PETS, headers={"Authorization": header.encode()})
    assert (answer.status_code, started.lines) == (401, [])
    assert TOKEN not in answer.text


@pytest.mark.parametrize("header", [f"Bearer {TOKEN}", "Bearer ", "Bearer None", ""])
def test_without_a_token_in_the_settings_there_is_no_webhook(
    client: TestClient, started: Started, monkeypatch: pytest.MonkeyPatch, header: str
) -> None:
    for value in (None, ""):
        monkeypatch.delenv("CIFAR_WEBHOOK_TOKEN", raising=False)
        if value is not None:
            monkeypatch.setenv("CIFAR_WEBHOOK_TOKEN", value)
        assert client.post("/changed", json=PETS, headers={"Authorization": header}).status_code == 404
    assert started.lines == []


def test_a_large_body_is_refused_before_it_is_read_to_its_end(client: TestClient, started: Started) -> None:
    sent = 0

    def parts() -> object:
        nonlocal sent
        yield json.dumps(PETS)[:-1].encode()
        for _ in range(64):
            sent += 1
            yield b" " * (MAX_BYTES // 4)

    assert client.post("/changed", content=parts()).status_code == 413
    assert client.post("/changed", content=b" " * (MAX_BYTES + 1)).status_code == 413
    assert client.post("/changed", content=json.dumps(PETS | {"x": "x" * (MAX_BYTES - 1000)})).status_code == 202
    assert started.lines == ["pets"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"key"', b"{}", b'{"key": 1}', b'{"key": null}', b"\xff", b"[" * 100_000]
)
def test_a_body_that_names_no_object_is_refused(client: TestClient, started: Started, body: bytes) -> None:
    answer = client.post("/changed", content=body)
    assert (answer.status_code, started.lines) == (422, [])
    assert len(answer.content) < 200


def test_the_sender_is_asked_to_repeat_what_airflow_cannot_start_yet(client: TestClient) -> None:
    answer = client.post("/changed", json={"key": "s3://team/birds/_COMPLETE"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")


def test_each_line_is_checked_when_the_api_server_starts(
    client: TestClient, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = LINES | {"folder": {"source": "/data/pets"}, "official": {"source": "cifar10"}}
    monkeypatch.setenv("CIFAR_DATASET_LINES", json.dumps(lines))
    with client:
        assert started.lines == ["pets", "folder", "official"]  # Airflow does not know the birds yet
    monkeypatch.delenv("CIFAR_WEBHOOK_TOKEN")
    with client:
        assert started.lines == ["pets", "folder", "official"]


@pytest.mark.parametrize(("name", "value"), [("CIFAR_GPU_SLOTS", "0"), ("CIFAR_DATASET_LINES", "{secret")])
def test_the_api_server_starts_with_settings_that_are_not_valid_and_repeats_none_of_them(
    client: TestClient, started: Started, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name, value
) -> None:
    monkeypatch.setenv(name, value)
    with client:
        assert started.lines == []
    assert "settings CIFAR_* are not valid" in caplog.text
    assert "secret" not in caplog.text


def test_there_is_one_route_and_no_page_of_fastapi(client: TestClient) -> None:
    for address in ("/changed", "/docs", "/redoc", "/openapi.json", "/"):
        assert client.get(address).status_code in (404, 405)
