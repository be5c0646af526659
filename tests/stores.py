"""Object stores for tests: in memory, in a folder, and one that fails when it is told to."""

import hashlib
import threading
import time
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from urllib.parse import quote, unquote

from cifar_tasks.errors import IntegrityError, StorageError
from cifar_tasks.storage.s3 import ObjectEntry, ObjectRef, S3Store, Snapshot, sha256_hex, verified


class InMemoryStore(S3Store):
    """Behaves as `S3Store` does: the contract in `tests/unit/storage/test_storage.py` holds for both."""

    def __init__(self) -> None:
        self.objects: MutableMapping[str, bytes] = {}
        self.reads: list[str] = []
        """Keys in the order in which `get` read them."""
        self.writes: list[str] = []
        """Keys in the order in which they were written."""
        self.written: dict[str, float] = {}
        """When the objects were written, by `time.monotonic`."""
        self._one_at_a_time = threading.Lock()

    def uri(self, key: str) -> str:
        return f"memory://{key}"

    def put(self, key: str, data: bytes) -> ObjectRef:
        self.writes.append(key)
        self.objects[key] = data
        self.written[key] = time.monotonic()
        return ObjectRef(key, sha256_hex(data), len(data))

    def put_if(self, key: str, data: bytes, etag: str | None) -> str:
        with self._one_at_a_time:
            there = self.objects.get(key)
            if there is None and etag is not None:
                raise KeyError(key)
            if there not in (None, data) and _etag(there) != etag:
                raise IntegrityError(f"{self.uri(key)} holds other content")
            if there is None or _etag(there) == etag:
                InMemoryStore.put(self, key, data)
        return _etag(data)

    def snapshot(self, key: str) -> Snapshot:
        with self._one_at_a_time:
            data = self.objects[key]
            return Snapshot(data, _etag(data), time.monotonic() - self.written.get(key, 0.0))

    def get(self, key: str, sha256: str | None = None) -> bytes:
        self.reads.append(key)
        return verified(self.uri(key), self.objects[key], sha256)

    def download(self, key: str, path: Path) -> None:
        path.write_bytes(self.objects[key])

    def exists(self, key: str) -> bool:
        return key in self.objects

    def entries(self, prefix: str) -> Iterator[ObjectEntry]:
        for key, data in sorted(self.objects.items()):
            if key.startswith(prefix):
                yield ObjectEntry(key, len(data), _etag(data), self.written.get(key, 0.0))

    def keys(self, prefix: str) -> Iterator[str]:
        return (entry.key for entry in self.entries(prefix))

    def delete(self, key: str) -> None:
        with self._one_at_a_time:
            self.objects.pop(key, None)


def _etag(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


class FailingStore(InMemoryStore):
    """Fails its n-th write, counted from 1, and every later one until `repair`."""

    def __init__(self, fails_at: int) -> None:
        super().__init__()
        self._fails_at: int | None = fails_at

    def repair(self) -> None:
        self._fails_at = None

    def put(self, key: str, data: bytes) -> ObjectRef:
        self._fail(key)
        return super().put(key, data)

    def put_if(self, key: str, data: bytes, etag: str | None) -> str:
        self._fail(key)
        return super().put_if(key, data, etag)

    def _fail(self, key: str) -> None:
        if self._fails_at is not None and len(self.writes) + 1 >= self._fails_at:
            raise StorageError(f"storage did not answer for {self.uri(key)}")


class FolderStore(InMemoryStore):
    """Objects are files: processes share them, and none has to hold them in memory."""

    def __init__(self, root: Path, seconds_per_read: float = 0) -> None:
        super().__init__()
        self.objects = _Files(root)
        self._root = root
        self._seconds_per_read = seconds_per_read

    def get(self, key: str, sha256: str | None = None) -> bytes:
        time.sleep(self._seconds_per_read)
        return super().get(key, sha256)

    def entries(self, prefix: str) -> Iterator[ObjectEntry]:
        for key in sorted(self.objects):
            if key.startswith(prefix):
                path = self._root.joinpath(quote(key, safe=""))
                with path.open("rb") as file:
                    yield ObjectEntry(key, path.stat().st_size, hashlib.file_digest(file, "md5").hexdigest())

    def exists(self, key: str) -> bool:
        return self._root.joinpath(quote(key, safe="")).exists()


class _Files(MutableMapping[str, bytes]):
    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._root = root

    def _path(self, key: str) -> Path:
        return self._root / quote(key, safe="")

    def __getitem__(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError:
            raise KeyError(key) from None

    def __setitem__(self, key: str, data: bytes) -> None:
        self._path(key).write_bytes(data)

    def __delitem__(self, key: str) -> None:
        self._path(key).unlink()

    def __iter__(self) -> Iterator[str]:
        return (unquote(path.name) for path in self._root.iterdir())

    def __len__(self) -> int:
        return len(list(self._root.iterdir()))
