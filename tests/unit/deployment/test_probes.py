"""What the probes make of answers that a healthy stack does not give."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from cifar_tasks.deployment import probes
from cifar_tasks.deployment.probes import ProbeError
from tests.unit.data.server import Site, serving

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
