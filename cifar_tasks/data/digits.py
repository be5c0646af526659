"""scikit-learn's bundled handwritten digits: real images for a machine without network, a placeholder for CIFAR-10."""

import numpy as np

from cifar_tasks.data.images import ImageStream, Report, SourceImage
from cifar_tasks.data.messages import BadFiles
from cifar_tasks.data.splits import split_indices

TEST_FRACTION = 0.2
# The test set is the same whatever seed a run is given, so that models of different runs can be compared.
TEST_SEED = 0


class DigitsSource:
    """1,797 grey images of 8×8 pixels and 17 shades, in 10 classes; 359 of them are the test set."""

    name = "digits"
    placeholder = True

    def fingerprint(self) -> str:
        return "digits-1797"

    def read(self, report: Report) -> ImageStream:  # noqa: ARG002 - part of the protocol `Source`
        from sklearn.datasets import load_digits

        digits = load_digits()
        shades = np.rint(digits.images * (255 / 16)).astype(np.uint8)
        # Each pixel becomes a block of 4×4: exact, whatever version of an imaging library is installed.
        grey = shades.repeat(4, axis=1).repeat(4, axis=2)
        images, labels = np.repeat(grey[..., None], 3, axis=3), digits.target.astype(np.int64)
        train, test = split_indices(labels, TEST_FRACTION, TEST_SEED)
        classes = tuple(str(name) for name in digits.target_names)
        order = enumerate(np.concatenate([train, test]))
        pixels = (SourceImage(position, f"digit {index}", images[index]) for position, index in order)
        return ImageStream(self.name, classes, labels[train], labels[test], pixels, BadFiles(self.name))
