"""Dataset lines for tests: a folder of pictures as the source, and versions that are prepared and accepted."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from cifar_tasks.data.lines.line_index import LineIndex, read_index
from cifar_tasks.data.lines.line_log import LineOutcome, PreparedVersion, append_entry, read_line_log
from cifar_tasks.data.lines.line_preparation import prepare_line
from cifar_tasks.data.lines.line_settings import DatasetLine
from cifar_tasks.data.lines.line_source import delivered_files, open_line_source
from cifar_tasks.settings import Settings
from cifar_tasks.storage.s3 import S3Store

LINE = "pets"
CLASSES = ("ant", "bee")


def picture(number: int) -> Image.Image:
    """A smooth picture with detail; no two numbers are alike."""
    coarse = np.random.default_rng(number).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((32, 32), Image.Resampling.BICUBIC)


def deliver(root: Path, name: str, image: Image.Image) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def first_delivery(root: Path, train: int = 20, test: int = 5) -> Path:
    """This many images of each class; numbers of test images begin at 1,000,000."""
    for label, name in enumerate(CLASSES):
        for number in range(train):
            deliver(root, f"train/{name}/{number:03}.png", picture(1000 * label + number))
        for number in range(test):
            deliver(root, f"test/{name}/{number:03}.png", picture(1_000_000 + 1000 * label + number))
    return root


def prepared(
    store: S3Store,
    source: Path | str,
    report: Callable[[str], None] = print,
    open_bucket: Callable[[str], S3Store] = S3Store,
    **fields: object,
) -> PreparedVersion:
    """The version of what the source holds, beside the version in use."""
    line = DatasetLine.model_validate({"source": str(source), **fields})
    in_use = read_line_log(store, LINE).in_use()
    opened = open_line_source(line, Settings(), report, open_bucket)
    return prepare_line(store, LINE, line, delivered_files(opened, line, in_use is None, report), in_use, report)


def accept(store: S3Store, version: PreparedVersion, kind: str = "accepted", **fields: object) -> PreparedVersion:
    outcome = LineOutcome.model_validate(
        {"kind": kind, "dataset": version.dataset, "delivery": version.delivery, "diff": version.diff, **fields}
    )
    append_entry(store, LINE, lambda log: outcome)
    return version


def index_of(store: S3Store, version: PreparedVersion) -> LineIndex:
    return read_index(store, version.dataset)


def splits_of(index: LineIndex) -> Mapping[str, str]:
    """Split of each image, by the digest of its pixels."""
    return {row.digest: row.split for row in index.images}
