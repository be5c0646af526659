import os
import re
from pathlib import Path

import numpy as np
import pytest

from cifar_tasks.data.archives import open_archive
from cifar_tasks.data.folders import read_class_folders, survey
from cifar_tasks.data.image_format import ImageFormat, decode
from cifar_tasks.data.images import ImageStream
from cifar_tasks.data.messages import BadFiles
from cifar_tasks.data.spool import spooled
from cifar_tasks.data.trees import DirectoryTree, FileTree
from cifar_tasks.data.validation import validate
from cifar_tasks.errors import DataError
from tests.unit.data.pictures import class_files, directory_of, png, zip_of
from tests.unit.data.sources import quiet


def read(tree: FileTree) -> ImageStream:
    return read_class_folders(tree, tree.names(), "images")


def read_directory(files: dict[str, bytes], root: Path) -> ImageStream:
    return read(DirectoryTree(directory_of(files, root)))


def pixels(stream: ImageStream) -> list[bytes]:
    """Of all images in their order."""
    return [decode(content, where, ImageFormat()).tobytes() for _, where, content in sorted(stream.images)]


def refusal(files: dict[str, bytes], root: Path) -> str:
    with pytest.raises(DataError) as caught, spooled(read_directory(files, root), ImageFormat(), quiet):
        pass
    assert str(root) in str(caught.value)
    return str(caught.value)


def test_images_and_labels_come_in_the_order_of_class_and_name(tmp_path: Path) -> None:
    files = class_files(("bee", "ant", "cow"))
    stream = read_directory(files, tmp_path)
    assert stream.classes == ("ant", "bee", "cow")
    assert stream.train_labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert stream.test_labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert (stream.train_labels.dtype, stream.test_labels.dtype) == (np.int64, np.int64)
    images = sorted(stream.images)
    assert [image.position for image in images] == list(range(24))
    assert (images[0].content, images[-1].content) == (files["train/ant/000.png"], files["test/cow/001.png"])
    assert images[0].name == "train/ant/000.png"


def test_an_archive_in_another_order_gives_the_same_images(tmp_path: Path) -> None:
    files = class_files(train=20, test=1)
    stream = read(open_archive(zip_of(dict(reversed(files.items())), tmp_path / "a.zip")))
    in_order = [files[name] for split in ("train", "test") for name in sorted(files) if name.startswith(split)]
    assert [image.content for image in sorted(stream.images)] == in_order


def test_classes_are_sorted_by_name_and_not_by_path(tmp_path: Path) -> None:
    stream = read_directory(class_files(("ant-lion", "ant")), tmp_path)
    assert stream.classes == ("ant", "ant-lion")
    assert [image.name.split("/")[-2] for image in sorted(stream.images)][:2] == ["ant-lion"] * 2
    assert stream.train_labels.tolist() == [1] * 6 + [0] * 6


def test_a_single_folder_around_train_and_test_is_tolerated(tmp_path: Path) -> None:
    files = class_files()
    plain = read_directory(files, tmp_path / "a")
    wrapped = read_directory({f"my-images/{name}": content for name, content in files.items()}, tmp_path / "b")
    assert wrapped.classes == plain.classes
    assert pixels(wrapped) == pixels(plain)


@pytest.mark.parametrize("around", ["images", "my/images"])
def test_folders_around_are_tolerated_where_an_archive_names_files_alone(around: str) -> None:
    plain = survey(list(class_files()), BadFiles("a.zip"))
    wrapped = survey([f"{around}/{name}" for name in class_files()], BadFiles("a.zip"))
    assert wrapped.counts == plain.counts


def test_loose_files_beside_train_and_test_are_left_alone(tmp_path: Path) -> None:
    extra = {"README.md": b"about", "labels.txt": b"ant"}
    assert len(read_directory(class_files() | extra, tmp_path).train_labels) == 12


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"train/ant/broken.png": b"no picture"}, r"train/ant/broken\.png is no PNG or JPEG by its content"),
        ({"test/bee/half.png": png(9)[:900]}, r"test/bee/half\.png cannot be decoded"),
        ({"train/ant/notes.txt": b"about"}, r"train/ant/notes\.txt is no image by its name"),
        ({"train/loose.png": png(9)}, r"train/loose\.png is not directly in a class folder"),
        ({"train/ant/deep/1.png": png(9)}, r"train/ant/deep/1\.png is not directly in a class folder"),
        ({"test/cow/1.png": png(9)}, r"class 'cow' is in test/ but not in train/"),
        ({"train/cow/1.png": png(9)}, r"class 'cow' has too few training images \(1\)"),
        ({"val/ant/1.png": png(9)}, r"unexpected folder 'val'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_each_defect_is_refused_with_its_own_message(tmp_path: Path, extra: dict[str, bytes], message: str) -> None:
    assert re.search(message, refusal(class_files() | extra, tmp_path))


def test_a_class_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train" / "cow").mkdir(parents=True)
    assert "class 'cow' has too few training images (0)" in refusal(class_files(), tmp_path)


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    assert "at least 2" in refusal(class_files(("ant",)), tmp_path)


def test_a_missing_training_folder_is_refused(tmp_path: Path) -> None:
    files = {name: content for name, content in class_files().items() if not name.startswith("train")}
    assert "found test/ but no train/. Expected train/<class>" in refusal(files, tmp_path)


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_split_is_refused(tmp_path: Path, split: str) -> None:
    files = {name: content for name, content in class_files().items() if not name.startswith(split)}
    (tmp_path / split).mkdir()
    assert f"has no images in {split}/" in refusal(files, tmp_path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train" / "ant").mkdir(parents=True)
    assert f"{tmp_path} is empty. Expected train/<class>/<image>" in refusal({".DS_Store": b""}, tmp_path)


def test_everything_that_is_wrong_is_in_one_error(tmp_path: Path) -> None:
    bad = {
        "train/ant/notes.txt": b"about",
        "train/loose.png": png(1),
        "test/bee/broken.png": b"no picture",
        "train/bee/half.png": png(2)[:900],
        **{f"train/ant/{number:02}.gif": b"GIF89a" for number in range(30)},
    }
    first, *lines = refusal(class_files() | bad, tmp_path).splitlines()
    assert first == f"{tmp_path}: 34 files cannot be used; the first 20:"
    assert len(lines) == 20
    assert all(line.startswith("train/") for line in lines)
    few = dict(list(bad.items())[:4])
    (tmp_path / "link").symlink_to("/etc")
    text = refusal(class_files() | few, tmp_path / "few")
    assert "4 files cannot be used:" in text
    assert all(name in text for name in few)


def test_bad_files_are_named_beside_a_class_that_cannot_be_trained(tmp_path: Path) -> None:
    text = refusal(class_files() | {"train/cow/1.png": png(1), "train/eel/1.png": png(2), "x/1.txt": b""}, tmp_path)
    assert "unexpected folder 'x'" in text
    text = refusal(class_files() | {"train/cow/1.png": png(1), "train/ant/1.txt": b""}, tmp_path / "a")
    assert "class 'cow' has too few training images (1)" in text
    assert "train/ant/1.txt is no image by its name" in text


FLAT = {name.removeprefix("train/"): content for name, content in class_files(train=10, test=0).items()}
TRAIN_ONLY = class_files(train=10, test=0)


@pytest.mark.parametrize("files", [FLAT, TRAIN_ONLY], ids=["flat", "train alone"])
@pytest.mark.parametrize("wrapped", ["", "images/", "my/images/"])
def test_class_folders_without_a_test_set_are_accepted(tmp_path: Path, files: dict[str, bytes], wrapped: str) -> None:
    extra = {"README.md": b"about"}
    stream = read_directory({wrapped + name: content for name, content in (files | extra).items()}, tmp_path)
    assert stream.classes == ("ant", "bee")
    assert (len(stream.train_labels), len(stream.test_labels)) == (20, 0)
    with spooled(stream, ImageFormat(), quiet) as raw:
        assert np.bincount(raw.labels[raw.test]).tolist() == [2, 2]
        (warning,) = validate(raw)
    assert warning.startswith("the source has no test images: 4 of 20 images (20%) were drawn")


def test_a_loose_image_beside_class_folders_is_refused(tmp_path: Path) -> None:
    assert "loose.png is not in a class folder" in refusal(FLAT | {"loose.png": png(1), "list.txt": b""}, tmp_path)


@pytest.mark.parametrize("split", ["", "train/"])
def test_classes_of_equal_images_alone_have_no_test_set(tmp_path: Path, split: str) -> None:
    files = {f"{split}{label}/{number}.png": png(ord(label)) for label in "ab" for number in range(9)}
    wanted = "all images of each class are equal: none can be drawn as the test set"
    with spooled(read_directory(files, tmp_path), ImageFormat(), quiet) as raw, pytest.raises(DataError, match=wanted):
        validate(raw)


def test_the_drawn_test_set_is_the_same_for_every_seed_and_holds_no_training_image(tmp_path: Path) -> None:
    files = FLAT | {f"bee/copy{number}.png": FLAT[f"ant/{number:03}.png"] for number in range(5)}
    tests = []
    for seed in (0, 1):
        with spooled(read_directory(files, tmp_path), ImageFormat(), quiet) as raw:
            splits = raw.splits(0.1, seed)
            tests.append(splits["test"].tolist())
            assert not set(raw.groups[splits["test"]]) & set(raw.groups[~raw.is_test])
    assert tests[0] == tests[1]


@pytest.mark.parametrize(
    ("train", "test"), [("Train", "Test"), ("TRAIN", "TEST"), ("training", "testing"), ("Training", "test")]
)
def test_other_spellings_of_the_splits_are_accepted(tmp_path: Path, train: str, test: str) -> None:
    files = {f"{train if name[1] == 'r' else test}{name[name.index('/') :]}": c for name, c in class_files().items()}
    stream = read_directory(files, tmp_path)
    assert (len(stream.train_labels), len(stream.test_labels)) == (12, 4)


@pytest.mark.parametrize("name", ["val", "Valid", "validation", "dev"])
def test_a_validation_folder_without_a_test_folder_is_the_test_set(tmp_path: Path, name: str) -> None:
    files = {key.replace("test/", f"{name}/"): content for key, content in class_files().items()}
    stream = read_directory(files, tmp_path)
    assert len(stream.test_labels) == 4
    assert stream.warnings == (f"there is no test folder: the images in {name}/ are the test set",)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"Train/ant/1.png": b"", "train/bee/1.png": b""}, "found Train/ and train/, two folders for train"),
        (
            {"test/ant/1.png": b"", "testing/ant/1.png": b"", "train/ant/1.png": b""},
            "found test/ and testing/, two folders for test",
        ),
        (
            {"ant/train/1.png": b"", "ant/test/1.png": b"", "bee/train/1.png": b""},
            "found ant/test/, the split inside",
        ),
        ({"1.png": b"", "2.png": b""}, "has no images in class folders"),
        ({"holiday/1.jpg": b"", "work/2.jpg": b""}, "class 'holiday' has too few training images .1.; at least 3"),
        ({"test/ant/1.png": b"", "other/bee/1.png": b""}, "found other/, test/: unexpected folder 'other'"),
        ({"train/Ant/1.png": b"", "train/Ant/2.png": b"", "test/ant/1.png": b""}, "in test/ but not in .*has 'Ant'"),
    ],
)
def test_what_is_not_unambiguous_is_refused_with_what_was_found(
    tmp_path: Path, files: dict[str, bytes], message: str
) -> None:
    assert re.search(message, refusal(files, tmp_path))


def test_names_that_differ_in_unicode_normalisation_are_one_class(tmp_path: Path) -> None:
    composed, decomposed = "é", "e\N{COMBINING ACUTE ACCENT}"
    files = class_files((composed, "bee"))
    files = {key.replace(composed, decomposed) if key[1] == "e" else key: content for key, content in files.items()}
    stream = read_directory(files, tmp_path)
    assert stream.classes == ("bee", composed)
    assert np.bincount(stream.test_labels).tolist() == [2, 2]


def test_names_that_differ_in_case_are_two_classes(tmp_path: Path) -> None:
    assert read_directory(class_files(("a", "A")), tmp_path).classes == ("A", "a")


def test_a_class_folder_that_is_not_utf8_is_refused_and_a_file_is_read(tmp_path: Path) -> None:
    files = class_files() | {os.fsdecode(b"train/ant/\xff.png"): png(77)}
    assert len(read_directory(files, tmp_path / "a").train_labels) == 13
    text = refusal(files | {os.fsdecode(b"train/c\xff/1.png"): png(78), "train/ant/2.txt": b""}, tmp_path / "b")
    assert r"train/c\udcff is a class folder whose name is not UTF-8. Rename it." in text
    assert "train/ant/2.txt" in text
    text.encode()


def test_a_thousand_classes_are_read(tmp_path: Path) -> None:
    names = [f"{split}/{label}/{n}.png" for split in ("train", "test") for label in range(1000) for n in range(2)]
    folders = survey(names, BadFiles("x"))
    assert len(folders.classes) == 1000
    assert np.bincount(folders.labels("test")).tolist() == [2] * 1000


def test_the_name_of_a_class_may_have_as_many_bytes_as_that_of_a_folder_on_disk() -> None:
    name, found = "é" * 127 + "x", BadFiles("a.zip")  # 255 bytes
    files = [f"{label}/{number}.png" for label in (name, "bee", "cow") for number in range(3)]
    assert set(survey(files, found).classes) == {name, "bee", "cow"}
    found.check()
    survey([file.replace("éx", "éxx") for file in files], found)
    with pytest.raises(DataError, match="has more than 255 bytes"):
        found.check()
