"""The checks of a delivery on real images with faults of known kinds: what they find, and how often they are wrong.

    .venv/bin/python -m benchmarks.delivery_checks --data cifar10-images.zip

`--data` is CIFAR-10 as class folders. Takes some minutes.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from rich.console import Console

from cifar_tasks.data.image_format import DEFAULT_FORMAT
from cifar_tasks.data.images import Images, Labels
from cifar_tasks.data.quality.copies import copies_of
from cifar_tasks.data.quality.delivery import REFERENCE
from cifar_tasks.data.quality.embeddings import embed
from cifar_tasks.data.quality.label_errors import label_quality, out_of_fold
from cifar_tasks.data.quality.quality_checks import check
from cifar_tasks.data.quality.quality_limits import QualityLimits
from cifar_tasks.data.quality.quality_report import QualityReport
from cifar_tasks.data.quality.snapshot import ImageSet, Snapshot, image_set
from cifar_tasks.data.source import open_source
from cifar_tasks.data.spool import spooled
from cifar_tasks.settings import Settings
from cifar_tasks.steps.process import restart_in_step_environment

IN_USE, DELIVERY, CLEAN_DELIVERIES = 10_000, 500, 20
MISSING = 3
"""The class that one faulty delivery lacks."""
Alter = Callable[[Image.Image], Image.Image]


def reencoded(image: Image.Image, quality: int = 75) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def resized(image: Image.Image, side: int = 24) -> Image.Image:
    return image.resize((side, side), Image.Resampling.BICUBIC).resize(image.size, Image.Resampling.BICUBIC)


def brighter(image: Image.Image, factor: float) -> Image.Image:
    return image.point(lambda level: level * factor)


COPIES: dict[str, Alter] = {
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "JPEG of quality 75": reencoded,
    "JPEG of quality 50": lambda image: reencoded(image, 50),
    "24 pixels and back": resized,
    "64 pixels and back": lambda image: resized(image, 64),
    "mirrored, JPEG of quality 75": lambda image: reencoded(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
}
FAULTS: dict[str, tuple[str, Alter]] = {
    "20 % brighter": ("brightness", lambda image: brighter(image, 1.2)),
    "20 % darker": ("brightness", lambda image: brighter(image, 0.8)),
    "grey": ("grey images", lambda image: image.convert("L").convert("RGB")),
    "blurred": ("sharpness", lambda image: image.filter(ImageFilter.GaussianBlur(1))),
}
"""The check that must fail, and what is done to each image."""


@dataclass(frozen=True)
class Data:
    """Real images in a random order: the first are in use, the others are delivered."""

    classes: tuple[str, ...]
    images: Images
    labels: Labels
    in_use: Snapshot

    def delivered(self, number: int) -> tuple[Images, Labels]:
        """The images of one delivery. No two deliveries share one."""
        first = IN_USE + DELIVERY * number
        return self.images[first : first + DELIVERY], self.labels[first : first + DELIVERY]

    def check(self, images: Images, labels: Labels) -> QualityReport:
        """Of the version in use with these images added to it."""
        added, old = image_set(images, labels), self.in_use.images
        both = ImageSet(
            np.concatenate([old.labels, added.labels]),
            [*old.names, *(f"new-{name}" for name in added.names)],
            [*old.digests, *added.digests],
            lambda where: np.stack([images[p - len(old)] if p >= len(old) else self.images[p] for p in where.tolist()]),
        )
        return check(Snapshot(self.classes, both, self.in_use.test), self.in_use, QualityLimits())


def read_data(archive: Path, seed: int = 0) -> Data:
    report = Console(stderr=True).print
    with spooled(open_source(str(archive), Settings(), report).read(report), DEFAULT_FORMAT, report) as raw:
        order = np.random.default_rng(seed).permutation(raw.train)
        images, labels = raw.read(order), raw.labels[order]
        test = image_set(raw.read(raw.test), raw.labels[raw.test])
    return Data(raw.classes, images, labels, Snapshot(raw.classes, image_set(images[:IN_USE], labels[:IN_USE]), test))


def altered(images: Images, alter: Alter) -> Images:
    return np.stack([np.asarray(alter(Image.fromarray(image))) for image in images])


def flipped(labels: Labels, share: float, classes: int, seed: int = 0) -> tuple[Labels, NDArray[np.bool_]]:
    """Labels of which a share is replaced by another class, and which ones these are."""
    random = np.random.default_rng(seed)
    wrong = np.zeros(len(labels), bool)
    wrong[random.permutation(len(labels))[: round(share * len(labels))]] = True
    return np.where(wrong, (labels + random.integers(1, classes, len(labels))) % classes, labels), wrong


def failed(report: QualityReport) -> set[str]:
    return {row.check for row in report.rows if not row.passed}


def suspicious_flips(data: Data) -> float:
    """Share of 5 % flipped labels that are among the 10 % most suspicious, without a champion."""
    images, (labels, wrong) = data.images[:REFERENCE], flipped(data.labels[:REFERENCE], 0.05, len(data.classes))
    probabilities = out_of_fold(embed(images)[0], labels, len(data.classes))
    assert probabilities is not None
    most = np.argsort(label_quality(labels, probabilities))[: len(labels) // 10]
    return float(wrong[most].sum() / wrong.sum())


def copies_found(data: Data, alter: Alter) -> float:
    """Share of copies of images in use that are found as copies of their originals."""
    originals = np.arange(0, IN_USE, IN_USE // DELIVERY)
    copies = image_set(altered(data.images[originals], alter), data.labels[originals])
    found = copies_of(np.arange(len(copies)), copies, data.in_use.images)
    return sum(int(originals[copy.position]) == copy.original for copy in found) / len(copies)


def false_copies(data: Data) -> float:
    """Share of images that are no copies, and are taken for some."""
    rest = image_set(data.images[IN_USE : IN_USE + 10 * DELIVERY], data.labels[IN_USE : IN_USE + 10 * DELIVERY])
    return len(copies_of(np.arange(len(rest)), rest, data.in_use.images)) / len(rest)


def fault_reports(data: Data) -> Iterator[tuple[str, str, QualityReport]]:
    """Each fault, the check that must fail, and the report."""
    images, labels = data.delivered(CLEAN_DELIVERIES)
    for what, (name, alter) in FAULTS.items():
        yield what, name, data.check(altered(images, alter), labels)
    kept = labels != MISSING
    yield "a class is missing", "class balance", data.check(images[kept], labels[kept])
    wrong = flipped(labels, 0.3, len(data.classes))[0]
    yield "30 % wrong labels", "label errors (out of fold)", data.check(images, wrong)


def main(data: Annotated[Path, typer.Option(help="CIFAR-10 as class folders: an archive or a folder.")]) -> None:
    """Print what the checks find in faulty deliveries of 500 images, and what they say about clean ones."""
    read = read_data(data)
    print(
        f"5 % flipped labels among the 10 % most suspicious: {suspicious_flips(read):.1%} (wanted: at least 60 %)",
        flush=True,
    )
    for what, alter in COPIES.items():
        print(f"copies found, {what}: {copies_found(read, alter):.1%} (wanted: at least 95 %)", flush=True)
    print(f"images taken for copies that are none: {false_copies(read):.2%} (wanted: at most 1 %)", flush=True)
    for what, name, report in fault_reports(read):
        print(f"{what}: fails {', '.join(sorted(failed(report))) or 'nothing'} (wanted: {name})", flush=True)
    quarantined = 0
    for number in range(CLEAN_DELIVERIES):
        report = read.check(*read.delivered(number))
        quarantined += not report.passed
        print(f"clean delivery {number + 1}: {'; '.join(report.reasons) or 'passed'}", flush=True)
    print(f"clean deliveries quarantined: {quarantined} of {CLEAN_DELIVERIES} (wanted: at most 1)")


if __name__ == "__main__":
    restart_in_step_environment()
    typer.run(main)
