"""Class folders: `train/<class>/*` and `test/<class>/*`, PNG or JPEG, any size, grey or colour."""

from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from cifar_tasks.data.images import ImageStream, Labels, SourceImage
from cifar_tasks.data.trees import FileTree
from cifar_tasks.errors import DataError

SPLITS = ("train", "test")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})

LAYOUT = "Expected train/<class>/<image> and test/<class>/<image>."


@dataclass(frozen=True)
class ClassFolders:
    """What the names alone say, before one image is read."""

    classes: tuple[str, ...]
    files: dict[str, list[str]]
    """Names in the tree by split, sorted."""

    def labels(self, split: str) -> Labels:
        number = {name: index for index, name in enumerate(self.classes)}
        return np.array([number[PurePosixPath(file).parent.name] for file in self.files[split]], dtype=np.int64)


def read_class_folders(tree: FileTree, names: list[str], name: str) -> ImageStream:
    """Images in the order of class and file name. Raises `DataError` for another layout."""
    folders = survey(names, tree.where)
    position = {file: index for index, file in enumerate(file for split in SPLITS for file in folders.files[split])}
    images = (SourceImage(position[file], f"{tree.where}: {file}", content) for file, content in tree.read(position))
    return ImageStream(name, folders.classes, folders.labels("train"), folders.labels("test"), images)


def survey(names: list[str], where: str) -> ClassFolders:
    """Checks the layout. One folder around `train` and `test` is tolerated; files beside them are ignored."""
    if not any(not name.endswith("/") for name in names):
        raise DataError(f"{where} is empty. {LAYOUT}")
    top = _top_folder(names)
    files: dict[str, list[str]] = {split: [] for split in SPLITS}
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    for name in names:
        split, *rest = name.removeprefix(top).split("/")
        if split not in SPLITS:
            _refuse_other_folder(split, rest, where)
        elif name.endswith("/") and len(rest) == 2:
            counts[split][rest[0]] += 0
        elif not name.endswith("/"):
            _check_place(rest, name, where)
            counts[split][rest[0]] += 1
            files[split].append(name)
    _check_counts(counts["train"], counts["test"], where)
    return ClassFolders(tuple(sorted(counts["train"])), files)


def _top_folder(names: list[str]) -> str:
    """`cats/` if everything is in `cats/train` and `cats/test`, else nothing."""
    tops = {name.split("/")[0] for name in names if "/" in name}
    if len(tops) != 1 or tops & set(SPLITS):
        return ""
    return f"{tops.pop()}/"


def _refuse_other_folder(folder: str, rest: list[str], where: str) -> None:
    """A file beside the folders (a licence, a list of labels) is ignored; images in a third folder would be lost."""
    if rest and folder:
        raise DataError(
            f"{where}: unexpected folder {folder!r}. {LAYOUT} "
            "Validation images are drawn from train; move the folder's images there or remove it."
        )


def _check_place(rest: list[str], name: str, where: str) -> None:
    if len(rest) != 2:
        raise DataError(f"{where}: {name} is not directly in a class folder. {LAYOUT}")
    if PurePosixPath(name).suffix.lower() not in SUFFIXES:
        raise DataError(f"{where}: {name} is no image by its name. Class folders hold .png, .jpg and .jpeg only.")


def _check_counts(train: Counter[str], test: Counter[str], where: str) -> None:
    for split, counts in (("train", train), ("test", test)):
        if not counts.total():
            raise DataError(f"{where} has no images in {split}/. {LAYOUT}")
    if unknown := sorted(set(test) - set(train)):
        raise DataError(
            f"{where}: class {unknown[0]!r} is in test/ but not in train/. "
            "Add training images of it or remove it from test/."
        )
    for name, count in sorted(train.items()):
        if count < 2:
            raise DataError(
                f"{where}: class {name!r} has too few training images ({count}); "
                "at least 2 are needed, one of them for validation."
            )
    if len(train) < 2:
        raise DataError(f"{where}: there is only the class {next(iter(train))!r}; a classifier needs at least 2.")
