"""What is known of each file of a delivery: from the version in use if it is there unchanged, else by decoding it."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from cifar_tasks.data.image_format import Size
from cifar_tasks.data.images import Images
from cifar_tasks.data.lines.line_index import UNKNOWN, ImageRow, LeftOut, LineIndex
from cifar_tasks.data.lines.line_source import DeliveredFiles
from cifar_tasks.data.messages import listed, readable
from cifar_tasks.data.near_duplicates import Hashes, difference_hashes
from cifar_tasks.data.spool import DecodedImages, drawn_test, equal_groups
from cifar_tasks.errors import DataError, SourceChanged

LEAST_OF_FIRST = 2
"""Images of a class in the first version of a line without a test folder: one is for the test."""


class DeliveredImages:
    """By position in the delivery."""

    def __init__(self, delivered: DeliveredFiles, in_use: LineIndex) -> None:
        self.files = delivered.files
        self.classes = (*in_use.classes, *(name for name in delivered.classes if name not in in_use.classes))
        """New classes stand behind the others: labels of earlier images stay."""
        number = {name: label for label, name in enumerate(self.classes)}
        self.labels = [number[file.label] for file in self.files]
        self.names = [file.name for file in self.files]
        self.digests: dict[int, str] = {}
        self.sizes: dict[int, Size] = {}
        self.dropped: dict[int, str] = {}
        """Known to stand in the frozen test set."""
        self.unreadable: dict[int, str] = {}
        self.unknown = [position for position in range(len(self.files)) if not self._is_known(position, in_use)]
        """To be decoded."""
        self.place = {position: number for number, position in enumerate(self.unknown)}

    def _is_known(self, position: int, in_use: LineIndex) -> bool:
        file = self.files[position]
        known = in_use.files.get(file.name) if file.name else None
        if known is None or known.mark != file.mark:
            return False
        if isinstance(known, LeftOut) and not known.digest:
            self.unreadable[position] = known.why
            return True
        self.digests[position] = known.digest
        if isinstance(known, LeftOut):
            self.dropped[position] = known.why
        else:
            self.sizes[position] = known.size
        return True

    def take(self, decoded: DecodedImages) -> None:
        """What decoding has shown."""
        self._decoded, sizes = decoded, decoded.sizes.tolist()
        for number, position in enumerate(self.unknown):
            self.names[position] = self.names[position] or decoded.names[number]
            if number in decoded.problems:
                self.unreadable[position] = decoded.problems[number]
            elif decoded.digests[number]:
                self.digests[position] = decoded.digests[number].hex()
                self.sizes[position] = (sizes[number][0], sizes[number][1])
            else:
                raise SourceChanged(f"{self.names[position]} vanished while the source was read. Start again.")

    def pixels(self, positions: Sequence[int]) -> Images:
        """Of images that were decoded."""
        return self._decoded.read(np.array([self.place[position] for position in positions], np.int64))

    def hashes(self, positions: Sequence[int]) -> Hashes:
        return difference_hashes(self._decoded.thumbs[[self.place[position] for position in positions]])

    def row(self, position: int, split: str) -> ImageRow:
        mark = self.files[position].mark
        size = self.sizes.get(position, UNKNOWN)
        return ImageRow(self.names[position], mark, self.digests[position], self.labels[position], split, size)

    def is_row(self, position: int, row: ImageRow) -> bool:
        """Whether it is the same file with the same label."""
        mark = self.files[position].mark
        return self.names[position] == row.name and mark == row.mark and self.labels[position] == row.label

    def left_out(self, position: int, why: str) -> LeftOut:
        return LeftOut(self.names[position], self.files[position].mark, self.digests.get(position, ""), why)

    def first_test(self) -> list[int]:
        """The test images of a new line: the test folder, or images that are drawn from each class."""
        if any(file.is_test for file in self.files):
            return sorted(position for position in self.digests if self.files[position].is_test)
        positions = sorted(self.digests)
        readable_of = Counter(self.files[position].label for position in positions)
        broken = [f"{readable(self.names[position])} {why}" for position, why in sorted(self.unreadable.items())]
        for name in self.classes:
            if readable_of[name] < LEAST_OF_FIRST:
                raise DataError(
                    f"class {readable(name)} has too few images that can be read ({readable_of[name]}); at least "
                    f"{LEAST_OF_FIRST} are needed, one of them for the test. {listed(broken)}"
                )
        labels = np.array([self.labels[position] for position in positions])
        groups = equal_groups([bytes.fromhex(self.digests[position]) for position in positions])
        return [positions[each] for each in drawn_test(labels, groups)]
