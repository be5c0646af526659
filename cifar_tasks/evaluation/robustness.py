"""Accuracy on images that are a little worse than those of the test set, as a camera or a web page may deliver them.

Noise, blur and JPEG are about as strong as severity 3 of CIFAR-10-C (Hendrycks and Dietterich, 2019). Lengths grow with
the image size, so that models for different sizes see the same pictures.
"""

import io
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict

Images = NDArray[np.uint8]
"""(N, H, W, 3)."""
SAMPLE = 2_000
"""Images at most: five copies of them cost as much as 10,000 test images."""
CHUNK_PIXELS = 500 * 32 * 32
"""Copies that exist at the same time."""
NOISE = 0.08 * 255
BLUR = 0.7 / 32
"""Standard deviation, of the image's width."""
SHIFT = 1 / 8
"""Of the image's width."""
JPEG_QUALITY = 58


class Robustness(BaseModel):
    """Accuracy on altered copies of a random sample of the test images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: int
    """In the sample."""
    unaltered: float
    """Accuracy on the sample as it is; share of 0–1."""
    accuracies: dict[str, float]
    """The same by the name of the alteration."""

    @property
    def mean(self) -> float:
        """Accuracy on all altered copies."""
        return sum(self.accuracies.values()) / len(self.accuracies)

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {accuracy:.1%}" for name, accuracy in self.accuracies.items())
        return f"{self.mean:.1%} ({parts}; unaltered {self.unaltered:.1%}; {self.images:,} images each)"


def flipped(images: Images, random: np.random.Generator) -> Images:
    """Left to right."""
    return images[:, :, ::-1]


def shifted(images: Images, random: np.random.Generator) -> Images:
    """To the lower right; the first row and column are repeated."""
    width = images.shape[1]
    pixels = max(1, round(SHIFT * width))
    return np.pad(images, ((0, 0), (pixels, 0), (pixels, 0), (0, 0)), mode="edge")[:, :width, :width]


def noisy(images: Images, random: np.random.Generator) -> Images:
    noise = random.standard_normal(images.shape, dtype=np.float32) * np.float32(NOISE)
    result: Images = np.clip(images + noise, 0, 255).astype(np.uint8)
    return result


def blurred(images: Images, random: np.random.Generator) -> Images:
    from scipy.ndimage import gaussian_filter

    sigma = BLUR * images.shape[1]
    result: Images = gaussian_filter(images.astype(np.float32), (0, sigma, sigma, 0)).round().astype(np.uint8)
    return result


def jpeg(images: Images, random: np.random.Generator) -> Images:
    """Compressed and decoded again."""
    return np.stack([_through_jpeg(image) for image in images])


def _through_jpeg(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=JPEG_QUALITY)
    return np.asarray(Image.open(file))


ALTERATIONS: Mapping[str, Callable[[Images, np.random.Generator], Images]] = {
    alter.__name__: alter for alter in (flipped, shifted, noisy, blurred, jpeg)
}


def sample_positions(images: int, wanted: int = SAMPLE) -> NDArray[np.int64]:
    """Which of the test images are altered: the same for all models."""
    return np.sort(np.random.default_rng(0).permutation(images)[:wanted])


def robustness(
    predict: Callable[[Images], NDArray[np.int64]], images: Images, labels: NDArray[np.int64], right: NDArray[np.bool_]
) -> Robustness:
    """`predict` returns the predicted classes (N,); `right` tells of each test image whether its prediction is right.

    The images (N, H, W, 3) may be a file that is mapped into memory: a part of the sample is copied at a time.
    """
    positions, random = sample_positions(len(labels)), np.random.default_rng(0)
    at_once = max(1, CHUNK_PIXELS // (images.shape[1] * images.shape[2]))
    found = dict.fromkeys(ALTERATIONS, 0)
    for start in range(0, len(positions), at_once):
        chunk = positions[start : start + at_once]
        original = images[chunk]
        for name, alter in ALTERATIONS.items():
            altered = np.ascontiguousarray(alter(original, random))
            found[name] += int((predict(altered) == labels[chunk]).sum())
    return Robustness(
        images=len(positions),
        unaltered=float(right[positions].mean()),
        accuracies={name: count / len(positions) for name, count in found.items()},
    )
