import re
from pathlib import Path

import numpy as np
import pytest

from cifar_tasks.data.folders import read_class_folders
from cifar_tasks.data.image_format import ImageFormat, decode
from cifar_tasks.data.images import ImageStream
from cifar_tasks.data.trees import DirectoryTree, FileTree, open_archive
from cifar_tasks.errors import DataError
from tests.unit.data.pictures import class_files, directory_of, png, zip_of


def read(tree: FileTree) -> ImageStream:
    return read_class_folders(tree, tree.names(), "images")


def read_directory(files: dict[str, bytes], root: Path) -> ImageStream:
    return read(DirectoryTree(directory_of(files, root)))


def pixels(stream: ImageStream) -> list[bytes]:
    """Of all images in their order."""
    return [decode(content, where, ImageFormat()).tobytes() for _, where, content in sorted(stream.images)]


def refusal(files: dict[str, bytes], root: Path) -> str:
    with pytest.raises(DataError) as caught:
        pixels(read_directory(files, root))
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
    assert images[0].where == f"{tmp_path}: train/ant/000.png"


def test_an_archive_in_another_order_gives_the_same_images(tmp_path: Path) -> None:
    files = class_files(train=20, test=1)
    stream = read(open_archive(zip_of(dict(reversed(files.items())), tmp_path / "a.zip")))
    in_order = [files[name] for split in ("train", "test") for name in sorted(files) if name.startswith(split)]
    assert [image.content for image in sorted(stream.images)] == in_order


def test_classes_are_sorted_by_name_and_not_by_path(tmp_path: Path) -> None:
    stream = read_directory(class_files(("ant-lion", "ant")), tmp_path)
    assert stream.classes == ("ant", "ant-lion")
    assert [image.where.split("/")[-2] for image in sorted(stream.images)][:2] == ["ant-lion"] * 2
    assert stream.train_labels.tolist() == [1] * 6 + [0] * 6


def test_a_single_folder_around_train_and_test_is_tolerated(tmp_path: Path) -> None:
    files = class_files()
    plain = read_directory(files, tmp_path / "a")
    wrapped = read_directory({f"my-images/{name}": content for name, content in files.items()}, tmp_path / "b")
    assert wrapped.classes == plain.classes
    assert pixels(wrapped) == pixels(plain)


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


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_missing_split_is_refused(tmp_path: Path, split: str) -> None:
    files = {name: content for name, content in class_files().items() if not name.startswith(split)}
    assert f"has no images in {split}/" in refusal(files, tmp_path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train" / "ant").mkdir(parents=True)
    assert f"{tmp_path} is empty. Expected train/<class>/<image>" in refusal({".DS_Store": b""}, tmp_path)


def test_a_folder_of_other_things_is_refused(tmp_path: Path) -> None:
    assert "unexpected folder" in refusal({"holiday/1.jpg": b"", "work/2.jpg": b""}, tmp_path)
