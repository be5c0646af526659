"""Class folders: `train/<class>/*` and `test/<class>/*`, PNG or JPEG, any size, grey or colour."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from itertools import islice
from pathlib import PurePosixPath

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cifar_tasks.data.images import IMAGE_SHAPE, Images, LabelledImages, RawDataset
from cifar_tasks.data.parallel import bounded_map
from cifar_tasks.data.trees import FileTree
from cifar_tasks.errors import DataError

SPLITS = ("train", "test")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
SIDE = IMAGE_SHAPE[0]
MAX_PIXELS = 64_000_000
"""More than any camera's ordinary picture; a small file that unpacks to more is a decompression bomb."""
BATCH = 128
REPORT_EVERY = 10_000

LAYOUT = "Expected train/<class>/<image> and test/<class>/<image>."


@dataclass(frozen=True)
class ClassFolders:
    """What the names alone say, before one image is read."""

    classes: tuple[str, ...]
    files: dict[str, list[str]]
    """Names in the tree by split, sorted."""


def load_class_folders(tree: FileTree, names: list[str], name: str, report: Callable[[str], None]) -> RawDataset:
    """Decodes all images. Raises `DataError`, naming the file, for the first that is refused."""
    folders = survey(names, tree.where)
    total = sum(len(files) for files in folders.files.values())
    report(f"{name}: {len(folders.classes)} classes, {total:,} images")
    position = {file: index for index, file in enumerate(file for split in SPLITS for file in folders.files[split])}
    images = np.empty((total, *IMAGE_SHAPE), dtype=np.uint8)
    done = 0
    for batch in bounded_map(partial(_decode_batch, tree.where), _batched(tree.read(position)), os.cpu_count() or 1):
        for file, image in batch:
            images[position[file]] = image
        if (done + len(batch)) // REPORT_EVERY > done // REPORT_EVERY:
            report(f"{name}: {done + len(batch):,} of {total:,} images decoded")
        done += len(batch)
    number = {label: index for index, label in enumerate(folders.classes)}
    labels = np.array([number[PurePosixPath(file).parent.name] for file in position], dtype=np.int64)
    border = len(folders.files["train"])
    return RawDataset(
        name,
        folders.classes,
        LabelledImages(images[:border], labels[:border]),
        LabelledImages(images[border:], labels[border:]),
    )


def survey(names: list[str], where: str) -> ClassFolders:
    """Checks the layout. One folder around `train` and `test` is tolerated; loose files beside them are left alone."""
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


def decode(content: bytes, name: str, where: str) -> Images:
    """One picture as uint8, 32 × 32 × 3. One of that size is taken as it is; what is transparent becomes white."""
    try:
        with Image.open(BytesIO(content), formats=("PNG", "JPEG")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{image.width} × {image.height} pixels")
            return np.asarray(_resized(image))
    except Image.DecompressionBombError as error:
        raise DataError(f"{where}: {name} is too large to decode ({error}). Remove it or make it smaller.") from error
    except UnidentifiedImageError:
        raise DataError(f"{where}: {name} is no PNG or JPEG by its content. Replace or remove it.") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{where}: {name} cannot be decoded ({error}). Replace or remove it.") from error


def _resized(image: Image.Image) -> Image.Image:
    if image.size == (SIDE, SIDE):
        return _as_rgb(image)
    # A JPEG decoder can leave out detail that a reduced picture would lose anyway: 8 times faster on photographs.
    image.draft("RGB", (4 * SIDE, 4 * SIDE))
    upright = ImageOps.exif_transpose(image)
    return _as_rgb(upright).resize((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # 16 bits a pixel: Pillow itself would cut off all above 255
        return Image.fromarray((np.asarray(image) // 256).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _decode_batch(where: str, batch: list[tuple[str, bytes]]) -> list[tuple[str, Images]]:
    return [(name, decode(content, name, where)) for name, content in batch]


def _batched(files: Iterator[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    while batch := list(islice(files, BATCH)):
        yield batch


def _top_folder(names: list[str]) -> str:
    """`cats/` when all lies in `cats/train` and `cats/test`, else nothing."""
    tops = {name.split("/")[0] for name in names if "/" in name}
    if len(tops) != 1 or tops & set(SPLITS):
        return ""
    return f"{tops.pop()}/"


def _refuse_other_folder(folder: str, rest: list[str], where: str) -> None:
    """A loose file (a licence, a list of labels) is none of our business; images in a third folder would be lost."""
    if rest and folder:
        raise DataError(
            f"{where}: unexpected folder {folder!r}. {LAYOUT} "
            "Validation images are drawn from train; put the folder's images there or take it away."
        )


def _check_place(rest: list[str], name: str, where: str) -> None:
    if len(rest) != 2:
        raise DataError(f"{where}: {name} does not lie directly in a class folder. {LAYOUT}")
    if PurePosixPath(name).suffix.lower() not in SUFFIXES:
        raise DataError(f"{where}: {name} is no image by its name. Class folders hold .png, .jpg and .jpeg only.")


def _check_counts(train: Counter[str], test: Counter[str], where: str) -> None:
    for split, counts in (("train", train), ("test", test)):
        if not counts.total():
            raise DataError(f"{where} has no images in {split}/. {LAYOUT}")
    if unknown := sorted(set(test) - set(train)):
        raise DataError(
            f"{where}: class {unknown[0]!r} stands in test/ but not in train/. "
            "Add training images of it or take it out of test/."
        )
    for name, count in sorted(train.items()):
        if count < 2:
            raise DataError(
                f"{where}: class {name!r} has too few training images ({count}); "
                "at least 2 are needed, one of them for validation."
            )
    if len(train) < 2:
        raise DataError(f"{where}: there is only the class {next(iter(train))!r}; a classifier needs at least 2.")
