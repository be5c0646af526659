"""Names of hosts that a name server knows, does not know, or cannot tell."""

import socket
import time

import pytest

from cifar_tasks.storage import hosts


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://admin:P@ssw0rd@127.0.0.1:1", "http://127.0.0.1:1"),
        ("http://admin:a/b@c@host/path", "http://host/path"),
        ("http://admin:two words@host", "http://host"),
        ("http://token@host", "http://host"),
        ('at "http://a:b@one" and http://c:d//e@two, says x@y', 'at "http://one" and http://two, says x@y'),
        ("Airflow at http://one:8080 refused ada@corp.com", "Airflow at http://one:8080 refused ada@corp.com"),
        ("http://host:80/path of nobody", "http://host:80/path of nobody"),
    ],
)
def test_no_part_of_a_log_in_is_left_of_an_address(text: str, shown: str) -> None:
    assert hosts.without_login(text) == shown


def test_a_host_that_exists_is_known_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "PATIENCE_SECONDS", 60)
    began = time.monotonic()
    assert hosts.is_known("localhost")
    assert hosts.is_known("127.0.0.1")
    assert time.monotonic() - began < 30


def test_an_unknown_name_is_looked_up_again_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "PATIENCE_SECONDS", 1.5)
    began = time.monotonic()
    assert not hosts.is_known("no-such-host.invalid")
    assert time.monotonic() - began >= 1.5


@pytest.mark.parametrize("name", ["a..b", "a" * 64])
def test_what_can_be_no_name_is_unknown_at_once(name: str) -> None:
    began = time.monotonic()
    assert not hosts.is_known(name)
    assert time.monotonic() - began < hosts.PATIENCE_SECONDS


def test_a_name_server_that_is_away_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*arguments: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", away)
    assert hosts.is_known("storage")
