"""Arrays of a line's versions in pieces that versions share: an increment writes its own images only.

A piece is an object named by its content, `lines/<line>/shards/<SHA-256>`. An array is its `.npy` header and then
pieces of whole images, so that the pieces of a version, one after another, are a `.npy` file as those of any version.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from cifar_tasks.data.images import Images
from cifar_tasks.data.lines.line_diff import Change
from cifar_tasks.data.lines.line_log import ROOT
from cifar_tasks.data.versions import load_version, shards_of
from cifar_tasks.storage.s3 import ObjectRef, S3Store, sha256_hex

PIECE_BYTES = 4 * 2**20
"""Of an image piece, at most; new images and a removed one cost writing a piece anew."""
PIECES_IN_MEMORY = 8


class LineShards:
    def __init__(self, store: S3Store, line: str, image_size: int) -> None:
        self._store, self._line = store, line
        self._shape = (image_size, image_size, 3)
        self._image_bytes = 3 * image_size**2
        self._read = lru_cache(PIECES_IN_MEMORY)(self._load)
        self.images_per_piece = max(1, PIECE_BYTES // self._image_bytes)

    def write_images(self, pieces: Iterator[ObjectRef | Images], count: int) -> list[ObjectRef]:
        """The array of `count` images, of pieces that are there already and of new images between them."""
        refs, waiting = [self._header(count)], np.empty((0, *self._shape), np.uint8)
        for piece in pieces:
            if isinstance(piece, ObjectRef):
                refs += self._write(waiting)
                refs.append(piece)
                waiting = waiting[:0]
                continue
            waiting = np.concatenate([waiting, piece])
            whole = len(waiting) - len(waiting) % self.images_per_piece
            refs += self._write(waiting[:whole])
            waiting = waiting[whole:]
        return refs + self._write(waiting)

    def kept_pieces(self, refs: Sequence[ObjectRef], kept: NDArray[np.bool_]) -> Iterator[ObjectRef | Images]:
        """What is left of an array: whole pieces by reference, and the images of those that change.

        The last piece is given as images if it is not full, so that the next images go into it.
        """
        start = 0
        for number, ref in enumerate(refs[1:], start=1):
            count = ref.size // self._image_bytes
            part = kept[start : start + count]
            start += count
            if part.all() and (number < len(refs) - 1 or count >= self.images_per_piece):
                yield ref
            elif part.any():
                yield self._read(ref)[part]

    def read_image(self, refs: Sequence[ObjectRef], position: int) -> Images:
        """One image of an array; pieces are kept for the next one."""
        start = 0
        for ref in refs[1:]:
            count = ref.size // self._image_bytes
            if position < start + count:
                image: Images = self._read(ref)[position - start]
                return image
            start += count
        raise IndexError(position)

    def write_labels(self, labels: Sequence[int]) -> list[ObjectRef]:
        buffer = BytesIO()
        np.save(buffer, np.array(labels, np.int64), allow_pickle=False)
        return [self._put(buffer.getvalue())]

    def _header(self, count: int) -> ObjectRef:
        head = BytesIO()
        described = {"descr": "|u1", "fortran_order": False, "shape": (count, *self._shape)}
        np.lib.format.write_array_header_1_0(head, described)
        return self._put(head.getvalue())

    def _write(self, images: Images) -> list[ObjectRef]:
        steps = range(0, len(images), self.images_per_piece)
        return [self._put(images[start : start + self.images_per_piece].tobytes()) for start in steps]

    def _put(self, data: bytes) -> ObjectRef:
        # Also what is there already: old objects that no version refers to are deleted (`unused_objects.py`).
        return self._store.put(f"{ROOT}/{self._line}/shards/{sha256_hex(data)}", data)

    def _load(self, ref: ObjectRef) -> Images:
        return np.frombuffer(self._store.get(ref.key, ref.sha256), np.uint8).reshape(-1, *self._shape)


def image_reader(store: S3Store, line: str, uri: str) -> Callable[[Change], Images]:
    """Gives the pixels of an image of a version that a difference names."""
    version = load_version(store, uri)
    arrays, shards = shards_of(store, version), LineShards(store, line, version.image_size)
    return lambda change: shards.read_image(arrays[f"{change.split}-images"], change.position)
