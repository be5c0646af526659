"""What differs between two versions of a line, by the pixels of the images."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cifar_tasks.data.lines.line_index import LeftOut, LineIndex
from cifar_tasks.data.versions import SPLITS


class Change(NamedTuple):
    name: str
    """Of the file."""
    split: str
    position: int
    """In the arrays of the split, of the later version unless the image is gone."""
    before: str | None
    """Class in the earlier version."""
    after: str | None


@dataclass(frozen=True)
class LineDiff:
    counts: Mapping[str, tuple[int, int]]
    """Images of each class before and after, test images included."""
    new: Sequence[Change]
    """By name, as the others."""
    gone: Sequence[Change]
    relabelled: Sequence[Change]
    dropped: Sequence[LeftOut]
    """Files of the later version that stand in the frozen test set."""
    unreadable: Sequence[LeftOut]

    def as_dict(self) -> dict[str, Any]:
        """JSON values only."""
        return {
            "counts": {name: {"before": before, "after": after} for name, (before, after) in self.counts.items()},
            "new": [{"file": each.name, "class": each.after, "split": each.split} for each in self.new],
            "gone": [{"file": each.name, "class": each.before, "split": each.split} for each in self.gone],
            "relabelled": [
                {"file": each.name, "before": each.before, "after": each.after, "split": each.split}
                for each in self.relabelled
            ],
            "dropped": [{"file": each.name, "why": each.why} for each in self.dropped],
            "unreadable": [{"file": each.name, "why": each.why} for each in self.unreadable],
        }


def diff_versions(before: LineIndex, after: LineIndex) -> LineDiff:
    """An image that is in both with another label is relabelled, whatever its file is called."""
    earlier: dict[str, list[Change]] = defaultdict(list)
    for digest, change in _images(before):
        earlier[digest].append(change)
    later = list(_images(after))
    matched = [_take(earlier, digest, change) for digest, change in later]
    rest = [
        (found if found is not None else _take(earlier, digest, None), change)
        for (digest, change), found in zip(later, matched, strict=True)
    ]
    gone = [change._replace(before=change.after, after=None) for left in earlier.values() for change in left]
    relabelled = [
        change._replace(before=found.after) for found, change in rest if found and found.after != change.after
    ]
    return LineDiff(
        _counts(before, after),
        sorted(change for found, change in rest if found is None),
        sorted(gone),
        sorted(relabelled),
        after.dropped,
        after.unreadable,
    )


def _images(index: LineIndex) -> Iterator[tuple[str, Change]]:
    for split in SPLITS:
        for position, row in enumerate(index.by_split[split]):
            yield row.digest, Change(row.name, split, position, None, index.classes[row.label])


def _take(earlier: dict[str, list[Change]], digest: str, like: Change | None) -> Change | None:
    """An earlier image with these pixels: of the same class, or with none to be `like` any."""
    for number, found in enumerate(earlier.get(digest, ())):
        if like is None or found.after == like.after:
            return earlier[digest].pop(number)
    return None


def _counts(before: LineIndex, after: LineIndex) -> dict[str, tuple[int, int]]:
    counted = [Counter(index.classes[row.label] for row in index.images) for index in (before, after)]
    names = dict.fromkeys((*after.classes, *before.classes))
    return {name: (counted[0][name], counted[1][name]) for name in names}
