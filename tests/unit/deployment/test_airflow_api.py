"""The logged-in client, against a server that refuses and one that is not there."""

import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from airflow_client.client.exceptions import ApiException
from pydantic import SecretStr

from cifar_tasks.deployment.airflow_api import (
    access_to_deployment,
    airflow,
    find_dag,
    reason,
    set_note,
    wait_for_server,
)
from cifar_tasks.errors import ConfigError, StackError
from cifar_tasks.settings import Settings
from tests.unit.data.server import Site, serving


class Refuses(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_error(401)

    def log_message(self, *_words: object) -> None:
        pass


def test_a_refused_log_in_names_the_user_and_not_the_password() -> None:
    with HTTPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, args=[0.01]).start()
        try:
            with (
                pytest.raises(StackError, match=r"refused the log-in of admin \(401\)") as refused,
                airflow(f"http://127.0.0.1:{server.server_port}", "admin", "correct horse"),
            ):
                pass
        finally:
            server.shutdown()
    assert "correct horse" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "http://no.such.host.invalid", "nourl", "http://[::1", "http://a..b", "http://a:b"]
)
def test_a_server_that_is_not_there_is_an_error_of_ours(url: str) -> None:
    with pytest.raises(StackError, match=f"{re.escape(url)} does not answer"), airflow(url, "admin", "word"):
        pass


def test_the_log_in_that_an_address_contains_is_not_shown(closed_port: int) -> None:
    where = f"127.0.0.1:{closed_port}"
    with (
        pytest.raises(StackError, match=f"at http://{where} does not"),
        airflow(f"http://me:a@b@{where}", "me", "word"),
    ):
        pass
    with serving(Site(b"a page")) as site:
        address = site.url.replace("//", "//me:a@b@")
        with (
            pytest.raises(StackError, match=r"at http://127\.0\.0\.1:.* is no Airflow"),
            airflow(address, "me", "word"),
        ):
            pass
    with pytest.raises(ConfigError, match=r"is http://airflow, and CIFAR_AIRFLOW_PASSWORD"):
        access_to_deployment(Settings(airflow_api="http://me:a@b@airflow"))


def test_a_server_that_is_just_being_started_is_waited_for() -> None:
    began = time.monotonic()
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        threading.Timer(1.5, server.listen).start()
        wait_for_server(f"http://127.0.0.1:{server.getsockname()[1]}", 60)
    assert 1.5 <= time.monotonic() - began < 60


@pytest.mark.parametrize(
    ("url", "seconds"),
    [("http://127.0.0.1:1", 0)]
    + [(url, 600) for url in ("http://no.such.host.invalid", "nourl", "http://[::1", "http://a..b", "http://a:b")],
)
def test_a_server_is_not_waited_for_without_time_or_at_an_address_that_is_none(url: str, seconds: float) -> None:
    began = time.monotonic()
    wait_for_server(url, seconds)
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("content", [b"<html>a log-in page</html>", b"[]", b'{"detail": "no"}', b""])
def test_a_server_that_is_no_airflow_is_an_error_of_ours(content: bytes) -> None:
    with serving(Site(content, "text/html")) as site:
        url = site.url.rpartition("/")[0]
        with pytest.raises(StackError, match="is no Airflow that works"), airflow(url, "admin", "word"):
            pass


def test_what_airflow_s_client_raises_is_one_line_without_headers() -> None:
    error = ApiException(status=503, reason="Unavailable", body="a long page")
    error.headers = {"set-cookie": "session"}
    assert reason(error) == "503 Unavailable"


class LogsInOnly(BaseHTTPRequestHandler):
    given_up = threading.Event()

    def do_POST(self) -> None:
        self.send_response(201)
        self.end_headers()
        self.wfile.write(b'{"access_token": "token"}')

    def do_GET(self) -> None:
        self.given_up.wait(60)

    def log_message(self, *_words: object) -> None:
        pass


def test_without_a_log_in_no_note_is_written_and_the_settings_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="CIFAR_AIRFLOW_API and CIFAR_AIRFLOW_PASSWORD are not set"):
        set_note(Settings(home=tmp_path), "dag", "run", ["a reason"])


def test_a_deployment_is_used_where_its_address_and_its_password_are_known() -> None:
    password = SecretStr("s3cret-of-the-admin")
    with pytest.raises(ConfigError, match="CIFAR_AIRFLOW_PASSWORD is not set"):
        access_to_deployment(Settings(airflow_api="http://airflow:8080"))
    assert access_to_deployment(Settings(airflow_password=password)) is None
    access = access_to_deployment(Settings(airflow_api="http://airflow:8080/", airflow_password=password))
    assert access is not None
    assert (access.url, access.user, access.password) == ("http://airflow:8080", "admin", "s3cret-of-the-admin")
    assert "s3cret" not in repr(access)


def test_tasks_log_in_as_the_user_of_the_settings() -> None:
    settings = Settings(airflow_api="http://airflow:8080", airflow_user="worker", airflow_password=SecretStr("word"))
    access = access_to_deployment(settings)
    assert access is not None
    assert access.user == "worker"


class LogsInSlowly(LogsInOnly):
    def do_POST(self) -> None:
        time.sleep(0.6)
        super().do_POST()


@pytest.mark.parametrize(
    ("handler", "default", "seconds"),
    [(LogsInOnly, 0.3, {}), (LogsInSlowly, None, {"seconds": 0.3})],
    ids=["by default", "a caller that waits less, after a slow log-in"],
)
def test_a_server_that_stops_answering_is_not_waited_for_without_end(monkeypatch, handler, default, seconds) -> None:
    if default:
        monkeypatch.setattr("cifar_tasks.deployment.airflow_api.REQUEST_SECONDS", default)
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        LogsInOnly.given_up.clear()
        threading.Thread(target=server.serve_forever, args=[0.01]).start()
        began = time.monotonic()
        try:
            with (
                pytest.raises(StackError, match="did not answer as expected"),
                airflow(f"http://127.0.0.1:{server.server_port}", "admin", "word", **seconds) as client,
            ):
                find_dag(client)
            assert time.monotonic() - began < 20
        finally:
            LogsInOnly.given_up.set()
            server.shutdown()
