"""Images of a dataset version, mapped into memory from a verified copy on this machine."""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cifar_tasks.data.images import LabelledImages
from cifar_tasks.data.versions import DatasetVersion, shards_of
from cifar_tasks.errors import IntegrityError
from cifar_tasks.storage.disk import disk_errors
from cifar_tasks.storage.locks import exclusive
from cifar_tasks.storage.s3 import ObjectRef, S3Store

BLOCK_BYTES = 2**20

_log = logging.getLogger(__name__)


def load_split(store: S3Store, version: DatasetVersion, split: str, cache: Path) -> LabelledImages:
    """The images of `train`, `validation` or `test`, every byte verified.

    They are read-only: a file in `cache`, fetched once per machine and mapped into memory. Raises `IntegrityError` for
    a damaged or missing shard.
    """
    shards, folder = shards_of(store, version), cache / version.digest[:16]
    images, labels = (
        _local_copy(store, shards[name], folder / f"{name}.npy") for name in (f"{split}-images", f"{split}-labels")
    )
    return LabelledImages(np.asarray(np.load(images, mmap_mode="r")), np.load(labels))


def _local_copy(store: S3Store, refs: Sequence[ObjectRef], path: Path) -> Path:
    with disk_errors(path.parent, "CIFAR_HOME"):
        if not _is_intact(path, refs):
            path.parent.mkdir(parents=True, exist_ok=True)
            with exclusive(path):
                if not _is_intact(path, refs):  # another process may have fetched it meanwhile
                    if path.exists():
                        _log.warning("the local copy %s is damaged: it is fetched again", path)
                    _fetch(store, refs, path)
    return path


def _is_intact(path: Path, refs: Sequence[ObjectRef]) -> bool:
    """Whether the file is the shards, one after another."""
    if not path.exists():
        return False
    with path.open("rb", buffering=0) as file:
        return all(_sha256(file, ref.size) == ref.sha256 for ref in refs) and not file.read(1)


def _sha256(file: BinaryIO, size: int) -> str:
    """Of the next `size` bytes."""
    digest = hashlib.sha256()
    while block := file.read(min(size, BLOCK_BYTES)):
        digest.update(block)
        size -= len(block)
    return digest.hexdigest()


def _fetch(store: S3Store, refs: Sequence[ObjectRef], path: Path) -> None:
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        for ref in refs:
            try:
                file.write(store.get(ref.key, ref.sha256))
            except KeyError:
                raise IntegrityError(f"{store.uri(ref.key)} is missing. Prepare the data again.") from None
    part.replace(path)
