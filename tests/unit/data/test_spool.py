"""Images of a source, decoded once and kept on disk."""

import resource
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cifar_tasks.data import spool
from cifar_tasks.data.image_format import ImageFormat
from cifar_tasks.data.images import ImageStream, SourceImage
from cifar_tasks.data.spool import spooled
from cifar_tasks.errors import DataError, StorageError
from tests.unit.data.sources import NoiseSource, noise, quiet, read_all, stream_of

FORMAT = ImageFormat()


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_images_are_read_back_at_their_positions_in_whatever_order_they_came() -> None:
    source = NoiseSource()
    stream = source.read(quiet)
    with spooled(replace(stream, images=reversed(list(stream.images))), FORMAT, quiet) as raw:
        assert (raw.read(np.arange(100)) == source.train.images).all()
        assert (raw.read(np.array([100, 119])) == source.test.images[[0, 19]]).all()
        assert (raw.train_labels == source.train.labels).all()


@pytest.mark.parametrize("size", [16, 64])
def test_every_image_gets_the_wanted_size(size: int) -> None:
    train, _ = read_all(NoiseSource(), ImageFormat(size))
    assert train.images.shape == (100, size, size, 3)


def test_equal_images_and_no_others_have_the_same_digest() -> None:
    train = noise([0, 1] * 3, 1)
    train.images[4] = train.images[2]
    with spooled(stream_of(train, noise([0], 2)), FORMAT, quiet) as raw:
        numbers = [raw.digests.index(digest) for digest in raw.digests]
    assert numbers == [0, 1, 2, 3, 2, 5, 6]


def test_equal_images_are_on_one_side_of_the_split() -> None:
    train = noise([0] * 40 + [1] * 40, 1)
    train.images[:20] = train.images[0]
    for seed in range(10):
        with spooled(stream_of(train, noise([0, 1], 2)), FORMAT, quiet) as raw:
            _, held_out = raw.split(0.5, seed)
        assert sum(position < 20 for position in held_out) in (0, 20)
        assert len(held_out) == 40


def test_nothing_is_left_on_disk_even_by_a_process_that_is_killed_meanwhile(disk: Path) -> None:
    with spooled(NoiseSource().read(quiet), FORMAT, quiet):
        assert list(disk.iterdir()) == []


def test_a_full_disk_is_an_error_that_says_which_and_what_to_do(disk: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # 32 images and a part of the next one
    try:
        with pytest.raises(StorageError, match=f"{disk} cannot be used: No space left .* set TMPDIR"):
            read_all(NoiseSource())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_an_image_that_vanished_from_the_source_is_noticed() -> None:
    stream = NoiseSource().read(quiet)
    some = (image for image in stream.images if image.position not in (7, 110))
    with (
        pytest.raises(DataError, match="noise: 2 images vanished"),
        spooled(replace(stream, images=some), FORMAT, quiet),
    ):
        pass


def test_progress_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "REPORT_EVERY", 100)
    lines: list[str] = []
    with spooled(NoiseSource().read(quiet), FORMAT, lines.append):
        pass
    assert lines == ["noise: 2 classes, 100 training and 20 test images", "noise: 120 of 120 images decoded"]


@pytest.mark.parametrize(("file_bytes", "size"), [(4_000_000, 32), (0, 512)], ids=["large files", "large images"])
def test_few_images_are_read_ahead_where_they_are_large(file_bytes: int, size: int) -> None:
    taken: list[int] = []

    def images() -> Iterator[SourceImage]:
        for position in range(1000):
            taken.append(position)
            yield SourceImage(position, "image", content)

    content = b"no picture" + bytes(file_bytes)
    labels = np.zeros(500, np.int64)
    stream = ImageStream("large", ("ant", "bee"), labels, labels, images())
    with pytest.raises(DataError, match="image is no PNG"), spooled(stream, ImageFormat(size), quiet):
        pass
    per_batch = spool.BATCH_BYTES // max(file_bytes, 3 * size**2) + 1
    assert len(taken) <= (2 * spool.THREADS + 1) * per_batch
