"""The frozen test set of a line: what stands in it, exactly or nearly, is neither trained on nor validated with."""

from collections.abc import Callable, Mapping, Sequence

from cifar_tasks.data.images import Images
from cifar_tasks.data.lines.line_index import ImageRow
from cifar_tasks.data.messages import readable
from cifar_tasks.data.near_duplicates import Hashes, near_copies

FROZEN = "is in the test folder, but the test set of the line is frozen"


def exact_copies(test: Sequence[ImageRow], digests: Mapping[int, str]) -> dict[int, ImageRow]:
    """Position of an image → the test image that it equals."""
    tested = {row.digest: row for row in reversed(test)}
    return {position: tested[digest] for position, digest in digests.items() if digest in tested}


def near_test_images(
    test: Sequence[ImageRow],
    test_hashes: Hashes,
    positions: Sequence[int],
    hashes: Hashes,
    read: Callable[[int, int], Images],
) -> tuple[dict[int, ImageRow], bool]:
    """Position of an image → a test image that is mirrored, saved again or resized there; and whether all were looked
    at. `read` gives the pixels of a test image and of an image, by their positions."""
    found = near_copies(test_hashes, hashes, lambda one, other: read(one, positions[other]))
    return {positions[other]: test[one] for one, other in reversed(found.pairs)}, found.complete


def describe_copy(what: str, test: ImageRow, label: int, classes: Sequence[str]) -> str:
    """Continues the name of the image that was dropped."""
    other = "" if label == test.label else f", which is {classes[test.label]} there and {classes[label]} here"
    return f"{what} the test image {readable(test.name)}{other}"
