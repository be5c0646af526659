"""Class folders: `train/<class>/*` and `test/<class>/*`, or `<class>/*` alone; PNG or JPEG, any size."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from os.path import splitext

import numpy as np

from cifar_tasks.data.images import ImageStream, Labels, SourceImage
from cifar_tasks.data.messages import BadFiles, listed, readable
from cifar_tasks.data.trees import FileTree, same_text
from cifar_tasks.errors import DataError

SPLITS = ("train", "test")
SPELLINGS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "validation": ("val", "valid", "validation", "dev"),
}
"""Of the folders of a split, whatever the case."""
SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})

MAX_CLASS_BYTES = 255
"""Of the name of a class, as of a folder's name on disk; object storage and archives allow more."""

LAYOUT = "Expected train/<class>/<image> and test/<class>/<image>, or <class>/<image> alone."


@dataclass
class ClassFolders:
    """What the names alone say, before one image is read."""

    files: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: {split: [] for split in SPLITS})
    """Class and name in the tree, by split, in the order of the names."""
    counts: dict[str, Counter[str]] = field(default_factory=lambda: {split: Counter() for split in SPLITS})
    """Images by split and class; also of classes without images."""
    warnings: list[str] = field(default_factory=list)

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted(self.counts["train"]))

    def labels(self, split: str) -> Labels:
        number = {name: index for index, name in enumerate(self.classes)}
        return np.array([number[name] for name, _ in self.files[split]], dtype=np.int64)


def read_class_folders(tree: FileTree, names: list[str], name: str) -> ImageStream:
    """Images in the order of the file names. Raises `DataError` for another layout."""
    folders = survey(names, tree.bad)
    labels = folders.labels("train"), folders.labels("test")
    files = [file for split in SPLITS for _, file in folders.files[split]]
    images = _images(tree, {file: position for position, file in enumerate(files)})
    return ImageStream(name, folders.classes, *labels, images, tree.bad, tuple(folders.warnings))


def _images(tree: FileTree, position: dict[str, int]) -> Iterator[SourceImage]:
    for file, content in tree.read(position):
        yield SourceImage(position[file], readable(file), content)


def survey(names: list[str], bad: BadFiles, check_counts: bool = True) -> ClassFolders:
    """Checks the layout. Folders around it are tolerated; files beside `train` and `test` are ignored.

    A file that is no image or lies elsewhere is `bad`. Raises `DataError`, with all bad files, for another layout, and
    with `check_counts` for classes that are too small.
    """
    try:
        if not any(not name.endswith("/") for name in names):
            raise DataError(f"{bad.where} is empty. {LAYOUT}")
        # One name tells the layout of a folder: its last file, or the folder itself if it is empty. Names are sorted.
        examples = {name.rpartition("/")[0]: name for name in names}
        top = _top_folder(examples.values())
        inside = [name.removeprefix(top) for name in examples.values() if name.startswith(top)]
        _refuse_splits_in_classes(inside, bad.where)
        roles = _roles({path.split("/")[0] for path in inside if "/" in path}, bad)
        folders = ClassFolders(warnings=_warnings(roles))
        for name in names:
            if not name.startswith(top):
                continue
            path = name.removeprefix(top)
            first, _, rest = path.partition("/")
            if first in roles and rest:
                _place(folders, roles[first], rest, name, bad)
            elif not roles and "/" in path:
                _place(folders, "train", path, name, bad)
            elif not roles and splitext(name)[1].lower() in SUFFIXES:
                bad.add(name, f"is not in a class folder. {LAYOUT}")
        if check_counts:
            _check_counts(folders, "test" in roles.values(), bad.where)
    except DataError as error:
        bad.check(str(error))
        raise
    return folders


def _top_folder(names: Collection[str]) -> str:
    """`a/b/` if everything is in there and not yet in the folder of a split or a class, else nothing."""
    top = ""
    while True:
        inside = [name.removeprefix(top) for name in names if name.startswith(top)]
        folders = {name.split("/")[0] for name in inside if "/" in name}
        deeper = any(name.count("/") - name.endswith("/") > 1 for name in inside)
        if len(folders) != 1 or _role(next(iter(folders))) or not deeper:
            return top
        top += f"{folders.pop()}/"


def _refuse_splits_in_classes(paths: Iterable[str], where: str) -> None:
    inner = {tuple(parts[:2]) for path in paths if len(parts := path.split("/")) > 2 and parts[1]}
    if inner and all(_role(second) and not _role(first) for first, second in inner):
        first, second = min(inner)
        raise DataError(f"{where}: found {readable(first)}/{second}/, the split inside of the class. {LAYOUT}")


def _role(folder: str) -> str | None:
    return next((role for role, spellings in SPELLINGS.items() if folder.casefold() in spellings), None)


def _roles(folders: set[str], bad: BadFiles) -> dict[str, str]:
    """Which split each folder is; none of them if they are the classes."""
    found = {folder: role for folder in sorted(folders) if (role := _role(folder))}
    roles = list(found.values())
    if not found:
        return {}
    if others := sorted(folders - set(found)):
        raise DataError(
            f"{bad.where}: found {listed([readable(each) + '/' for each in sorted(folders)])}: unexpected folder "
            f"{readable(others[0])!r} beside {readable(next(iter(found)))}/. {LAYOUT} Move or remove the others."
        )
    if repeated := [role for role, count in Counter(roles).items() if count > 1]:
        same = [f"{folder}/" for folder, role in found.items() if role == repeated[0]]
        raise DataError(f"{bad.where}: found {' and '.join(same)}, two folders for {repeated[0]}. Merge them into one.")
    if len(found) == len(SPELLINGS):
        given = next(folder for folder, role in found.items() if role == "validation")
        raise DataError(
            f"{bad.where}: unexpected folder {given!r}. {LAYOUT} "
            "Validation images are drawn from train; move the folder's images there or remove it."
        )
    if "train" not in roles:
        raise DataError(f"{bad.where}: found {listed([f'{folder}/' for folder in found])} but no train/. {LAYOUT}")
    return {folder: "test" if role == "validation" else role for folder, role in found.items()}


def _warnings(roles: dict[str, str]) -> list[str]:
    given = [folder for folder, role in roles.items() if role == "test" and _role(folder) == "validation"]
    return [f"there is no test folder: the images in {given[0]}/ are the test set"] if given else []


def _place(folders: ClassFolders, split: str, path: str, name: str, bad: BadFiles) -> None:
    """Counts a file, or a class folder that may be empty; `path` begins with the class folder."""
    label, *rest = path.removesuffix("/").split("/")
    if problem := _class_problem(label):
        bad.add(name.removesuffix("/").removesuffix("/".join(["", *rest])), problem)
    elif name.endswith("/"):
        if label and not rest:
            folders.counts[split][same_text(label)] += 0
    elif len(rest) != 1:
        bad.add(name, f"is not directly in a class folder. {LAYOUT}")
    elif splitext(name)[1].lower() not in SUFFIXES:
        bad.add(name, "is no image by its name. Class folders hold .png, .jpg and .jpeg only.")
    else:
        folders.counts[split][same_text(label)] += 1
        folders.files[split].append((same_text(label), name))


@lru_cache
def _class_problem(label: str) -> str | None:
    try:
        long = len(label.encode()) > MAX_CLASS_BYTES
    except UnicodeEncodeError:
        return "is a class folder whose name is not UTF-8. Rename it."
    return f"is a class folder whose name has more than {MAX_CLASS_BYTES} bytes. Rename it." if long else None


def _check_counts(folders: ClassFolders, has_test: bool, where: str) -> None:
    train, test = folders.counts["train"], folders.counts["test"]
    if not train.total() and not has_test:
        raise DataError(f"{where} has no images in class folders. {LAYOUT}")
    for split in SPLITS if has_test else ():
        if not folders.counts[split].total():
            raise DataError(f"{where} has no images in {split}/. {LAYOUT}")
    problems = []
    spelled = {name.casefold(): name for name in train}
    for name in sorted(set(test) - set(train)):
        like = f" (which has {spelled[name.casefold()]!r})" if name.casefold() in spelled else ""
        problems.append(
            f"class {name!r} is in test/ but not in train/{like}. Add training images of it or remove it from test/."
        )
    needed, use = (2, "one of them for validation") if has_test else (3, "one for the test and one for validation")
    for name, count in sorted(train.items()):
        if count < needed:
            problems.append(
                f"class {name!r} has too few training images ({count}); at least {needed} are needed, {use}."
            )
    if len(train) < 2:
        problems.append(f"there is only the class {next(iter(train))!r}; a classifier needs at least 2.")
    if problems:
        raise DataError(f"{where}: {listed(problems)}")
