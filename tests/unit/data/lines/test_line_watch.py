"""A delivery is complete by the clock of S3 alone, or by its marker; later runs take over from earlier ones."""

import os
import shutil
import time
from pathlib import Path

import pytest

from cifar_tasks.data.lines.line_log import Delivery
from cifar_tasks.data.lines.line_settings import DatasetLine
from cifar_tasks.data.lines.line_source import Listing, list_source, open_line_source
from cifar_tasks.data.lines.line_watch import begin_watch, look, mark_handled
from cifar_tasks.errors import DataError, StorageError
from cifar_tasks.settings import Settings
from cifar_tasks.storage.s3 import ObjectEntry, S3Store, Snapshot
from tests.dataset_lines import LINE, deliver, first_delivery, picture
from tests.stores import InMemoryStore

SETTLES = DatasetLine(source="/somewhere", settle_seconds=60)
MARKED = DatasetLine(source="/somewhere", marker="_COMPLETE")
ONE, TWO = Listing({"a": "1"}, None), Listing({"a": "1", "b": "1"}, None)


class ClockedStore(InMemoryStore):
    """Its clock is the test's."""

    now = 1000.0

    def put(self, key: str, data: bytes):
        written = super().put(key, data)
        self.written[key] = self.now
        return written

    def snapshot(self, key: str) -> Snapshot:
        found = super().snapshot(key)
        return Snapshot(found.data, found.etag, self.now - self.written[key])


def handled(store: S3Store, listing: Listing) -> None:
    mark_handled(store, LINE, Delivery(objects=1, listing=listing.digest, marker=listing.marker))


def test_a_delivery_is_complete_when_it_has_not_changed_for_a_while():
    store, seen = ClockedStore(), []
    for passed, listing in ((0, ONE), (50, ONE), (9, TWO), (59, TWO), (2, TWO)):
        store.now += passed
        seen.append(look(store, LINE, SETTLES, listing).status)
    assert seen == ["waiting", "waiting", "waiting", "waiting", "complete"]


def test_nothing_new_is_told_from_a_listing_that_was_handled_and_from_one_that_was_only_seen():
    store = ClockedStore()
    assert look(store, LINE, SETTLES, ONE).status == "waiting"
    handled(store, ONE)
    assert look(store, LINE, SETTLES, ONE).status == "unchanged"
    assert look(store, LINE, SETTLES, TWO).status == "waiting"
    store.now += 3600
    assert look(store, LINE, SETTLES, ONE).status == "unchanged"
    assert look(store, LINE, SETTLES, TWO).status == "complete"


def test_a_clock_that_goes_back_an_hour_costs_one_more_wait_and_not_an_hour():
    store = ClockedStore()
    look(store, LINE, SETTLES, ONE)
    store.now -= 3600
    assert look(store, LINE, SETTLES, ONE).status == "waiting"
    store.now += 59
    assert look(store, LINE, SETTLES, ONE).status == "waiting"
    store.now += 1
    assert look(store, LINE, SETTLES, ONE).status == "complete"


def test_a_clock_that_goes_back_by_less_than_a_second_does_not_restart_the_wait():
    for back, status in ((0.9, "complete"), (1.1, "waiting")):
        store = ClockedStore()
        look(store, LINE, SETTLES, ONE)
        store.now -= back
        assert look(store, LINE, SETTLES, ONE).status == "waiting"
        store.now += 60.5 + back if back < 1 else 59
        assert look(store, LINE, SETTLES, ONE).status == status


def test_the_time_counts_from_the_first_look_however_soon_the_next_one_follows():
    store, seen = ClockedStore(), []
    for passed in (0, 0.5, 59.6):
        store.now += passed
        seen.append(look(store, LINE, SETTLES, ONE).status)
    assert seen == ["waiting", "waiting", "complete"]


def test_the_clock_of_this_machine_takes_no_part(monkeypatch, tmp_path):
    store, root = ClockedStore(), first_delivery(tmp_path / "source", 3, 1)
    line = DatasetLine(source=str(root), settle_seconds=60)

    def listed() -> Listing:
        return list_source(open_line_source(line, Settings(), print), line)

    look(store, LINE, line, listed())
    monkeypatch.setattr(time, "time", lambda: 0.0)
    store.now += 60
    assert look(store, LINE, line, listed()).status == "complete"


def test_a_marker_completes_a_delivery_at_once_and_nothing_else_does():
    store = ClockedStore()
    assert look(store, LINE, MARKED, ONE).status == "waiting"
    store.now += 1e6
    assert look(store, LINE, MARKED, ONE).status == "waiting"
    first = Listing(ONE.marks, "written at 1")
    assert look(store, LINE, MARKED, first).status == "complete"
    handled(store, first)
    half = Listing(TWO.marks, "written at 1")  # the next upload has begun, the marker is that of the last one
    assert look(store, LINE, MARKED, half).status == "waiting"
    assert look(store, LINE, MARKED, Listing(TWO.marks, None)).status == "waiting"
    assert look(store, LINE, MARKED, Listing(TWO.marks, "written at 2")).status == "complete"


def test_a_marker_that_is_written_again_with_the_same_content_is_another_one(tmp_path):
    root = first_delivery(tmp_path / "source", 3, 1)
    line = DatasetLine(source=str(root), marker="_COMPLETE")

    def listed() -> Listing:
        return list_source(open_line_source(line, Settings(), print), line)

    assert listed().marker is None
    (root / "_COMPLETE").touch()
    first = listed()
    time.sleep(0.01)
    (root / "_COMPLETE").touch()
    assert first.marker not in (None, listed().marker)
    assert first.digest == listed().digest
    assert "_COMPLETE" not in first.marks


def test_of_runs_that_wait_the_last_one_does_and_the_others_end():
    store = ClockedStore()
    for run in ("run/1", "run/2"):
        begin_watch(store, LINE, run)
    found = look(store, LINE, SETTLES, ONE, "run/1")
    assert (found.status, "run/2" in found.reason) == ("superseded", True)
    assert look(store, LINE, SETTLES, ONE, "run/2").status == "waiting"


class CutShortStore(InMemoryStore):
    """Its listings end in an error after some objects."""

    def entries(self, prefix: str):
        for number, entry in enumerate(super().entries(prefix)):
            if number == 7:
                raise StorageError("the listing ends in the middle")
            yield entry


def filled(store: InMemoryStore, count: int = 6) -> InMemoryStore:
    for label in ("ant", "bee"):
        for number in range(count):
            store.put(f"in/train/{label}/{number}.png", f"{label} {number}".encode())
    return store


def test_an_error_in_the_middle_of_a_listing_is_no_listing():
    line = DatasetLine(source="s3://team/in")
    for opened in (filled(InMemoryStore()), filled(CutShortStore())):
        source = open_line_source(line, Settings(), print, lambda bucket, opened=opened: opened)
        if isinstance(opened, CutShortStore):
            with pytest.raises(StorageError, match="ends in the middle"):
                list_source(source, line)
        else:
            assert len(list_source(source, line).marks) == 12


def test_a_listing_of_a_prefix_has_a_mark_for_each_object_and_reads_none():
    store, line = filled(InMemoryStore()), DatasetLine(source="s3://team/in", marker="_COMPLETE")

    def listed() -> Listing:
        return list_source(open_line_source(line, Settings(), print, lambda bucket: store), line)

    first = listed()
    store.put("in/train/ant/3.png", b"changed")
    store.put("in/_COMPLETE", b"")
    second = listed()
    assert store.reads == []
    assert [name for name in first.marks if first.marks[name] != second.marks[name]] == ["train/ant/3.png"]
    assert (first.marker, second.marker is None) == (None, False)


def test_a_marker_in_s3_that_is_written_again_is_another_one():
    class Minutes(InMemoryStore):
        minute = 0.0

        def entries(self, prefix: str):
            for entry in super().entries(prefix):
                yield ObjectEntry(entry.key, entry.size, entry.etag, self.minute)

    store, line = filled(Minutes()), DatasetLine(source="s3://team/in", marker="_COMPLETE")
    store.put("in/_COMPLETE", b"")
    found = []
    for minute in (1.0, 2.0, 0.0):  # also when the clock went back
        store.minute = minute
        found.append(list_source(open_line_source(line, Settings(), print, lambda bucket: store), line).marker)
    assert len(set(found)) == 3


def test_a_source_that_is_away_or_empty_is_an_error_and_nothing_counts_as_gone(tmp_path, monkeypatch):
    root = first_delivery(tmp_path / "source", 3, 1)
    line = DatasetLine(source=str(root))
    opened = open_line_source(line, Settings(), print)
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: (_ for _ in ()).throw(OSError(116, "Stale file handle")))
    with pytest.raises(StorageError, match=r"cannot be listed: .*Stale file handle.* Nothing counts as gone") as caught:
        list_source(opened, line)
    assert caught.value.retryable
    monkeypatch.setattr(os, "scandir", scan)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="is empty"):
        list_source(open_line_source(DatasetLine(source=str(empty)), Settings(), print), line)


@pytest.mark.parametrize("source", ["digits", "archive"])
def test_a_source_that_is_one_object_is_listed_without_being_read(source, tmp_path):
    if source == "archive":
        first_delivery(tmp_path / "source", 3, 1)
        source = shutil.make_archive(str(tmp_path / "pets"), "zip", tmp_path / "source")
    line = DatasetLine(source=source)
    first = list_source(open_line_source(line, Settings(), print), line)
    assert len(first.marks) == 1
    assert list_source(open_line_source(line, Settings(), print), line) == first
    if Path(source).is_file():
        deliver(tmp_path / "source", "train/ant/new.png", picture(3))
        shutil.make_archive(str(tmp_path / "pets"), "zip", tmp_path / "source")
        assert list_source(open_line_source(line, Settings(), print), line).digest != first.digest
