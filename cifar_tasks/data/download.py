"""A large file over HTTP: interrupted downloads are resumed, failed ones retried, and only verified files are used."""

import queue
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import requests
from requests.exceptions import InvalidSchema, InvalidURL, MissingSchema
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential
from urllib3.exceptions import HTTPError

from cifar_tasks.data.archives import html_page, is_html
from cifar_tasks.data.trees import file_digest
from cifar_tasks.errors import ConfigError, DataError, SourceUnreachable
from cifar_tasks.storage.disk import disk_errors
from cifar_tasks.storage.hosts import without_login
from cifar_tasks.storage.locks import exclusive

CONNECT_SECONDS, READ_SECONDS = 5, 30
ATTEMPTS = 5
CHUNK_BYTES = 2**18
REPORT_SECONDS = 5.0
# The bytes themselves: a server that calls a .tar.gz `Content-Encoding: gzip` would have it unpacked on the way.
HEADERS = {"Accept-Encoding": "identity"}


class _InterruptedError(Exception):
    """The connection or the server failed; another attempt may succeed."""


def download(url: str, target: Path, *, size: int, md5: str, report: Callable[[str], None], pause: float = 1.0) -> Path:
    """The verified file at `target`; a second process waits for the first and uses its file.

    An interrupted download is kept beside it as `.part`. `pause`: seconds before the second attempt, then doubled.
    Raises `SourceUnreachable` when the server does not deliver, `DataError` when it delivers something else.
    """
    part = target.with_name(f"{target.name}.part")
    with disk_errors(target.parent, "CIFAR_HOME"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(target):
            if target.exists() and file_digest(target, "md5") == md5:
                return target

            _fetch(url, part, size, report, pause)
            _verify(without_login(url), part, size, md5)
            part.replace(target)
    report(f"{target.name}: complete, {size / 1e6:,.0f} MB, MD5 verified")
    return target


def _fetch(url: str, part: Path, size: int, report: Callable[[str], None], pause: float) -> None:
    shown = without_login(url)

    def announce(state: RetryCallState) -> None:
        report(f"{shown}: {state.outcome.exception() if state.outcome else 'no response'}; trying again")

    attempts = Retrying(
        retry=retry_if_exception_type(_InterruptedError),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential(multiplier=pause, max=30),
        before_sleep=announce,
        reraise=True,
    )
    try:
        attempts(_continue, url, part, size, report)
    except _InterruptedError as error:
        raise SourceUnreachable(
            f"{shown} cannot be downloaded: {error}. The downloaded part is kept: run again to resume, "
            "or give the path of a copy as the source."
        ) from error


def unreachable(url: str, seconds: float) -> str | None:
    """Why `url` cannot be downloaded now, or none when it can; decided within `seconds`.

    In a thread: a name server that does not respond blocks for longer than any timeout that `requests` takes.
    """
    result: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=lambda: result.put(_probe(url)), daemon=True).start()
    try:
        return result.get(timeout=seconds)
    except queue.Empty:
        return f"no response within {seconds:g} s"


def _probe(url: str) -> str | None:
    try:
        # GET without reading the body: some mirrors refuse HEAD.
        with requests.get(url, headers=HEADERS, stream=True, timeout=CONNECT_SECONDS) as response:
            if not response.ok:
                return f"HTTP {response.status_code}"
            return "an HTML page" if _announces_html(response) else None
    except requests.RequestException as error:
        return type(error).__name__


def _continue(url: str, part: Path, size: int, report: Callable[[str], None]) -> None:
    """Appends to `part` what is missing; starts over if the server cannot resume."""
    have = part.stat().st_size if part.exists() else 0
    if have >= size:
        return
    headers = HEADERS | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS)) as response:
            _check_answer(without_login(url), response, part, size)
            _save(response, part, have if response.status_code == HTTPStatus.PARTIAL_CONTENT else 0, size, report)
    except (MissingSchema, InvalidSchema, InvalidURL) as error:
        raise ConfigError(f"CIFAR_CIFAR10_URL is no URL that can be downloaded: {without_login(str(error))}") from error
    except (requests.RequestException, HTTPError) as error:
        raise _InterruptedError(f"the connection failed ({type(error).__name__})") from error
    if (have := part.stat().st_size) < size:
        raise _InterruptedError(f"the connection ended after {have:,} of {size:,} bytes")


def _check_answer(url: str, response: requests.Response, part: Path, size: int) -> None:
    """Refuses what cannot become the file, before it is written."""
    status = response.status_code
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        have = part.stat().st_size
        part.unlink()
        raise DataError(_truncated(url, have, size))
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
        raise _InterruptedError(f"the server responded with {status}")
    if not response.ok:
        raise SourceUnreachable(f"{url} responded with {status} {response.reason}. Is CIFAR_CIFAR10_URL correct?")
    if _announces_html(response):
        raise html_page(url)
    total = _announced_size(response)
    if total is not None and total < size:
        raise DataError(_truncated(url, total, size))
    if total is not None and total > size:
        raise DataError(f"{url} is another file: {total:,} bytes instead of {size:,}. Is CIFAR_CIFAR10_URL correct?")


def _save(response: requests.Response, part: Path, start: int, size: int, report: Callable[[str], None]) -> None:
    started = reported = time.monotonic()
    have = start
    with part.open("ab" if start else "wb") as file:
        for chunk in response.raw.stream(CHUNK_BYTES, decode_content=False):
            if have == 0 and is_html(chunk[:512]):
                raise html_page(without_login(response.url))
            file.write(chunk)
            have += len(chunk)
            now = time.monotonic()
            if now - reported >= REPORT_SECONDS:
                reported = now
                speed = (have - start) / (now - started) / 1e6
                report(f"{part.stem}: {have / size:.0%} of {size / 1e6:,.0f} MB, {speed:.1f} MB/s")


def _verify(url: str, part: Path, size: int, md5: str) -> None:
    """A file that is not the expected one is deleted, so that the next download starts clean."""
    found_size, found = part.stat().st_size, file_digest(part, "md5")
    if found == md5:
        return
    part.unlink()
    raise DataError(
        f"{url} is altered: MD5 {found} instead of {md5} ({found_size:,} of {size:,} bytes). "
        "It was deleted; try again, or take the file from another place and give its path as the source."
    )


def _announces_html(response: requests.Response) -> bool:
    return response.headers.get("Content-Type", "").startswith("text/html")


def _announced_size(response: requests.Response) -> int | None:
    """Bytes of the whole file, if the server sends them."""
    whole = response.headers.get("Content-Range", "").rpartition("/")[2] or response.headers.get("Content-Length", "")
    return int(whole) if whole.isdigit() else None


def _truncated(url: str, have: int, size: int) -> str:
    return f"{url} is truncated: {have:,} of {size:,} bytes. Take the archive from another place and give its path."
