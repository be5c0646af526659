"""What the identities of the compose deployment may do, on a SeaweedFS that knows them, and what it tells Airflow."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Thread
from typing import Any

import pytest
from botocore.exceptions import ClientError

from benchmarks.temporary_stack import free_ports
from cifar_tasks.deployment.compose.init import create_buckets
from cifar_tasks.deployment.compose.seaweedfs import identities, notifications
from cifar_tasks.deployment.probes import ProbeError, s3
from cifar_tasks.deployment.stack.environment import HOST
from cifar_tasks.deployment.stack.services import weed
from cifar_tasks.storage.s3 import s3_client
from tests.waiting import wait_until

USERS = ("admin", "trainer", "promoter", "mlflow", "reader")
SECRETS = {"AWS_SECRET_ACCESS_KEY": "of admin"} | {f"S3_{user.upper()}_SECRET_KEY": f"of {user}" for user in USERS[1:]}


LINES = {"own": {"source": "s3://cifar/incoming"}, "other": {"source": "cifar10"}}


@pytest.fixture(scope="module")
def told() -> Iterator[tuple[str, list[tuple[str | None, dict[str, Any]]]]]:
    """The address of a webhook, and what it was sent: header and body."""
    received: list[tuple[str | None, dict[str, Any]]] = []

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.headers["Authorization"], json.loads(body)))
            self.send_response(202)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer((HOST, 0), Webhook) as webhook:
        Thread(target=webhook.serve_forever, daemon=True).start()
        yield f"http://{HOST}:{webhook.server_port}", received
        webhook.shutdown()


@pytest.fixture(scope="module")
def server(told: tuple[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address."""
    folder = tmp_path_factory.mktemp("s3")
    config = folder / "s3.json"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        patch.setenv("CIFAR_WEBHOOK_TOKEN", "token of the webhook")
        patch.setenv("CIFAR_DATASET_LINES", json.dumps(LINES))
        config.write_text(json.dumps({"identities": identities()}))
        variables = os.environ | notifications(told[0])
    ports = count(free_ports().s3_inner_port)
    listening = [f"{part}.port" for part in ("s3", "filer", "master", "volume", "admin")]
    numbers = {name: next(ports) for part in listening for name in (part, f"{part}.grpc")}
    flags = {"dir": folder, "ip": HOST, "ip.bind": HOST, "s3.config": config, "webdav": "false", **numbers}
    off = {"s3.port.iceberg": 0, "s3.port.lance": 0, "admin.ui": "false", "master.telemetry": "false"}
    address = f"http://{HOST}:{numbers['s3.port']}"
    command = weed({**flags, **off})
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, env=variables, stderr=log, stdout=log) as process,
    ):
        try:
            for _ in range(100):
                try:
                    s3(environment=key("admin", address), timeout=2)
                    break
                except ProbeError:
                    time.sleep(0.2)
            yield address
        finally:
            process.kill()


def key(user: str, address: str) -> dict[str, str]:
    return {"AWS_ENDPOINT_URL_S3": address, "AWS_ACCESS_KEY_ID": user, "AWS_SECRET_ACCESS_KEY": f"of {user}"}


def set_up(address: str, monkeypatch: pytest.MonkeyPatch, queue: str) -> None:
    """As the service `init` does."""
    for name, value in key("admin", address).items():
        monkeypatch.setenv(name, value)
    for user in ("trainer", "promoter"):
        monkeypatch.setenv(f"S3_{user.upper()}_PRINCIPAL", f"arn:aws:iam::000000000000:user/{user}")
    monkeypatch.setenv("CIFAR_PROMOTION_QUEUE", queue)
    create_buckets()


def allowed(client: Any, action: str, name: str, **words: Any) -> bool:
    try:
        getattr(client, action)(Bucket="cifar", Key=name, **words)
    except ClientError as error:
        if error.response["Error"]["Code"] != "AccessDenied":
            raise
        return False
    return True


def test_only_the_promoter_writes_the_promotion_log_and_nobody_deletes_from_it(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(server, monkeypatch, queue="promotion")
    trainer, promoter, reader = (s3_client(environment=key(user, server)) for user in ("trainer", "promoter", "reader"))
    entry = "promotions/model/000001.json"
    assert not allowed(trainer, "put_object", entry, Body=b"forged")
    assert not allowed(reader, "put_object", entry, Body=b"forged")
    assert allowed(promoter, "put_object", entry, Body=b"true", IfNoneMatch="*")
    for client in (trainer, promoter, reader):
        assert allowed(client, "get_object", entry)
        assert not allowed(client, "delete_object", entry)
    assert not allowed(trainer, "create_multipart_upload", entry)
    copied = {"CopySource": {"Bucket": "cifar", "Key": entry}}
    assert not allowed(trainer, "copy_object", "promotions/model/000002.json", **copied)
    assert reader.get_object(Bucket="cifar", Key=entry)["Body"].read() == b"true"


def test_both_do_the_other_work_of_a_training(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(server, monkeypatch, queue="promotion")
    for user in ("trainer", "promoter"):
        client = s3_client(environment=key(user, server))
        assert allowed(client, "put_object", f"runs/{user}/checkpoints/1", Body=b"")
        assert allowed(client, "delete_object", f"runs/{user}/checkpoints/1")
        assert allowed(client, "put_object", f"datasets/{user}", Body=b"")
        assert not allowed(client, "delete_object", f"datasets/{user}")


def test_without_a_queue_of_their_own_promotions_are_written_by_trainers(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(server, monkeypatch, queue="")
    assert allowed(s3_client(environment=key("trainer", server)), "put_object", "promotions/m/000001.json", Body=b"")


def test_airflow_is_told_of_changes_in_the_source_of_a_line_alone(
    server: str, told: tuple[str, list[tuple[str | None, dict[str, Any]]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(server, monkeypatch, "promotion")
    for name in ("datasets/1", "incoming/cat/1.png"):
        s3_client().put_object(Bucket="cifar", Key=name, Body=b"image")
    wait_until(lambda: "/buckets/cifar/incoming/cat/1.png" in [body["key"] for _, body in told[1]], 20)
    assert all(body["key"].startswith("/buckets/cifar/incoming") for _, body in told[1])
    assert {header for header, _ in told[1]} == {"Bearer token of the webhook"}


@pytest.mark.parametrize("lines", ["{", "[]", '{"products": {}}', '{"products": "s3://a/b"}', "3"])
def test_a_setting_that_cannot_be_read_does_not_stop_storage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lines: str
) -> None:
    monkeypatch.setenv("CIFAR_WEBHOOK_TOKEN", "token")
    monkeypatch.setenv("CIFAR_DATASET_LINES", lines)
    assert notifications() == {}
    assert "CIFAR_DATASET_LINES cannot be read" in capsys.readouterr().out


@pytest.mark.parametrize("missing", ["CIFAR_WEBHOOK_TOKEN", "CIFAR_DATASET_LINES"])
def test_without_a_token_or_a_line_airflow_is_told_nothing(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    given = {"CIFAR_WEBHOOK_TOKEN": "token", "CIFAR_DATASET_LINES": json.dumps(LINES)}
    for name, value in (given | {missing: ""}).items():
        monkeypatch.setenv(name, value)
    assert notifications() == {}
