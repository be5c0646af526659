"""Images of a source, decoded once and kept on disk."""

import resource
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cifar_tasks.data import progress, spool
from cifar_tasks.data.image_format import ImageFormat, UnusableImage
from cifar_tasks.data.images import Images, ImageStream, SourceImage
from cifar_tasks.data.messages import BadFiles
from cifar_tasks.data.parallel import AHEAD_BYTES
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
        assert (raw.labels[raw.train] == source.train.labels).all()


@pytest.mark.parametrize("size", [16, 64])
def test_every_image_gets_the_wanted_size(size: int) -> None:
    train, _ = read_all(NoiseSource(), ImageFormat(size))
    assert train.images.shape == (100, size, size, 3)


def test_equal_images_and_no_others_have_the_same_number() -> None:
    train = noise([0, 1] * 3, 1)
    train.images[4] = train.images[2]
    with spooled(stream_of(train, noise([0], 2)), FORMAT, quiet) as raw:
        numbers = [raw.groups.tolist().index(group) for group in raw.groups]
    assert numbers == [0, 1, 2, 3, 2, 5, 6]


def test_equal_images_are_on_one_side_of_the_split() -> None:
    train = noise([0] * 40 + [1] * 40, 1)
    train.images[:20] = train.images[0]
    for seed in range(10):
        with spooled(stream_of(train, noise([0, 1], 2)), FORMAT, quiet) as raw:
            held_out = raw.splits(0.5, seed)["validation"]
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


def test_progress_is_reported_although_the_first_file_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "REPORT_SECONDS", 0.05)
    lines: list[str] = []
    stream = NoiseSource().read(quiet)

    def slow() -> Iterator[SourceImage]:
        while len(lines) < 3:
            time.sleep(0.01)
        yield from stream.images

    with spooled(replace(stream, images=slow()), FORMAT, lines.append):
        pass
    assert lines[:3] == ["noise: 2 classes, 100 training and 20 test images"] + ["noise: 0 of 120 images decoded"] * 2


@pytest.mark.parametrize(("file_bytes", "size"), [(4_000_000, 32), (0, 512)], ids=["large files", "large images"])
def test_few_images_are_read_ahead_where_they_are_large(
    file_bytes: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []

    def images() -> Iterator[SourceImage]:
        for position in range(1000):
            taken.append(position)
            yield SourceImage(position, "image", content)

    content = b"no picture" + bytes(file_bytes)
    labels = np.zeros(500, np.int64)
    decoding = threading.Event()

    def wait(content: bytes, image_format: ImageFormat) -> Images:
        decoding.wait(10)
        raise UnusableImage("is no PNG")

    monkeypatch.setattr(spool, "decode_sized", wait)
    monkeypatch.setattr(spool, "THREADS", 16)
    stream = ImageStream("large", ("ant", "bee"), labels, labels, images(), BadFiles("large"))
    thread = threading.Thread(target=lambda: list(bad_files(stream, ImageFormat(size))))
    thread.start()
    ahead = 0
    while len(taken) == 0 or len(taken) > ahead:  # until it waits: nothing is decoded meanwhile
        ahead = len(taken)
        time.sleep(0.3)
    decoding.set()
    thread.join()
    assert 0 < ahead * max(file_bytes, 1) <= AHEAD_BYTES + 2 * spool.BATCH_BYTES
    assert ahead <= (2 * spool.THREADS + 1) * (spool.BATCH_BYTES // max(file_bytes, 3 * size**2) + 1)


def bad_files(stream: ImageStream, image_format: ImageFormat) -> Iterator[str]:
    """Lines of the error."""
    with pytest.raises(DataError) as caught, spooled(stream, image_format, quiet):
        pass
    yield from str(caught.value).splitlines()


def test_all_files_that_cannot_be_used_are_in_one_error() -> None:
    labels = np.zeros(100, np.int64)
    images = (SourceImage(number, f"{number:03}.png", b"no picture") for number in range(200))
    first, *others = bad_files(ImageStream("mine", ("ant", "bee"), labels, labels, images, BadFiles("mine")), FORMAT)
    assert first == "mine: 200 files cannot be used; the first 20:"
    assert others == [f"{n:03}.png is no PNG or JPEG by its content. Replace or remove it." for n in range(20)]
