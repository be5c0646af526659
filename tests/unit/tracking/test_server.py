"""What MLflow refuses for good is told from MLflow that is away; local servers answer in place of MLflow."""

import json

import pytest
import requests

from cifar_tasks.errors import ConfigError, TrackingError, TrackingRefused
from cifar_tasks.storage import hosts
from cifar_tasks.tracking import runs
from cifar_tasks.tracking.server import require_answer
from tests.answers import server_that_answers


def ask(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with runs.tracking_errors():
        runs.mlflow_client().get_experiment_by_name("experiment")


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (200, "Is MLFLOW_TRACKING_URI the address"),
        (301, "Is MLFLOW_TRACKING_URI the address"),
        (400, "Is MLFLOW_TRACKING_URI the address"),
        (401, "Check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        (403, "Check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        (404, "Is MLFLOW_TRACKING_URI the address"),
    ],
)
def test_a_refusal_and_a_page_that_is_no_mlflow_are_permanent_and_one_line(monkeypatch, status, remedy) -> None:
    with server_that_answers(status) as address, pytest.raises(TrackingRefused, match=remedy) as caught:
        ask(monkeypatch, address)
    assert not caught.value.retryable
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_a_server_that_is_busy_or_restarts_is_worth_a_retry(monkeypatch, status) -> None:
    with server_that_answers(status) as address, pytest.raises(TrackingError) as caught:
        ask(monkeypatch, address)
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("status", "code", "message", "retryable"),
    [
        (403, "PERMISSION_DENIED", "the reason", False),
        (400, "INVALID_PARAMETER_VALUE", "the reason", False),
        (400, "BAD_REQUEST", "the reason", False),
        (400, "BAD_REQUEST", "the reason (Background on this error at: https://sqlalche.me/e/21/gkpj)", True),
        (500, "INTERNAL_ERROR", "the reason", True),
        (503, "TEMPORARILY_UNAVAILABLE", "the reason", True),
    ],
)
def test_mlflow_s_own_errors_keep_their_text(monkeypatch, status, code, message, retryable) -> None:
    body = json.dumps({"error_code": code, "message": message})
    with server_that_answers(status, body, "application/json") as address, pytest.raises(TrackingError) as caught:
        ask(monkeypatch, address)
    assert caught.value.retryable is retryable
    if status < 500:
        assert "the reason" in str(caught.value)


def test_an_address_without_a_server_is_worth_a_retry(monkeypatch) -> None:
    with pytest.raises(TrackingError, match="Connection refused") as caught:
        ask(monkeypatch, "http://127.0.0.1:9")
    assert caught.value.retryable


def test_an_unknown_host_name_is_worth_a_retry_and_not_tried_for_minutes(monkeypatch) -> None:
    monkeypatch.setattr(hosts, "PATIENCE_SECONDS", 0)
    with pytest.raises(TrackingError, match="no host has the name in MLFLOW_TRACKING_URI") as caught:
        ask(monkeypatch, "http://no-such-host.invalid:5000")
    assert caught.value.retryable


@pytest.mark.parametrize("address", ["127.0.0.1:5000", "mlruns", "http://", "ftp://host", "http://[::1", "http://a:b"])
def test_what_is_no_address_of_a_server_is_a_configuration_error(monkeypatch, address) -> None:
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI"):
        ask(monkeypatch, address)


def test_https_where_http_is_spoken_is_permanent(monkeypatch) -> None:
    with server_that_answers(200) as address, pytest.raises(TrackingRefused, match="SSL"):
        ask(monkeypatch, address.replace("http:", "https:"))


@pytest.mark.parametrize("status", [200, 401, 404])
def test_a_server_that_is_well_is_an_answer_whatever_it_says(status) -> None:
    with server_that_answers(status) as address:
        require_answer(address)


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_that_is_not_well_is_named_at_once(monkeypatch, status) -> None:
    with server_that_answers(status) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        with pytest.raises(TrackingError, match=f"{address} .* {status} "):
            require_answer(address)


def test_a_wrong_certificate_or_address_does_not_count_as_a_server_that_is_away(monkeypatch) -> None:
    with server_that_answers(200) as address:
        require_answer(address.replace("http:", "https:"))
    for address in ("mlruns", "http://"):
        with pytest.raises(ConfigError):
            require_answer(address)
    monkeypatch.setattr(hosts, "PATIENCE_SECONDS", 0)
    with pytest.raises(TrackingError, match="no host has the name"):
        require_answer("http://no-such-host.invalid:5000")


def test_a_password_in_the_address_is_not_shown(monkeypatch) -> None:
    with pytest.raises(TrackingError) as caught:
        ask(monkeypatch, "http://user:hidden-word@127.0.0.1:9")
    assert "hidden-word" not in str(caught.value)


def test_artifacts_that_are_refused_are_told_from_a_server_that_is_away(monkeypatch, tmp_path) -> None:
    from requests import HTTPError, Response

    for status, kind in ((403, TrackingRefused), (502, TrackingError)):
        response = Response()
        response.status_code = status
        with pytest.raises(kind) as caught, runs.tracking_errors():
            raise HTTPError("no", response=response)
        assert caught.value.retryable is (status == 502)


def test_a_server_that_goes_away_during_a_download_of_several_files_is_one_short_reason() -> None:
    from mlflow.exceptions import MlflowException

    with pytest.raises(requests.ConnectionError) as away:
        requests.get("http://127.0.0.1:9", timeout=5)
    with pytest.raises(TrackingError) as caught, runs.tracking_errors():
        raise MlflowException("\n".join(f"##### File {name} #####\n{away.value}" for name in ("a", "b", "c")))
    assert caught.value.retryable
    assert str(caught.value).count("Connection refused") == 1
    assert str(caught.value).count("File") == 0
