"""One number per image for each property whose distribution a delivery should not change."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cifar_tasks.data.images import Images

Values = NDArray[np.float64]
"""One per image."""

BATCH = 512
GREY_SATURATION = 3.0
"""Levels of 255: below it an image has no colour. JPEG copies of grey images stay below 1."""
EXTREME = "brightness", "contrast", "sharpness"
"""Of these also single images count that hardly any image in use is like."""


def image_statistics(images: Images) -> Mapping[str, Values]:
    """Brightness, contrast, colour and sharpness of each image."""
    parts = [_of_batch(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
    return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}


def _of_batch(images: Images) -> dict[str, Values]:
    levels = images.astype(np.float64)
    grey = levels @ np.array([0.299, 0.587, 0.114])
    contrast = grey.std((1, 2))
    inner = grey[:, 1:-1, 1:-1]
    edges = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:] - 4 * inner
    return {
        "brightness": grey.mean((1, 2)),
        "contrast": contrast,
        "saturation": (levels.max(3) - levels.min(3)).mean((1, 2)),
        "red": (levels[..., 0] - grey).mean((1, 2)),
        "blue": (levels[..., 2] - grey).mean((1, 2)),
        # Relative to the contrast, so that a darker image is not a less sharp one.
        "sharpness": edges.std((1, 2)) / (contrast + 1),
    }


def size_statistics(sizes: NDArray[np.int64]) -> Mapping[str, Values]:
    """Of pictures as they were delivered. A picture that is turned by a quarter has the same values."""
    sides = np.sort(sizes[sizes.min(1) > 0].astype(np.float64), 1)
    return {"size": sides[:, 0], "aspect ratio": sides[:, 1] / sides[:, 0]}


def is_grey(statistics: Mapping[str, Values]) -> NDArray[np.bool_]:
    return statistics["saturation"] < GREY_SATURATION
