"""Images come from a verified copy on this machine."""

import logging
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from cifar_tasks.data import preparation
from cifar_tasks.data.loading import load_split
from cifar_tasks.data.preparation import prepare
from cifar_tasks.data.versions import DatasetVersion
from cifar_tasks.errors import IntegrityError, StorageError
from tests.stores import FolderStore, InMemoryStore
from tests.unit.data.sources import NoiseSource, load_in_a_process, load_splits, quiet


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> InMemoryStore:
    """The images of a split in several shards."""
    monkeypatch.setattr(preparation, "SHARD_BYTES", 100_000)
    return InMemoryStore()


@pytest.fixture
def version(store: InMemoryStore) -> DatasetVersion:
    return prepare(NoiseSource(), store, 0, quiet)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "not" / "made" / "yet"


def shards_read(store: InMemoryStore) -> list[str]:
    """Since the last call."""
    found = [key.split("/")[-1] for key in store.reads if ".npy" in key]
    store.reads.clear()
    return found


def local_file(cache: Path, version: DatasetVersion, name: str = "train-images.npy") -> Path:
    return cache / version.digest[:16] / name


def test_what_is_loaded_is_what_the_source_held(store: InMemoryStore, version: DatasetVersion, cache: Path) -> None:
    source = NoiseSource()
    train, validation, test = load_splits(store, version, cache)
    assert (test.images == source.test.images).all()
    assert (test.labels == source.test.labels).all()
    both = np.concatenate([train.images, validation.images])
    assert sorted(image.tobytes() for image in both) == sorted(image.tobytes() for image in source.train.images)
    assert (train.images.dtype, train.labels.dtype) == (np.uint8, np.int64)


def test_training_images_keep_the_order_of_the_source(
    store: InMemoryStore, version: DatasetVersion, cache: Path
) -> None:
    order = [image.tobytes() for image in NoiseSource().train.images]
    loaded = load_split(store, version, "train", cache)
    positions = [order.index(image.tobytes()) for image in loaded.images]
    assert positions == sorted(positions)
    assert loaded.labels.tolist() == NoiseSource().train.labels[positions].tolist()


def test_images_are_mapped_from_one_file_and_cannot_be_altered(
    store: InMemoryStore, version: DatasetVersion, cache: Path
) -> None:
    images = load_split(store, version, "train", cache).images
    assert str(local_file(cache, version)) in Path("/proc/self/maps").read_text()
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0
    assert type(images[:3].copy()) is np.ndarray


def test_only_the_asked_split_is_fetched(store: InMemoryStore, version: DatasetVersion, cache: Path) -> None:
    load_split(store, version, "validation", cache)
    assert {name.split("-")[0] for name in shards_read(store)} == {"validation"}
    assert not local_file(cache, version, "test-images.npy").exists()


def test_a_second_load_reads_no_shard(store: InMemoryStore, version: DatasetVersion, cache: Path) -> None:
    first, *_ = load_splits(store, version, cache)
    assert len(shards_read(store)) == 3 + 1 + 1 + 3  # the shards of the images
    again, *_ = load_splits(store, version, cache)
    assert shards_read(store) == []
    assert (again.images == first.images).all()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: bytes([data[0] ^ 1]) + data[1:],
        lambda data: data[:150_000] + bytes([data[150_000] ^ 1]) + data[150_001:],
        lambda data: data[:-100],
        lambda data: data + b"x",
        lambda data: b"",
    ],
    ids=["last byte", "first byte", "in the middle", "truncated", "too long", "empty"],
)
def test_a_damaged_local_copy_is_fetched_again_with_a_warning(
    store: InMemoryStore,
    version: DatasetVersion,
    cache: Path,
    damage: Callable[[bytes], bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    load_split(store, version, "train", cache)
    shards_read(store)
    path = local_file(cache, version)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    with caplog.at_level(logging.WARNING):
        images = load_split(store, version, "train", cache).images
    assert f"the local copy {path} is damaged" in caplog.text
    assert path.read_bytes() == whole
    assert set(shards_read(store)) == {f"train-images.npy.{number:03}" for number in range(3)}
    assert images.shape == (90, 32, 32, 3)


@pytest.mark.parametrize("alter", [lambda data: data[:-1] + b"x", lambda data: data[:-100], lambda data: b""])
@pytest.mark.parametrize("name", ["train-images.npy.001", "validation-labels.npy.000"])
def test_a_damaged_shard_is_never_loaded_and_leaves_no_copy(
    store: InMemoryStore, version: DatasetVersion, cache: Path, alter: Callable[[bytes], bytes], name: str
) -> None:
    key = f"datasets/{version.digest[:16]}/{name}"
    whole = store.objects[key]
    store.objects[key] = alter(whole)
    with pytest.raises(IntegrityError, match=f"{name} is damaged"):
        load_splits(store, version, cache)
    assert not local_file(cache, version, name.rpartition(".")[0]).exists()
    store.objects[key] = whole
    assert len(load_splits(store, version, cache)[0]) == 90


def test_a_missing_shard_is_an_error_that_says_what_to_do(
    store: InMemoryStore, version: DatasetVersion, cache: Path
) -> None:
    store.delete(f"datasets/{version.digest[:16]}/train-images.npy.002")
    with pytest.raises(IntegrityError, match=r"train-images\.npy\.002 is missing\. Prepare the data again"):
        load_splits(store, version, cache)


def test_a_cache_that_cannot_be_written_is_an_error_that_says_what_to_do(
    store: InMemoryStore, version: DatasetVersion, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"file/.* cannot be used: .* set CIFAR_HOME to another folder"):
        load_splits(store, version, tmp_path / "file")


def test_two_processes_that_load_at_the_same_time_fetch_each_shard_once(
    store: InMemoryStore, version: DatasetVersion, tmp_path: Path
) -> None:
    shared = FolderStore(tmp_path / "store")
    shared.objects.update(store.objects)
    context = get_context("spawn")
    together, answers = context.Barrier(2), context.Queue()
    arguments = (tmp_path / "store", version, tmp_path / "cache", together, answers)
    processes = [context.Process(target=load_in_a_process, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    expected = load_split(shared, version, "train", tmp_path / "cache").images
    assert {total for total, _ in found} == {int(expected.sum())}
    assert sorted(key for _, keys in found for key in keys) == sorted(k for k in store.objects if "train-images" in k)
