"""A listing of more than one page that an error cuts short: nothing is recorded, and nothing counts as gone.

S3 is real. Between it and the steps is a proxy that can spoil the pages of a listing.
"""

import http.client
import json
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from urllib.parse import urlsplit

import pytest

from cifar_tasks.data.lines.line_log import read_line_log
from cifar_tasks.errors import StorageError
from cifar_tasks.settings import Settings
from cifar_tasks.steps.dataset_line import accept_version, check_source, prepare_version
from cifar_tasks.steps.payloads import WorkflowRun
from cifar_tasks.storage.s3 import S3Store, s3_client
from tests.conftest import RunningStack
from tests.dataset_lines import CLASSES, picture

PAGE = 1000
"""Objects of a page of S3."""
RUN = WorkflowRun(id="cifar10_dataset/one", name="one")
LINE = "many"


class Proxy(ThreadingHTTPServer):
    fault = ""
    """What happens to a page: `error`, `cut` or `half` to all but the first; the first one has `no token`."""
    upstream = ""


class Passes(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def do_GET(self) -> None:
        fault, later_page = self.server.fault, "continuation-token=" in self.path
        if fault == "error" and later_page:
            self.send_error(503)
            return
        status, headers, body = self._answer()
        if fault == "no token" and not later_page:
            body = re.sub(rb"<NextContinuationToken>.*</NextContinuationToken>", b"", body)
        shown = body[: len(body) // 2] if later_page and fault in ("cut", "half") else body
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        length = len(shown) if fault == "half" else len(body)
        self.send_header("Content-Length", headers["Content-Length"] if self.command == "HEAD" else str(length))
        self.send_header("Date", headers["Date"])
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(shown)
        if len(shown) < length:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    do_PUT = do_HEAD = do_DELETE = do_GET  # noqa: N815

    def _answer(self) -> tuple[int, http.client.HTTPMessage, bytes]:
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        server = http.client.HTTPConnection(self.server.upstream, timeout=60)
        server.request(self.command, self.path, sent, dict(self.headers))
        found = server.getresponse()
        body = found.read()
        server.close()
        return found.status, found.headers, body

    def log_message(self, *_words: object) -> None:
        pass


@pytest.fixture
def proxy(tracked: RunningStack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with Proxy(("127.0.0.1", 0), Passes) as server:
        server.upstream = urlsplit(tracked.s3_url).netloc
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr("cifar_tasks.storage.s3.s3_client", partial(s3_client, attempts=2))
        yield server
        server.shutdown()


@pytest.fixture
def source(s3_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """A line with more images than a page has objects. Written without the proxy."""
    line = {"source": f"s3://{s3_store.bucket}/pets", "settle_seconds": 0}
    monkeypatch.setenv("CIFAR_DATASET_LINES", json.dumps({LINE: line}))
    files = [
        f"{split}/{name}/{number:04}.png"
        for split, each in (("test", 20), ("train", 530))
        for name in CLASSES
        for number in range(each)
    ]
    assert len(files) > PAGE
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(partial(deliver, s3_store), files, range(len(files))))
    return s3_store


def deliver(store: S3Store, name: str, number: int) -> None:
    buffer = BytesIO()
    picture(number).save(buffer, "PNG")
    store.put(f"pets/{name}", buffer.getvalue())


def test_a_listing_that_breaks_off_after_its_first_page_records_nothing_and_the_next_check_is_complete(
    source: S3Store, proxy: Proxy
) -> None:
    store = S3Store(Settings().bucket)

    def kept() -> dict[str, str]:
        found = store.entries(f"lines/{LINE}/")
        return {entry.key: entry.etag for entry in found if not entry.key.endswith("waiter.json")}

    def refused(fault: str) -> None:
        before = kept()
        proxy.fault = fault
        for step in partial(check_source, LINE, RUN), partial(prepare_version, LINE):
            with pytest.raises(StorageError, match=rf"s3://{source.bucket}/pets") as caught:
                step()
            assert len(str(caught.value).splitlines()) <= 2
        proxy.fault = ""
        assert kept() == before

    refused("error")
    check_source(LINE, RUN)
    accept_version(prepare_version(LINE), RUN)
    first = read_line_log(store, LINE).last
    assert sum(sum(counts.values()) for counts in first.dataset.counts.values()) == first.delivery.objects == 1100
    for number in range(5):
        deliver(source, f"train/bee/new{number}.png", 5000 + number)
    for fault in ("error", "cut", "half", "no token"):
        refused(fault)
    second = prepare_version(LINE)
    assert (second.delivery.objects, second.diff.new, second.diff.gone) == (1105, 5, 0)
