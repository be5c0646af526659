import errno
import hashlib
import os
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from cifar_tasks.data import download as module
from cifar_tasks.data.download import download, unreachable
from cifar_tasks.errors import CifarError, ConfigError, DataError, DiskError, SourceUnreachable
from tests.unit.data.server import Site, serving

CONTENT = np.random.default_rng(0).bytes(1_000_000)
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


def fetch(site: Site, folder: Path, lines: list[str] | None = None, size: int = len(CONTENT)) -> Path:
    report = (lines if lines is not None else []).append
    return download(site.url, folder / "archive.tar.gz", size=size, md5=MD5, report=report, pause=0.001)


def refusal(site: Site, folder: Path, kind: type[CifarError] = DataError) -> str:
    with serving(site), pytest.raises(kind) as caught:
        fetch(site, folder)
    assert not (folder / "archive.tar.gz").exists()
    return str(caught.value)


def test_a_file_is_downloaded_once(tmp_path: Path) -> None:
    with serving(Site(CONTENT)) as site:
        path = fetch(site, tmp_path / "new")
        assert path.read_bytes() == CONTENT
        assert fetch(site, tmp_path / "new") == path
    assert site.ranges == [None]
    assert not path.with_name("archive.tar.gz.part").exists()


def test_a_broken_connection_is_resumed_where_it_broke(tmp_path: Path) -> None:
    lines: list[str] = []
    with serving(Site(CONTENT, drops_after=[400_000, 300_000])) as site:
        path = fetch(site, tmp_path, lines)
    assert path.read_bytes() == CONTENT
    first, second, third = site.ranges
    assert first is None
    assert second is not None
    assert third is not None
    assert int(third[6:-1]) > int(second[6:-1]) > 0
    assert sum("trying again" in line for line in lines) == 2


def test_a_later_run_goes_on_with_what_an_earlier_one_left(tmp_path: Path) -> None:
    (tmp_path / "archive.tar.gz.part").write_bytes(CONTENT[:700_000])
    with serving(Site(CONTENT)) as site:
        assert fetch(site, tmp_path).read_bytes() == CONTENT
    assert site.ranges == ["bytes=700000-"]


def test_a_part_that_is_whole_already_is_not_asked_for_again(tmp_path: Path) -> None:
    (tmp_path / "archive.tar.gz.part").write_bytes(CONTENT)
    with serving(Site(CONTENT)) as site:
        assert fetch(site, tmp_path).read_bytes() == CONTENT
    assert site.ranges == []


def test_a_file_that_was_damaged_since_is_downloaded_again(tmp_path: Path) -> None:
    (tmp_path / "archive.tar.gz").write_bytes(CONTENT[:-1] + b"x")
    with serving(Site(CONTENT)) as site:
        assert fetch(site, tmp_path).read_bytes() == CONTENT


def test_a_server_that_ignores_range_is_read_from_the_start(tmp_path: Path) -> None:
    with serving(Site(CONTENT, honours_range=False, drops_after=[400_000])) as site:
        assert fetch(site, tmp_path).read_bytes() == CONTENT
    assert len(site.ranges) == 2


def test_a_server_error_is_tried_again(tmp_path: Path) -> None:
    with serving(Site(CONTENT, failures=[503, 500, 429])) as site:
        assert fetch(site, tmp_path).read_bytes() == CONTENT


def test_a_server_that_keeps_failing_is_unreachable_and_what_came_is_kept(tmp_path: Path) -> None:
    site = Site(CONTENT, drops_after=[300_000, 0, 0, 0, 0])
    message = refusal(site, tmp_path, SourceUnreachable)
    assert "run again to resume" in message
    assert (tmp_path / "archive.tar.gz.part").stat().st_size > 0


def test_the_log_in_of_an_address_is_in_no_message(tmp_path: Path) -> None:
    lines: list[str] = []
    with serving(Site(CONTENT, failures=[503] * 5)) as site:
        address = site.url.replace("//", "//user:secret@")
        with pytest.raises(SourceUnreachable) as failed:
            download(address, tmp_path / "a", size=1, md5=MD5, report=lines.append, pause=0.001)
    assert "trying again" in lines[0]
    assert "secret" not in " ".join([str(failed.value), *lines])


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill_the_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "_save", fill_the_disk)
    with serving(Site(CONTENT)) as site, pytest.raises(DiskError, match=r"No space left.*CIFAR_HOME"):
        fetch(site, tmp_path)


def test_a_missing_file_is_not_asked_for_twice(tmp_path: Path) -> None:
    site = Site(CONTENT, failures=[404])
    assert "404" in refusal(site, tmp_path, SourceUnreachable)
    assert len(site.ranges) == 1


@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "application/octet-stream"])
def test_an_html_page_is_told_from_an_archive(tmp_path: Path, content_type: str) -> None:
    page = b"<!DOCTYPE html><html>Please log in" + bytes(len(CONTENT) - 34)
    assert "is an HTML page, not an archive" in refusal(Site(page, content_type), tmp_path)


def test_a_truncated_archive_is_refused_before_it_is_downloaded(tmp_path: Path) -> None:
    message = refusal(Site(CONTENT[:-1000]), tmp_path)
    assert "is truncated: 999,000 of 1,000,000 bytes" in message


def test_a_part_longer_than_what_the_server_has_shows_that_it_is_truncated_there(tmp_path: Path) -> None:
    (tmp_path / "archive.tar.gz.part").write_bytes(CONTENT[:900_000])
    assert "is truncated" in refusal(Site(CONTENT[:500_000]), tmp_path)
    assert not (tmp_path / "archive.tar.gz.part").exists()


def test_a_longer_file_is_another_file(tmp_path: Path) -> None:
    assert "is another file: 1,000,001 bytes" in refusal(Site(CONTENT + b"x"), tmp_path)


def test_an_altered_archive_is_refused_and_the_next_try_starts_clean(tmp_path: Path) -> None:
    assert "is altered: MD5" in refusal(Site(CONTENT[:-1] + b"x"), tmp_path)
    with serving(Site(CONTENT)) as site:
        assert fetch(site, tmp_path).read_bytes() == CONTENT


def test_a_bad_url_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="CIFAR_CIFAR10_URL"):
        download("no-url", tmp_path / "archive", size=1, md5="", report=print)


def test_two_downloads_at_the_same_time_share_one_file(tmp_path: Path) -> None:
    with serving(Site(CONTENT)) as site:
        threads = [threading.Thread(target=fetch, args=(site, tmp_path)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert site.ranges == [None]
    assert (tmp_path / "archive.tar.gz").read_bytes() == CONTENT


def test_progress_tells_percent_and_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPORT_SECONDS", 0.0)
    lines: list[str] = []
    with serving(Site(CONTENT)) as site:
        fetch(site, tmp_path, lines)
    assert "100% of 1 MB" in lines[-2]
    assert lines[-2].endswith("MB/s")
    assert lines[-1] == "archive.tar.gz: complete, 1 MB, MD5 verified"


def test_reachable_means_that_the_host_offers_a_file() -> None:
    with serving(Site(CONTENT)) as site:
        assert unreachable(site.url, 5) is None
    with serving(Site(CONTENT, failures=[403])) as site:
        assert unreachable(site.url, 5) == "HTTP 403"
    with serving(Site(b"<html>", "text/html")) as site:
        assert unreachable(site.url, 5) == "an HTML page"
    assert unreachable(site.url, 5) == "ConnectionError"


def test_a_host_that_never_answers_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        assert unreachable(f"http://127.0.0.1:{silent.getsockname()[1]}/", 0.2) == "no response within 0.2 s"
        assert time.monotonic() - began < module.CONNECT_SECONDS
