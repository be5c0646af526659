"""A delivery of 500 new images on a dataset line of 50,000, beside preparing all of them; and a listing of the watch.

Class folders of PNG files on this machine and objects in S3, in the real SeaweedFS.
"""

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from benchmarks.measure import Row
from benchmarks.temporary_stack import own_stack
from cifar_tasks.data.lines.line_log import LineDataset
from cifar_tasks.data.lines.line_preparation import PreparedVersion, prepare_line
from cifar_tasks.data.lines.line_settings import DatasetLine
from cifar_tasks.data.lines.line_source import delivered_files, list_source, open_line_source
from cifar_tasks.settings import Settings
from cifar_tasks.storage.s3 import S3Store, s3_client

TRAIN, TEST, NEW, CLASSES = 50_000, 10_000, 500, 10
OBJECTS = 100_000
Result = TypeVar("Result")
LEAST_RATIO = 10.0
MOST_SECONDS = 30.0


def measure(rounds: int) -> list[Row]:
    with own_stack(), tempfile.TemporaryDirectory(prefix="cifar-") as folder:
        return [increment(Path(folder)), listing()]


def increment(root: Path) -> Row:
    random = np.random.default_rng(0)
    for split, count in (("train", TRAIN), ("test", TEST)):
        write(root, split, 0, count, random)
    store, line = S3Store(Settings().bucket), DatasetLine(source=str(root))
    whole, seconds = timed(lambda: prepared(store, line, None))
    write(root, "train", TRAIN, NEW, random)
    part, part_seconds = timed(lambda: prepared(store, line, whole.dataset))
    assert (whole.diff.new, part.diff.new) == (TRAIN, NEW)
    figures = {f"all {TRAIN + TEST:,} images": f"{seconds:.1f} s", f"{NEW} new ones": f"{part_seconds:.2f} s"}
    return Row("dataset line: increment", figures, seconds / part_seconds, LEAST_RATIO)


def listing() -> Row:
    client = s3_client()
    client.create_bucket(Bucket="team")
    store = S3Store("team", client)
    with ThreadPoolExecutor(16) as pool:
        for start in range(0, OBJECTS, 1000):
            names = [f"pets/{number % CLASSES}/{number:06}.png" for number in range(start, start + 1000)]
            list(pool.map(lambda name: store.put(name, b"1"), names))
    line = DatasetLine(source="s3://team/pets")
    found, seconds = timed(lambda: list_source(open_line_source(line, Settings(), lambda _: None), line))
    assert len(found.marks) == OBJECTS
    return Row("dataset line: nothing new", {f"{OBJECTS:,} objects": f"{seconds:.1f} s"}, MOST_SECONDS / seconds, 1.0)


def write(root: Path, split: str, start: int, count: int, random: np.random.Generator) -> None:
    """Smooth pictures with some noise, as large as those of CIFAR-10."""
    for number in range(start, start + count):
        coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((32, 32), Image.BICUBIC)
        pixels = np.clip(np.asarray(coarse, np.int16) + random.integers(-9, 10, (32, 32, 3)), 0, 255)
        path = root / split / f"class {number % CLASSES}" / f"{number:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG", compress_level=1)
        path.write_bytes(buffer.getvalue())


def prepared(store: S3Store, line: DatasetLine, in_use: LineDataset | None) -> PreparedVersion:
    source = open_line_source(line, Settings(), print)
    return prepare_line(store, "benchmark", line, delivered_files(source, line, in_use is None, print), in_use, print)


def timed(work: Callable[[], Result]) -> tuple[Result, float]:
    began = time.perf_counter()
    return work(), time.perf_counter() - began
