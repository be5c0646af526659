"""Sources of arrays, and what tests do with a source."""

from pathlib import Path
from typing import Any

import numpy as np

from cifar_tasks.data.image_format import ImageFormat
from cifar_tasks.data.images import ImageStream, LabelledImages, Report, SourceImage
from cifar_tasks.data.loading import load_split
from cifar_tasks.data.messages import BadFiles
from cifar_tasks.data.preparation import prepare
from cifar_tasks.data.source import Source
from cifar_tasks.data.spool import spooled
from cifar_tasks.data.trees import FileTree
from cifar_tasks.data.versions import SPLITS, DatasetVersion
from cifar_tasks.storage.s3 import S3Store
from tests.stores import FolderStore


def quiet(line: str) -> None:
    """A test that does not look at progress."""


def noise(labels: list[int], seed: int, size: int = 32) -> LabelledImages:
    images = np.random.default_rng(seed).integers(0, 256, (len(labels), size, size, 3), dtype=np.uint8)
    return LabelledImages(images, np.array(labels, dtype=np.int64))


def stream_of(
    train: LabelledImages, test: LabelledImages, name: str = "noise", classes: tuple[str, ...] = ("ant", "bee")
) -> ImageStream:
    images = enumerate([*train.images, *test.images])
    pixels = (SourceImage(position, f"image {position}", image) for position, image in images)
    return ImageStream(name, classes, train.labels, test.labels, pixels, BadFiles(name))


def load_splits(store: S3Store, version: DatasetVersion, cache: Path) -> tuple[LabelledImages, ...]:
    """Training, validation and test images."""
    return tuple(load_split(store, version, split, cache) for split in SPLITS)


class NoiseSource:
    """100 random training and 20 test images of two classes; counts how often they are read."""

    placeholder = False

    def __init__(
        self, seed: int = 0, name: str = "noise", size: int = 32, classes: tuple[str, ...] = ("ant", "bee")
    ) -> None:
        self.name, self.classes = name, classes
        self.reads = 0
        self._seed = seed
        self.train, self.test = noise([0, 1] * 50, seed, size), noise([0, 1] * 10, seed + 1000, size)

    def fingerprint(self) -> str:
        return f"{self.name}-{self._seed}"

    def read(self, report: Report) -> ImageStream:
        self.reads += 1
        return stream_of(self.train, self.test, self.name, self.classes)


class GeneratedSource:
    """Images that are made while they are read: no process has to hold them."""

    name = "generated"
    placeholder = False

    def __init__(self, count: int, size: int) -> None:
        self._count, self._size = count, size

    def fingerprint(self) -> str:
        return f"generated-{self._count}-{self._size}"

    def read(self, report: Report) -> ImageStream:
        labels = np.arange(self._count) % 2
        border, random = self._count * 5 // 6, np.random.default_rng(0)
        pixels = (
            SourceImage(number, "", np.frombuffer(random.bytes(3 * self._size**2), np.uint8).reshape(self._size, -1, 3))
            for number in range(self._count)
        )
        return ImageStream(self.name, ("ant", "bee"), labels[:border], labels[border:], pixels, BadFiles(self.name))


def read_all(source: Source, image_format: ImageFormat = ImageFormat()) -> tuple[LabelledImages, LabelledImages]:  # noqa: B008
    """Training and test images as they are prepared."""
    with spooled(source.read(quiet), image_format, quiet) as raw:
        train, test = (
            LabelledImages(raw.read(part), raw.labels[part])
            for part in (np.flatnonzero(~raw.is_test), np.flatnonzero(raw.is_test))
        )
        return train, test


def peak_megabytes() -> float:
    """The most that this process had in memory so far."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def prepare_in_a_process(source: Source, root: Path, size: int) -> tuple[DatasetVersion, float]:
    version = prepare(source, FolderStore(root), 0, quiet, ImageFormat(size))
    return version, peak_megabytes()


def load_in_a_process(root: Path, version: DatasetVersion, cache: Path, together: Any, answers: Any) -> None:
    store = FolderStore(root, seconds_per_read=0.2)
    together.wait()
    images = load_split(store, version, "train", cache).images
    answers.put((int(images.sum()), [key for key in store.reads if "images" in key]))


def names_of(tree: FileTree) -> list[str]:
    """Raises for what the tree refuses."""
    names = tree.names()
    tree.bad.check()
    return names


def read_all_of(tree: FileTree, names: list[str]) -> dict[str, bytes]:
    """Raises for what the tree refuses."""
    contents = dict(tree.read(names))
    tree.bad.check()
    return contents
