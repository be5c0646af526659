"""Promotions while MLflow is stopped, and on an S3 server that refuses conditional writes."""

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

import pytest
from mlflow import MlflowClient

from cifar_tasks.errors import StorageRefused, TrackingError
from cifar_tasks.settings import Settings
from cifar_tasks.steps.promote import record
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import runs
from cifar_tasks.tracking.aliases import follow_log
from tests.own_mlflow import own_mlflow
from tests.promotions import aliases, log_of, second
from tests.s3_proxy import Answer, s3_proxy


def test_mlflow_that_is_killed_between_log_and_alias_has_them_in_line_after_its_start(
    client, evaluated, name, monkeypatch, tmp_path
):
    proposal, set_alias = second(client, evaluated, name), MlflowClient.set_registered_model_alias
    with own_mlflow(tmp_path / "mlflow.log") as server, monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", server.address)
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

        def set_without_a_server(*arguments: str) -> None:
            server.kill()
            set_alias(*arguments)

        patch.setattr(MlflowClient, "set_registered_model_alias", set_without_a_server)
        with pytest.raises(TrackingError) as lost:
            record(proposal, None)
        patch.setattr(MlflowClient, "set_registered_model_alias", set_alias)
        assert lost.value.retryable
        assert [entry.champion for entry in log_of(name).entries] == [1, 2]
        assert aliases(client, name) == {"champion": 1}
        server.start()
        follow_log(runs.mlflow_client(), S3Store(Settings().bucket), name)
        assert record(proposal, None).number == 2
    assert aliases(client, name) == {"champion": 2, "previous": 1}
    assert len(log_of(name).entries) == 2


@pytest.mark.parametrize(
    ("status", "code", "remedy"),
    [
        (501, "NotImplemented", "Use a server with conditional writes"),
        (403, "AccessDenied", "Give this key access to the bucket"),
    ],
)
def test_a_server_that_refuses_conditional_writes_gets_no_entry_and_no_alias_moves(
    client, tracked, evaluated, name, monkeypatch, status, code, remedy
):
    def refuse_conditional_writes(request: BaseHTTPRequestHandler, of_server: Callable[[], Answer]) -> Answer:
        if request.command == "PUT" and "If-None-Match" in request.headers:
            return Answer(status, {"Content-Type": "application/xml"}, f"<Error><Code>{code}</Code></Error>".encode())
        return of_server()

    proposal, before = second(client, evaluated, name), aliases(client, name)
    with s3_proxy(tracked.s3_url, refuse_conditional_writes) as address, monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", address)
        with pytest.raises(StorageRefused, match=f"promotions/.*{code}. {remedy}") as refused:
            record(proposal, None)
    assert not refused.value.retryable
    assert (len(log_of(name).entries), aliases(client, name)) == (1, before)
    assert record(proposal, None).champion == 2, "on a server that does"
