"""Anonymous access, permissions and clocks."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from cifar_tasks.deployment.doctor.check_runner import Check, Deployment, run_checks
from cifar_tasks.deployment.doctor.storage_checks import clock
from cifar_tasks.errors import StorageError, StorageRefused
from tests.stores import InMemoryStore
from tests.unit.deployment.doctor.deployments import COMPOSE, Server, find, handled_by


def test_mlflow_that_refuses_who_does_not_log_in_is_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "trainer")
    logins: list[str | None] = []

    class RefusesAnonymous(Server):
        def answer(self) -> None:
            logins.append(self.headers["Authorization"])
            self.send_error(401)

    with handled_by(RefusesAnonymous) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        assert find("MLflow log-in", COMPOSE).status == "ok"
    assert logins == [None]


@pytest.mark.parametrize("user", ["trainer", "somebody"])
@pytest.mark.parametrize(
    ("error", "status"), [(StorageRefused("AccessDenied"), "ok"), (StorageError("storage did not answer"), "failure")]
)
def test_only_a_refusal_shows_that_datasets_cannot_be_deleted(
    error: StorageError, status: str, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Raises(InMemoryStore):
        def delete(self, key: str) -> None:
            raise error

    class WithoutStorage(Deployment):
        def store(self) -> InMemoryStore:
            return Raises()

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", user)
    found = find("delete permission", WithoutStorage(COMPOSE.settings, embedded=False))
    assert found.status == status
    assert ("may not delete datasets" in found.message) == (status == "ok")


@pytest.mark.parametrize(
    ("here", "message"),
    [
        (1000.0, "0 s behind"),
        (1000.9, "0 s behind"),
        (1004.0, "3 s ahead"),
        (998.0, "2 s behind"),
        (1030.9, "30 s ahead"),
        (1031.5, "30 s ahead"),
        (969.0, "31 s behind"),
        (1301.5, "300 s ahead"),
        (699.0, "301 s behind"),
    ],
)
def test_whole_seconds_of_a_date_header_are_no_difference(here: float, message: str) -> None:
    with frozen_at_1000_seconds() as address:
        check = Check("A", "clock", clock(lambda _deployment: address))
        result = run_checks(replace(COMPOSE, now=lambda: here), [check])["clock"]
    assert result.message == f"this machine is {message}"
    off = max(here - 1001, 1000 - here)
    assert result.status == ("failure" if off > 300 else "warning" if off > 30 else "ok")
    assert ("NTP" in result.remedy) == (off > 30)


def test_a_clock_of_a_server_that_does_not_answer_is_skipped(closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port}")
    assert find("clock of MLflow", COMPOSE).status == "skipped"


@contextmanager
def frozen_at_1000_seconds() -> Iterator[str]:
    class Frozen(Server):
        def answer(self) -> None:
            self.send_error(403)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return "Thu, 01 Jan 1970 00:16:40 GMT"

    with handled_by(Frozen) as address:
        yield address
