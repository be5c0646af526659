"""The images of a source, decoded to one format and kept on disk: memory holds a few batches, whatever their number."""

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from io import FileIO
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cifar_tasks.data.image_format import ImageFormat, Size, UnusableImage, decode_sized
from cifar_tasks.data.images import Images, ImageStream, Labels, Report, SourceImage
from cifar_tasks.data.near_duplicates import Thumbnails, thumbnails
from cifar_tasks.data.parallel import AHEAD_BYTES, bounded_map, return_freed_memory
from cifar_tasks.data.progress import progress
from cifar_tasks.data.splits import Indices, split_indices
from cifar_tasks.errors import DataError
from cifar_tasks.settings import cpu_cores
from cifar_tasks.storage.disk import disk_errors

BATCH_IMAGES, BATCH_BYTES = 128, 8 * 2**20
"""What one thread decodes at a time; the bytes are those of the files and of the decoded images."""
THREADS = min(cpu_cores(), 16)
# A test set that a source does not have is the same whatever seed a run is given, so that models can be compared.
TEST_FRACTION, TEST_SEED = 0.2, 0


@dataclass(frozen=True)
class RawDataset:
    """All images of a source in one format, before the validation split is drawn."""

    name: str
    classes: tuple[str, ...]
    labels: Labels
    is_test: NDArray[np.bool_]
    test_set: str
    """See `DatasetVersion`."""
    names: list[str]
    """Of the files, for messages."""
    groups: Indices
    """The same number for images that agree in every pixel."""
    thumbs: Thumbnails
    image_format: ImageFormat
    pixels: FileIO
    warnings: tuple[str, ...]
    """Of the source."""

    def read(self, positions: Indices) -> Images:
        return _read(self.pixels, self.image_format, positions)

    @cached_property
    def test(self) -> Indices:
        """Positions."""
        return np.flatnonzero(self.is_test)

    @cached_property
    def train(self) -> Indices:
        """Positions of what is neither a test image nor equal to one."""
        return np.flatnonzero(~self.is_test & ~np.isin(self.groups, self.groups[self.is_test]))

    @cached_property
    def left_out(self) -> Indices:
        """Positions of training images that are test images too."""
        return np.flatnonzero(~self.is_test & np.isin(self.groups, self.groups[self.is_test]))

    def splits(self, fraction: float, seed: int) -> dict[str, Indices]:
        """Positions by split; equal images are in one split only."""
        kept, held_out = split_indices(self.labels[self.train], fraction, seed, self.groups[self.train])
        return {"train": self.train[kept], "validation": self.train[held_out], "test": self.test}


@dataclass(frozen=True)
class DecodedImages:
    """By position."""

    names: list[str]
    """Of the files, for messages."""
    digests: list[bytes]
    """Of the pixels, 16 bytes; empty where an image cannot be used or was not delivered."""
    problems: dict[int, str]
    """Why an image cannot be used."""
    sizes: NDArray[np.int32]
    """Width and height of the pictures as they were delivered; 0 where an image cannot be used."""
    thumbs: Thumbnails
    image_format: ImageFormat
    pixels: FileIO

    def read(self, positions: Indices) -> Images:
        return _read(self.pixels, self.image_format, positions)


@contextmanager
def decoded(
    name: str, images: Iterator[SourceImage], count: int, image_format: ImageFormat, report: Report
) -> Iterator[DecodedImages]:
    """The images, while the context lasts, in a temporary file without a name: nothing is left even after SIGKILL."""
    names, digests, problems = [""] * count, [b""] * count, dict[int, str]()
    thumbs, sizes = np.zeros((count, 8, 9), np.uint8), np.zeros((count, 2), np.int32)
    with tempfile.TemporaryFile(buffering=0, prefix="cifar-") as pixels:
        done = read = 0
        with progress(report, lambda: f"{name}: {done:,} of {count:,} images decoded"):
            for batch in bounded_map(
                partial(_decoded, image_format), _batches(images, image_format), THREADS, _file_bytes
            ):
                for position, file, problem in batch.bad:
                    names[position], problems[position] = file, problem
                for position, file, digest, image in zip(*batch[2:6], strict=True):
                    names[position], digests[position] = file, digest
                    _write(pixels, position, image)
                thumbs[batch.positions] = thumbnails(batch.images)
                sizes[batch.positions] = np.array(batch.sizes, np.int32).reshape(-1, 2)
                read += batch.file_bytes
                if read >= AHEAD_BYTES:
                    return_freed_memory()
                    read = 0
                done += len(batch.positions) + len(batch.bad)
        yield DecodedImages(names, digests, problems, sizes, thumbs, image_format, pixels)


@contextmanager
def spooled(stream: ImageStream, image_format: ImageFormat, report: Report) -> Iterator[RawDataset]:
    """The images, while the context lasts. Raises `DataError` that names the files which are refused."""
    train, test = len(stream.train_labels), len(stream.test_labels)
    report(f"{stream.name}: {len(stream.classes)} classes, {train:,} training and {test:,} test images")
    labels = np.concatenate([stream.train_labels, stream.test_labels])
    with decoded(stream.name, stream.images, len(labels), image_format, report) as images:
        for position, problem in images.problems.items():
            stream.bad.add(images.names[position], problem)
        stream.bad.check()
        if missing := images.digests.count(b""):
            raise DataError(f"{stream.name}: {missing} images vanished while the source was read. Start again.")
        groups = equal_groups(images.digests)
        is_test = _test_images(labels, train, groups)
        test_set, classes = "given" if test else "drawn", stream.classes
        yield RawDataset(
            stream.name,
            classes,
            labels,
            is_test,
            test_set,
            images.names,
            groups,
            images.thumbs,
            image_format,
            images.pixels,
            stream.warnings,
        )


def equal_groups(digests: Sequence[bytes]) -> Indices:
    """The same number for equal digests."""
    return np.unique(np.frombuffer(b"".join(digests), "V16"), return_inverse=True)[1]


def _test_images(labels: Labels, train: int, groups: Indices) -> NDArray[np.bool_]:
    """Those behind the training images; if there are none, some of each class."""
    is_test = np.arange(len(labels)) >= train
    if not is_test.any():
        is_test[drawn_test(labels, groups)] = True
    return is_test


def drawn_test(labels: Labels, groups: Indices) -> Indices:
    """Positions of the test images of a source that has no test set."""
    return split_indices(labels, TEST_FRACTION, TEST_SEED, groups)[1]


def _batches(images: Iterator[SourceImage], image_format: ImageFormat) -> Iterator[list[SourceImage]]:
    batch: list[SourceImage] = []
    size = 0
    for image in images:
        batch.append(image)
        size += len(image.content) + 3 * image_format.size**2
        if len(batch) == BATCH_IMAGES or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _file_bytes(batch: list[SourceImage]) -> int:
    return sum(len(image.content) for image in batch if isinstance(image.content, bytes))


class _Decoded(NamedTuple):
    file_bytes: int
    bad: list[tuple[int, str, str]]
    """Positions and names of files that cannot be used, and why."""
    positions: list[int]
    names: list[str]
    digests: list[bytes]
    images: Images
    sizes: list[Size]


def _decoded(image_format: ImageFormat, batch: list[SourceImage]) -> _Decoded:
    result = _Decoded(_file_bytes(batch), [], [], [], [], np.empty((len(batch), *image_format.shape), np.uint8), [])
    for image in batch:
        try:
            pixels, size = decode_sized(image.content, image_format)
        except UnusableImage as error:
            result.bad.append((image.position, image.name, str(error)))
            continue
        result.images[len(result.names)] = pixels
        result.positions.append(image.position)
        result.sizes.append(size)
        result.names.append(image.name)
        result.digests.append(hashlib.blake2b(pixels.data, digest_size=16).digest())
    return result._replace(images=result.images[: len(result.names)])


def _read(pixels: FileIO, image_format: ImageFormat, positions: Indices) -> Images:
    images = np.empty((len(positions), *image_format.shape), np.uint8)
    for image, position in zip(images, positions.tolist(), strict=True):
        pixels.seek(position * image.nbytes)
        pixels.readinto(image.data)
    return images


def _write(pixels: FileIO, position: int, image: Images) -> None:
    with disk_errors(tempfile.gettempdir(), "TMPDIR"):
        pixels.seek(position * image.nbytes)
        if pixels.write(image.data) != image.nbytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
