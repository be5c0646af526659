import os
from pathlib import Path

import pytest

from cifar_tasks.data import source as module
from cifar_tasks.data.image_format import ImageFormat, decode
from cifar_tasks.data.source import PLACEHOLDER_BANNER, Source, absolute_source, open_source
from cifar_tasks.errors import ConfigError, DataError
from cifar_tasks.settings import Settings
from tests.stores import InMemoryStore
from tests.unit.data.official import small_archive
from tests.unit.data.pictures import class_files, directory_of, tar_of, zip_of
from tests.unit.data.server import Site, serving
from tests.unit.data.sources import quiet, read_all

NOWHERE = "http://127.0.0.1:9/cifar-10-python.tar.gz"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", cifar10_url=NOWHERE)


def opened(spec: str, settings: Settings, prepared: bool = False) -> tuple[Source, list[str]]:
    lines: list[str] = []
    return open_source(spec, settings, lines.append, is_prepared=lambda _: prepared), lines


def test_auto_takes_digits_with_a_banner_when_the_host_does_not_answer(settings: Settings) -> None:
    source, lines = opened("auto", settings)
    assert (source.name, source.placeholder) == ("digits", True)
    assert NOWHERE in lines[0]
    assert lines[1] == PLACEHOLDER_BANNER


def test_auto_takes_cifar10_when_the_host_answers(settings: Settings) -> None:
    with serving(Site(b"archive")) as site:
        source, lines = opened("auto", settings.model_copy(update={"cifar10_url": site.url}))
    assert (source.name, source.placeholder, lines) == ("cifar10", False, [])


def test_auto_takes_the_archive_that_was_downloaded_before(settings: Settings) -> None:
    (settings.home / "downloads").mkdir(parents=True)
    (settings.home / "downloads" / "cifar-10-python.tar.gz").write_bytes(b"archive")
    assert opened("auto", settings)[0].name == "cifar10"


def test_auto_takes_cifar10_that_was_prepared_before_without_asking_the_host(settings: Settings) -> None:
    assert opened("auto", settings, prepared=True)[0].name == "cifar10"


def test_auto_takes_digits_when_the_host_answers_with_a_login_page(settings: Settings) -> None:
    with serving(Site(b"<html>", "text/html")) as site:
        source, lines = opened("auto", settings.model_copy(update={"cifar10_url": site.url}))
    assert source.name == "digits"
    assert "an HTML page" in lines[0]


def test_cifar10_asked_for_by_name_has_no_placeholder(settings: Settings) -> None:
    assert opened("cifar10", settings)[0].name == "cifar10"


def test_digits_asked_for_by_name_carry_the_banner_too(settings: Settings) -> None:
    assert opened("digits", settings)[1] == [PLACEHOLDER_BANNER]


@pytest.mark.parametrize("spec", ["mnist", "/nowhere/images.zip", ""])
def test_what_names_nothing_is_refused_with_what_is_accepted(settings: Settings, spec: str) -> None:
    with pytest.raises(ConfigError, match="Give auto, cifar10, digits, a folder") as caught:
        opened(spec, settings)
    assert repr(spec) in str(caught.value)


def test_a_folder_and_its_archives_hold_the_same_images(settings: Settings, tmp_path: Path) -> None:
    files = class_files()
    paths = [
        directory_of(files, tmp_path / "images"),
        zip_of(files, tmp_path / "images.zip"),
        tar_of(files, tmp_path / "images.tar.gz"),
    ]
    first, *others = (read_all(opened(str(path), settings)[0]) for path in paths)
    for other in others:
        for ours, theirs in zip(first, other, strict=True):
            assert (ours.images == theirs.images).all()
            assert (ours.labels == theirs.labels).all()


def test_the_official_archive_is_recognised_by_its_content(settings: Settings, tmp_path: Path) -> None:
    small_archive(10).write(tmp_path / "renamed.bin")
    source, _ = opened(str(tmp_path / "renamed.bin"), settings)
    with pytest.raises(DataError, match=r"batches\.meta is altered"):  # of another archive than the published one
        source.read(quiet)


def test_a_path_from_the_home_folder_is_found(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    zip_of(class_files(), tmp_path / "images.zip")
    assert opened("~/images.zip", settings)[0].name == "images.zip"
    assert absolute_source("~/images.zip") == str(tmp_path / "images.zip")


def test_a_relative_path_becomes_one_that_is_right_in_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    zip_of(class_files(), tmp_path / "images.zip")
    assert absolute_source("images.zip") == str(tmp_path / "images.zip")


@pytest.mark.parametrize("spec", ["auto", "cifar10", "digits", "s3://bucket/images.zip"])
def test_what_is_no_path_stays_as_it_is(spec: str) -> None:
    assert absolute_source(spec) == spec


def test_a_path_of_nothing_is_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match=r"'nowhere\.zip' is no known word"):
        absolute_source("nowhere.zip")


def test_paths_that_cannot_be_read_are_one_clear_error(settings: Settings, tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for spec, text in {
        "~nosuchuser/x": "home directory",
        str(loop): "Too many levels of symbolic links",
        f"/{'x' * 5000}": "File name too long",
        f"{tmp_path}/\0": "no such file",
        os.fsdecode(bytes(tmp_path) + b"/\xff"): "not UTF-8|no such file",
        "/dev/null": "is no plain file and no folder",
        "\ud800": "not UTF-8",
    }.items():
        with pytest.raises(ConfigError, match=text) as caught:
            opened(spec, settings)
        str(caught.value).encode()
    with pytest.raises(ConfigError, match="home directory"):
        absolute_source("~nosuchuser/x")


def test_a_folder_whose_path_is_not_utf8_is_refused(settings: Settings, tmp_path: Path) -> None:
    root = directory_of(class_files(), tmp_path / os.fsdecode(b"p\xffts"))
    for call in (lambda: opened(str(root), settings), lambda: absolute_source(str(root))):
        with pytest.raises(ConfigError, match=r"p\\udcffts of the data is not UTF-8"):
            call()


class TestStored:
    """`s3://` URLs."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> InMemoryStore:
        store = InMemoryStore()
        store.put("sets/images.zip", zip_of(class_files(), tmp_path / "a.zip").read_bytes())
        for name, content in class_files().items():
            store.put(f"sets/images/{name}", content)
        store.put("sets/images/train/", b"")  # as a console makes a folder
        return store

    def opened(self, url: str, settings: Settings, store: InMemoryStore) -> Source:
        return open_source(url, settings, quiet, open_bucket=lambda bucket: store)

    @pytest.mark.parametrize("key", ["sets/images.zip", "sets/images", "sets/images/"])
    def test_an_archive_and_a_folder_are_read(self, settings: Settings, store: InMemoryStore, key: str) -> None:
        source = self.opened(f"s3://bucket/{key}", settings, store)
        train, test = read_all(source)
        assert [image.tobytes() for image in (*train.images, *test.images)] == [
            decode(content, name, ImageFormat()).tobytes() for name, content in class_files().items()
        ]

    @pytest.mark.parametrize("key", ["sets/images.zip", "sets/images"])
    def test_a_fingerprint_reads_no_object_and_follows_the_content(
        self, settings: Settings, store: InMemoryStore, key: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store, "get", None)
        before = self.opened(f"s3://bucket/{key}", settings, store).fingerprint()
        assert self.opened(f"s3://bucket/{key}", settings, store).fingerprint() == before
        for name in ("sets/images.zip", "sets/images/train/ant/000.png"):  # others of the same size
            store.put(name, bytes(len(store.objects[name])))
        assert self.opened(f"s3://bucket/{key}", settings, store).fingerprint() != before

    def test_a_whole_bucket_is_a_folder(self, settings: Settings) -> None:
        store = InMemoryStore()
        for name, content in class_files().items():
            store.put(name, content)
        source = self.opened("s3://my-images", settings, store)
        assert (source.name, len(source.read(quiet).train_labels)) == ("my-images", 12)

    def test_a_damaged_archive_is_refused_by_its_url(self, settings: Settings, store: InMemoryStore) -> None:
        store.put("sets/images.zip", store.get("sets/images.zip")[:-40])
        with pytest.raises(DataError, match=r"sets/images\.zip is truncated or damaged"):
            self.opened("s3://bucket/sets/images.zip", settings, store).read(quiet)

    @pytest.mark.parametrize(
        "key", ["pets#new/", "pets?versionId=2", "pets%20new", "my pets", "/pets", "pets//new", "pets#1.zip", "ö?#/"]
    )
    def test_an_address_is_taken_literally(self, settings: Settings, tmp_path: Path, key: str) -> None:
        store = InMemoryStore()
        for wrong in ("pets/", "pets", "pets new/", "pets/new/"):
            store.put(f"{wrong}train/ant/1.png", b"another data set")
        if key.endswith(".zip"):
            store.put(key, zip_of(class_files(), tmp_path / "a.zip").read_bytes())
        else:
            for name, content in class_files().items():
                store.put(f"{key.removesuffix('/')}/{name}", content)
        source = self.opened(f"s3://bucket/{key}", settings, store)
        assert len(read_all(source)[0]) == 12

    @pytest.mark.parametrize("key", ["sets/images#1", "sets/images?versionId=2", "sets/images/?x", "sets%2Fimages"])
    def test_an_address_of_nothing_is_not_one_of_something_else(
        self, settings: Settings, store: InMemoryStore, key: str
    ) -> None:
        with pytest.raises(DataError, match=r"nothing is stored at .*, taken literally"):
            self.opened(f"s3://bucket/{key}", settings, store)

    @pytest.mark.parametrize("key", ["sets/image", "nothing", "sets/images.zip/"])
    def test_a_url_of_nothing_is_refused(self, settings: Settings, store: InMemoryStore, key: str) -> None:
        with pytest.raises(DataError, match="nothing is stored at s3://bucket/"):
            self.opened(f"s3://bucket/{key}", settings, store)


def test_the_probe_is_quick() -> None:
    assert module.PROBE_SECONDS <= 10
