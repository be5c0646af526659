"""A version of a line as the checks of deliveries read it: pixels from this machine's copy, names from its index."""

from itertools import accumulate
from pathlib import Path

import numpy as np

from cifar_tasks.data.images import Images, LabelledImages
from cifar_tasks.data.lines.line_index import ImageRow, read_index
from cifar_tasks.data.lines.line_log import LineDataset
from cifar_tasks.data.lines.line_test_set import FROZEN
from cifar_tasks.data.loading import load_split
from cifar_tasks.data.quality.snapshot import ImageSet, Snapshot
from cifar_tasks.data.splits import Indices
from cifar_tasks.data.versions import load_version
from cifar_tasks.storage.s3 import S3Store

LEARNED = ("train", "validation")
"""In the order of the images of a snapshot."""


def load_snapshot(store: S3Store, dataset: LineDataset, cache: Path) -> Snapshot:
    """Raises `IntegrityError` if something of the version is damaged or missing."""
    version, index = load_version(store, dataset.uri), read_index(store, dataset)
    learned = [load_split(store, version, split, cache) for split in LEARNED]
    rows = [row for split in LEARNED for row in index.by_split[split]]
    test = load_split(store, version, "test", cache)
    return Snapshot(
        classes=index.classes,
        images=_image_set(learned, rows),
        test=_image_set([test], list(index.by_split["test"])),
        unreadable=tuple(left_out.name for left_out in index.unreadable),
        test_copies=tuple(left_out.name for left_out in index.dropped if left_out.why != FROZEN),
    )


def validation_positions(store: S3Store, dataset: LineDataset) -> Indices:
    """Of the images of its snapshot that no model of this line has learnt."""
    rows = read_index(store, dataset).by_split
    first = len(rows["train"])
    return np.arange(first, first + len(rows["validation"]))


def _image_set(parts: list[LabelledImages], rows: list[ImageRow]) -> ImageSet:
    ends = list(accumulate(len(part) for part in parts))

    def read(positions: Indices) -> Images:
        images = np.empty((len(positions), *parts[0].images.shape[1:]), np.uint8)
        for part, end in zip(parts, ends, strict=True):
            here = (positions >= end - len(part)) & (positions < end)
            images[here] = part.images[positions[here] - (end - len(part))]
        return images

    labels = np.concatenate([part.labels for part in parts])
    sizes = np.array([row.size for row in rows], np.int64).reshape(-1, 2)
    return ImageSet(labels, [row.name for row in rows], [row.digest for row in rows], read, sizes)
