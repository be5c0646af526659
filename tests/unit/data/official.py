"""A small archive laid out and pickled as the official one: Python 2, protocol 2, strings without encoding."""

import hashlib
import pickle
import struct
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cifar_tasks.data.cifar10 import META, TEST, TRAIN, Release
from tests.unit.data.pictures import tar_of

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FOLDER = "cifar-10-batches-py"


class _Python2Pickler(pickle._Pickler):  # type: ignore[name-defined, misc]
    """Writes `bytes` as Python 2 wrote `str`, and names NumPy's modules as NumPy 1 did."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_bytes(self, value: bytes) -> None:
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    def save_text(self, value: str) -> None:
        self.save_bytes(value.encode("latin1"))

    def save_global(self, value: Any, name: str | None = None) -> None:
        module = value.__module__.replace("numpy._core", "numpy.core")
        self.write(pickle.GLOBAL + f"{module}\n{name or value.__name__}\n".encode())
        self.memoize(value)

    dispatch[bytes] = save_bytes
    dispatch[str] = save_text
    dispatch[type] = save_global


def python2_pickle(value: Any) -> bytes:
    buffer = BytesIO()
    _Python2Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue()


@dataclass(frozen=True)
class SmallArchive:
    files: dict[str, bytes]
    """Path in the archive → content."""
    images: dict[str, np.ndarray[Any, np.dtype[np.uint8]]]
    """Batch → N × 32 × 32 × 3."""

    def write(self, path: Path) -> Release:
        tar_of(self.files, path)
        content = path.read_bytes()
        return Release(path.name, len(content), _md5(content), self.file_md5)

    @property
    def file_md5(self) -> dict[str, str]:
        return {Path(name).name: _md5(content) for name, content in self.files.items()}


def small_archive(per_batch: int = 40) -> SmallArchive:
    random = np.random.default_rng(0)
    files, images = {}, {}
    for first, name in enumerate((*TRAIN, TEST)):
        rows = random.integers(0, 256, (per_batch, 3072), dtype=np.uint8)
        labels = [(first + number) % 10 for number in range(per_batch)]
        images[name] = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        files[f"{FOLDER}/{name}"] = python2_pickle({b"data": rows, b"labels": labels, b"batch_label": name.encode()})
    files[f"{FOLDER}/{META}"] = python2_pickle({b"label_names": [name.encode() for name in CLASSES]})
    return SmallArchive(files, images)


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
