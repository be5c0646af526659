"""What the source of a line holds: a listing that costs no reading, and the files of a delivery."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from cifar_tasks.data.cifar10 import holds_batches
from cifar_tasks.data.folders import survey
from cifar_tasks.data.images import Report, SourceImage
from cifar_tasks.data.lines.line_settings import DatasetLine
from cifar_tasks.data.messages import listed, readable
from cifar_tasks.data.parallel import without_collector
from cifar_tasks.data.source import Source, StoredArchiveSource, TreeSource, open_source
from cifar_tasks.data.trees import DirectoryTree, FileTree, StoredTree, stat_mark
from cifar_tasks.errors import DataError, StorageError
from cifar_tasks.settings import Settings
from cifar_tasks.storage.s3 import S3Store, sha256_hex


@dataclass(frozen=True)
class Listing:
    """All objects of a source at one moment."""

    marks: Mapping[str, str]
    """By name, without the marker; see `FileTree.marks`. An archive is one object."""
    marker: str | None
    """Changes whenever the marker is written, also with the same content; none if it is not there."""

    @cached_property
    def digest(self) -> str:
        text = "\0".join(chain.from_iterable(sorted(self.marks.items())))  # no name has this character
        return sha256_hex(text.encode(errors="surrogatepass"))


class LineFile(NamedTuple):
    name: str
    """Empty if it is known only when the image is read."""
    mark: str
    label: str
    """The class by its folder."""
    is_test: bool


@dataclass(frozen=True)
class DeliveredFiles:
    """The images of a source, none of them read yet."""

    listing: Listing
    name: str
    """Of the source, for people."""
    placeholder: bool
    classes: tuple[str, ...]
    files: Sequence[LineFile]
    read: Callable[[Sequence[int]], Iterator[SourceImage]]
    """The images at these positions in `files`, in any order."""
    problems: Mapping[str, str]
    """Files that cannot be images, and why."""


def open_line_source(
    line: DatasetLine, settings: Settings, report: Report, open_bucket: Callable[[str], S3Store] = S3Store
) -> Source:
    return open_source(line.source, settings, report, open_bucket=open_bucket)


@without_collector()
def list_source(source: Source, line: DatasetLine) -> Listing:
    """A listing that is whole: `StorageError` if it ended in the middle, `DataError` if the source is empty."""
    if isinstance(source, StoredArchiveSource):
        return Listing({source.name: source.mark()}, None)
    if not isinstance(source, TreeSource):
        return Listing({source.name: source.fingerprint()}, None)
    tree = source.tree
    if not isinstance(tree, DirectoryTree | StoredTree):
        return Listing({source.name: stat_mark(Path(line.source).expanduser())}, None)
    marks = tree.marks()
    if tree.bad.incomplete:
        name, problem = next((n, p) for n, p in tree.bad.problems.items() if p.startswith("cannot be read"))
        raise StorageError(f"{tree.bad.where} cannot be listed: {name} {problem} Nothing counts as gone.")
    marker = marks.pop(line.marker, None) if line.marker else None
    if marker and isinstance(tree, StoredTree):
        marker = f"{marker}-{tree.written(line.marker or '')}"
    if not marks:
        raise DataError(f"{tree.bad.where} is empty. Is it mounted, and is it the right one? Nothing counts as gone.")
    return Listing(marks, marker)


@without_collector()
def delivered_files(source: Source, line: DatasetLine, first: bool, report: Report) -> DeliveredFiles:
    """What the source holds now. `first`: of the first version of a line, whose classes must have enough images."""
    listing = list_source(source, line)
    placeholder = source.placeholder
    if isinstance(source, StoredArchiveSource):
        source = source.fetch(report)
    if isinstance(source, TreeSource):
        tree = source.tree
        inside = isinstance(tree, DirectoryTree | StoredTree)
        marks = dict(listing.marks) if inside else tree.marks()
        if not holds_batches(list(marks)):
            return _class_folders(listing, source.name, tree, marks, first)
    stream = source.read(report)
    mark = next(iter(listing.marks.values())) if len(listing.marks) == 1 else listing.digest
    files = [LineFile("", mark, stream.classes[label], False) for label in stream.train_labels.tolist()]
    files += [LineFile("", mark, stream.classes[label], True) for label in stream.test_labels.tolist()]

    def read(positions: Sequence[int]) -> Iterator[SourceImage]:
        wanted = set(positions)
        yield from (image for image in stream.images if image.position in wanted)
        stream.bad.check()

    return DeliveredFiles(listing, source.name, placeholder, stream.classes, files, read, {})


def _class_folders(
    listing: Listing, name: str, tree: FileTree, marks: Mapping[str, str], first: bool
) -> DeliveredFiles:
    folders = survey(list(marks), tree.bad, check_counts=first)
    files = [
        LineFile(file, marks[file], label, split == "test")
        for split in ("train", "test")
        for label, file in folders.files[split]
    ]
    classes = tuple(sorted({file.label for file in files}))
    problems = tree.bad.problems

    def read(positions: Sequence[int]) -> Iterator[SourceImage]:
        position = {files[each].name: each for each in positions}
        for file, content in tree.read(position):
            yield SourceImage(position[file], readable(file), content)
        if broken := [f"{name} {why}" for name, why in tree.bad.problems.items() if name not in problems]:
            raise DataError(f"{tree.bad.where}: {listed(broken)}")

    return DeliveredFiles(listing, name, False, classes, files, read, problems)
