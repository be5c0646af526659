"""Which images a new version of a line has: those of the version in use that are still there, then the new ones."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cifar_tasks.data.images import Images
from cifar_tasks.data.lines.delivered_images import DeliveredImages
from cifar_tasks.data.lines.line_index import ImageRow, LineIndex
from cifar_tasks.data.lines.line_shards import LineShards
from cifar_tasks.data.lines.line_splits import held_out
from cifar_tasks.data.lines.line_test_set import FROZEN, describe_copy, exact_copies, near_test_images
from cifar_tasks.data.near_duplicates import Hashes
from cifar_tasks.data.preparation import VALIDATION_FRACTION
from cifar_tasks.data.versions import SPLITS, DatasetVersion, Shards

LEARNED = SPLITS[:2]
"""Splits that new images go to."""
EMPTY = LineIndex((), (), (), (), frozenset(), np.empty((0, 2), np.uint64))


@dataclass(frozen=True)
class VersionInUse:
    """Or nothing, before the first one."""

    index: LineIndex = EMPTY
    version: DatasetVersion | None = None
    shards: Shards = field(default_factory=dict)


class LinePlan:
    """Rows of the new version by split, and where their pixels are."""

    def __init__(self, images: DeliveredImages, base: VersionInUse, seed: int, shards: LineShards) -> None:
        self._images, self._base, self._seed, self._shards = images, base, seed, shards
        self.first_test = [] if base.version else images.first_test()
        """Positions of the test images of a new line."""
        self.test: Sequence[ImageRow] = base.index.by_split["test"]
        self.test_hashes: Hashes = base.index.test_hashes
        if not base.version:
            self.test = [images.row(position, "test") for position in self.first_test]
            self.test_hashes = images.hashes(self.first_test)
        self.dropped: dict[int, str] = {}
        """Positions of what stands in the test set, and why."""
        self.all_compared = True
        self.relabelled = 0
        self.rows: dict[str, list[ImageRow]] = {split: [] for split in LEARNED}
        self.kept: dict[str, NDArray[np.bool_]] = {}
        """Which images of the version in use stay."""
        self.added: dict[str, list[int]] = {split: [] for split in LEARNED}
        """Positions of new images."""
        candidates = self._candidates()
        self._drop_near_copies(candidates)
        self._add(self._match([position for position in candidates if position not in self.dropped]))

    def _candidates(self) -> list[int]:
        """Images for training and validation, unless they turn out to be near-duplicates of test images."""
        images, chosen = self._images, set(self.first_test)
        tested = {(row.name, row.digest) for row in self.test}
        copies = exact_copies(self.test, images.digests)
        candidates = []
        for position, digest in images.digests.items():
            if position in chosen or (images.names[position], digest) in tested:
                continue
            if position in copies:
                label = images.labels[position]
                self.dropped[position] = describe_copy("is equal to", copies[position], label, images.classes)
            elif images.files[position].is_test:
                self.dropped[position] = FROZEN
            elif position in images.dropped:
                self.dropped[position] = images.dropped[position]
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

        near, self.all_compared = near_test_images(
            self.test, self.test_hashes, positions, images.hashes(positions), read
        )
        copies = {images.digests[position]: row for position, row in near.items()}
        for position in candidates:
            if row := copies.get(images.digests[position]):
                label = images.labels[position]
                self.dropped[position] = describe_copy("is a near-duplicate of", row, label, images.classes)

    def _test_image(self, position: int) -> Images:
        if self._base.version:
            return self._shards.read_image(self._base.shards["test-images"], position)
        image: Images = self._images.pixels([self.first_test[position]])[0]
        return image

    def _match(self, candidates: Sequence[int]) -> list[int]:
        """Find the images of the version in use by their pixels; returns those that are new."""
        images = self._images
        there: dict[str, list[int]] = defaultdict(list)
        for position in candidates:
            there[images.digests[position]].append(position)
        for split in LEARNED:
            earlier = self._base.index.by_split[split]
            self.kept[split] = np.zeros(len(earlier), bool)
            for number, row in enumerate(earlier):
                if not (found := there.get(row.digest)):
                    continue
                same = found[0]
                if len(found) > 1:
                    same = min(found, key=lambda p: (images.names[p] != row.name, images.labels[p] != row.label, p))
                found.remove(same)
                self.kept[split][number] = True
                self.relabelled += images.labels[same] != row.label
                self.rows[split].append(row if images.is_row(same, row) else images.row(same, split))
        return sorted(position for positions in there.values() for position in positions)

    def _add(self, new: Sequence[int]) -> None:
        images = self._images
        trained: dict[int, set[str]] = defaultdict(set)
        for row in self.rows["train"]:
            trained[row.label].add(row.digest)
        validated, self.pinned = held_out(
            [(images.digests[position], images.labels[position]) for position in new],
            {row.digest: split for split in LEARNED for row in self.rows[split]},
            trained,
            {row.label for row in self.rows["validation"]},
            self._base.index.pinned,
            self._seed,
            VALIDATION_FRACTION,
        )
        for position, validates in zip(new, validated, strict=True):
            split = "validation" if validates else "train"
            self.added[split].append(position)
            self.rows[split].append(images.row(position, split))
