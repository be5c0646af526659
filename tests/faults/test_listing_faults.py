"""A listing of more than one page that an error cuts short: nothing is recorded, and nothing counts as gone.

S3 is real. Between it and the steps is a proxy that can spoil the pages of a listing.
"""

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler
from io import BytesIO

import pytest

from cifar_tasks.data.lines.line_log import read_line_log
from cifar_tasks.errors import StorageError
from cifar_tasks.settings import Settings
from cifar_tasks.steps.dataset_line import accept_version, check_source, prepare_version
from cifar_tasks.steps.payloads import WorkflowRun
from cifar_tasks.storage.s3 import S3Store, s3_client
from tests.conftest import RunningStack
from tests.dataset_lines import CLASSES, picture
from tests.s3_proxy import Answer, s3_proxy

PAGE = 1000
"""Objects of a page of S3."""
RUN = WorkflowRun(id="cifar10_dataset/one", name="one")
LINE = "many"


class Pages:
    """Of the listings that the proxy passes on."""

    fault = ""
    """What happens to a page: `error`, `cut` or `half` to all but the first; the first one has `no token`."""

    def answer(self, request: BaseHTTPRequestHandler, of_server: Callable[[], Answer]) -> Answer:
        later_page = "continuation-token=" in request.path
        if self.fault == "error" and later_page:
            return Answer(503, {}, b"")
        whole = of_server()
        if self.fault == "no token" and not later_page:
            return whole._replace(body=re.sub(rb"<NextContinuationToken>.*</NextContinuationToken>", b"", whole.body))
        if self.fault in ("cut", "half") and later_page:
            half = whole.body[: len(whole.body) // 2]
            return whole._replace(body=half, length=len(whole.body) if self.fault == "cut" else None)
        return whole


@pytest.fixture
def pages(tracked: RunningStack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pages]:
    pages = Pages()
    with s3_proxy(tracked.s3_url, pages.answer) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
        monkeypatch.setattr("cifar_tasks.storage.s3.s3_client", partial(s3_client, attempts=2))
        yield pages


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
    source: S3Store, pages: Pages
) -> None:
    store = S3Store(Settings().bucket)

    def kept() -> dict[str, str]:
        found = store.entries(f"lines/{LINE}/")
        return {entry.key: entry.etag for entry in found if not entry.key.endswith("waiter.json")}

    def refused(fault: str) -> None:
        before = kept()
        pages.fault = fault
        for step in partial(check_source, LINE, RUN), partial(prepare_version, LINE):
            with pytest.raises(StorageError, match=rf"s3://{source.bucket}/pets") as caught:
                step()
            assert len(str(caught.value).splitlines()) <= 2
        pages.fault = ""
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
