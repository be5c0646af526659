"""Preparing and evaluating stay under 1 GB whatever the input, in a process of their own."""

import bz2
import gzip
import multiprocessing
import os
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
import zlib
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cifar_tasks.data import near_duplicates
from cifar_tasks.data.preparation import SHARD_BYTES
from cifar_tasks.evaluation import plots
from cifar_tasks.evaluation.calibration import calibrate, to_float16
from cifar_tasks.evaluation.metrics import confused_pairs, cross_entropy, evaluate
from cifar_tasks.steps.process import STEP_ENV
from tests.stores import FolderStore
from tests.unit.data.pictures import class_files, directory_of, encoded, png, tar_of, zip_of
from tests.unit.data.sources import GeneratedSource, peak_megabytes, prepare_in_a_process

LIMIT_MEGABYTES = 1000
MEBIBYTE = 2**20

PREPARE = """
import resource, sys
from pathlib import Path
from cifar_tasks.data import spool
from cifar_tasks.data.preparation import prepare
from cifar_tasks.data.source import open_source
from cifar_tasks.data.image_format import ImageFormat
from cifar_tasks.errors import CifarError
from cifar_tasks.settings import Settings
from tests.stores import FolderStore
from tests.unit.data.sources import peak_megabytes
spool.THREADS = 8  # as on a machine with more cores
if sys.argv[3] == "limited":
    resource.setrlimit(resource.RLIMIT_DATA, (10**9, 10**9))
try:
    store = FolderStore(Path(sys.argv[2]))
    prepare(open_source(sys.argv[1], Settings(), print, open_bucket=lambda _: store), store, 0, print)
except CifarError as error:
    print(error)
print("PEAK", peak_megabytes())
"""


def prepared(source: Path | str, store: Path, limited: bool = True) -> str:
    """What preparing says, in a process of its own; it must not take more memory than is promised.

    `limited`: the kernel refuses more than 1 GB, also of what is only reserved.
    """
    done = subprocess.run(
        [sys.executable, "-c", PREPARE, str(source), str(store), "limited" if limited else ""],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | STEP_ENV,
        timeout=120,
    )
    text, _, megabytes = done.stdout.rpartition("PEAK ")
    assert float(megabytes) < LIMIT_MEGABYTES, text
    return text


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def large_png(side: int, colour_type: int = 6, depth: int = 16) -> bytes:
    """Made row by row, without the picture in memory."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour_type]
    packer = zlib.compressobj(1)
    row = b"\0" + bytes(side * channels * depth // 8)
    pixels = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])
    header = struct.pack(">IIBBBBB", side, side, depth, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


class Bomb:
    """A compressor that makes zeros, by deflate two gigabytes, of whatever it is given."""

    def __init__(self, method: int) -> None:
        self._method = method

    def compress(self, data: bytes) -> bytes:
        if self._method == zipfile.ZIP_BZIP2:
            return bz2.compress(bytes(MEBIBYTE))
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        return (packer.compress(bytes(MEBIBYTE)) + packer.flush(zlib.Z_FULL_FLUSH)) * 2048

    def flush(self) -> bytes:
        return b"" if self._method == zipfile.ZIP_BZIP2 else b"\3\0"


def evaluation_of_1000_classes(answers: Any) -> None:
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(5000, 1000)).astype(np.float32), np.arange(5000) % 1000
    names = tuple(f"{number} " + "x" * 200 for number in range(1000))
    cross_entropy(logits, labels)
    plots.reliability_diagram(calibrate(to_float16(logits), labels), "title")
    result = evaluate(logits.argmax(axis=1), labels, names)
    confused_pairs(result.confusion, names)
    plots.confusion_matrix(result.confusion, names, "title").savefig(BytesIO())
    answers.put((len(result.report["classes"]), peak_megabytes()))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a process's peak of memory")
class TestMemory:
    def test_pictures_of_64_megapixels(self, tmp_path: Path) -> None:
        root = directory_of(class_files(), tmp_path / "images")
        for number, depth in enumerate((16, 8, 8)):
            path = root / f"train/ant/large{number}.png"
            path.write_bytes(large_png(7990, depth=depth))
            os.truncate(path, 9 * MEBIBYTE)  # too large to be decoded by one thread together with the others
        assert "dataset version" in prepared(root, tmp_path / "store", limited=False)  # 436 MB in use, more in reserve

    def test_a_progressive_jpeg_of_64_megapixels(self, tmp_path: Path) -> None:
        buffer = BytesIO()
        Image.new("RGB", (7990, 7990)).save(buffer, "JPEG", progressive=True, subsampling=0)
        files = class_files() | {"train/ant/large.jpg": buffer.getvalue()}
        assert "dataset version" in prepared(directory_of(files, tmp_path / "images"), tmp_path / "store")

    def test_many_files_of_many_megabytes(self, tmp_path: Path) -> None:
        """Photographs of 7 MB, which are small inside: what follows the picture is ignored by a decoder."""
        files = {
            f"{name}.jpg": encoded(Image.open(BytesIO(content)), "JPEG") for name, content in class_files().items()
        }
        root = directory_of(files, tmp_path / "images")
        for number in range(120):
            path = root / f"train/ant/photo{number}.jpg"
            path.write_bytes(encoded(Image.open(BytesIO(png(1000 + number))), "JPEG"))
            os.truncate(path, 7 * MEBIBYTE)
        assert "dataset version" in prepared(root, tmp_path / "store")

    def test_files_of_60_megabytes_of_zeros(self, tmp_path: Path) -> None:
        root = directory_of(class_files(), tmp_path / "images")
        for number in range(16):
            (root / f"train/ant/z{number}.png").touch()
            os.truncate(root / f"train/ant/z{number}.png", 60 * MEBIBYTE)
        assert "16 files cannot be used" in prepared(root, tmp_path / "store")

    def test_objects_of_55_megabytes(self, tmp_path: Path) -> None:
        store = FolderStore(tmp_path / "store")
        for name, content in class_files().items():
            store.put(f"pets/{name}", content)
        for number in range(16):
            store.put(f"pets/train/ant/large{number}.png", png(1000 + number))
        for path in (tmp_path / "store").rglob("*large*"):
            os.truncate(path, 55 * MEBIBYTE)
        assert "dataset version" in prepared("s3://bucket/pets", tmp_path / "store")

    def test_members_of_60_megabytes_of_zeros(self, tmp_path: Path) -> None:
        packed = gzip.compress(bytes(60 * MEBIBYTE), 1)
        with (tmp_path / "images.tgz").open("wb") as archive:
            for number in range(16):
                member = tarfile.TarInfo(f"train/ant/z{number}.png")
                member.size = 60 * MEBIBYTE
                archive.write(gzip.compress(member.tobuf()) + packed)
            archive.write(gzip.compress(tar_of(class_files(), tmp_path / "a.tar").read_bytes()))
        text = prepared(tmp_path / "images.tgz", tmp_path / "store")
        assert "16 files cannot be used" in text
        assert "train/ant/z9.png is no PNG or JPEG by its content" in text

    @pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
    def test_a_zip_whose_header_claims_a_kilobyte_for_much_more(self, tmp_path: Path, method: int) -> None:
        path = zip_of(class_files(), tmp_path / "images.zip")
        with zipfile.ZipFile(path, "a") as archive, archive.open(zipfile.ZipInfo("train/ant/bomb.png"), "w") as member:
            member._compressor = Bomb(method)  # type: ignore[attr-defined]
            member._zinfo.compress_type = method  # type: ignore[attr-defined]
            member.write(bytes(1000))
        text = prepared(path, tmp_path / "store")
        wanted = (
            "is no PNG or JPEG by its content" if method == zipfile.ZIP_DEFLATED else "is packed by an unusual method"
        )
        assert f"train/ant/bomb.png {wanted}" in text
        assert "dataset version" not in text

    @pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
    def test_a_tar_whose_name_of_a_file_has_a_gigabyte(self, tmp_path: Path, kind: bytes) -> None:
        path = tmp_path / "images.tar"
        header = tarfile.TarInfo("train/ant/1.png")
        header.type, header.size = kind, 1024 * MEBIBYTE
        path.write_bytes(header.tobuf())
        os.truncate(path, 1100 * MEBIBYTE)
        assert "has a header of 1,073,741,824 bytes" in prepared(path, tmp_path / "store")

    def test_many_large_images_are_prepared_in_400_megabytes(self, tmp_path: Path) -> None:
        """12,000 images of 128 × 128 pixels, 590 MB, in a process of its own."""
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            version, megabytes = pool.submit(prepare_in_a_process, GeneratedSource(12_000, 128), tmp_path, 128).result()
        sizes = [entry.size for entry in FolderStore(tmp_path).entries(f"datasets/{version.digest[:16]}/")]
        assert sum(sizes) > 12_000 * 128 * 128 * 3
        assert max(sizes) <= SHARD_BYTES == 64 * 2**20
        assert megabytes < 400

    def test_1000_classes_are_evaluated_and_drawn(self) -> None:
        context = multiprocessing.get_context("spawn")
        answers = context.Queue()
        process = context.Process(target=evaluation_of_1000_classes, args=(answers,))
        process.start()
        classes, megabytes = answers.get(timeout=120)
        process.join()
        assert classes == 1000
        assert megabytes < LIMIT_MEGABYTES


def test_the_search_for_near_duplicates_takes_little_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(near_duplicates, "MAX_CANDIDATES", 100)
    thumbs = np.zeros((20_000, 8, 9), np.uint8)
    tracemalloc.start()
    near_duplicates.near_duplicates(thumbs, np.arange(20_000), lambda at: np.zeros((2, 16, 16, 3), np.uint8))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * MEBIBYTE
