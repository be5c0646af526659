"""Only what no version in the log refers to is deleted, and nothing of a preparation that goes on."""

from dataclasses import replace
from pathlib import Path

import pytest

from cifar_tasks.data.lines import line_shards
from cifar_tasks.data.lines.line_log import read_line_log
from cifar_tasks.data.lines.unused_objects import unused_objects
from cifar_tasks.data.versions import load_version, shards_of, whole_version, write_manifest
from tests.dataset_lines import LINE, accept, deliver, first_delivery, index_of, picture, prepared
from tests.stores import InMemoryStore


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return first_delivery(tmp_path / "source")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, root: Path) -> InMemoryStore:
    """Of a line with a version in use, one that was rejected, and a later one that was prepared and never recorded."""
    monkeypatch.setattr(line_shards, "PIECE_BYTES", 4 * 3 * 32**2)
    store = InMemoryStore()
    accept(store, prepared(store, root))
    deliver(root, "train/ant/rejected.png", picture(500))
    accept(store, prepared(store, root), "rejected")
    deliver(root, "train/ant/interrupted.png", picture(501))
    prepared(store, root)
    return store


def clean(store: InMemoryStore) -> list[str]:
    keys = [entry.key for entry in unused_objects(store, LINE)]
    for key in keys:
        store.delete(key)
    return keys


WEEK = 7 * 86_400


def grow_old(store: InMemoryStore, seconds: float = WEEK + 1) -> None:
    for key in store.written:
        store.written[key] -= seconds


def test_what_an_interrupted_preparation_has_left_is_deleted_when_it_is_old_with_its_manifest_first(store, root):
    grow_old(store, WEEK - 3_600)
    assert unused_objects(store, LINE) == []
    grow_old(store, 3_601)
    deleted = clean(store)
    assert {key.rpartition("/")[0] for key in deleted[1:]} == {f"lines/{LINE}/index", f"lines/{LINE}/shards"}
    assert deleted[0].startswith("datasets/")
    for entry in read_line_log(store, LINE).entries:  # one was rejected
        assert whole_version(store, entry.dataset.digest, LINE)
        assert store.get(entry.dataset.index, entry.dataset.index_sha256)
    assert clean(store) == []
    again = prepared(store, root)
    assert whole_version(store, again.dataset.digest, LINE)
    assert index_of(store, again).images


def test_nothing_of_a_preparation_that_finds_old_objects_is_deleted_while_it_goes_on(store, root):
    grow_old(store)
    version = prepared(store, root)
    assert clean(store) == []
    accept(store, version)
    grow_old(store)
    assert clean(store) == []
    assert whole_version(store, version.dataset.digest, LINE)


def test_a_manifest_that_leads_to_the_same_images_under_another_name_stays(store, root):
    version = load_version(store, prepared(store, root).dataset.uri)
    renamed = write_manifest(store, replace(version, name="other"), shards_of(store, version))
    grow_old(store)
    assert not [key for key in clean(store) if key.startswith("datasets/")]
    assert whole_version(store, renamed.digest, "other")
