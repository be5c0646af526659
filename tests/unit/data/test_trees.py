import gzip
import os
import tarfile
import warnings
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from cifar_tasks.data import parallel
from cifar_tasks.data.archives import open_archive
from cifar_tasks.data.trees import MAX_FILE_BYTES, DirectoryTree, FileTree, StoredTree
from cifar_tasks.errors import DataError
from tests.stores import InMemoryStore
from tests.unit.data.pictures import directory_of, tar_of, zip_of

FILES = {"train/ant/1.png": b"one", "train/bee/2.png": b"two", "test/ant/3.png": b"three"}
HIDDEN = {".DS_Store": b"", "train/ant/.hidden.png": b"", "train/ant/Thumbs.db": b"", "__MACOSX/train/ant/1.png": b""}


def stored(files: dict[str, bytes]) -> StoredTree:
    store = InMemoryStore()
    for name, content in files.items():
        store.put(f"some/prefix/{name}", content)
    store.put("some/prefix-of-another", b"")
    return StoredTree(store, "some/prefix/")


@pytest.fixture(params=["directory", "zip", "tar", "tar.gz", "objects"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> FileTree:
    files = FILES | HIDDEN
    if request.param == "directory":
        return DirectoryTree(directory_of(files, tmp_path / "root"))
    if request.param == "objects":
        return stored(files)
    return open_archive((zip_of if request.param == "zip" else tar_of)(files, tmp_path / f"archive.{request.param}"))


def names_of(tree: FileTree) -> list[str]:
    """Raises for what the tree refuses."""
    names = tree.names()
    tree.bad.check()
    return names


def read_all(tree: FileTree, names: list[str]) -> dict[str, bytes]:
    contents = dict(tree.read(names))
    tree.bad.check()
    return contents


def test_every_medium_lists_the_same_files_in_order_and_leaves_out_hidden_ones(tree: FileTree) -> None:
    assert [name for name in tree.names() if not name.endswith("/")] == sorted(FILES)


def test_every_medium_reads_the_same_content(tree: FileTree) -> None:
    assert dict(tree.read(sorted(FILES))) == FILES


def test_a_fingerprint_is_the_same_when_taken_again(tree: FileTree) -> None:
    assert tree.fingerprint() == tree.fingerprint()


def test_an_empty_folder_is_listed(tmp_path: Path) -> None:
    (tmp_path / "train" / "ant").mkdir(parents=True)
    assert DirectoryTree(tmp_path).names() == ["train/", "train/ant/"]


def test_a_fingerprint_follows_the_names(tmp_path: Path) -> None:
    """The folder is the label."""
    renamed = {name.replace("ant/1", "bee/1"): content for name, content in FILES.items()}
    trees = [
        DirectoryTree(directory_of(files, tmp_path / str(len(files) * n))) for n, files in ((1, FILES), (2, renamed))
    ]
    assert trees[0].fingerprint() != trees[1].fingerprint()


@pytest.mark.parametrize("altered", [{"train/ant/1.png": b"ONE"}, {"train/ant/9.png": b"new"}])
def test_a_fingerprint_follows_the_content(tmp_path: Path, altered: dict[str, bytes]) -> None:
    pairs = [
        (
            DirectoryTree(directory_of(FILES, tmp_path / "a")),
            DirectoryTree(directory_of(FILES | altered, tmp_path / "b")),
        ),
        (open_archive(zip_of(FILES, tmp_path / "a.zip")), open_archive(zip_of(FILES | altered, tmp_path / "b.zip"))),
        (stored(FILES), stored(FILES | altered)),
    ]
    for before, after in pairs:
        assert before.fingerprint() != after.fingerprint()


@pytest.mark.parametrize("name", ["../outside.png", "train/../../outside.png", "/etc/passwd", "C:/outside.png"])
def test_a_path_that_leaves_the_folder_is_refused_by_name(tmp_path: Path, name: str) -> None:
    trees = [
        open_archive(zip_of(FILES | {name: b"x"}, tmp_path / "a.zip")),
        open_archive(tar_of(FILES | {name: b"x"}, tmp_path / "a.tar")),
    ]
    for tree in trees:
        with pytest.raises(DataError, match="leaves the folder") as caught:
            names_of(tree)
        assert name in str(caught.value)
    assert not list(tmp_path.parent.glob("outside*"))


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


def test_a_link_out_of_a_directory_is_refused_and_one_within_is_followed(tmp_path: Path) -> None:
    root = directory_of(FILES, tmp_path / "root")
    (root / "train/ant/4.png").symlink_to(root / "train/bee/2.png")
    assert dict(DirectoryTree(root).read(["train/ant/4.png"])) == {"train/ant/4.png": b"two"}
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "train/ant/5.png").symlink_to(tmp_path / "secret")
    with pytest.raises(DataError, match=r"train/ant/5\.png \(a link to .*secret\) leaves the folder"):
        names_of(DirectoryTree(root))


def test_a_link_to_a_folder_is_refused_because_its_images_would_be_missed(tmp_path: Path) -> None:
    root = directory_of(FILES, tmp_path / "root")
    (root / "train/cat").symlink_to(root / "train/bee")
    with pytest.raises(DataError, match="train/cat is a link to another folder"):
        names_of(DirectoryTree(root))


def test_a_pipe_in_a_directory_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png is no plain file"):
        names_of(DirectoryTree(tmp_path))


def test_a_file_that_claims_to_be_huge_is_refused_before_it_is_read(tmp_path: Path) -> None:
    zipped = tmp_path / "bomb.zip"
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train/ant/1.png", bytes(MAX_FILE_BYTES + 1))
    header = tarfile.TarInfo("train/ant/1.png")
    header.size = 10**15
    (tmp_path / "bomb.tar").write_bytes(header.tobuf() + bytes(1024))
    large = tmp_path / "root/train/ant/1.png"
    large.parent.mkdir(parents=True)
    with large.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    trees = [open_archive(zipped), open_archive(tmp_path / "bomb.tar"), DirectoryTree(tmp_path / "root")]
    for tree in [*trees, stored({"train/ant/1.png": bytes(MAX_FILE_BYTES + 1)})]:
        with pytest.raises(DataError, match=r"train/ant/1\.png claims [\d,]+ bytes"):
            names_of(tree)


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


def test_a_truncated_zip_is_refused(tmp_path: Path) -> None:
    path = zip_of(FILES, tmp_path / "a.zip")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match="is truncated or damaged"):
        open_archive(path)


def test_an_altered_zip_member_is_refused_by_name(tmp_path: Path) -> None:
    path = zip_of(FILES, tmp_path / "a.zip")
    path.write_bytes(path.read_bytes().replace(b"three", b"THREE"))
    with pytest.raises(DataError, match=r"test/ant/3\.png is damaged"):
        read_all(open_archive(path), sorted(FILES))


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
        read_all(open_archive(path), ["a.png"])


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


ENTRIES = [("train/ant/1.png", b"one"), ("train/bee/2.png", b"two")]


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


def test_objects_whose_keys_have_more_slashes_are_read(tmp_path: Path) -> None:
    store = InMemoryStore()
    for name, content in FILES.items():
        store.put(f"pets/{name.replace('/', '//')}", content)
    tree = StoredTree(store, "pets/")
    assert read_all(tree, names_of(tree)) == FILES
    store.put("pets/train/ant/1.png", b"other")
    with pytest.raises(DataError, match=r"train/ant/1\.png is stored twice with different content"):
        names_of(StoredTree(store, "pets/"))


def test_large_objects_are_not_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    store = InMemoryStore()
    monkeypatch.setattr(parallel, "AHEAD_BYTES", 1000)
    for number in range(20):
        store.put(f"pets/{number:02}.png", bytes(400))
    reading = StoredTree(store, "pets/").read(sorted(f"{number:02}.png" for number in range(20)))
    next(reading)
    assert len(store.reads) <= 3


@pytest.mark.parametrize("kind", ["directory", "tar"])
def test_a_file_name_that_is_not_utf8_is_read(tmp_path: Path, kind: str) -> None:
    files = {os.fsdecode(b"train/ant/\xff\xfe.png"): b"one"}
    tree = (
        DirectoryTree(directory_of(files, tmp_path / "root"))
        if kind == "directory"
        else open_archive(tar_of(files, tmp_path / "a.tar"))
    )
    tree.fingerprint()
    assert read_all(tree, [name for name in names_of(tree) if not name.endswith("/")]) == files


def test_a_zip_whose_names_claim_to_be_utf8_and_are_not_is_refused(tmp_path: Path) -> None:
    path = zip_of({"train/ant/é.png": b"one"}, tmp_path / "a.zip")
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xff\xfe"))
    with pytest.raises(DataError, match="has a file name that is not UTF-8"):
        open_archive(path).names()


def test_a_link_that_points_to_itself_is_refused_beside_all_other_bad_files(tmp_path: Path) -> None:
    root = directory_of(FILES, tmp_path / "root")
    (root / "train/ant/loop.png").symlink_to(root / "train/ant/loop.png")
    (root / "train/ant/gone.png").symlink_to(root / "train/ant/nowhere.png")
    (root / "train/bee/out.png").symlink_to("/etc/passwd")
    os.mkfifo(root / "train/bee/pipe.png")
    tree = DirectoryTree(root)
    tree.fingerprint()
    with pytest.raises(DataError, match="4 files cannot be used") as caught:
        names_of(tree)
    for text in (
        "loop.png is a link that leads nowhere",
        "gone.png is a link that leads nowhere",
        "out.png (a link to /etc/passwd) leaves the folder",
        "pipe.png is no plain file",
    ):
        assert text in str(caught.value)


def test_members_that_leave_the_folder_are_named_all_at_once(tmp_path: Path) -> None:
    bad = {f"../{number}.png": b"x" for number in range(30)}
    for tree in (
        open_archive(zip_of(FILES | bad, tmp_path / "a.zip")),
        open_archive(tar_of(FILES | bad, tmp_path / "a.tar")),
    ):
        with pytest.raises(DataError, match="30 files cannot be used; the first 20:") as caught:
            names_of(tree)
        assert str(caught.value).count("leaves the folder") == 20


def test_very_deep_folders_and_very_long_names_are_one_short_error(tmp_path: Path) -> None:
    deep = tmp_path / "root" / "/".join(["a"] * 200)
    deep.mkdir(parents=True)
    with pytest.raises(DataError, match="lies too deep in folders"):
        names_of(DirectoryTree(tmp_path / "root"))
    long = zip_of({f"../{'x' * 60_000}.png": b""}, tmp_path / "a.zip")
    with pytest.raises(DataError, match="leaves the folder") as caught:
        names_of(open_archive(long))
    assert len(str(caught.value)) < 500
