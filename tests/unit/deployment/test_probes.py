"""What the probes make of answers that a healthy stack does not give."""

import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cifar_tasks.deployment import probes
from cifar_tasks.deployment.probes import ProbeError
from tests.celery_worker import worker
from tests.unit.data.server import Site, serving
from tests.unit.deployment.doctor.deployments import Server, handled_by

BEGAN = datetime.now(UTC)


def health(**statuses: str) -> bytes:
    """An answer of Airflow's, in which each component named by `statuses` has just had its heartbeat."""
    return json.dumps(
        {
            "metadatabase": {"status": statuses.get("metadatabase", "unhealthy")},
            "triggerer": {"status": None, "latest_triggerer_heartbeat": None},
            **{
                name: {"status": status, f"latest_{name}_heartbeat": BEGAN.isoformat()}
                for name, status in statuses.items()
                if name != "metadatabase"
            },
        }
    ).encode()


def component(answer: bytes, name: str, since: datetime = BEGAN - timedelta(seconds=1)) -> None:
    with serving(Site(answer, "application/json")) as site:
        probes.airflow_component(site.url.rpartition("/")[0], name, since.timestamp())


def test_a_component_of_airflow_with_a_heartbeat_is_well() -> None:
    component(health(scheduler="healthy"), "scheduler")
    component(health(dag_processor="healthy"), "dag-processor")
    component(health(metadatabase="healthy"), "api-server")


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        (health(scheduler="unhealthy"), "scheduler"),
        (health(scheduler="healthy"), "dag-processor"),
        (health(scheduler="healthy"), "triggerer"),
        (health(scheduler="healthy"), "api-server"),
    ],
)
def test_a_component_of_airflow_without_a_heartbeat_is_named(answer: bytes, name: str) -> None:
    with pytest.raises(ProbeError, match=f"{name} has no heartbeat"):
        component(answer, name)


def test_all_components_without_a_heartbeat_are_told_by_one_request() -> None:
    with serving(Site(health(scheduler="healthy", dag_processor="unhealthy"), "application/json")) as site:
        address = site.url.rpartition("/")[0]
        found = probes.without_heartbeat(address, ["scheduler", "dag-processor", "triggerer", "api-server"])
        assert found == ["dag-processor", "triggerer", "api-server"]
        assert len(site.ranges) == 1


def test_a_request_without_a_login_is_anonymous_and_one_with_it_has_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login admin password word")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("NO_PROXY", "127.0.0.2")
    logins: list[str | None] = []

    class Notes(Server):
        def answer(self) -> None:
            logins.append(self.headers["Authorization"])
            self.send_error(401)

    with handled_by(Notes, "127.0.0.2") as address:  # the user's files do not count for requests to 127.0.0.1
        assert probes.get(address).status_code == 401
        probes.get(address, ("reader", "word"))
    assert logins == [None, f"Basic {b64encode(b'reader:word').decode()}"]


def test_celery_workers_are_told_with_their_queues_and_their_room() -> None:
    with worker("gpu"):
        assert probes.celery_workers("memory://", timeout=2) == [({"gpu"}, 2)]
        probes.celery_worker("memory://", "gpu@here", timeout=2)
        with pytest.raises(ProbeError, match="default@here does not answer"):
            probes.celery_worker("memory://", "default@here", timeout=1)


def test_a_heartbeat_from_before_the_start_proves_nothing() -> None:
    with pytest.raises(ProbeError, match="no heartbeat"):
        component(health(scheduler="healthy"), "scheduler", since=BEGAN + timedelta(seconds=1))


def test_an_address_of_something_else_is_no_airflow() -> None:
    with serving(Site(b"<html>", "text/html")) as site, pytest.raises(ProbeError, match="is no Airflow"):
        probes.airflow(site.url)


def test_a_service_that_refuses_is_told_from_one_that_does_not_answer() -> None:
    with serving(Site(b"", failures=[401, 503])) as site:
        for code in ("401", "503"):
            with pytest.raises(ProbeError, match=f"^answers {code} ") as refused:
                probes.mlflow(site.url, ("reader", "guessed"))
            assert refused.value.code == code
    with pytest.raises(ProbeError, match="does not answer at http://127") as gone:
        probes.flower(site.url)
    assert gone.value.code is None


def test_s3_that_fails_is_asked_once() -> None:
    keys = {"AWS_ACCESS_KEY_ID": "cifar", "AWS_SECRET_ACCESS_KEY": "word", "AWS_DEFAULT_REGION": "us-east-1"}
    with serving(Site(b"", failures=[503] * 9)) as site:
        with pytest.raises(ProbeError, match="503"):
            probes.s3(environment={**keys, "AWS_ENDPOINT_URL_S3": site.url.rpartition("/")[0]})
        assert len(site.failures) == 8


def test_redis_that_is_not_there_does_not_answer() -> None:
    with pytest.raises(ProbeError, match="does not answer") as gone:
        probes.redis("redis://:word@127.0.0.1:1/0")
    assert gone.value.code is None
