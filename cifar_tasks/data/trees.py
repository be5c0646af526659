"""A folder of files: on disk, in a zip or tar, or under a prefix in object storage.

Each lists its files without reading them, and refuses paths that leave the folder.
"""

import hashlib
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Protocol

from cifar_tasks.data.parallel import bounded_map
from cifar_tasks.errors import DataError
from cifar_tasks.storage.s3 import S3Store, canonical_json, sha256_hex

MAX_FILE_BYTES = 64 * 2**20
"""No picture and no CIFAR-10 batch is larger; an archive member that claims more would fill the memory."""
IGNORED_NAMES = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})
S3_READERS = 10
"""The number of connections that a boto3 client keeps open."""


class FileTree(Protocol):
    where: str
    """Its name in messages."""

    def fingerprint(self) -> str:
        """Changes with the content; costs at most reading the bytes once, never decoding them."""

    def names(self) -> list[str]:
        """Relative paths, sorted; a folder ends in `/`. Hidden files are left out.

        Raises `DataError` for a path that leaves the folder, a link that does, or a file that is too large.
        """

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """The content of these files, in an order that suits the medium."""


class DirectoryTree:
    def __init__(self, root: Path) -> None:
        self.where = str(root)
        self._root = root.resolve()

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name, content in self.read(name for name in self.names() if not name.endswith("/")):
            digest.update(canonical_json([name, sha256_hex(content)]))
        return f"directory-{digest.hexdigest()}"

    def names(self) -> list[str]:
        return sorted(self._walk(self._root, ""))

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        for name in names:
            with self._readable(name):
                content = (self._root / name).read_bytes()
            yield name, content

    def _walk(self, folder: str | Path, prefix: str) -> Iterator[str]:
        # os.scandir, because it tells links and folders apart without asking the disk again for each of 60,000 files.
        with self._readable(prefix), os.scandir(folder) as entries:
            for entry in entries:
                name = checked_name(prefix + entry.name, self.where)
                if name is None:
                    continue
                if entry.is_symlink():
                    self._check_link(Path(entry.path), name)
                if entry.is_dir():
                    yield f"{name}/"
                    yield from self._walk(entry.path, f"{name}/")
                elif entry.is_file():
                    check_size(self.where, name, entry.stat().st_size)
                    yield name
                else:
                    raise DataError(f"{self.where}: {name} is no plain file. Remove it.")

    def _check_link(self, path: Path, name: str) -> None:
        if not path.resolve().is_relative_to(self._root):
            raise leaves(self.where, f"{name} (a link to {path.resolve()})")
        if path.is_dir():
            raise DataError(f"{self.where}: {name} is a link to another folder. Replace it by the images.")

    @contextmanager
    def _readable(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(f"{self.where}: {name or 'the folder'} cannot be read: {error.strerror}.") from error


class _ArchiveTree:
    def __init__(self, path: Path, where: str | None = None) -> None:
        self.where = where or str(path)
        self._path = path

    def fingerprint(self) -> str:
        return f"file-{file_digest(self._path, 'sha256')}"


class ZipTree(_ArchiveTree):
    def names(self) -> list[str]:
        with self._opened() as archive:
            return sorted(self._members(archive))

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        with self._opened() as archive:
            members = self._members(archive)
            for name in names:
                with _archive_errors(self.where, name):
                    content = archive.read(members[name])
                yield name, content

    @contextmanager
    def _opened(self) -> Iterator[zipfile.ZipFile]:
        with _archive_errors(self.where), zipfile.ZipFile(self._path) as archive:
            yield archive

    def _members(self, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
        members = {}
        for info in archive.infolist():
            name = checked_name(info.filename.replace("\\", "/"), self.where)  # some Windows tools write `\`
            if name is None:
                continue
            if stat.S_ISLNK(info.external_attr >> 16):
                raise leaves(self.where, f"{name} (a link)")
            check_size(self.where, name, info.file_size)
            members[f"{name}/" if info.is_dir() else name] = info
        return members


class TarTree(_ArchiveTree):
    """Read from front to back: going back in a compressed tar would mean to unpack it again from the start."""

    def names(self) -> list[str]:
        with self._opened() as archive:
            return sorted({name for name, _ in self._members(archive)})

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        wanted = set(names)
        with self._opened() as archive:
            for name, member in self._members(archive):
                file = archive.extractfile(member) if name in wanted else None
                if file is not None:
                    yield name, file.read()

    @contextmanager
    def _opened(self) -> Iterator[tarfile.TarFile]:
        with _archive_errors(self.where), tarfile.open(self._path) as archive:
            yield archive

    def _members(self, archive: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
        for member in archive:
            name = checked_name(member.name, self.where)
            if name is None:
                continue
            if not (member.isfile() or member.isdir()):
                raise leaves(self.where, f"{name} (a link or a device)")
            check_size(self.where, name, member.size)
            yield (f"{name}/" if member.isdir() else name), member
        self._check_end(archive)

    def _check_end(self, archive: tarfile.TarFile) -> None:
        """tarfile takes the end of the file for the end of the archive; a whole tar ends in blocks of zeros.

        Reading on to the end makes the decompressor verify its checksum.
        """
        if archive.fileobj is None:
            return
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise EOFError
        check_size(self.where, "what follows the last file", len(archive.fileobj.read(MAX_FILE_BYTES + 1)))


class StoredTree:
    """The objects under a prefix."""

    def __init__(self, store: S3Store, prefix: str) -> None:
        self.where = store.uri(prefix)
        self._store = store
        self._prefix = prefix

    def fingerprint(self) -> str:
        entries = [[entry.key, entry.size, entry.etag] for entry in self._store.entries(self._prefix)]
        return f"objects-{sha256_hex(canonical_json([self.where, entries]))}"

    def names(self) -> list[str]:
        names = []
        for entry in self._store.entries(self._prefix):
            path = entry.key.removeprefix(self._prefix)
            name = checked_name(path, self.where) if path else None
            if name is not None:
                check_size(self.where, name, entry.size)
                names.append(f"{name}/" if path.endswith("/") else name)
        return sorted(names)

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        return bounded_map(self._get, names, S3_READERS)

    def _get(self, name: str) -> tuple[str, bytes]:
        try:
            return name, self._store.get(self._prefix + name)
        except KeyError:
            raise DataError(f"{self.where}: {name} was deleted while the data were being read. Start again.") from None


def open_archive(path: Path, where: str | None = None) -> FileTree:
    """A zip or tar, distinguished by content. Raises `DataError` for anything else."""
    where = where or str(path)
    with path.open("rb") as file:
        head = file.read(512)
    if zipfile.is_zipfile(path):
        return ZipTree(path, where)
    if is_html(head):
        raise html_page(where)
    with _archive_errors(where):
        if tarfile.is_tarfile(path):
            return TarTree(path, where)
    if head.startswith((b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"\xfd7zXZ")):
        raise DataError(f"{where} is truncated or damaged ({path.stat().st_size:,} bytes). Copy or download it again.")
    raise DataError(f"{where} is neither a zip nor a tar archive. Give an archive or a folder of class folders.")


def checked_name(path: str, where: str) -> str | None:
    """The path in its plain form; none for what is hidden, and `DataError` for a path that leaves the folder."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or (pure.parts and pure.parts[0].endswith(":")):
        raise leaves(where, path)
    if not pure.parts or any(part.startswith(".") or part in IGNORED_NAMES for part in pure.parts):
        return None
    return str(pure)


def check_size(where: str, name: str, size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise DataError(f"{where}: {name} claims {size:,} bytes; a file may have {MAX_FILE_BYTES:,}. Remove it.")


def leaves(where: str, name: str) -> DataError:
    return DataError(f"{where}: {name} leaves the folder. Nothing was read; make a new archive of plain files.")


def is_html(head: bytes) -> bool:
    return head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml"))


def html_page(where: str) -> DataError:
    return DataError(
        f"{where} is an HTML page, not an archive: a login, proxy or error page was saved in its place. "
        "Download the archive with a browser and give its path as the source."
    )


def file_digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.new, algorithm, usedforsecurity=False)).hexdigest()


@contextmanager
def _archive_errors(where: str, name: str | None = None) -> Iterator[None]:
    """Turns what zipfile, tarfile and the decompressors raise into one kind of message."""
    place = f"{where}: {name}" if name else where
    try:
        yield
    except EOFError as error:
        raise DataError(f"{place} is truncated: it ends in the middle. Copy or download it again.") from error
    except tarfile.ReadError as error:
        state = "truncated" if "unexpected end" in str(error) else "damaged"
        raise DataError(f"{place} is {state} ({error}). Copy or download it again.") from error
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, OSError) as error:
        raise DataError(f"{place} is damaged ({error}). Copy or download it again.") from error
    except (RuntimeError, NotImplementedError) as error:
        raise DataError(f"{place} cannot be unpacked ({error}). Make a new archive without a password.") from error
