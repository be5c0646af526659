"""Who may ask the dashboard."""

import threading
from collections.abc import Callable, Iterable, Iterator
from http.client import HTTPConnection
from typing import Any
from wsgiref.simple_server import make_server

import pytest

from cifar_tasks.errors import ConfigError
from cifar_tasks.tuning import dashboard
from cifar_tasks.tuning.dashboard import HOST, _QuietHandler, for_this_machine


def studies(request: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b"the studies"]


@pytest.fixture
def port() -> Iterator[int]:
    with make_server(HOST, 0, studies, handler_class=_QuietHandler) as server:
        server.set_app(for_this_machine(studies, server.server_port))
        threading.Thread(target=server.serve_forever, args=[0.01]).start()
        yield server.server_port
        server.shutdown()


def asked(port: int, host: str | None) -> tuple[int, bytes]:
    connection = HTTPConnection(HOST, port, timeout=5)
    connection.putrequest("GET", "/api/studies", skip_host=True)
    if host is not None:
        connection.putheader("Host", host)
    connection.endheaders()
    response = connection.getresponse()
    return response.status, response.read()


def test_an_address_that_cannot_be_opened_is_a_configuration_error_with_the_reason(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("CIFAR_STUDIES_URL", f"sqlite:///{tmp_path}/studies.db")
    monkeypatch.setattr(dashboard, "HOST", "192.0.2.1")  # of no machine
    with pytest.raises(ConfigError, match=r"port 8081 cannot be used \(.+\): choose another"):
        dashboard.serve(8081, print)


@pytest.mark.parametrize("host", ["127.0.0.1:{}", "localhost:{}", "LOCALHOST:{}"])
def test_this_machine_s_own_names_are_answered(port: int, host: str) -> None:
    assert asked(port, host.format(port)) == (200, b"the studies")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{}",
        "127.0.0.1",
        "localhost:1",
        "127.0.0.1:{}.evil.example",
        "localhost.evil:{}",
        "",
        None,
    ],
)
def test_a_web_page_that_points_its_own_name_at_this_machine_gets_nothing(port: int, host: str | None) -> None:
    status, body = asked(port, host and host.format(port))
    assert status == 403
    assert b"the studies" not in body
