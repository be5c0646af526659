"""A folder of files: on disk, in a zip or tar (`archives.py`), or under a prefix in object storage.

Each lists its files without reading them, and refuses paths that leave the folder.
"""

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Protocol

from cifar_tasks.data.messages import BadFiles, readable
from cifar_tasks.data.parallel import bounded_map
from cifar_tasks.errors import SourceChanged
from cifar_tasks.storage.s3 import ObjectEntry, S3Store, canonical_json, sha256_hex

MAX_FILE_BYTES = 64 * 2**20
"""No picture and no CIFAR-10 batch is larger; an archive member that claims more would fill the memory."""
IGNORED_NAMES = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})
MAX_DEPTH = 50
"""Folders in folders; no layout of images has so many."""
S3_READERS = 10
"""The number of connections that a boto3 client keeps open."""
THREAD_BYTES = 8 * 2**20
"""A larger object is read without a thread: each thread keeps the memory of the largest that it read."""

LEAVES = "leaves the folder. It was not read; put the file itself into the folder, or remove it."


class FileTree(Protocol):
    bad: BadFiles
    """Receives what `names` and `read` refuse and leave out: a path or link that leaves the folder, a file that is too
    large or cannot be read."""

    def fingerprint(self) -> str:
        """Changes with the content; costs at most reading the bytes once, never decoding them."""

    def names(self) -> list[str]:
        """Relative paths, sorted; a folder ends in `/`. Hidden files are left out."""

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """The content of these files, in an order that suits the medium.

        Raises `SourceChanged` for a file that is not any more what `marks` has listed.
        """

    def marks(self) -> dict[str, str]:
        """A mark of each file by its name, in order: another mark means that the content may be another one.

        Costs a listing, and reading the bytes only where the medium keeps nothing else.
        """


class DirectoryTree:
    def __init__(self, root: Path) -> None:
        self.bad = BadFiles(readable(str(root)))
        self._root = root.resolve()
        self._marks: dict[str, str] = {}

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name in self.names():
            if not name.endswith("/"):
                with self._readable(name):
                    digest.update(canonical_json([name, file_digest(self._root / name, "sha256")]))
        return f"directory-{digest.hexdigest()}"

    def names(self) -> list[str]:
        return sorted(name for name, _ in self._walk(self._root, ""))

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        for name in names:
            content, known = None, self._marks.get(name)
            with self._readable(name):
                content = (self._root / name).read_bytes()
            if known and known != self._mark_now(name):
                raise self._changed(name)
            if content is not None:
                yield name, content

    def marks(self) -> dict[str, str]:
        self._marks = {name: _mark(found) for name, found in sorted(self._walk(self._root, "")) if found}
        return dict(self._marks)

    def _mark_now(self, name: str) -> str | None:
        try:
            return stat_mark(self._root / name)
        except OSError:
            return None

    def _changed(self, name: str) -> SourceChanged:
        return SourceChanged(f"{self.bad.where}: {readable(name)} was changed while the data were read. Start again.")

    def _walk(self, folder: str | Path, prefix: str) -> Iterator[tuple[str, os.stat_result | None]]:
        """Names, and what the system says of files."""
        entries: list[os.DirEntry[str]] = []
        # os.scandir, because it tells links and folders apart without asking the disk again for each of 60,000 files.
        with self._readable(prefix or "the folder"), os.scandir(folder) as found:
            entries = list(found)
        for entry in entries:
            try:
                name = self._checked(entry, prefix)
                status = entry.stat() if name is not None and not entry.is_dir() else None
            except OSError as error:  # a context for each of 100,000 files takes a second
                self._cannot_be_read(prefix + entry.name, error)
                continue
            if name is not None and status is None:
                yield f"{name}/", None
                yield from self._walk(entry.path, f"{name}/")
            elif name is not None:
                yield name, status

    def _checked(self, entry: "os.DirEntry[str]", prefix: str) -> str | None:
        name = checked_name(prefix + entry.name, self.bad)
        problem = None
        if prefix.count("/") > MAX_DEPTH:
            problem = "lies too deep in folders. Move it up."
        elif name is not None and entry.is_symlink():
            problem = self._refused_link(entry)
        if name is not None and problem is None and not entry.is_dir():
            problem = too_large(entry.stat().st_size) if entry.is_file() else "is no plain file. Remove it."
        if name is not None and problem is not None:
            self.bad.add(name, problem)
        return name if problem is None else None

    def _refused_link(self, entry: "os.DirEntry[str]") -> str | None:
        target = Path(os.path.realpath(entry.path))  # unlike Path.resolve, it survives a link that points to itself
        if not target.is_relative_to(self._root):
            return f"(a link to {readable(str(target))}) {LEAVES}"
        if target.is_dir():
            return "is a link to another folder. Replace it by the images."
        return None if target.is_file() else "is a link that leads nowhere. Replace it by the image, or remove it."

    @contextmanager
    def _readable(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._cannot_be_read(name, error)

    def _cannot_be_read(self, name: str, error: OSError) -> None:
        self.bad.add(name, f"cannot be read: {error.strerror}.", failed=True)


class StoredTree:
    """The objects under a prefix."""

    def __init__(self, store: S3Store, prefix: str) -> None:
        self.bad = BadFiles(readable(store.uri(prefix)))
        self._store = store
        self._prefix = prefix
        self._objects: dict[str, ObjectEntry] = {}
        """By the name in this tree; a key may have more slashes than it."""

    def fingerprint(self) -> str:
        entries = [[entry.key, entry.size, entry.etag] for entry in self._store.entries(self._prefix)]
        return f"objects-{sha256_hex(canonical_json([self._store.uri(self._prefix), entries]))}"

    def names(self) -> list[str]:
        objects: dict[str, ObjectEntry] = {}
        for entry in self._store.entries(self._prefix):
            path = entry.key.removeprefix(self._prefix)
            name = checked_name(path.lstrip("/"), self.bad) if path.strip("/") else None
            if name is None:
                continue
            name = f"{name}/" if path.endswith("/") else name
            other = objects.setdefault(name, entry)
            if problem := too_large(entry.size):
                self.bad.add(name, problem)
            elif entry.etag != other.etag:
                self.bad.add(name, "is stored twice with different content (// in a key). Delete one of the two.")
        self._objects = {name: entry for name, entry in objects.items() if entry.size <= MAX_FILE_BYTES}
        return sorted(self._objects)

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        if not self._objects:
            self.names()
        small, large = list[str](), list[str]()
        for name in names:
            (large if self._objects[name].size > THREAD_BYTES else small).append(name)
        yield from bounded_map(self._get, small, S3_READERS, lambda name: self._objects[name].size)
        yield from map(self._get, large)

    def marks(self) -> dict[str, str]:
        names = [name for name in self.names() if not name.endswith("/")]
        return {name: f"{self._objects[name].etag}-{self._objects[name].size}" for name in names}

    def written(self, name: str) -> float | None:
        """When an object was written last, by the server's clock (Unix time); none if it is not there."""
        found = self._objects.get(name)
        return found.modified if found else None

    def _get(self, name: str) -> tuple[str, bytes]:
        entry = self._objects[name]
        try:
            found = self._store.snapshot(entry.key)
        except KeyError:
            found = None
        if found is None or found.etag != entry.etag:
            what = "deleted" if found is None else "replaced"
            raise SourceChanged(
                f"{self.bad.where}: {readable(name)} was {what} while the data were being read. Start again."
            )
        return name, found.data


def checked_name(path: str, bad: BadFiles) -> str | None:
    """The path in its plain form; none for what is hidden, and for a path that leaves the folder, which is `bad`."""
    parts = path.split("/")  # PurePosixPath is slow for 100,000 names
    if "" in parts or "." in parts:
        parts = [part for part in parts if part not in ("", ".")]
    if path.startswith("/") or ".." in parts or (parts and parts[0].endswith(":")):
        bad.add(path, LEAVES)
        return None
    name = "/".join(parts)
    return None if not parts or name[0] == "." or "/." in name or not IGNORED_NAMES.isdisjoint(parts) else name


def too_large(size: int) -> str | None:
    if size <= MAX_FILE_BYTES:
        return None
    return f"claims {size:,} bytes; a file may have {MAX_FILE_BYTES:,}. Remove it or make it smaller."


@lru_cache
def same_text(name: str) -> str:
    """One spelling of an accented letter, which systems write as one character or as two."""
    return unicodedata.normalize("NFC", name)


def file_digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.new, algorithm, usedforsecurity=False)).hexdigest()


def stat_mark(path: Path) -> str:
    """See `FileTree.marks`."""
    return _mark(path.stat())


def _mark(found: os.stat_result) -> str:
    """The system sets the time of the last change of the file's entry, whatever times a copy claims."""
    return f"{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}"
