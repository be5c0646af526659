"""From a source to a dataset version: once, whole, and named by its content."""

import threading
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from cifar_tasks.data import preparation
from cifar_tasks.data.digits import DigitsSource
from cifar_tasks.data.image_format import ImageFormat
from cifar_tasks.data.images import ImageStream, Report
from cifar_tasks.data.loading import load_split
from cifar_tasks.data.preparation import find_prepared, prepare
from cifar_tasks.data.source import Source, open_source
from cifar_tasks.data.spool import spooled
from cifar_tasks.data.versions import SPLITS, DatasetVersion, load_version
from cifar_tasks.errors import DataError, SourceChanged, StorageError
from cifar_tasks.settings import PROJECT, Settings
from cifar_tasks.storage.s3 import ObjectRef
from tests.stores import FailingStore, FolderStore, InMemoryStore
from tests.unit.data.pictures import class_files, directory_of, zip_of
from tests.unit.data.sources import NoiseSource, load_splits, noise, quiet

SHARED = PROJECT.parent / "shared" / "data" / "cifar10-images-small.zip"
WRITES = 8
"""Of a small version: images and labels of three splits, the manifest, and what the source became."""


@pytest.fixture
def store() -> InMemoryStore:
    return InMemoryStore()


class RepeatingSource(NoiseSource):
    """Its first 40 training images are equal."""

    def __init__(self) -> None:
        super().__init__(name="repeating")
        self.train.labels[:] = [0] * 50 + [1] * 50
        self.train.images[:40] = self.train.images[0]


def test_the_manifest_is_written_after_all_shards_and_before_the_pointer(store: InMemoryStore) -> None:
    prepare(NoiseSource(), store, 0, quiet)
    parts = ("images", "labels")
    shards = [f"{split}-{part}.npy.000" for split in ("train", "validation", "test") for part in parts]
    assert [key.split("/")[-1] for key in store.writes[:7]] == [*shards, "manifest.json"]
    assert store.writes[7].startswith("sources/")
    assert len(store.writes) == WRITES


def test_the_shards_of_an_array_are_one_npy_file_that_was_cut(
    store: InMemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prepare(NoiseSource(), store, 0, quiet)
    monkeypatch.setattr(preparation, "SHARD_BYTES", 10_000)
    other = InMemoryStore()
    version = prepare(NoiseSource(), other, 0, quiet)
    shards = {key: data for key, data in other.objects.items() if "train-images" in key}
    assert len(shards) == 30
    assert max(map(len, shards.values())) <= 10_000
    (uncut,) = (data for key, data in store.objects.items() if "train-images" in key)
    assert b"".join(data for _, data in sorted(shards.items())) == uncut
    first, second = (
        load_splits(its, of, tmp_path / name) for its, of, name in ((store, whole, "a"), (other, version, "b"))
    )
    assert (first[0].images == second[0].images).all()
    assert (first[2].labels == second[2].labels).all()
    assert (first[0].images == np.load(BytesIO(uncut))).all()


def test_preparing_again_reads_and_writes_nothing(store: InMemoryStore) -> None:
    source, lines = NoiseSource(), []
    version = prepare(source, store, 0, quiet)
    before = dict(store.objects)
    assert prepare(source, store, 0, lines.append) == version
    assert (source.reads, len(store.writes)) == (1, WRITES)
    assert store.objects == before
    assert "is prepared already" in lines[0]


def test_warnings_are_repeated_when_the_data_are_prepared_already(store: InMemoryStore) -> None:
    first, again = list[str](), list[str]()
    prepare(RepeatingSource(), store, 0, first.append)
    prepare(RepeatingSource(), store, 0, again.append)
    assert [line for line in again if "warning" in line] == [line for line in first if "warning" in line] != []


def test_seed_and_fraction_make_other_versions_of_the_same_test_set(store: InMemoryStore, tmp_path: Path) -> None:
    first, other_seed = (prepare(NoiseSource(), store, seed, quiet) for seed in (0, 1))
    other_fraction = prepare(NoiseSource(), store, 0, quiet, validation_fraction=0.2)
    versions = first, other_seed, other_fraction
    assert len({version.digest for version in versions}) == 3
    assert other_fraction.size("validation") == 20
    tests = [load_split(store, version, "test", tmp_path).images for version in versions]
    assert (tests[0] == tests[1]).all()
    assert (tests[0] == tests[2]).all()


def test_size_and_resize_mode_make_other_versions_even_of_equal_pixels(store: InMemoryStore) -> None:
    formats = [ImageFormat(), ImageFormat(64), ImageFormat(resize="pad"), ImageFormat(resize="squash")]
    versions = [prepare(NoiseSource(), store, 0, quiet, each) for each in formats]
    assert len({version.digest for version in versions}) == 4
    assert [(v.image_size, v.resize) for v in versions] == [(f.size, f.resize) for f in formats]
    for version, image_format in zip(versions, formats, strict=True):
        assert find_prepared(NoiseSource(), store, 0, image_format) == load_version(store, version.uri) == version


def test_a_directory_and_a_zip_of_it_are_one_version(store: InMemoryStore, tmp_path: Path) -> None:
    files = class_files()
    versions = [
        prepare(open_source(str(path), Settings(), quiet), store, 0, quiet)
        for path in (directory_of(files, tmp_path / "images"), zip_of(files, tmp_path / "images.zip"))
    ]
    assert versions[0].digest == versions[1].digest
    assert [version.name for version in versions] == ["images", "images.zip"]
    assert [load_version(store, version.uri).name for version in versions] == ["images", "images.zip"]
    assert len(store.writes) == WRITES + 2  # the second one adds a manifest with its name and its pointer


def test_a_folder_that_was_renamed_bears_its_new_name(store: InMemoryStore, tmp_path: Path) -> None:
    root = directory_of(class_files(), tmp_path / "cats")
    before = prepare(open_source(str(root), Settings(), quiet), store, 0, quiet)
    root = root.rename(tmp_path / "dogs")
    after = [prepare(open_source(str(root), Settings(), quiet), store, 0, quiet) for _ in range(2)]
    assert (before.name, after[0].name, after[1].name) == ("cats", "dogs", "dogs")
    assert before.digest == after[0].digest
    assert load_version(store, before.uri).name == "cats"


def test_a_version_of_digits_is_marked_as_placeholder_data(store: InMemoryStore) -> None:
    assert prepare(DigitsSource(), store, 0, quiet).placeholder


def test_warnings_are_reported_and_kept_with_the_version(store: InMemoryStore) -> None:
    lines: list[str] = []
    version = prepare(RepeatingSource(), store, 0, lines.append)
    (warning,) = version.warnings
    assert warning.startswith("39 training images repeat another one exactly")
    assert f"warning: {warning}" in lines
    assert load_version(store, version.uri).warnings == (warning,)


def test_equal_images_are_never_both_in_training_and_in_validation(store: InMemoryStore, tmp_path: Path) -> None:
    source = RepeatingSource()
    for seed in range(5):
        train, validation, _ = load_splits(store, prepare(source, store, seed, quiet), tmp_path)
        repeated = [int((part.images == source.train.images[0]).all((1, 2, 3)).sum()) for part in (train, validation)]
        assert sorted(repeated) == [0, 40]


def test_test_images_that_are_in_training_too_are_refused(store: InMemoryStore) -> None:
    source = NoiseSource()
    source.test.images[:] = source.train.images[:20]
    with pytest.raises(DataError, match=r"20 of 20 test images \(100\.0%\) are also in training"):
        prepare(source, store, 0, quiet)
    assert store.objects == {}


@pytest.mark.parametrize("fails_at", range(1, WRITES + 1))
def test_an_interrupted_preparation_leaves_no_version_and_the_next_one_completes_it(fails_at: int) -> None:
    store, source = FailingStore(fails_at), NoiseSource()
    with pytest.raises(StorageError):
        prepare(source, store, 0, quiet)
    assert any(key.endswith("manifest.json") for key in store.objects) == (fails_at == WRITES)
    assert find_prepared(source, store, 0) is None
    store.repair()
    version = prepare(source, store, 0, quiet)
    assert load_version(store, version.uri) == find_prepared(source, store, 0) == version
    assert len(store.objects) == WRITES


def test_two_that_prepare_the_same_source_at_the_same_time_both_succeed(store: InMemoryStore) -> None:
    ready = threading.Barrier(4)
    versions: list[DatasetVersion] = []

    class Together(NoiseSource):
        def read(self, report: Report) -> ImageStream:
            ready.wait(10)
            return super().read(report)

    def work(source: Source) -> None:
        versions.append(prepare(source, store, 0, quiet))

    # Two names for the same images: the manifests that they want to write differ.
    threads = [threading.Thread(target=work, args=(Together(name=name),)) for name in ("a", "b") * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(version.name for version in versions) == ["a", "a", "b", "b"]
    assert len({version.digest for version in versions}) == 1
    assert len({version.uri for version in versions}) == 2


def test_the_manifest_that_was_written_first_stays() -> None:
    class Overtaken(InMemoryStore):
        """Another process prepares the same images under another name before the last shard is written."""

        def put(self, key: str, data: bytes) -> ObjectRef:
            if "test-labels" in key and not self.exists(key):
                super().put(key, data)
                prepare(NoiseSource(name="first"), self, 0, quiet)
            return super().put(key, data)

    store = Overtaken()
    assert prepare(NoiseSource(name="second"), store, 0, quiet).name == "second"
    found = [find_prepared(NoiseSource(name=name), store, 0) for name in ("first", "second")]
    assert [version and version.name for version in found] == ["first", "second"]
    assert found[0] is not None
    assert found[0].uri.endswith("manifest.json")


def test_a_missing_shard_is_restored_by_preparing_again(store: InMemoryStore, tmp_path: Path) -> None:
    version = prepare(NoiseSource(), store, 0, quiet)
    store.delete(f"datasets/{version.digest[:16]}/train-images.npy.000")
    assert find_prepared(NoiseSource(), store, 0) is None
    assert prepare(NoiseSource(), store, 0, quiet) == version
    assert len(load_split(store, version, "train", tmp_path)) == 90


def test_a_damaged_pointer_costs_no_more_than_reading_again(store: InMemoryStore) -> None:
    source = NoiseSource()
    version = prepare(source, store, 0, quiet)
    (pointer,) = store.keys("sources/")
    store.put(pointer, b"{")
    assert prepare(source, store, 0, quiet) == version
    assert source.reads == 2
    assert find_prepared(source, store, 0) == version


def test_what_another_release_prepared_with_another_format_is_prepared_again(
    store: InMemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(NoiseSource(), store, 0, quiet)
    monkeypatch.setattr(preparation, "FORMAT", preparation.FORMAT + 1)
    assert find_prepared(NoiseSource(), store, 0) is None


def test_a_source_that_is_refused_writes_nothing(store: InMemoryStore, tmp_path: Path) -> None:
    root = directory_of(class_files() | {"train/ant/broken.jpg": b"x"}, tmp_path / "images")
    with pytest.raises(DataError, match=r"broken\.jpg"):
        prepare(open_source(str(root), Settings(), quiet), store, 0, quiet)
    assert store.objects == {}


def test_cifar10_as_class_folders_becomes_its_three_splits(store: InMemoryStore, tmp_path: Path) -> None:
    if not SHARED.exists():
        pytest.skip(f"{SHARED.name} is not on this machine (it is looked for in ../shared/data)")
    version = prepare(open_source(str(SHARED), Settings(), quiet), store, 0, quiet)
    sizes = (1_800, 200, 500)
    for split, images, size in zip(SPLITS, load_splits(store, version, tmp_path), sizes, strict=True):
        assert set(version.counts[split].values()) == {size // 10}
        assert len(images) == size


def test_images_of_two_classes_are_never_in_two_splits(store: InMemoryStore, tmp_path: Path) -> None:
    """100 images are in both classes; five test images are training images too."""
    source = NoiseSource()
    source.train, source.test = noise([0, 1] * 150, 1), noise([0, 1] * 300, 2)
    source.train.images[100:200:2] = source.train.images[101:200:2]
    source.test.images[:5] = source.train.images[:5]
    for seed in range(3):
        version = prepare(source, store, seed, quiet)
        train, validation, test = (
            {image.tobytes() for image in part.images} for part in load_splits(store, version, tmp_path)
        )
        assert not train & validation
        assert not train & test
        assert not validation & test
        assert version.size("train") + version.size("validation") == 295
        assert version.size("validation") == 30
        assert [warning.split(":")[0] for warning in version.warnings] == [
            "5 of 600 test images are also in training (0.83%) and are left out there",
            "50 training images repeat another one exactly; equal images stay on one side of a split",
            "contradicting labels",
        ]


def test_a_drawn_test_set_belongs_to_the_identity_of_the_version(store: InMemoryStore, tmp_path: Path) -> None:
    """The same three splits, given and drawn, are two versions."""
    files = {name.removeprefix("train/"): content for name, content in class_files(train=20, test=0).items()}
    drawn = prepare(open_source(str(directory_of(files, tmp_path / "flat")), Settings(), quiet), store, 0, quiet)
    with spooled(open_source(str(tmp_path / "flat"), Settings(), quiet).read(quiet), ImageFormat(), quiet) as raw:
        tests = {raw.names[position] for position in raw.test}
    given = {f"{'test' if name in tests else 'train'}/{name}": content for name, content in files.items()}
    other = prepare(open_source(str(directory_of(given, tmp_path / "given")), Settings(), quiet), store, 0, quiet)
    assert (drawn.test_set, other.test_set) == ("drawn", "given")
    assert drawn.counts == other.counts
    assert drawn.digest != other.digest
    assert "8 of 40 images (20%) were drawn" in drawn.warnings[0]
    assert other.warnings == ()


def test_a_thousand_classes_are_prepared(store: InMemoryStore) -> None:
    class Many(NoiseSource):
        def read(self, report: Report) -> ImageStream:
            stream = super().read(report)
            return replace(stream, classes=tuple(f"class {number:03}" for number in range(1000)))

    source = Many()
    source.train, source.test = noise([*range(1000)] * 3, 1, 16), noise([*range(900)], 2, 16)
    version = prepare(source, store, 0, quiet, ImageFormat(16))
    assert set(version.counts["train"].values()) == {2}
    assert set(version.counts["validation"].values()) == {1}
    assert version.warnings[0].endswith("class 919, … (the first 20 of 100): they are not tested")


def test_a_source_that_changes_while_it_is_read_leaves_no_pointer_to_what_was_read(tmp_path):
    class Changing(NoiseSource):
        def read(self, report):
            stream = super().read(report)
            self._seed += 1  # and with it the fingerprint
            return stream

    store = FolderStore(tmp_path)
    with pytest.raises(SourceChanged, match="noise was changed while it was read"):
        prepare(Changing(), store, 0, quiet)
    assert list(store.keys("sources/")) == []
    assert prepare(NoiseSource(), store, 0, quiet).size("train") == 90
