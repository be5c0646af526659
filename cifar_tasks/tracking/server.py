"""The MLflow server: is its address one, and is it away or does it refuse?"""

import os
import re
from urllib.parse import urlsplit

import requests

from cifar_tasks.errors import ConfigError, TrackingError, TrackingGone, TrackingRefused
from cifar_tasks.storage.hosts import is_known, without_login, worth_a_retry

LOG_IN = "Check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
ADDRESS = "Is MLFLOW_TRACKING_URI the address of an MLflow server?"
DELETED = "must be in the 'active' state"
"""What MLflow says of runs and experiments that somebody has deleted in its UI."""
DATABASE_ERROR = "https://sqlalche.me/"
"""In what MLflow says of an error of its database."""
AWAY = "Is it running (`cifar status`)?"


def check_address(address: str, patience: float | None = None) -> None:
    """Raises `ConfigError` for what is no URL, `TrackingError` for an unknown host: MLflow tries it for minutes."""
    try:
        url = urlsplit(address)
        host = url.hostname if url.scheme in ("http", "https") and url.port != 0 else None
    except ValueError:  # of a port or an IPv6 address that is none
        host = None
    if not host:
        raise ConfigError("MLFLOW_TRACKING_URI is no address of an MLflow server: write http://HOST:PORT.")
    if requests.utils.select_proxy(address, requests.utils.get_environ_proxies(address)):
        return  # the proxy looks the name up
    if not is_known(host, patience):
        raise TrackingError(f"no host has the name in MLFLOW_TRACKING_URI, {_shown()}. Is it right?")


def require_answer(address: str, timeout: float = 5) -> None:
    """Raises what `check_address` does, and `TrackingError` without an answer in so many seconds, or if the server is
    not well: MLflow's client tries for minutes."""
    check_address(address)
    try:
        answer = requests.get(f"{address}/version", timeout=timeout)
    except requests.exceptions.SSLError:
        return  # MLflow's client says what is wrong with the certificate
    except requests.RequestException:
        raise TrackingError(
            f"MLflow at {_shown()} does not answer. Is the server running, and is MLFLOW_TRACKING_URI its address?"
        ) from None
    if answer.status_code >= 500:
        raise TrackingError(
            f"MLflow at {_shown()} is not well: it answers {answer.status_code} {answer.reason}. "
            "Look at its log, or try again later."
        )


def tracking_error(error: Exception) -> TrackingError:
    """What an error of MLflow's client means: the server is away, or it refuses and always will."""
    text = " ".join(str(error).split())
    cause = text.partition("(Caused by ")[2].partition(" #####")[0]  # of several files, the first
    reason = cause.rstrip(")") or text[:300]
    if isinstance(error.__context__ or error, requests.exceptions.SSLError):
        return TrackingRefused(f"MLflow at {_shown()} cannot be reached: {reason}. {ADDRESS}")
    if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST" or DELETED in text:
        return TrackingGone(f"MLflow at {_shown()}: {reason} It was deleted there; a retry makes a new one.")
    status, is_mlflow = _status(error, text), "not in a valid JSON format" not in text
    # MLflow calls an error of its database, such as two writers of one row or no free connection, a bad request.
    if is_mlflow and (worth_a_retry(status) or DATABASE_ERROR in text):
        return TrackingError(f"MLflow at {_shown()} did not answer or failed: {reason}. {AWAY}")
    remedy = {401: LOG_IN, 403: LOG_IN}.get(status, ADDRESS if "Response body" in text else "")
    return TrackingRefused(f"MLflow at {_shown()} refused: {reason}. {remedy}".rstrip())


def _status(error: Exception, text: str) -> int:
    """HTTP status; 500 if there was no answer."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        said = re.search(r"error code (\d{3}) != 200", text)
        return int(said[1]) if said else int(error.get_http_status_code())  # type: ignore[no-untyped-call]
    response = getattr(error, "response", None)
    return 500 if response is None else int(response.status_code)


def _shown() -> str:
    """The server's address without the password that it may contain."""
    return without_login(os.environ.get("MLFLOW_TRACKING_URI", ""))
