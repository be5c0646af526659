"""Pieces of arrays: shared by versions, filled by the next images, and one `.npy` file together."""

from io import BytesIO

import numpy as np
import pytest

from cifar_tasks.data.lines import line_shards
from cifar_tasks.data.lines.line_shards import LineShards
from cifar_tasks.errors import IntegrityError
from tests.stores import InMemoryStore
from tests.unit.data.sources import noise

SIZE = 16
IMAGES = noise([0] * 20, 1, SIZE).images


@pytest.fixture
def shards(monkeypatch) -> LineShards:
    monkeypatch.setattr(line_shards, "PIECE_BYTES", 4 * 3 * SIZE**2)
    return LineShards(InMemoryStore(), "pets", SIZE)


def read(shards: LineShards, refs) -> np.ndarray:
    return np.load(BytesIO(b"".join(shards._store.get(ref.key, ref.sha256) for ref in refs)))


def counts(refs) -> list[int]:
    return [ref.size // (3 * SIZE**2) for ref in refs[1:]]


def test_pieces_are_one_npy_file_of_the_images_however_they_come(shards):
    for parts in ([IMAGES], [IMAGES[:3], IMAGES[3:4], IMAGES[4:]], [IMAGES[:0], IMAGES]):
        refs = shards.write_images(iter(parts), len(IMAGES))
        assert (read(shards, refs) == IMAGES).all()
        assert counts(refs) == [4] * 5
    assert read(shards, shards.write_images(iter([]), 0)).shape == (0, SIZE, SIZE, 3)


def test_small_increments_fill_the_last_piece_and_leave_the_full_ones(shards):
    refs = shards.write_images(iter([IMAGES[:6]]), 6)
    for count in range(7, 12):
        full = [ref for ref in refs[1:] if ref.size == 4 * 3 * SIZE**2]
        kept = shards.kept_pieces(refs, np.ones(count - 1, bool))
        refs = shards.write_images(iter([*kept, IMAGES[count - 1 : count]]), count)
        assert refs[1 : 1 + len(full)] == full
        assert (read(shards, refs) == IMAGES[:count]).all()
    assert counts(refs) == [4, 4, 3]


def test_a_removed_image_costs_its_piece_and_an_empty_piece_is_left_out(shards):
    refs = shards.write_images(iter([IMAGES]), 20)
    kept = np.ones(20, bool)
    kept[[5, 8, 9, 10, 11]] = False
    smaller = shards.write_images(shards.kept_pieces(refs, kept), 15)
    assert (read(shards, smaller) == IMAGES[kept]).all()
    assert counts(smaller) == [4, 3, 4, 4]
    assert smaller[1] == refs[1]
    assert smaller[3:] == refs[4:]


def test_one_image_is_read_from_its_piece_alone(shards):
    refs = shards.write_images(iter([IMAGES]), 20)
    shards._store.reads.clear()
    for position in (9, 10, 11):
        assert (shards.read_image(refs, position) == IMAGES[position]).all()
    assert shards._store.reads == [refs[3].key]
    with pytest.raises(IndexError):
        shards.read_image(refs, 20)


def test_a_damaged_piece_is_noticed(shards):
    refs = shards.write_images(iter([IMAGES]), 20)
    shards._store.put(refs[2].key, bytes(refs[2].size))
    with pytest.raises(IntegrityError, match="is damaged"):
        shards.read_image(refs, 5)
