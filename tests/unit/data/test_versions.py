"""A dataset version is what its manifest says, and exists only with one."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from cifar_tasks.data.preparation import prepare
from cifar_tasks.data.versions import FORMAT, DatasetVersion, load_version, whole_shards, whole_version
from cifar_tasks.errors import ConfigError, IntegrityError
from tests.stores import InMemoryStore
from tests.unit.data.sources import NoiseSource, quiet


@pytest.fixture
def store() -> InMemoryStore:
    return InMemoryStore()


@pytest.fixture
def version(store: InMemoryStore) -> DatasetVersion:
    return prepare(NoiseSource(), store, 0, quiet)


def manifest_key(version: DatasetVersion) -> str:
    return version.uri.removeprefix("memory://")


def test_a_version_says_what_it_holds(version: DatasetVersion) -> None:
    assert version.uri == f"memory://datasets/{version.digest[:16]}/manifest.json"
    assert (version.name, version.classes, version.placeholder, version.warnings) == (
        "noise",
        ("ant", "bee"),
        False,
        (),
    )
    assert (version.image_size, version.resize) == (32, "crop")
    assert version.counts == {
        "train": {"ant": 45, "bee": 45},
        "validation": {"ant": 5, "bee": 5},
        "test": {"ant": 10, "bee": 10},
    }
    assert [version.size(split) for split in ("train", "validation", "test")] == [90, 10, 20]


def test_a_version_as_a_dictionary_is_plain_json(version: DatasetVersion) -> None:
    fields = json.loads(json.dumps(version.as_dict()))
    assert fields == version.as_dict()
    assert (fields["classes"], fields["image_size"]) == (["ant", "bee"], 32)


def test_a_version_is_found_by_the_uri_of_its_manifest(store: InMemoryStore, version: DatasetVersion) -> None:
    assert load_version(store, version.uri) == version


@pytest.mark.parametrize(
    "name",
    [
        "latest",
        "",
        "0123456789abcdef",
        "memory://datasets/0123456789abcdef/",
        "memory://datasets/0123456789abcdef/train-images.npy.000",
        "s3://other/datasets/0123456789abcdef/manifest.json",
    ],
)
def test_what_is_no_manifest_is_refused(store: InMemoryStore, name: str) -> None:
    with pytest.raises(ConfigError, match="names no dataset version: give memory://datasets/DIGEST/manifest"):
        load_version(store, name)


def test_a_version_that_nobody_prepared_is_refused(store: InMemoryStore) -> None:
    with pytest.raises(ConfigError, match=r"there is no dataset version .* prepare the data first"):
        load_version(store, "memory://datasets/0123456789abcdef/manifest.json")


def _other_shard(manifest: dict[str, Any]) -> dict[str, Any]:
    manifest["shards"]["train-images"][0]["sha256"] = "0" * 64
    return manifest


@pytest.mark.parametrize(
    "alter",
    [
        lambda manifest: manifest | {"classes": ["ant", "cow"]},
        lambda manifest: manifest | {"digest": "0" * 64},
        lambda manifest: manifest | {"image_size": 64},
        lambda manifest: manifest | {"resize": "pad"},
        lambda manifest: manifest | {"format": FORMAT - 1},
        lambda manifest: manifest | {"format": FORMAT + 1},
        lambda manifest: manifest | {"more": 1},
        lambda manifest: {name: value for name, value in manifest.items() if name != "warnings"},
        _other_shard,
    ],
)
def test_an_altered_manifest_is_refused(
    store: InMemoryStore, version: DatasetVersion, alter: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    key = manifest_key(version)
    store.put(key, json.dumps(alter(json.loads(store.get(key)))).encode())
    with pytest.raises(IntegrityError, match=r"manifest\.json is damaged or was altered"):
        load_version(store, version.uri)


def test_a_manifest_in_the_folder_of_another_version_is_refused(store: InMemoryStore, version: DatasetVersion) -> None:
    store.put("datasets/0123456789abcdef/manifest.json", store.get(manifest_key(version)))
    with pytest.raises(IntegrityError, match="damaged or was altered"):
        load_version(store, "memory://datasets/0123456789abcdef/manifest.json")


def test_a_version_of_an_earlier_deployment_is_found() -> None:
    assert FORMAT == 3  # raised on purpose only: all data are prepared again


@pytest.mark.parametrize("name", ["also noise", "sound"])  # before and behind "noise"
def test_the_same_images_under_another_name_are_a_version_with_the_same_shards(
    store: InMemoryStore, version: DatasetVersion, name: str
) -> None:
    store.writes.clear()
    other = prepare(NoiseSource(name=name), store, 0, quiet)
    assert (other.name, other.digest) == (name, version.digest)
    assert not any(".npy" in key for key in store.writes)
    assert other.uri.startswith(f"memory://datasets/{version.digest[:16]}/manifest-")
    for each in (version, other):
        assert whole_version(store, version.digest, each.name) == load_version(store, each.uri) == each
    with pytest.raises(KeyError):
        whole_version(store, version.digest, "another")


def test_a_version_that_lacks_a_shard_is_not_whole(store: InMemoryStore, version: DatasetVersion) -> None:
    shards = whole_shards(store, version.digest)
    assert shards.keys() == {f"{split}-{what}" for split in version.counts for what in ("images", "labels")}
    store.delete(shards["test-labels"][0].key)
    with pytest.raises(KeyError):
        whole_shards(store, version.digest)
    with pytest.raises(KeyError):
        whole_version(store, version.digest, version.name)
