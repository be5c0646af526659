"""The images of a source, decoded to one format and kept on disk: memory holds a few batches, whatever their number."""

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import FileIO

import numpy as np
from numpy.typing import NDArray

from cifar_tasks.data.disk import disk_errors
from cifar_tasks.data.image_format import ImageFormat, decode
from cifar_tasks.data.images import Images, ImageStream, Labels, Report, SourceImage
from cifar_tasks.data.parallel import bounded_map
from cifar_tasks.data.splits import Indices, split_indices
from cifar_tasks.errors import DataError

BATCH_IMAGES, BATCH_BYTES = 128, 8 * 2**20
"""What one thread decodes at a time; the bytes are those of the files and of the decoded images."""
THREADS = min(os.cpu_count() or 1, 16)
REPORT_EVERY = 10_000


@dataclass(frozen=True)
class RawDataset:
    """All images of a source in one format, before the validation split is drawn: training images, then test images."""

    name: str
    classes: tuple[str, ...]
    train_labels: Labels
    test_labels: Labels
    digests: list[bytes]
    """One for each image, the same for images that agree in every pixel."""
    image_format: ImageFormat
    pixels: FileIO

    def read(self, positions: NDArray[np.int64]) -> Images:
        images = np.empty((len(positions), *self.image_format.shape), np.uint8)
        for image, position in zip(images, positions.tolist(), strict=True):
            self.pixels.seek(position * image.nbytes)
            self.pixels.readinto(image.data)
        return images

    def split(self, fraction: float, seed: int) -> tuple[Indices, Indices]:
        """Positions of the images to train on and of those to validate with; equal images are on one side."""
        number: dict[bytes, int] = {}
        groups = [number.setdefault(digest, len(number)) for digest in self.digests]
        return split_indices(self.train_labels, fraction, seed, np.array(groups))


@contextmanager
def spooled(stream: ImageStream, image_format: ImageFormat, report: Report) -> Iterator[RawDataset]:
    """The images, while the context lasts, in a temporary file without a name: nothing is left even after SIGKILL.

    Raises `DataError`, naming the file, for the first image that is refused.
    """
    train, test = len(stream.train_labels), len(stream.test_labels)
    report(f"{stream.name}: {len(stream.classes)} classes, {train:,} training and {test:,} test images")
    digests = [b""] * (train + test)
    with tempfile.TemporaryFile(buffering=0, prefix="cifar-") as pixels:
        done = 0
        for batch in bounded_map(partial(_decoded, image_format), _batches(stream.images, image_format), THREADS):
            for position, digest, image in batch:
                digests[position] = digest
                _write(pixels, position, image)
            if (done + len(batch)) // REPORT_EVERY > done // REPORT_EVERY:
                report(f"{stream.name}: {done + len(batch):,} of {len(digests):,} images decoded")
            done += len(batch)
        if missing := digests.count(b""):
            raise DataError(f"{stream.name}: {missing} images vanished while the source was read. Start again.")
        labels = stream.train_labels, stream.test_labels
        yield RawDataset(stream.name, stream.classes, *labels, digests, image_format, pixels)


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


def _decoded(image_format: ImageFormat, batch: list[SourceImage]) -> list[tuple[int, bytes, Images]]:
    images = [decode(each.content, each.where, image_format) for each in batch]
    digests = [hashlib.blake2b(image.data, digest_size=16).digest() for image in images]
    return list(zip([each.position for each in batch], digests, images, strict=True))


def _write(pixels: FileIO, position: int, image: Images) -> None:
    with disk_errors(tempfile.gettempdir(), "TMPDIR"):
        pixels.seek(position * image.nbytes)
        if pixels.write(image.data) != image.nbytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
