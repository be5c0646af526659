"""SIGKILL of a watch before any of its writes: no half version, and one entry in the end."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from cifar_tasks.data.lines.line_decisions import Decider, record_version
from cifar_tasks.data.lines.line_index import read_index
from cifar_tasks.data.lines.line_log import EntryKind, LineEntry, read_line_log
from cifar_tasks.data.lines.line_settings import DatasetLine
from cifar_tasks.data.lines.line_source import list_source, open_line_source
from cifar_tasks.data.lines.line_verdicts import reject, release
from cifar_tasks.data.lines.line_watch import begin_watch, look
from cifar_tasks.data.versions import whole_version
from cifar_tasks.settings import Settings
from cifar_tasks.storage.s3 import ObjectRef
from tests.dataset_lines import LINE, deliver, first_delivery, picture, prepared
from tests.stores import FolderStore


class KillingStore(FolderStore):
    """Kills its process before its n-th write."""

    def __init__(self, root: Path, kills_at: int) -> None:
        super().__init__(root)
        self._left = kills_at

    def put(self, key: str, data: bytes) -> ObjectRef:
        self._count()
        return super().put(key, data)

    def put_if(self, key: str, data: bytes, etag: str | None) -> str:
        self._count()
        return super().put_if(key, data, etag)

    def _count(self) -> None:
        self._left -= 1
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)


def watch(store: FolderStore, source: Path, workflow: str, kind: EntryKind = "accepted") -> LineEntry | None:
    """What the tasks of the DAG do, one after another."""
    line = DatasetLine(source=str(source), settle_seconds=0)
    begin_watch(store, LINE, workflow)
    listing = list_source(open_line_source(line, Settings(), str), line)
    if look(store, LINE, line, listing, workflow).status == "unchanged":
        return None
    in_use = read_line_log(store, LINE).in_use()
    new = prepared(store, source, str)
    base = in_use.digest if in_use else None
    return record_version(store, LINE, kind, new, base, Decider(workflow))


def was_killed(root: Path, kills_at: int, work: Callable[[FolderStore], object]) -> bool:
    """Whether it was killed before it had ended."""
    child = os.fork()
    if not child:
        code = 1
        try:
            work(KillingStore(root, kills_at))
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("delivery", ["first", "increment"])
def test_a_watch_that_is_killed_at_any_write_leaves_no_half_version_and_the_next_ends_as_if_it_had_not_been(
    tmp_path: Path, delivery: str
) -> None:
    source = first_delivery(tmp_path / "source", 6, 2)
    begun = FolderStore(tmp_path / "begun")
    if delivery == "increment":
        watch(begun, source, "dag/0")
        for number in range(4):
            deliver(source, f"train/ant/a{number}.png", picture(300 + number))
    expected = watch(FolderStore(shutil.copytree(tmp_path / "begun", tmp_path / "expected")), source, "dag/1")
    for kills_at in range(1, 60):
        root = Path(shutil.copytree(tmp_path / "begun", tmp_path / f"killed-{kills_at}"))
        if not was_killed(root, kills_at, lambda store: watch(store, source, "dag/killed")):
            break
        store = FolderStore(root)
        log = read_line_log(store, LINE)
        for manifest in (key for key in store.keys("datasets/") if key.endswith("/manifest.json")):
            digest = next(
                d for d in (expected.dataset.digest, *(e.dataset.digest for e in log.entries)) if d[:16] in manifest
            )
            assert whole_version(store, digest, LINE)
        for entry in log.entries:
            assert read_index(store, entry.dataset).images
        for workflow in ("dag/killed", "dag/2"):  # its retry, and another run
            watch(store, source, workflow)
        ended = read_line_log(store, LINE)
        assert len(ended.entries) == expected.number
        assert ended.in_use() == expected.dataset
    assert kills_at > 8


@pytest.mark.parametrize(("decide", "kind"), [(release, "released"), (reject, "rejected")])
def test_a_quarantine_and_its_verdict_that_are_killed_at_any_write_are_entered_once(
    tmp_path: Path, decide: Callable[..., LineEntry], kind: str
) -> None:
    source = first_delivery(tmp_path / "source", 6, 2)
    first = watch(FolderStore(tmp_path / "begun"), source, "dag/0")
    deliver(source, "train/ant/a0.png", picture(300))

    def work(store: FolderStore) -> LineEntry:
        """A retry finds what the tasks before have entered."""
        watch(store, source, "dag/killed", "quarantined")
        version = read_line_log(store, LINE).last.dataset.digest
        return decide(store, LINE, version, Decider("dag/killed", by="ada", reason="looked at"))

    for kills_at in range(1, 60):
        root = Path(shutil.copytree(tmp_path / "begun", tmp_path / f"killed-{kills_at}"))
        killed, store = was_killed(root, kills_at, work), FolderStore(root)
        log = read_line_log(store, LINE)
        assert log.in_use() == (log.last.dataset if log.last.kind == "released" else first.dataset)
        for _ in "a retry", "another":
            work(store)
        entries = read_line_log(store, LINE).entries
        assert [entry.kind for entry in entries] == ["accepted", "quarantined", kind]
        assert whole_version(store, entries[-1].dataset.digest, LINE)
        if not killed:
            break
    assert kills_at > 8
