"""A new dataset version of a line: only what is new is read and written."""

from collections.abc import Iterator, Sequence

import numpy as np

from cifar_tasks.data.image_format import ImageFormat
from cifar_tasks.data.images import Images, Report
from cifar_tasks.data.lines.delivered_images import DeliveredImages
from cifar_tasks.data.lines.line_index import ImageRow, LeftOut, LineIndex, read_index, write_index
from cifar_tasks.data.lines.line_log import Delivery, DiffSummary, LineDataset, PreparedVersion
from cifar_tasks.data.lines.line_plan import LEARNED, LinePlan, VersionInUse
from cifar_tasks.data.lines.line_settings import DatasetLine
from cifar_tasks.data.lines.line_shards import LineShards
from cifar_tasks.data.lines.line_source import DeliveredFiles
from cifar_tasks.data.parallel import without_collector
from cifar_tasks.data.spool import decoded
from cifar_tasks.data.versions import (
    SPLITS,
    DatasetVersion,
    content_digest,
    load_version,
    manifest_key,
    shards_of,
    write_manifest,
)
from cifar_tasks.errors import ConfigError, DataError
from cifar_tasks.storage.s3 import ObjectRef, S3Store


@without_collector()
def prepare_line(
    store: S3Store, name: str, line: DatasetLine, delivered: DeliveredFiles, in_use: LineDataset | None, report: Report
) -> PreparedVersion:
    """Write the version of what was delivered, or find it. `in_use` has the test set, and what is known already.

    May be interrupted, and run twice at the same time: what is written depends on the content and on `in_use` alone.
    """
    base = VersionInUse()
    if in_use:
        version = load_version(store, in_use.uri)
        _check_format(name, line, version)
        base = VersionInUse(read_index(store, in_use), version, shards_of(store, version))
    images = DeliveredImages(delivered, base.index)
    report(f"{name}: {len(images.files):,} images, {len(images.unknown):,} of them new or changed")
    stream = (each._replace(position=images.place[each.position]) for each in delivered.read(images.unknown))
    image_format = ImageFormat(line.image_size, line.resize)
    with decoded(name, stream, len(images.unknown), image_format, report) as pixels:
        images.take(pixels)
        shards = LineShards(store, name, line.image_size)
        plan = LinePlan(images, base, line.seed, shards)
        return _Preparation(images, base, plan, shards).write(store, name, line, delivered)


def _check_format(name: str, line: DatasetLine, in_use: DatasetVersion) -> None:
    """Images of one version have one size, and their earlier ones are not read again."""
    before, now = (in_use.image_size, in_use.resize), (line.image_size, line.resize)
    if before != now:
        raise ConfigError(
            f"the dataset line {name} has images of {before[0]} pixels (resize {before[1]}); the settings say {now[0]} "
            f"({now[1]}). Restore that in CIFAR_DATASET_LINES, or give the line with the new format another name."
        )


class _Preparation:
    def __init__(self, images: DeliveredImages, base: VersionInUse, plan: LinePlan, shards: LineShards) -> None:
        self._images, self._base, self._plan, self._shards = images, base, plan, shards

    def write(self, store: S3Store, name: str, line: DatasetLine, delivered: DeliveredFiles) -> PreparedVersion:
        """Pieces first, then the manifest, then the index."""
        images = self._images
        rows = {**self._plan.rows, "test": list(self._plan.test)}
        for split in SPLITS:
            if not rows[split]:
                raise DataError(f"{name}: no images are left for the {split} split. Check the source {line.source}.")
        refs = self._write_arrays()
        test_set = self._base.version.test_set if self._base.version else self._origin_of_test()
        sha256 = {array: [ref.sha256 for ref in pieces] for array, pieces in refs.items()}
        digest = content_digest(images.classes, line.image_size, line.resize, test_set, sha256)
        counts = {split: _counted(rows[split], images.classes) for split in SPLITS}
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
            refs[f"{split}-images"] = shards.write_images(pieces, len(self._plan.rows[split]))
            refs[f"{split}-labels"] = shards.write_labels([row.label for row in self._plan.rows[split]])
        if base:
            return refs | {array: list(base[array]) for array in ("test-images", "test-labels")}
        refs["test-images"] = shards.write_images(self._new_pieces(self._plan.first_test), len(self._plan.test))
        refs["test-labels"] = shards.write_labels([row.label for row in self._plan.test])
        return refs

    def _pieces(self, refs: Sequence[ObjectRef], split: str) -> Iterator[ObjectRef | Images]:
        yield from self._shards.kept_pieces(refs, self._plan.kept[split])
        yield from self._new_pieces(self._plan.added[split])

    def _new_pieces(self, positions: Sequence[int]) -> Iterator[Images]:
        step = self._shards.images_per_piece
        for start in range(0, len(positions), step):
            yield self._images.pixels(positions[start : start + step])

    def _index(self, rows: dict[str, list[ImageRow]], delivered: DeliveredFiles) -> LineIndex:
        images = self._images
        return LineIndex(
            images.classes,
            tuple(row for split in SPLITS for row in rows[split]),
            tuple(images.left_out(*each) for each in sorted(self._plan.dropped.items())),
            (
                *(images.left_out(*each) for each in sorted(images.unreadable.items())),
                *(LeftOut(file, "", "", problem) for file, problem in sorted(delivered.problems.items())),
            ),
            self._plan.pinned,
            self._plan.test_hashes,
        )

    def _summary(self, index: LineIndex) -> DiffSummary:
        earlier = self._base.index
        return DiffSummary(
            new=sum(map(len, self._plan.added.values())),
            gone=sum(int((~kept).sum()) for kept in self._plan.kept.values()),
            relabelled=self._plan.relabelled,
            dropped=len(set(index.dropped) - set(earlier.dropped)),
            unreadable=len(set(index.unreadable) - set(earlier.unreadable)),
        )

    def _notes(self) -> tuple[str, ...]:
        notes = []
        delivered = set(self._images.digests.values())
        if gone := sum(row.digest not in delivered for row in self._plan.test):
            notes.append(f"{gone:,} test images are not in the source any more; the frozen test set keeps them")
        if missing := [
            name
            for label, name in enumerate(self._images.classes)
            if not any(row.label == label for row in self._plan.rows["validation"])
        ]:
            notes.append(f"no validation images of {', '.join(missing)}")
        if not self._plan.all_compared:
            notes.append("too many images resemble test images: not all of them were compared")
        return tuple(notes)


def _counted(rows: Sequence[ImageRow], classes: Sequence[str]) -> dict[str, int]:
    numbers = np.bincount([row.label for row in rows], minlength=len(classes)).tolist()
    return dict(zip(classes, numbers, strict=True))
