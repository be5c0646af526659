"""Object stores for tests: one in memory, and one that fails when it is told to."""

import hashlib
from collections.abc import Iterator

from cifar_tasks.errors import IntegrityError, StorageError
from cifar_tasks.storage import ObjectEntry, ObjectRef, sha256_hex, verified


class InMemoryStore:
    """Behaves as `S3Store` does: the contract in `tests/unit/test_storage.py` holds for both."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.writes: list[str] = []
        """Keys in the order in which they were written."""

    def uri(self, key: str) -> str:
        return f"memory://{key}"

    def put(self, key: str, data: bytes) -> ObjectRef:
        self.writes.append(key)
        self.objects[key] = data
        return ObjectRef(key, sha256_hex(data), len(data))

    def put_new(self, key: str, data: bytes) -> ObjectRef:
        there = self.objects.setdefault(key, data)
        if there != data:
            raise IntegrityError(f"{self.uri(key)} holds other content")
        self.writes.append(key)
        return ObjectRef(key, sha256_hex(data), len(data))

    def get(self, key: str, sha256: str | None = None) -> bytes:
        return verified(self.uri(key), self.objects[key], sha256)

    def exists(self, key: str) -> bool:
        return key in self.objects

    def entries(self, prefix: str) -> Iterator[ObjectEntry]:
        for key, data in sorted(self.objects.items()):
            if key.startswith(prefix):
                yield ObjectEntry(key, len(data), hashlib.md5(data, usedforsecurity=False).hexdigest())

    def keys(self, prefix: str) -> Iterator[str]:
        return (entry.key for entry in self.entries(prefix))

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)


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

    def put_new(self, key: str, data: bytes) -> ObjectRef:
        self._fail(key)
        return super().put_new(key, data)

    def _fail(self, key: str) -> None:
        if self._fails_at is not None and len(self.writes) + 1 >= self._fails_at:
            raise StorageError(f"storage did not answer for {self.uri(key)}")
