"""Images as arrays, and what a source delivers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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
    """Training images are counted first, then test images."""
    where: str
    """Its name in messages."""
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
    images: Iterator[SourceImage]
