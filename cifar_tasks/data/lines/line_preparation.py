"""A new dataset version of a line: the images of the version in use that are still there, then the new ones."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cifar_tasks.config import DatasetLine
from cifar_tasks.data.image_format import ImageFormat
from cifar_tasks.data.images import Images, Report
from cifar_tasks.data.lines.delivered_images import DeliveredImages
from cifar_tasks.data.lines.frozen_test import FROZEN, describe_copy, exact_copies, near_test_images
from cifar_tasks.data.lines.line_index import ImageRow, LeftOut, LineIndex, read_index, write_index
from cifar_tasks.data.lines.line_log import Delivery, DiffSummary, LineDataset
from cifar_tasks.data.lines.line_shards import LineShards
from cifar_tasks.data.lines.line_source import DeliveredFiles
from cifar_tasks.data.lines.line_splits import held_out
from cifar_tasks.data.near_duplicates import Hashes
from cifar_tasks.data.preparation import VALIDATION_FRACTION
from cifar_tasks.data.spool import decoded
from cifar_tasks.data.versions import (
    SPLITS,
    DatasetVersion,
    Shards,
    content_digest,
    load_version,
    manifest_key,
    shards_of,
    write_manifest,
)
from cifar_tasks.errors import DataError
from cifar_tasks.storage.s3 import ObjectRef, S3Store

LEARNED = SPLITS[:2]
"""Splits that new images go to."""
EMPTY = LineIndex((), (), (), (), frozenset(), np.empty((0, 2), np.uint64))


@dataclass(frozen=True)
class PreparedVersion:
    dataset: LineDataset
    delivery: Delivery
    diff: DiffSummary
    notes: tuple[str, ...]
    """What a user should know."""


@dataclass(frozen=True)
class _InUse:
    """The version in use, or nothing."""

    index: LineIndex = EMPTY
    version: DatasetVersion | None = None
    shards: Shards = field(default_factory=dict)


def prepare_line(
    store: S3Store, name: str, line: DatasetLine, delivered: DeliveredFiles, in_use: LineDataset | None, report: Report
) -> PreparedVersion:
    """Write the version of what was delivered, or find it. `in_use` has the test set, and what is known already.

    May be interrupted, and run twice at the same time: what is written depends on the content and on `in_use` alone.
    """
    base = _InUse()
    if in_use:
        version = load_version(store, in_use.uri)
        base = _InUse(read_index(store, in_use), version, shards_of(store, version))
    images = DeliveredImages(delivered, base.index)
    report(f"{name}: {len(images.files):,} images, {len(images.unknown):,} of them new or changed")
    stream = (each._replace(position=images.place[each.position]) for each in delivered.read(images.unknown))
    image_format = ImageFormat(line.image_size, line.resize)
    with decoded(name, stream, len(images.unknown), image_format, report) as pixels:
        images.take(pixels)
        work = _Preparation(images, base, line, LineShards(store, name, line.image_size))
        return work.write(store, name, delivered)


class _Preparation:
    def __init__(self, images: DeliveredImages, base: _InUse, line: DatasetLine, shards: LineShards) -> None:
        self._images, self._base, self._line, self._shards = images, base, line, shards
        self._first_test = [] if base.version else images.first_test()
        self._test: Sequence[ImageRow] = base.index.by_split["test"]
        self._test_hashes: Hashes = base.index.test_hashes
        if not base.version:
            self._test = [images.row(position, "test") for position in self._first_test]
            self._test_hashes = images.hashes(self._first_test)
        self._dropped: dict[int, str] = {}
        self._all_compared = True
        self._relabelled = 0
        self._rows: dict[str, list[ImageRow]] = {split: [] for split in LEARNED}
        self._kept: dict[str, NDArray[np.bool_]] = {}
        self._added: dict[str, list[int]] = {split: [] for split in LEARNED}
        candidates = self._candidates()
        self._drop_near_copies(candidates)
        self._add(self._match([position for position in candidates if position not in self._dropped]))

    def _candidates(self) -> list[int]:
        """Images for training and validation, unless they turn out to be near-duplicates of test images."""
        images, chosen = self._images, set(self._first_test)
        tested = {(row.name, row.digest) for row in self._test}
        copies = exact_copies(self._test, images.digests)
        candidates = []
        for position, digest in images.digests.items():
            if position in chosen or (images.names[position], digest) in tested:
                continue
            if position in copies:
                label = images.labels[position]
                self._dropped[position] = describe_copy("is equal to", copies[position], label, images.classes)
            elif images.files[position].is_test:
                self._dropped[position] = FROZEN
            elif position in images.dropped:
                self._dropped[position] = images.dropped[position]
            else:
                candidates.append(position)
        return sorted(candidates)

    def _drop_near_copies(self, candidates: Sequence[int]) -> None:
        """Looks at images that the version in use does not have; it has compared its own."""
        images = self._images
        known = {row.digest for row in self._base.index.images}
        fresh = {images.digests[position]: position for position in reversed(candidates)}
        positions = [position for digest, position in fresh.items() if digest not in known]
        test_pixels: dict[int, Images] = {}

        def read(one: int, other: int) -> Images:
            if one not in test_pixels:
                test_pixels[one] = self._test_image(one)
            return np.stack([test_pixels[one], images.pixels([other])[0]])

        near, self._all_compared = near_test_images(
            self._test, self._test_hashes, positions, images.hashes(positions), read
        )
        copies = {images.digests[position]: row for position, row in near.items()}
        for position in candidates:
            if row := copies.get(images.digests[position]):
                label = images.labels[position]
                self._dropped[position] = describe_copy("is a near-duplicate of", row, label, images.classes)

    def _test_image(self, position: int) -> Images:
        if self._base.version:
            return self._shards.read_image(self._base.shards["test-images"], position)
        image: Images = self._images.pixels([self._first_test[position]])[0]
        return image

    def _match(self, candidates: Sequence[int]) -> list[int]:
        """Find the images of the version in use by their pixels; returns those that are new."""
        images = self._images
        there: dict[str, list[int]] = defaultdict(list)
        for position in candidates:
            there[images.digests[position]].append(position)
        for split in LEARNED:
            earlier = self._base.index.by_split[split]
            self._kept[split] = np.zeros(len(earlier), bool)
            for number, row in enumerate(earlier):
                if not (found := there.get(row.digest)):
                    continue
                same = found[0]
                if len(found) > 1:
                    same = min(found, key=lambda p: (images.names[p] != row.name, images.labels[p] != row.label, p))
                found.remove(same)
                self._kept[split][number] = True
                self._relabelled += images.labels[same] != row.label
                self._rows[split].append(images.row(same, split))
        return sorted(position for positions in there.values() for position in positions)

    def _add(self, new: Sequence[int]) -> None:
        images = self._images
        trained: dict[int, set[str]] = defaultdict(set)
        for row in self._rows["train"]:
            trained[row.label].add(row.digest)
        validated, self._pinned = held_out(
            [(images.digests[position], images.labels[position]) for position in new],
            {row.digest: split for split in LEARNED for row in self._rows[split]},
            trained,
            {row.label for row in self._rows["validation"]},
            self._base.index.pinned,
            self._line.seed,
            VALIDATION_FRACTION,
        )
        for position, validates in zip(new, validated, strict=True):
            split = "validation" if validates else "train"
            self._added[split].append(position)
            self._rows[split].append(images.row(position, split))

    def write(self, store: S3Store, name: str, delivered: DeliveredFiles) -> PreparedVersion:
        """Pieces first, then the manifest, then the index."""
        images, line = self._images, self._line
        rows = {**self._rows, "test": list(self._test)}
        for split in SPLITS:
            if not rows[split]:
                raise DataError(f"{name}: no images are left for the {split} split. Check the source {line.source}.")
        refs = self._write_arrays()
        test_set = self._base.version.test_set if self._base.version else self._origin_of_test()
        sha256 = {array: [ref.sha256 for ref in pieces] for array, pieces in refs.items()}
        digest = content_digest(images.classes, line.image_size, line.resize, test_set, sha256)
        counts = {
            split: dict(
                zip(
                    images.classes,
                    np.bincount([r.label for r in rows[split]], minlength=len(images.classes)).tolist(),
                    strict=True,
                )
            )
            for split in SPLITS
        }
        version = DatasetVersion(
            store.uri(manifest_key(digest)),
            digest,
            name,
            images.classes,
            counts,
            line.image_size,
            line.resize,
            delivered.placeholder,
            (),
            test_set,
        )
        version = write_manifest(store, version, refs)
        index = self._index(rows, delivered)
        ref = write_index(store, name, index)
        dataset = LineDataset(
            digest=digest, uri=version.uri, counts=version.counts, index=ref.key, index_sha256=ref.sha256
        )
        listing = delivered.listing
        delivery = Delivery(objects=len(listing.marks), listing=listing.digest, marker=listing.marker)
        return PreparedVersion(dataset, delivery, self._summary(index), self._notes())

    def _origin_of_test(self) -> str:
        return "given" if any(file.is_test for file in self._images.files) else "drawn"

    def _write_arrays(self) -> dict[str, list[ObjectRef]]:
        shards, base = self._shards, self._base.shards
        refs: dict[str, list[ObjectRef]] = {}
        for split in LEARNED:
            pieces = self._pieces(base.get(f"{split}-images", ()), split)
            refs[f"{split}-images"] = shards.write_images(pieces, len(self._rows[split]))
            refs[f"{split}-labels"] = shards.write_labels([row.label for row in self._rows[split]])
        if base:
            return refs | {array: list(base[array]) for array in ("test-images", "test-labels")}
        refs["test-images"] = shards.write_images(self._new_pieces(self._first_test), len(self._test))
        refs["test-labels"] = shards.write_labels([row.label for row in self._test])
        return refs

    def _pieces(self, refs: Sequence[ObjectRef], split: str) -> Iterator[ObjectRef | Images]:
        yield from self._shards.kept_pieces(refs, self._kept[split])
        yield from self._new_pieces(self._added[split])

    def _new_pieces(self, positions: Sequence[int]) -> Iterator[Images]:
        step = self._shards.images_per_piece
        for start in range(0, len(positions), step):
            yield self._images.pixels(positions[start : start + step])

    def _index(self, rows: dict[str, list[ImageRow]], delivered: DeliveredFiles) -> LineIndex:
        images = self._images
        return LineIndex(
            images.classes,
            tuple(row for split in SPLITS for row in rows[split]),
            tuple(images.left_out(*each) for each in sorted(self._dropped.items())),
            (
                *(images.left_out(*each) for each in sorted(images.unreadable.items())),
                *(LeftOut(file, "", "", problem) for file, problem in sorted(delivered.problems.items())),
            ),
            self._pinned,
            self._test_hashes,
        )

    def _summary(self, index: LineIndex) -> DiffSummary:
        earlier = self._base.index
        return DiffSummary(
            new=sum(map(len, self._added.values())),
            gone=sum(int((~kept).sum()) for kept in self._kept.values()),
            relabelled=self._relabelled,
            dropped=len(set(index.dropped) - set(earlier.dropped)),
            unreadable=len(set(index.unreadable) - set(earlier.unreadable)),
        )

    def _notes(self) -> tuple[str, ...]:
        notes = []
        delivered = set(self._images.digests.values())
        if gone := sum(row.digest not in delivered for row in self._test):
            notes.append(f"{gone:,} test images are not in the source any more; the frozen test set keeps them")
        if missing := [
            name
            for label, name in enumerate(self._images.classes)
            if not any(row.label == label for row in self._rows["validation"])
        ]:
            notes.append(f"no validation images of {', '.join(missing)}")
        if not self._all_compared:
            notes.append("too many images resemble test images: not all of them were compared")
        return tuple(notes)
