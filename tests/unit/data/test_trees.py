import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from cifar_tasks.data import parallel
from cifar_tasks.data.archives import open_archive
from cifar_tasks.data.trees import MAX_FILE_BYTES, DirectoryTree, FileTree, StoredTree
from cifar_tasks.errors import DataError
from tests.stores import InMemoryStore
from tests.unit.data.pictures import directory_of, tar_of, zip_of
from tests.unit.data.sources import names_of, read_all_of

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


def test_objects_whose_keys_have_more_slashes_are_read(tmp_path: Path) -> None:
    store = InMemoryStore()
    for name, content in FILES.items():
        store.put(f"pets/{name.replace('/', '//')}", content)
    tree = StoredTree(store, "pets/")
    assert read_all_of(tree, names_of(tree)) == FILES
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
    assert read_all_of(tree, [name for name in names_of(tree) if not name.endswith("/")]) == files


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


def test_every_medium_marks_each_file_and_the_marks_are_the_same_when_taken_again(tree: FileTree) -> None:
    marks = tree.marks()
    assert list(marks) == sorted(FILES)
    assert len(set(marks.values())) == len(FILES)
    assert tree.marks() == marks


@pytest.mark.parametrize("medium", ["directory", "zip", "tar.gz", "objects"])
def test_a_file_of_the_same_size_with_other_content_has_another_mark(medium: str, tmp_path: Path) -> None:
    def marks(content: bytes) -> dict[str, str]:
        files = {**FILES, "train/ant/1.png": content}
        if medium == "directory":
            return DirectoryTree(directory_of(files, tmp_path / "root")).marks()
        if medium == "objects":
            return stored(files).marks()
        return open_archive((zip_of if medium == "zip" else tar_of)(files, tmp_path / f"archive.{medium}")).marks()

    before, after = marks(b"one"), marks(b"two")
    assert before["train/ant/1.png"] != after["train/ant/1.png"]


def test_a_copy_that_claims_an_old_time_has_another_mark(tmp_path: Path) -> None:
    path = directory_of(FILES, tmp_path) / "train/ant/1.png"
    before, times = DirectoryTree(tmp_path).marks(), path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert DirectoryTree(tmp_path).marks()["train/ant/1.png"] != before["train/ant/1.png"]


def test_a_folder_that_cannot_be_listed_makes_the_listing_incomplete(tmp_path: Path, monkeypatch) -> None:
    tree = DirectoryTree(directory_of({**FILES, "train/ant/notes.txt": b""}, tmp_path))
    assert not (tree.marks() and tree.bad.incomplete)
    scan = os.scandir

    def failing(folder: object) -> object:
        if str(folder).endswith("bee"):
            raise OSError(5, "Input/output error")
        return scan(folder)

    monkeypatch.setattr(os, "scandir", failing)
    assert tree.marks()
    assert tree.bad.incomplete
