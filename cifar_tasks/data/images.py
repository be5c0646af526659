"""Images as arrays, and what a source delivers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cifar_tasks.data.messages import BadFiles

Report = Callable[[str], None]
"""Receives a line of progress for people."""
Images = NDArray[np.uint8]
"""uint8, N × size × size × 3 (RGB)."""
Labels = NDArray[np.int64]
"""int64, N: positions in the tuple of class names."""


@dataclass(frozen=True)
class LabelledImages:
    images: Images
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> "LabelledImages":
        return LabelledImages(self.images[indices], self.labels[indices])


class SourceImage(NamedTuple):
    """One image, of any size, as the source has it."""

    position: int
    """In the order of the labels: training images first, then test images."""
    name: str
    """In messages: its path in the source."""
    content: bytes | Images
    """A PNG or JPEG file, or uint8 pixels, height × width × 3."""


@dataclass(frozen=True)
class ImageStream:
    """What a source delivers: all labels at once, the images one by one and in any order."""

    name: str
    """For people: `CIFAR-10`, or the name of the folder or archive."""
    classes: tuple[str, ...]
    train_labels: Labels
    test_labels: Labels
    """Empty if the source has no test set: it is drawn from the training images then."""
    images: Iterator[SourceImage]
    bad: BadFiles
    """What the source leaves out while it is read; a source with one such file is refused in the end."""
    warnings: tuple[str, ...] = ()
    """What a user should know about how the source was read."""
