"""Dataset versions of made-up pictures for tests of the checks of deliveries."""

import numpy as np

from cifar_tasks.data.images import Images, Labels
from cifar_tasks.data.quality.snapshot import Snapshot, image_set

CLASSES = ("ant", "bee", "cat")


def pictures(labels: Labels, seed: int) -> Images:
    """Stripes whose direction is the class, of random place, width and colour, with noise: no two are alike."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:32, :32]
    directions = np.stack([rows, columns, rows + columns])
    width, shift = random.uniform(0.5, 0.9, (2, len(labels), 1, 1))
    waves = np.sin(directions[labels] * width + 7 * shift)[..., None] * random.uniform(20, 60, (len(labels), 1, 1, 3))
    levels = random.uniform(80, 170, (len(labels), 1, 1, 3)) + waves + random.normal(0, 8, (len(labels), 32, 32, 3))
    return np.clip(levels, 0, 255).astype(np.uint8)


def drawn_labels(count: int, seed: int, classes: int = len(CLASSES)) -> Labels:
    return np.random.default_rng(seed).integers(0, classes, count)


def snapshot(images: Images, labels: Labels, **fields: object) -> Snapshot:
    test = fields.pop("test", None)
    tested = image_set(pictures(np.arange(30) % 3, 999), np.arange(30) % 3) if test is None else test
    classes = fields.pop("classes", CLASSES)
    return Snapshot(classes, image_set(images, labels), tested, **fields)  # type: ignore[arg-type]


def in_use(count: int = 600) -> tuple[Images, Labels]:
    labels = drawn_labels(count, 1)
    return pictures(labels, 2), labels


def grown(images: Images, labels: Labels, **fields: object) -> Snapshot:
    """The version in use with these images added."""
    before, known = in_use()
    return snapshot(np.concatenate([before, images]), np.concatenate([known, labels]), **fields)
