"""The official CIFAR-10 archive (Krizhevsky, 2009): downloaded, or read from where the user has it.

Its batches are Python 2 pickles. A batch is opened only when its MD5 is the published one, and by an unpickler that
builds nothing but NumPy arrays.
"""

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from cifar_tasks.data.archives import open_archive
from cifar_tasks.data.download import download
from cifar_tasks.data.images import Images, ImageStream, Labels, Report, SourceImage
from cifar_tasks.data.trees import FileTree
from cifar_tasks.errors import DataError

NAME = "CIFAR-10"
META = "batches.meta"
TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = "test_batch"
PLANES = (3, 32, 32)
"""Colour channels, height and width of an image in a batch."""


@dataclass(frozen=True)
class Release:
    """One published archive and what its bytes must be."""

    archive: str = "cifar-10-python.tar.gz"
    size: int = 170_498_071
    """Bytes."""
    md5: str = "c58f30108f718f92721af3b95e74349a"
    file_md5: Mapping[str, str] = field(
        default_factory=lambda: {
            "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
        }
    )


OFFICIAL = Release()


class Cifar10Source:
    """Downloads the archive into `downloads`, once per machine."""

    name = "cifar10"
    placeholder = False

    def __init__(self, url: str, downloads: Path, release: Release = OFFICIAL) -> None:
        self.url = url
        self.archive = downloads / release.archive
        self._release = release

    def fingerprint(self) -> str:
        return f"cifar10-{self._release.md5}"

    def read(self, report: Report) -> ImageStream:
        release = self._release
        path = download(self.url, self.archive, size=release.size, md5=release.md5, report=report)
        tree = open_archive(path)
        return read_batches(tree, tree.names(), report, release)


def holds_batches(names: list[str]) -> bool:
    """Whether these are the names of the official archive, whatever the archive or folder itself is called."""
    return any(f"/{name}".endswith(f"/{TRAIN[0]}") for name in names)


def read_batches(tree: FileTree, names: list[str], report: Report, release: Release = OFFICIAL) -> ImageStream:
    """Raises `DataError`, naming the file, when a batch is missing or its bytes are not the published ones."""
    wanted = {name: PurePosixPath(name).name for name in names if PurePosixPath(name).name in release.file_md5}
    contents = {wanted[name]: content for name, content in tree.read(wanted)}
    tree.bad.check()
    for name, md5 in release.file_md5.items():
        if name not in contents:
            raise DataError(f"{tree.bad.where}: {name} is missing. Unpack or copy the whole archive again.")
        found = hashlib.md5(contents[name], usedforsecurity=False).hexdigest()
        if found != md5:
            raise DataError(
                f"{tree.bad.where}: {name} is altered: MD5 {found} instead of {md5}. Copy the archive again."
            )
    report(f"{NAME}: {len(contents)} files of the official archive, MD5 verified")
    batches = [_batch(contents.pop(name), f"{tree.bad.where}: {name}") for name in (*TRAIN, TEST)]
    train_labels = np.concatenate([labels for _, labels in batches[:-1]])
    images = enumerate(
        (f"{name}: image {number}", image)
        for name, (images, _) in zip((*TRAIN, TEST), batches, strict=True)
        for number, image in enumerate(images)
    )
    pixels = (SourceImage(position, name, image) for position, (name, image) in images)
    classes = unpickle(contents[META], f"{tree.bad.where}: {META}")[b"label_names"]
    return ImageStream(NAME, tuple(name.decode() for name in classes), train_labels, batches[-1][1], pixels, tree.bad)


def _batch(content: bytes, where: str) -> tuple[Images, Labels]:
    fields = unpickle(content, where)
    planes = np.asarray(fields[b"data"], dtype=np.uint8).reshape(-1, *PLANES)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), np.asarray(fields[b"labels"], dtype=np.int64)


def unpickle(content: bytes, where: str) -> Any:
    """Raises `DataError` for a pickle that names anything but NumPy's arrays."""
    try:
        return _ArrayUnpickler(BytesIO(content), encoding="bytes").load()
    except (pickle.UnpicklingError, EOFError) as error:
        raise DataError(f"{where} is refused: {error}. It is not a CIFAR-10 batch; nothing of it was run.") from error


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # NumPy 1 wrote `numpy.core`; NumPy 2 calls the same module `numpy._core`.
        if (module, name) in (("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")):
            return np._core.multiarray._reconstruct  # type: ignore[attr-defined]
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")
