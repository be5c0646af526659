"""What every source of images delivers and every step works on."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IMAGE_SHAPE = (32, 32, 3)
"""Height, width, colour channels (RGB) of every image in this product."""

Images = NDArray[np.uint8]
"""uint8, N × 32 × 32 × 3."""
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


@dataclass(frozen=True)
class RawDataset:
    """What a source holds, before the validation split is drawn from `train`."""

    name: str
    """For people: `CIFAR-10`, or the name of the folder or archive."""
    classes: tuple[str, ...]
    train: LabelledImages
    test: LabelledImages
