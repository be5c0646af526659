"""What every object store must do. A test of a real one subclasses `ObjectStoreContract` with its own `store`."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cifar_tasks.errors import ConfigError, IntegrityError, StorageError
from cifar_tasks.storage.s3 import S3Store, canonical_json, sha256_hex, split_s3_url
from tests.stores import FailingStore, FolderStore, InMemoryStore


class ObjectStoreContract:
    """The fixture `store` gives an empty store."""

    def test_what_is_put_is_read_back_with_its_reference(self, store: S3Store) -> None:
        ref = store.put("a/b.bin", b"content")
        assert (ref.key, ref.size, ref.sha256) == ("a/b.bin", 7, sha256_hex(b"content"))
        assert store.get(ref.key, ref.sha256) == b"content"

    def test_put_replaces(self, store: S3Store) -> None:
        store.put("a", b"old")
        store.put("a", b"new")
        assert store.get("a") == b"new"

    def test_put_if_without_a_mark_refuses_other_content_and_keeps_the_first(self, store: S3Store) -> None:
        store.put_if("a", b"one", None)
        with pytest.raises(IntegrityError):
            store.put_if("a", b"two", None)
        assert store.get("a") == b"one"

    def test_put_if_replaces_only_what_has_the_mark(self, store: S3Store) -> None:
        first = store.put_if("a", b"one", None)
        second = store.put_if("a", b"two", first)
        assert (store.get("a"), store.snapshot("a").etag) == (b"two", second)
        for outdated in (first, None):
            with pytest.raises(IntegrityError):
                store.put_if("a", b"three", outdated)
        assert store.get("a") == b"two"

    def test_put_if_never_brings_a_deleted_object_back(self, store: S3Store) -> None:
        etag = store.put_if("a", b"one", None)
        store.delete("a")
        with pytest.raises(KeyError):
            store.put_if("a", b"two", etag)
        assert not store.exists("a")

    def test_put_if_accepts_the_same_content_again(self, store: S3Store) -> None:
        """The answer to the first may have been lost."""
        first = store.put_if("a", b"one", None)
        assert store.put_if("a", b"one", None) == first
        second = store.put_if("a", b"two", first)
        assert store.put_if("a", b"two", first) == second

    @pytest.mark.parametrize("replacing", [False, True])
    def test_of_several_that_put_at_the_same_time_one_succeeds(self, store: S3Store, replacing: bool) -> None:
        etag = store.put_if("a", b"stale", None) if replacing else None
        together = threading.Barrier(4)

        def put(number: int) -> bool:
            together.wait()
            try:
                store.put_if("a", b"%d" % number, etag)
            except IntegrityError:
                return False
            return True

        with ThreadPoolExecutor(4) as pool:
            won = list(pool.map(put, range(4)))
        assert won.count(True) == 1
        assert store.get("a") == b"%d" % won.index(True)

    def test_a_snapshot_tells_content_mark_and_an_age_that_grows_until_the_next_write(self, store: S3Store) -> None:
        store.put("a", b"one")
        young = store.snapshot("a")
        assert (young.data, young.etag) == (b"one", next(store.entries("a")).etag)
        assert 0 <= young.age < 5
        time.sleep(1.1)  # S3 tells whole seconds
        assert store.snapshot("a").age >= young.age + 1
        store.put("a", b"one")
        assert store.snapshot("a").age <= young.age + 1

    def test_there_is_no_snapshot_of_what_is_missing(self, store: S3Store) -> None:
        with pytest.raises(KeyError):
            store.snapshot("nowhere")

    def test_reading_an_altered_object_is_refused(self, store: S3Store) -> None:
        ref = store.put("a", b"one")
        store.put("a", b"two")
        with pytest.raises(IntegrityError, match="damaged"):
            store.get(ref.key, ref.sha256)

    def test_a_missing_key_is_a_key_error(self, store: S3Store) -> None:
        with pytest.raises(KeyError):
            store.get("nowhere")
        assert not store.exists("nowhere")

    def test_an_object_is_written_to_a_file(self, store: S3Store, tmp_path: Path) -> None:
        content = bytes(range(256)) * 10_000
        store.put("a", content)
        store.download("a", tmp_path / "file")
        assert (tmp_path / "file").read_bytes() == content
        with pytest.raises(KeyError):
            store.download("missing", tmp_path / "other")

    def test_a_listing_is_sorted_and_limited_to_the_prefix(self, store: S3Store) -> None:
        for key in ("b/2", "b/1", "a/1", "bc"):
            store.put(key, b"x")
        assert list(store.keys("b/")) == ["b/1", "b/2"]
        assert list(store.keys("")) == ["a/1", "b/1", "b/2", "bc"]
        assert list(store.keys("z")) == []

    def test_an_entry_tells_size_and_a_mark_that_follows_the_content(self, store: S3Store) -> None:
        store.put("a", b"one")
        before = next(store.entries("a"))
        store.put("a", b"four")
        after = next(store.entries("a"))
        store.put("a", b"one")
        assert (before.key, before.size, after.size) == ("a", 3, 4)
        assert before.etag != after.etag
        assert next(store.entries("a")).etag == before.etag

    def test_a_deleted_object_is_gone_and_deleting_again_is_no_error(self, store: S3Store) -> None:
        store.put("a", b"one")
        store.delete("a")
        store.delete("a")
        assert not store.exists("a")

    def test_an_empty_object_is_an_object(self, store: S3Store) -> None:
        ref = store.put("empty", b"")
        assert store.exists("empty")
        assert store.get(ref.key, ref.sha256) == b""


class TestInMemoryStore(ObjectStoreContract):
    @pytest.fixture
    def store(self) -> InMemoryStore:
        return InMemoryStore()


class TestFolderStore(ObjectStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> FolderStore:
        return FolderStore(tmp_path / "objects")


def test_failing_store_fails_until_it_is_repaired() -> None:
    store = FailingStore(fails_at=2)
    store.put("a", b"1")
    for _ in range(2):
        with pytest.raises(StorageError):
            store.put_if("b", b"2", None)
    store.repair()
    store.put_if("b", b"2", None)
    assert list(store.keys("")) == ["a", "b"]


def test_canonical_json_does_not_depend_on_the_order_of_keys() -> None:
    assert canonical_json({"b": 1, "a": [1.5, None]}) == canonical_json({"a": [1.5, None], "b": 1})


def test_canonical_json_refuses_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


def test_s3_url_is_split_into_bucket_and_key() -> None:
    assert split_s3_url("s3://bucket/some/key") == ("bucket", "some/key")
    assert split_s3_url("s3://bucket/a b/%20#?x=//") == ("bucket", "a b/%20#?x=//")
    assert split_s3_url("s3://bucket//key") == ("bucket", "/key")
    assert split_s3_url("s3://bucket") == ("bucket", "")


@pytest.mark.parametrize("url", ["http://bucket/key", "s3:///key", "bucket/key"])
def test_what_is_no_s3_url_is_refused_by_name(url: str) -> None:
    with pytest.raises(ConfigError, match="s3://BUCKET/KEY"):
        split_s3_url(url)
