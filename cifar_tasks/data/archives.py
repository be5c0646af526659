"""Zip and tar archives as folders of files. What an archive claims about itself is not believed: reads are bounded."""

import hashlib
import lzma
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cifar_tasks.data.messages import BadFiles, readable
from cifar_tasks.data.trees import LEAVES, FileTree, checked_name, file_digest, too_large
from cifar_tasks.errors import DataError

MAX_HEADER_BYTES = 2**20
"""Of a name or of attributes that a tar stores before a file."""
MAX_DICTIONARY_BYTES = 80 * 2**20
"""That unpacking may need: `xz -9` takes 65 MiB."""
XZ = b"\xfd7zXZ"
TWICE = "is in the archive twice with different content. Make a new archive."


class _ArchiveTree:
    def __init__(self, path: Path, where: str | None = None) -> None:
        self.bad = BadFiles(readable(where or str(path)))
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
                content = None
                try:
                    with _archive_errors(""), archive.open(members[name]) as file:
                        # Not more than the header claims, whatever is packed there; a wrong claim fails the checksum.
                        content = file.read(max(1, members[name].file_size))
                except DataError as error:
                    self.bad.add(name, str(error))
                if content is not None:
                    yield name, content

    def marks(self) -> dict[str, str]:
        with self._opened() as archive:
            members = self._members(archive)
        return {name: f"{info.CRC:08x}-{info.file_size}" for name, info in sorted(members.items()) if name[-1] != "/"}

    @contextmanager
    def _opened(self) -> Iterator[zipfile.ZipFile]:
        with _archive_errors(f"{self.bad.where} "), zipfile.ZipFile(self._path) as archive:
            yield archive

    def _members(self, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
        members: dict[str, zipfile.ZipInfo] = {}
        for info in archive.infolist():
            name = checked_name(info.filename.replace("\\", "/"), self.bad)  # some Windows tools write `\`
            if name is None:
                continue
            if problem := self._problem(info, members.get(name)):
                self.bad.add(name, problem)
            else:
                members[f"{name}/" if info.is_dir() else name] = info
        return members

    def _problem(self, info: zipfile.ZipInfo, other: zipfile.ZipInfo | None) -> str | None:
        if stat.S_ISLNK(info.external_attr >> 16):
            return f"(a link) {LEAVES}"
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # Python unpacks the other kinds without a bound: a kilobyte can become a gigabyte.
            return "is packed by an unusual method. Make a new archive with ordinary (deflate) compression."
        if other is not None and (other.CRC, other.file_size) != (info.CRC, info.file_size):
            return TWICE
        return too_large(info.file_size)


class TarTree(_ArchiveTree):
    """Read from front to back: going back in a compressed tar would mean to unpack it again from the start."""

    def __init__(self, path: Path, where: str | None = None) -> None:
        super().__init__(path, where)
        self._repeated: set[str] = set()

    def names(self) -> list[str]:
        with self._opened() as archive:
            counts = Counter(name for name, _ in self._members(archive))
        self._repeated = {name for name, count in counts.items() if count > 1 and not name.endswith("/")}
        return sorted(counts)

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        wanted, digests = set(names), dict[str, bytes]()
        with self._opened() as archive:
            for name, member in self._members(archive):
                file = archive.extractfile(member) if name in wanted else None
                if file is None:
                    continue
                content = file.read()
                if name in self._repeated:
                    digest, first = hashlib.sha256(content).digest(), digests.get(name)
                    digests[name] = digest
                    if first is not None:
                        if first != digest:
                            self.bad.add(name, TWICE)
                        continue
                yield name, content

    def marks(self) -> dict[str, str]:
        names = [name for name in self.names() if not name.endswith("/")]
        marks = {name: hashlib.sha256(content).hexdigest() for name, content in self.read(names)}
        return dict(sorted(marks.items()))

    @contextmanager
    def _opened(self) -> Iterator[tarfile.TarFile]:
        where = f"{self.bad.where} "
        with _archive_errors(where), tarfile.open(self._path, tarinfo=_BoundedTarInfo) as archive:
            yield archive

    def _members(self, archive: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
        for member in archive:
            name = checked_name(member.name, self.bad)
            if name is None:
                continue
            if not (member.isfile() or member.isdir()):
                self.bad.add(name, f"(a link or a device) {LEAVES}")
            elif problem := too_large(member.size):
                self.bad.add(name, problem)
                self.bad.check()  # at once: to find the next member, all of this one would have to be unpacked
            else:
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
        rest = 0
        while block := archive.fileobj.read(2**20):
            rest += len(block)
            if problem := too_large(rest):
                raise _RefusedClaim(f"has something after its last file that {problem}")


class _RefusedClaim(Exception):
    """The message continues the name of the archive."""


class _BoundedTarInfo(tarfile.TarInfo):
    """tarfile reads a long name or the attributes of a file at once, as many bytes as the header claims."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        headers = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE)
        if self.type in (*headers, tarfile.SOLARIS_XHDTYPE) and self.size > MAX_HEADER_BYTES:
            raise _RefusedClaim(f"has a header of {self.size:,} bytes. Make a new archive.")
        found: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]
        return found


def open_archive(path: Path, where: str | None = None) -> FileTree:
    """A zip or tar, distinguished by content. Raises `DataError` for anything else."""
    name = readable(where or str(path))
    with path.open("rb") as file:
        head = file.read(512)
    if zipfile.is_zipfile(path):
        return ZipTree(path, where)
    if is_html(head):
        raise html_page(name)
    if head.startswith(XZ):
        _check_dictionary(name, head)
    with _archive_errors(f"{name} "), suppress(tarfile.TarError):
        tarfile.open(path, tarinfo=_BoundedTarInfo).close()
        return TarTree(path, where)
    if head.startswith((b"PK\x03\x04", b"\x1f\x8b", b"BZh", XZ)):
        raise DataError(f"{name} is truncated or damaged ({path.stat().st_size:,} bytes). Copy or download it again.")
    raise DataError(f"{name} is neither a zip nor a tar archive. Give an archive or a folder of class folders.")


def _check_dictionary(where: str, head: bytes) -> None:
    """xz unpacks with as much memory as the archive asks for."""
    try:
        lzma.LZMADecompressor(memlimit=MAX_DICTIONARY_BYTES).decompress(head, max_length=1)
    except lzma.LZMAError as error:
        if "limit" in str(error):
            raise DataError(f"{where} needs too much memory to be unpacked. Pack it with xz -9 or less.") from error


def is_html(head: bytes) -> bool:
    return head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml"))


def html_page(where: str) -> DataError:
    return DataError(
        f"{where} is an HTML page, not an archive: a login, proxy or error page was saved in its place. "
        "Download the archive with a browser and give its path as the source."
    )


@contextmanager
def _archive_errors(where: str) -> Iterator[None]:
    """Turns what zipfile, tarfile and the decompressors raise into one kind of message, which begins with `where`."""
    try:
        yield
    except DataError:
        raise
    except _RefusedClaim as error:
        raise DataError(f"{where}{error}") from error
    except EOFError as error:
        raise DataError(f"{where}is truncated: it ends in the middle. Copy or download it again.") from error
    except tarfile.ReadError as error:
        state = "truncated" if "unexpected end" in str(error) else "damaged"
        raise DataError(f"{where}is {state} ({error}). Copy or download it again.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{where}has a file name that is not UTF-8. Rename the file, make a new archive.") from error
    except (RuntimeError, NotImplementedError) as error:
        raise DataError(f"{where}cannot be unpacked ({error}). Make a new archive without a password.") from error
    except Exception as error:  # zipfile, tarfile and the decompressors raise many kinds for damaged bytes
        raise DataError(f"{where}is damaged ({error}). Copy or download it again.") from error
