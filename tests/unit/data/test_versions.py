import json
import threading
from pathlib import Path

import numpy as np
import pytest

from cifar_tasks.data import DatasetVersion, Source, find_prepared, load_dataset, load_version, open_source, prepare
from cifar_tasks.data.digits import DigitsSource
from cifar_tasks.data.images import LabelledImages, RawDataset
from cifar_tasks.errors import ConfigError, DataError, IntegrityError, StorageError
from cifar_tasks.settings import Settings
from tests.stores import FailingStore, InMemoryStore
from tests.unit.data.pictures import class_files, directory_of, zip_of

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


class NoiseSource:
    """Random images; counts how often they are read."""

    stand_in = False

    def __init__(self, seed: int = 0, name: str = "noise") -> None:
        self.name = name
        self.loads = 0
        self._seed = seed

    def fingerprint(self) -> str:
        return f"{self.name}-{self._seed}"

    def load(self, report: object) -> RawDataset:
        self.loads += 1
        random = np.random.default_rng(self._seed)
        train, test = (
            LabelledImages(random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), np.arange(count) % 2)
            for count in (100, 20)
        )
        return RawDataset(self.name, ("ant", "bee"), train, test)


def quiet(line: str) -> None:
    """A test that does not look at progress."""


@pytest.fixture
def store() -> InMemoryStore:
    return InMemoryStore()


def test_a_version_says_what_it_holds(store: InMemoryStore) -> None:
    version = prepare(NoiseSource(), store, 0, quiet)
    assert version.uri == f"memory://datasets/{version.digest[:16]}/manifest.json"
    assert (version.name, version.classes, version.stand_in, version.warnings) == ("noise", ("ant", "bee"), False, ())
    assert version.counts == {
        "train": {"ant": 45, "bee": 45},
        "validation": {"ant": 5, "bee": 5},
        "test": {"ant": 10, "bee": 10},
    }
    assert [version.size(split) for split in ("train", "validation", "test")] == [90, 10, 20]


def test_a_version_passes_through_json(store: InMemoryStore) -> None:
    version = prepare(NoiseSource(), store, 0, quiet)
    assert DatasetVersion.from_dict(json.loads(json.dumps(version.as_dict()))) == version


def test_what_is_loaded_is_what_the_source_held(store: InMemoryStore) -> None:
    source = NoiseSource()
    dataset = load_dataset(store, prepare(source, store, 0, quiet))
    raw = source.load(quiet)
    assert (dataset.test.images == raw.test.images).all()
    both = np.concatenate([dataset.train.images, dataset.validation.images])
    assert sorted(image.tobytes() for image in both) == sorted(image.tobytes() for image in raw.train.images)
    assert (dataset.train.images.dtype, dataset.train.labels.dtype) == (np.uint8, np.int64)


def test_only_the_asked_splits_are_read(store: InMemoryStore) -> None:
    version = prepare(NoiseSource(), store, 0, quiet)
    store.delete(f"datasets/{version.digest[:16]}/test-images.npy")
    dataset = load_dataset(store, version, ("train", "validation"))
    assert set(dataset.splits) == {"train", "validation"}


def test_the_manifest_is_written_after_all_objects_and_before_the_pointer(store: InMemoryStore) -> None:
    prepare(NoiseSource(), store, 0, quiet)
    assert [key.split("/")[-1] for key in store.writes[:7]] == [
        "train-images.npy",
        "train-labels.npy",
        "validation-images.npy",
        "validation-labels.npy",
        "test-images.npy",
        "test-labels.npy",
        "manifest.json",
    ]
    assert store.writes[7].startswith("sources/")
    assert len(store.writes) == 8


def test_preparing_again_reads_and_writes_nothing(store: InMemoryStore) -> None:
    source, lines = NoiseSource(), []
    version = prepare(source, store, 0, quiet)
    before = dict(store.objects)
    assert prepare(source, store, 0, lines.append) == version
    assert (source.loads, len(store.writes)) == (1, 8)
    assert store.objects == before
    assert "is prepared already" in lines[0]


def test_seed_and_fraction_make_other_versions_of_the_same_test_set(store: InMemoryStore) -> None:
    first, other_seed = (prepare(NoiseSource(), store, seed, quiet) for seed in (0, 1))
    other_fraction = prepare(NoiseSource(), store, 0, quiet, validation_fraction=0.2)
    assert len({first.digest, other_seed.digest, other_fraction.digest}) == 3
    assert other_fraction.size("validation") == 20
    tests = [load_dataset(store, version, ("test",)).test.images for version in (first, other_seed, other_fraction)]
    assert (tests[0] == tests[1]).all()
    assert (tests[0] == tests[2]).all()


def test_a_directory_and_a_zip_of_it_are_one_version(store: InMemoryStore, tmp_path: Path) -> None:
    files = class_files()
    versions = [
        prepare(open_source(str(path), Settings(), quiet), store, 0, quiet)
        for path in (directory_of(files, tmp_path / "images"), zip_of(files, tmp_path / "images.zip"))
    ]
    assert versions[0] == versions[1]
    assert len(store.writes) == 9  # the second one adds its pointer and nothing else


def test_a_version_of_digits_is_marked_as_a_stand_in(store: InMemoryStore) -> None:
    assert prepare(DigitsSource(), store, 0, quiet).stand_in


@pytest.mark.parametrize("fails_at", range(1, 9))
def test_preparing_that_broke_off_leaves_no_version_and_is_finished_by_the_next(fails_at: int) -> None:
    store, source = FailingStore(fails_at), NoiseSource()
    with pytest.raises(StorageError):
        prepare(source, store, 0, quiet)
    assert any(key.endswith("manifest.json") for key in store.objects) == (fails_at == 8)
    assert find_prepared(source, store, 0) is None
    store.repair()
    version = prepare(source, store, 0, quiet)
    assert load_version(store, version.uri) == find_prepared(source, store, 0) == version
    assert len(store.objects) == 8


def test_two_that_prepare_the_same_source_at_the_same_time_both_succeed(store: InMemoryStore) -> None:
    ready = threading.Barrier(4)
    versions: list[DatasetVersion] = []

    class Together(NoiseSource):
        def load(self, report: object) -> RawDataset:
            ready.wait(10)
            return super().load(report)

    def work(source: Source) -> None:
        versions.append(prepare(source, store, 0, quiet))

    # Two names for the same images: the manifests that they want to write differ.
    threads = [threading.Thread(target=work, args=(Together(name=name),)) for name in ("a", "b") * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(versions) == 4
    assert all(version == versions[0] for version in versions)


@pytest.mark.parametrize("alter", [lambda data: data[:-1] + b"x", lambda data: data[:-100], lambda data: b""])
@pytest.mark.parametrize("name", ["train-images", "validation-labels"])
def test_a_damaged_or_truncated_object_is_never_loaded(store: InMemoryStore, alter: object, name: str) -> None:
    version = prepare(NoiseSource(), store, 0, quiet)
    key = f"datasets/{version.digest[:16]}/{name}.npy"
    assert callable(alter)
    store.objects[key] = alter(store.objects[key])
    with pytest.raises(IntegrityError, match=f"{name}.npy is damaged"):
        load_dataset(store, version)


def test_a_missing_object_is_reported_and_restored_by_preparing_again(store: InMemoryStore) -> None:
    version = prepare(NoiseSource(), store, 0, quiet)
    key = f"datasets/{version.digest[:16]}/train-images.npy"
    store.delete(key)
    with pytest.raises(IntegrityError, match=r"train-images\.npy is missing\. Prepare the data again"):
        load_dataset(store, version)
    assert prepare(NoiseSource(), store, 0, quiet) == version
    assert len(load_dataset(store, version).train) == 90


@pytest.mark.parametrize(
    "alter",
    [
        lambda manifest: manifest | {"classes": ["ant", "cow"]},
        lambda manifest: manifest | {"digest": "0" * 64},
        lambda manifest: {"format": 1},
    ],
)
def test_an_altered_manifest_is_refused(store: InMemoryStore, alter: object) -> None:
    version = prepare(NoiseSource(), store, 0, quiet)
    key = f"datasets/{version.digest[:16]}/manifest.json"
    assert callable(alter)
    store.put(key, json.dumps(alter(json.loads(store.get(key)))).encode())
    with pytest.raises(IntegrityError, match=r"manifest\.json is damaged or was altered"):
        load_version(store, version.uri)


def test_a_damaged_pointer_costs_no_more_than_reading_again(store: InMemoryStore) -> None:
    source = NoiseSource()
    version = prepare(source, store, 0, quiet)
    (pointer,) = store.keys("sources/")
    store.put(pointer, b"{")
    assert prepare(source, store, 0, quiet) == version
    assert source.loads == 2
    assert find_prepared(source, store, 0) == version


def test_a_version_is_found_by_uri_folder_and_digest(store: InMemoryStore) -> None:
    version = prepare(NoiseSource(), store, 0, quiet)
    folder = version.uri.removesuffix("/manifest.json")
    for name in (version.uri, folder, f"{folder}/", version.digest, version.digest[:16], version.digest[:20]):
        assert load_version(store, name) == version


@pytest.mark.parametrize("name", ["latest", "", "abc", "s3://other/datasets/0123456789abcdef/manifest.json"])
def test_what_names_no_version_is_refused(store: InMemoryStore, name: str) -> None:
    with pytest.raises(ConfigError, match="names no data set version"):
        load_version(store, name)


def test_an_unknown_version_is_refused(store: InMemoryStore) -> None:
    version = prepare(NoiseSource(), store, 0, quiet)
    for digest in ("0123456789abcdef", version.digest[:16] + "0" * 48):
        with pytest.raises(ConfigError, match="there is no data set version"):
            load_version(store, digest)


def test_a_source_that_is_refused_writes_nothing(store: InMemoryStore, tmp_path: Path) -> None:
    root = directory_of(class_files() | {"train/ant/broken.jpg": b"x"}, tmp_path / "images")
    with pytest.raises(DataError, match=r"broken\.jpg"):
        prepare(open_source(str(root), Settings(), quiet), store, 0, quiet)
    assert store.objects == {}


@pytest.mark.parametrize(
    ("archive", "sizes"),
    [("cifar10-images-small.zip", (1_800, 200, 500)), ("cifar10-images.zip", (45_000, 5_000, 10_000))],
)
def test_cifar10_as_class_folders_becomes_its_three_splits(
    store: InMemoryStore, archive: str, sizes: tuple[int, int, int]
) -> None:
    path = SHARED / archive
    if not path.exists():
        pytest.skip(f"{archive} is not on this machine (it is looked for in ../shared/data)")
    version = prepare(open_source(str(path), Settings(), quiet), store, 0, quiet)
    dataset = load_dataset(store, version)
    for split, size in zip(("train", "validation", "test"), sizes, strict=True):
        assert set(version.counts[split].values()) == {size // 10}
        assert len(dataset.splits[split]) == size
