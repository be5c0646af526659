import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from cifar_tasks.data.archives import open_archive
from cifar_tasks.data.cifar10 import META, OFFICIAL, TEST, TRAIN, Cifar10Source, read_batches, unpickle
from cifar_tasks.data.image_format import ImageFormat, decode
from cifar_tasks.data.trees import DirectoryTree
from cifar_tasks.errors import DataError
from tests.unit.data.official import CLASSES, FOLDER, SmallArchive, python2_pickle, small_archive
from tests.unit.data.pictures import directory_of, tar_of
from tests.unit.data.server import Site, serving
from tests.unit.data.sources import quiet, read_all


@pytest.fixture(scope="module")
def archive() -> SmallArchive:
    return small_archive()


def test_the_archive_is_downloaded_verified_and_read(archive: SmallArchive, tmp_path: Path) -> None:
    release = archive.write(tmp_path / "cifar-10-python.tar.gz")
    with serving(Site((tmp_path / "cifar-10-python.tar.gz").read_bytes())) as site:
        source = Cifar10Source(site.url, tmp_path / "downloads", release)
        train, test = read_all(source)
        assert source.read(quiet).classes == CLASSES
    assert len(site.ranges) == 1
    assert not source.placeholder
    assert (train.images == np.concatenate([archive.images[name] for name in TRAIN])).all()
    assert (test.images == archive.images[TEST]).all()
    assert train.labels.tolist() == [(batch + number) % 10 for batch in range(5) for number in range(40)]
    assert test.labels.tolist() == [(5 + number) % 10 for number in range(40)]
    assert (train.labels.dtype, test.labels.dtype) == (np.int64, np.int64)


def test_the_archive_has_other_sizes_too(archive: SmallArchive, tmp_path: Path) -> None:
    release = archive.write(tmp_path / "cifar-10-python.tar.gz")
    source = Cifar10Source("http://127.0.0.1:9/nothing", tmp_path, release)
    _, test = read_all(source, ImageFormat(64))
    assert (test.images[7] == decode(archive.images[TEST][7].copy(), "", ImageFormat(64))).all()
    assert test.images.shape == (40, 64, 64, 3)


@pytest.mark.parametrize("folder", ["", FOLDER])
def test_an_extracted_folder_is_read_from_itself_or_from_above(
    archive: SmallArchive, tmp_path: Path, folder: str
) -> None:
    release = archive.write(tmp_path / "a.tar.gz")
    root = directory_of(archive.files, tmp_path / "extracted")
    tree = DirectoryTree(root / folder)
    stream = read_batches(tree, tree.names(), quiet, release)
    assert (len(stream.train_labels), len(stream.test_labels)) == (200, 40)


def test_an_altered_batch_is_refused_by_name_before_it_is_unpickled(archive: SmallArchive, tmp_path: Path) -> None:
    release = archive.write(tmp_path / "a.tar.gz")
    altered = archive.files | {f"{FOLDER}/data_batch_3": pickle.dumps(_Hostile(tmp_path / "ran"))}
    tree = DirectoryTree(directory_of(altered, tmp_path / "extracted"))
    with pytest.raises(DataError, match="data_batch_3 is altered: MD5"):
        read_batches(tree, tree.names(), quiet, release)
    assert not (tmp_path / "ran").exists()


def test_a_missing_batch_is_refused_by_name(archive: SmallArchive, tmp_path: Path) -> None:
    release = archive.write(tmp_path / "a.tar.gz")
    files = {name: content for name, content in archive.files.items() if not name.endswith("data_batch_5")}
    tree = open_archive(tar_of(files, tmp_path / "b.tar.gz"))
    with pytest.raises(DataError, match="data_batch_5 is missing"):
        read_batches(tree, tree.names(), quiet, release)


class _Hostile:
    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> object:
        return os.mkdir, (str(self._trace),)


@pytest.mark.parametrize("protocol", range(6))
def test_a_hostile_pickle_is_refused_and_runs_nothing(tmp_path: Path, protocol: int) -> None:
    trace = tmp_path / "ran"
    with pytest.raises(DataError, match=r"it asks for posix\.mkdir"):
        unpickle(pickle.dumps(_Hostile(trace), protocol), "data_batch_1")
    assert not trace.exists()


@pytest.mark.parametrize(
    "line", [b"cnumpy\nload\n.", b"cnumpy\nfromfile\n.", b"cbuiltins\neval\n.", b"cnumpy.core.multiarray\nfromfile\n."]
)
def test_nothing_of_numpy_but_array_and_dtype_can_be_asked_for(line: bytes) -> None:
    with pytest.raises(DataError, match="is refused: it asks for"):
        unpickle(line, "data_batch_1")


def test_a_broken_pickle_is_refused() -> None:
    with pytest.raises(DataError, match="is refused"):
        unpickle(python2_pickle({b"data": b"x"})[:-5], "data_batch_1")


def test_a_python_2_batch_is_read() -> None:
    rows = np.arange(6, dtype=np.uint8).reshape(2, 3)
    pickled = python2_pickle({b"data": rows, b"labels": [1, 2]})
    assert b"numpy.core.multiarray" in pickled
    fields = unpickle(pickled, "data_batch_1")
    assert (fields[b"data"] == rows).all()
    assert fields[b"labels"] == [1, 2]


def test_the_published_release_lists_every_file_that_is_read() -> None:
    assert set(OFFICIAL.file_md5) == {*TRAIN, TEST, META}
    assert (OFFICIAL.size, OFFICIAL.md5) == (170_498_071, "c58f30108f718f92721af3b95e74349a")


def test_the_fingerprint_needs_no_download(tmp_path: Path) -> None:
    source = Cifar10Source("http://127.0.0.1:9/nothing", tmp_path)
    assert source.fingerprint() == "cifar10-c58f30108f718f92721af3b95e74349a"
