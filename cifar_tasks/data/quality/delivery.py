"""What the checks look at: what a version added or relabelled, and images in use to compare that with."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cifar_tasks.data.images import Labels
from cifar_tasks.data.messages import readable
from cifar_tasks.data.quality import label_errors
from cifar_tasks.data.quality.drift import with_class_mix
from cifar_tasks.data.quality.embeddings import Embeddings, embed
from cifar_tasks.data.quality.image_statistics import Values, image_statistics, size_statistics
from cifar_tasks.data.quality.quality_report import Example
from cifar_tasks.data.quality.snapshot import Changes, Snapshot, compare_snapshots
from cifar_tasks.data.splits import Indices

REFERENCE, JUDGED = 5_000, 5_000
"""Images in use, and added or relabelled ones, that the statistical checks look at; they are drawn at random."""
EXAMPLES, SUSPICIOUS = 12, 100
"""Of each check, and suspicious labels."""


@dataclass(frozen=True)
class Delivery:
    new: Snapshot
    in_use: Snapshot | None

    @cached_property
    def changes(self) -> Changes:
        return compare_snapshots(self.new, self.in_use)

    @cached_property
    def judged(self) -> Indices:
        """Positions in the new version: added and relabelled images."""
        changed = np.concatenate([self.changes.added, self.changes.relabelled])
        return np.sort(np.random.default_rng(0).permutation(changed)[:JUDGED])

    @cached_property
    def judged_added(self) -> Indices:
        return self.judged[~np.isin(self.judged, self.changes.relabelled)]

    @property
    def labels(self) -> Labels:
        """Of the new version."""
        return self.new.images.labels

    @cached_property
    def in_use_labels(self) -> Labels:
        """As numbers of the new version's classes; -1 for a class that it lacks."""
        if self.in_use is None:
            return np.empty(0, np.int64)
        number = {name: position for position, name in enumerate(self.new.classes)}
        numbers: Labels = np.array([number.get(name, -1) for name in self.in_use.classes], np.int64)
        return numbers[self.in_use.images.labels]

    @cached_property
    def reference(self) -> Indices:
        """Positions in the version in use, of classes that both versions have."""
        drawn = np.random.default_rng(0).permutation(np.flatnonzero(self.in_use_labels >= 0))
        return np.sort(drawn[:REFERENCE])

    @property
    def reference_labels(self) -> Labels:
        return self.in_use_labels[self.reference]

    @cached_property
    def alike(self) -> tuple[Indices, Indices]:
        """Which ones of the judged added images, and which ones of the reference, to compare: of the same classes in
        the same proportions."""
        wanted = self.labels[self.judged_added]
        shared = np.flatnonzero(np.isin(wanted, self.reference_labels))
        return shared, with_class_mix(self.reference_labels, wanted[shared], np.random.default_rng(0))

    @cached_property
    def statistics(self) -> tuple[Mapping[str, Values], Mapping[str, Values]]:
        """Of the images of `alike`; empty without any."""
        shared, reference = self.alike
        if self.in_use is None or not len(reference):
            return {}, {}
        added = image_statistics(self.new.images.read(self.judged_added[shared]))
        return added, image_statistics(self.in_use.images.read(self.reference[reference]))

    @cached_property
    def sizes(self) -> tuple[Mapping[str, Values], Mapping[str, Values]]:
        """Of the pictures of `alike` in their files, as far as they are known."""
        shared, reference = self.alike
        if self.in_use is None or self.in_use.images.sizes is None or self.new.images.sizes is None:
            return {}, {}
        added = size_statistics(self.new.images.sizes[self.judged_added[shared]])
        return added, size_statistics(self.in_use.images.sizes[self.reference[reference]])

    @cached_property
    def embeddings(self) -> tuple[Embeddings, Embeddings]:
        """Of the reference, which is empty for a first version, and of the judged images."""
        judged = self.new.images.read(self.judged)
        if self.in_use is None or not len(self.reference):
            (found,) = embed(judged)
            return found[:0], found
        of_reference, found = embed(self.in_use.images.read(self.reference), judged)
        return of_reference, found

    @cached_property
    def out_of_fold(self) -> label_errors.Probabilities | None:
        """Of the reference, then of the judged images."""
        labels = np.concatenate([self.reference_labels, self.labels[self.judged]])
        return label_errors.out_of_fold(np.concatenate(self.embeddings), labels, len(self.new.classes))

    def examples(self, positions: Indices, why: str) -> list[Example]:
        return [self.example(position, why) for position in positions[:EXAMPLES].tolist()]

    def example(self, position: int, why: str) -> Example:
        """The image at this position of the new version."""
        label = self.new.classes[int(self.labels[position])]
        name = readable(self.new.images.names[position])
        return Example(position=position, name=name, label=readable(label), why=why)
