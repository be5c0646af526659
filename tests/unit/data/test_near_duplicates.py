"""Copies that are not equal are found, other pictures are not, and the work is bounded."""

from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageOps

from cifar_tasks.data import near_duplicates as module
from cifar_tasks.data.image_format import ImageFormat
from cifar_tasks.data.images import Images
from cifar_tasks.data.near_duplicates import near_duplicates, thumbnails
from cifar_tasks.data.spool import spooled
from cifar_tasks.data.validation import validate
from tests.unit.data.sources import noise, quiet, stream_of


def photographs(count: int, size: int = 32) -> Images:
    """Smooth pictures with detail, no two alike."""
    random = np.random.default_rng(1)
    coarse = random.integers(0, 256, (count, 5, 5, 3), dtype=np.uint8)
    return np.stack(
        [np.asarray(Image.fromarray(each).resize((size, size), Image.Resampling.BICUBIC)) for each in coarse]
    )


def pairs_of(images: Images) -> list[tuple[int, int]]:
    return near_duplicates(thumbnails(images), np.arange(len(images)), lambda positions: images[positions]).pairs


def saved(image: Image.Image, quality: int = 75) -> Image.Image:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


@pytest.mark.parametrize(
    "copy",
    [
        ImageOps.mirror,
        saved,
        lambda image: saved(ImageOps.mirror(image)),
        lambda image: image.resize((24, 24), Image.Resampling.LANCZOS).resize(image.size, Image.Resampling.LANCZOS),
        lambda image: saved(image.resize((200, 200), Image.Resampling.LANCZOS)).resize(image.size),
    ],
    ids=["mirrored", "saved again", "mirrored and saved again", "smaller", "larger"],
)
@pytest.mark.parametrize("size", [32, 96])
def test_copies_are_found_and_other_pictures_are_not(copy: Callable[[Image.Image], Image.Image], size: int) -> None:
    images = photographs(300, size)
    images[200:] = [np.asarray(copy(Image.fromarray(image))) for image in images[:100]]
    found = pairs_of(images)
    assert set(found) <= {(number, number + 200) for number in range(100)}
    assert len(found) >= 95


def test_copies_of_grainy_pictures_are_found_although_they_lose_the_grain() -> None:
    """As JPEG of quality 50."""
    grain = np.random.default_rng(2).normal(0, 9, (60, 32, 32, 3))
    originals = np.clip(0.6 * photographs(60) + 50 + grain, 0, 255).astype(np.uint8)
    copies = np.stack([np.asarray(saved(Image.fromarray(image), 50)) for image in originals])
    found = pairs_of(np.concatenate([originals, copies]))
    assert set(found) <= {(number, number + 60) for number in range(60)}
    assert len(found) >= 57


def test_noise_has_no_near_duplicates() -> None:
    assert pairs_of(noise([0] * 2000, 1).images) == []


def test_thousands_of_pictures_with_one_hash_take_bounded_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain pictures: their hashes are all zero. One grey is at most a few levels from the next."""
    images = np.random.default_rng(0).integers(0, 256, (5000, 1, 1, 3), dtype=np.uint8).repeat(16, 1).repeat(16, 2)
    monkeypatch.setattr(module, "MAX_CANDIDATES", 50)
    read: list[int] = []
    found = near_duplicates(thumbnails(images), np.arange(5000), lambda at: read.extend(at.tolist()) or images[at])
    assert len(read) == 100
    assert not found.complete


def test_a_warning_names_the_pairs_and_says_which_are_between_training_and_test() -> None:
    train, test = noise([0, 1] * 20, 1), noise([0, 1] * 20, 2)
    train.images[:] = photographs(40)
    test.images[3] = train.images[7][:, ::-1]
    train.images[9] = np.clip(train.images[8].astype(int) + 2, 0, 255)
    with spooled(stream_of(train, test), ImageFormat(), quiet) as raw:
        warnings = validate(raw)
        splits = raw.splits(0.1, 0)
    assert warnings == (
        "1 pairs of test and training images are near-duplicates (mirrored, saved again or resized): "
        "image 7 ~ image 43",
        "1 pairs of images are near-duplicates (mirrored, saved again or resized): image 8 ~ image 9",
    )
    assert sum(map(len, splits.values())) == 80  # reported, and left where they are


@pytest.mark.parametrize("limit", ["MAX_CANDIDATES", "MAX_COMPARED_BYTES"])
def test_a_warning_says_that_there_may_be_more_pairs_than_were_compared(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test = noise([0, 1] * 20, 1), noise([0, 1] * 20, 2)
    train.images[:20] = photographs(20)
    train.images[20:] = train.images[:20, :, ::-1]
    monkeypatch.setattr(module, limit, 10 if limit == "MAX_CANDIDATES" else 10 * 2 * train.images[0].nbytes)
    with spooled(stream_of(train, test), ImageFormat(), quiet) as raw:
        (warning,) = validate(raw)
    assert warning.startswith("at least ")


def test_a_thumbnail_is_as_bright_as_its_picture() -> None:
    grey = np.full((1, 32, 32, 3), 200, np.uint8)
    assert (thumbnails(grey) == 200).all()


@pytest.mark.parametrize(("bits", "found"), [(module.MAX_BITS, [[0, 1]]), (module.MAX_BITS + 1, [])])
def test_candidates_differ_in_few_bits_even_where_they_agree_in_a_part(bits: int, found: list[list[int]]) -> None:
    mirrored = 0xAAAA_AAAA_AAAA_AAAA, 0xF0F0_F0F0_F0F0_F0F0  # agree with nothing
    hashes = np.array([[0, mirrored[0]], [2**bits - 1, mirrored[1]]], np.uint64)
    assert module._candidates(hashes).tolist() == found


def test_copies_of_originals_are_found_and_pairs_within_one_side_are_not() -> None:
    originals, others = photographs(60)[:40], photographs(60)[30:].copy()
    originals[39] = [np.asarray(saved(Image.fromarray(originals[5])))][0]  # a copy within the originals
    others[20] = np.asarray(ImageOps.mirror(Image.fromarray(others[21])))  # and one within the others
    hashes = (module.difference_hashes(thumbnails(images)) for images in (originals, others))
    found = module.near_copies(*hashes, lambda one, other: np.stack([originals[one], others[other]]))
    assert found.pairs == [(number, number - 30) for number in range(30, 39)]
    assert found.complete


def test_no_originals_and_no_others_have_no_copies() -> None:
    none, some = (module.difference_hashes(thumbnails(photographs(5))[:count]) for count in (0, 5))
    for sides in ((none, some), (some, none), (none, none)):
        assert module.near_copies(*sides, lambda one, other: pytest.fail("read")).pairs == []
