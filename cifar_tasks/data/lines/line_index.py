"""The list of the images of a line's dataset version: which file each one was, and what was left out.

`lines/<line>/index/<digest>.json.gz`, named by its content.
"""

import base64
import gzip
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, repeat
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cifar_tasks.data.image_format import Size
from cifar_tasks.data.lines.line_log import ROOT, LineDataset
from cifar_tasks.data.near_duplicates import Hashes
from cifar_tasks.data.versions import SPLITS
from cifar_tasks.errors import IntegrityError
from cifar_tasks.storage.s3 import ObjectRef, S3Store, canonical_json, sha256_hex

DIGEST_DIGITS = 32
UNKNOWN: Size = (0, 0)
"""Of an image of a version that was made before sizes were kept."""


class ImageRow(NamedTuple):
    name: str
    """Of the file in the source."""
    mark: str
    """See `FileTree.marks`."""
    digest: str
    """Of the decoded pixels, 32 hex digits."""
    label: int
    split: str
    size: Size = UNKNOWN
    """Of the picture in its file."""


class LeftOut(NamedTuple):
    """A file that is no image of the version."""

    name: str
    mark: str
    digest: str
    """Empty if it cannot be decoded."""
    why: str
    """Continues the name."""


@dataclass(frozen=True)
class LineIndex:
    classes: tuple[str, ...]
    images: tuple[ImageRow, ...]
    """By split in the order of the arrays."""
    dropped: tuple[LeftOut, ...]
    """Stand in the frozen test set, exactly or nearly."""
    unreadable: tuple[LeftOut, ...]
    pinned: frozenset[str]
    """Digests of validation images that only keep their class from having none."""
    test_hashes: Hashes
    """Of the test images, in their order."""

    @cached_property
    def by_split(self) -> Mapping[str, tuple[ImageRow, ...]]:
        """Row n of a split is image n of its arrays."""
        return {split: tuple(row for row in self.images if row.split == split) for split in SPLITS}

    @cached_property
    def files(self) -> Mapping[str, ImageRow | LeftOut]:
        """By name."""
        images: dict[str, ImageRow | LeftOut] = {row.name: row for row in self.images}
        return images | {row.name: row for row in (*self.dropped, *self.unreadable)}


def write_index(store: S3Store, line: str, index: LineIndex) -> ObjectRef:
    # Columns: JSON of many small lists takes several times as long.
    names, marks, digests, labels, splits, sizes = zip(*index.images, strict=True)
    content = {
        "classes": index.classes,
        "names": names,
        "marks": marks,
        "digests": "".join(digests),
        "labels": labels,
        "sizes": _packed(np.array(sizes, "<i4")),
        "counts": [splits.count(split) for split in SPLITS],
        "dropped": index.dropped,
        "unreadable": index.unreadable,
        "pinned": sorted(index.pinned),
        "test_hashes": _packed(index.test_hashes.astype("<u8")),
    }
    data = gzip.compress(canonical_json(content), compresslevel=1, mtime=0)
    return store.put(f"{ROOT}/{line}/index/{sha256_hex(data)[:32]}.json.gz", data)


def _packed(numbers: NDArray[Any]) -> str:
    return base64.b64encode(numbers.tobytes()).decode()


def read_index(store: S3Store, dataset: LineDataset) -> LineIndex:
    """Raises `IntegrityError` if it is missing or damaged."""
    try:
        content = json.loads(gzip.decompress(store.get(dataset.index, dataset.index_sha256)))
    except KeyError:
        raise IntegrityError(f"{store.uri(dataset.index)} is missing. Restore it from a backup.") from None
    joined = content["digests"]
    digests = [joined[start : start + DIGEST_DIGITS] for start in range(0, len(joined), DIGEST_DIGITS)]
    splits = chain.from_iterable(repeat(split, count) for split, count in zip(SPLITS, content["counts"], strict=True))
    sizes: Iterable[Size] = repeat(UNKNOWN, len(digests))
    if "sizes" in content:
        sizes = map(tuple, np.frombuffer(base64.b64decode(content["sizes"]), "<i4").reshape(-1, 2).tolist())
    hashes = np.frombuffer(base64.b64decode(content["test_hashes"]), "<u8").reshape(-1, 2)
    return LineIndex(
        tuple(content["classes"]),
        tuple(map(ImageRow, content["names"], content["marks"], digests, content["labels"], splits, sizes)),
        tuple(LeftOut(*row) for row in content["dropped"]),
        tuple(LeftOut(*row) for row in content["unreadable"]),
        frozenset(content["pinned"]),
        hashes.astype(np.uint64),
    )
