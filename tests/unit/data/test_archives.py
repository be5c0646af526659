"""Zip and tar archives: what is damaged, repeated or leaves the folder is refused."""

import gzip
import lzma
import os
import tarfile
import warnings
import zipfile
import zlib
from io import BytesIO
from pathlib import Path

import pytest

from cifar_tasks.data.archives import MAX_HEADER_BYTES, open_archive
from cifar_tasks.errors import DataError
from tests.unit.data.pictures import tar_of, zip_of
from tests.unit.data.sources import names_of, read_all_of

FILES = {"train/ant/1.png": b"one", "train/bee/2.png": b"two", "test/ant/3.png": b"three"}
ENTRIES = [("train/ant/1.png", b"one"), ("train/bee/2.png", b"two")]


def test_a_windows_path_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="leaves the folder"):
        names_of(open_archive(zip_of({"train\\..\\..\\outside.png": b"x"}, tmp_path / "a.zip")))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_a_link_or_device_in_a_tar_is_refused(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("train/ant/1.png")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(DataError, match=r"train/ant/1\.png \(a link or a device\) leaves the folder"):
        names_of(open_archive(path))


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("train/ant/1.png")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="leaves the folder"):
        names_of(open_archive(path))


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_tar_is_refused_wherever_it_ends(tmp_path: Path, suffix: str, share: float) -> None:
    files = {f"train/ant/{number}.png": os.urandom(900) for number in range(50)}
    path = tar_of(files, tmp_path / f"a.{suffix}")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError, match="is truncated"):
        names_of(open_archive(path))


def test_a_tar_that_ends_between_two_members_is_truncated(tmp_path: Path) -> None:
    path = tar_of(FILES, tmp_path / "a.tar")
    path.write_bytes(path.read_bytes()[:2048])
    with pytest.raises(DataError, match="is truncated"):
        names_of(open_archive(path))


def test_a_tar_that_is_damaged_is_told_from_one_that_ends_in_the_middle_of_a_file(tmp_path: Path) -> None:
    path = tar_of({"train/ant/1.png": bytes(2000), f"{'x' * 200}.png": b"two"}, tmp_path / "a.tar")
    content = path.read_bytes()
    path.write_bytes(content[:1000])
    with pytest.raises(DataError, match="is truncated"):
        names_of(open_archive(path))
    header = content.index(b"x" * 100, content.index(b"x" * 200) + 200)  # behind the block with the long name
    path.write_bytes(content[:header] + b"y" + content[header + 1 :])
    with pytest.raises(DataError, match=r"is damaged \("):
        names_of(open_archive(path))


def test_a_truncated_zip_is_refused(tmp_path: Path) -> None:
    path = zip_of(FILES, tmp_path / "a.zip")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match="is truncated or damaged"):
        open_archive(path)


def test_an_altered_zip_member_is_refused_by_name(tmp_path: Path) -> None:
    path = zip_of(FILES, tmp_path / "a.zip")
    path.write_bytes(path.read_bytes().replace(b"three", b"THREE"))
    with pytest.raises(DataError, match=r"test/ant/3\.png is damaged"):
        read_all_of(open_archive(path), sorted(FILES))


def test_an_altered_gzip_is_refused(tmp_path: Path) -> None:
    path = tar_of({"train/ant/1.png": os.urandom(10_000)}, tmp_path / "a.tgz")
    content = bytearray(path.read_bytes())
    content[-6] ^= 0xFF  # in the checksum at the end
    path.write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        names_of(open_archive(path))


def test_a_zip_with_a_password_is_refused(tmp_path: Path) -> None:
    path = zip_of({"a.png": b"one"}, tmp_path / "a.zip")
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="without a password"):
        read_all_of(open_archive(path), ["a.png"])


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><html></html>", b"\n <HTML><body>Log in</body>"])
def test_an_html_page_is_told_from_an_archive(tmp_path: Path, page: bytes) -> None:
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(page)
    with pytest.raises(DataError, match="is an HTML page, not an archive"):
        open_archive(path)


@pytest.mark.parametrize("content", [b"", b"some text", gzip.compress(b"no tar", mtime=0)])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"neither a zip nor a tar|truncated or damaged"):
        open_archive(path)


def test_an_archive_is_recognised_by_content_and_not_by_its_name(tmp_path: Path) -> None:
    assert open_archive(zip_of(FILES, tmp_path / "images.tar")).names() == sorted(FILES)
    buffer = BytesIO(tar_of(FILES, tmp_path / "x.tgz").read_bytes())
    (tmp_path / "images.zip").write_bytes(buffer.getvalue())
    assert open_archive(tmp_path / "images.zip").names() == sorted(FILES)


def test_a_tar_made_of_the_current_folder_reads_the_same(tmp_path: Path) -> None:
    assert open_archive(
        tar_of({f"./{name}": content for name, content in FILES.items()}, tmp_path / "a.tar")
    ).names() == (sorted(FILES))


def test_a_large_file_and_a_long_name_in_a_tar_are_read(tmp_path: Path) -> None:
    files = {"train/ant/1.png": bytes(MAX_HEADER_BYTES + 1), f"train/{'bee' * 60}/2.png": b"2"}
    tree = open_archive(tar_of(files, tmp_path / "a.tar"))
    assert read_all_of(tree, names_of(tree)) == files


def test_a_name_of_a_megabyte_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tar_of({"x" * (MAX_HEADER_BYTES + 1): b""}, tmp_path / "a.tar")
    with pytest.raises(DataError, match=r"a\.tar has a header of 1,0\d\d,\d\d\d bytes"):
        names_of(open_archive(path))


def archive_with(entries: list[tuple[str, bytes]], path: Path) -> Path:
    """A name may stand there twice."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as zipped, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, content in entries:
                zipped.writestr(name, content)
        return path
    with tarfile.open(path, "w") as tar:
        for name, content in entries:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
    return path


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("name", ["train/ant/1.png", "./train/ant/1.png", "train//ant/1.png"])
def test_a_member_that_is_there_twice_with_other_content_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    tree = open_archive(archive_with([*ENTRIES, (name, b"other")], tmp_path / f"a.{kind}"))
    list(tree.read([each for each in tree.names() if not each.endswith("/")]))
    with pytest.raises(DataError, match=r"train/ant/1\.png is in the archive twice with different content"):
        tree.bad.check()


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_member_that_is_there_twice_with_the_same_content_is_read_once(tmp_path: Path, kind: str) -> None:
    tree = open_archive(archive_with([*ENTRIES, ENTRIES[0]], tmp_path / f"a.{kind}"))
    assert list(tree.read(names_of(tree))) == ENTRIES
    tree.bad.check()


def test_a_zip_whose_names_claim_to_be_utf8_and_are_not_is_refused(tmp_path: Path) -> None:
    path = zip_of({"train/ant/é.png": b"one"}, tmp_path / "a.zip")
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xff\xfe"))
    with pytest.raises(DataError, match="has a file name that is not UTF-8"):
        open_archive(path).names()


@pytest.mark.parametrize(("dictionary", "accepted"), [(64 * 2**20, True), (1536 * 2**20 - 1, False)])
def test_an_xz_that_wants_much_memory_is_refused(tmp_path: Path, dictionary: int, accepted: bool) -> None:
    content = tar_of(FILES, tmp_path / "a.tar").read_bytes()
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2**20}]
    packed = bytearray(lzma.compress(content, filters=filters))
    for size in range(41):  # how the header writes a size of 2 or 3 times a power of two
        if ((2 | (size & 1)) << (size // 2 + 11)) >= dictionary:
            break
    packed[16] = size  # of the dictionary, in the header of the first block
    packed[20:24] = zlib.crc32(packed[12:20]).to_bytes(4, "little")
    (tmp_path / "a.tar.xz").write_bytes(packed)
    if accepted:
        assert names_of(open_archive(tmp_path / "a.tar.xz")) == sorted(FILES)
    else:
        with pytest.raises(DataError, match="needs too much memory to be unpacked"):
            open_archive(tmp_path / "a.tar.xz")
