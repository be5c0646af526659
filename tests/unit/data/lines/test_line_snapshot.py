"""A version of a line as the checks read it."""

import gzip
import hashlib
import json

import numpy as np

from cifar_tasks.data.lines.line_preparation import prepare_line
from cifar_tasks.data.lines.line_settings import DatasetLine
from cifar_tasks.data.lines.line_snapshot import load_snapshot, validation_positions
from cifar_tasks.data.lines.line_source import delivered_files, open_line_source
from cifar_tasks.data.quality.quality_checks import check
from cifar_tasks.data.quality.quality_limits import QualityLimits
from cifar_tasks.settings import Settings
from cifar_tasks.storage.s3 import canonical_json
from tests.dataset_lines import CLASSES, LINE, accept, deliver, first_delivery, index_of, picture, prepared
from tests.stores import InMemoryStore


def test_images_names_and_labels_of_a_snapshot_belong_together(tmp_path):
    store, root = InMemoryStore(), first_delivery(tmp_path / "source")
    (root / "train/ant/broken.png").write_bytes(b"broken")
    version = accept(store, prepared(store, root))
    found = load_snapshot(store, version.dataset, tmp_path / "cache")
    assert (found.classes, found.unreadable) == (CLASSES, ("train/ant/broken.png",))
    for images, count in ((found.images, 40), (found.test, 10)):
        assert len(images) == count
        order = np.random.default_rng(0).permutation(count)
        for position, image in zip(order.tolist(), images.read(order), strict=True):
            assert hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest() == images.digests[position]
            assert images.names[position].split("/")[1] == CLASSES[images.labels[position]]
    validated = {row.digest for row in index_of(store, version).images if row.split == "validation"}
    positions = validation_positions(store, version.dataset)
    assert {found.images.digests[position] for position in positions.tolist()} == validated


def test_a_version_is_checked_against_the_one_in_use(tmp_path):
    store, root = InMemoryStore(), first_delivery(tmp_path / "source")
    first = accept(store, prepared(store, root))
    for number in range(8):
        deliver(root, f"train/bee/grey{number}.png", picture(900 + number).convert("L"))
    second = prepared(store, root)
    new, in_use = (load_snapshot(store, each.dataset, tmp_path / "cache") for each in (second, first))
    report = check(new, in_use, QualityLimits())
    assert (report.added, report.gone) == (8, 0)
    assert any(reason.startswith("grey images") for reason in report.reasons)
    assert {example.name for example in report.examples} >= {f"train/bee/grey{number}.png" for number in range(8)}


def test_copies_of_test_images_are_left_out_and_too_many_of_them_fail_the_check(tmp_path):
    store, root = InMemoryStore(), first_delivery(tmp_path / "source", train=60)
    first = accept(store, prepared(store, root))

    def checked(copies: int) -> tuple[int, list[str]]:
        for number in range(copies):
            deliver(root, f"train/ant/copy{number}.png", picture(1_000_000 + number))
        for number in range(99):
            deliver(root, f"train/bee/new{number}.png", picture(5000 + number))
        second = prepared(store, root)
        new, in_use = (load_snapshot(store, each.dataset, tmp_path / "cache") for each in (second, first))
        reasons = check(new, in_use, QualityLimits()).reasons
        return second.diff.dropped, [reason for reason in reasons if reason.startswith("copies of test images")]

    assert checked(1) == (1, [])
    dropped, (reason,) = checked(3)
    assert dropped == 3
    assert "3 of 102 of the added images (2.9%; at most 0.01): left out: train/ant/copy0.png, " in reason


def test_new_files_in_the_test_folder_are_no_copies(tmp_path):
    store, root = InMemoryStore(), first_delivery(tmp_path / "source")
    accept(store, prepared(store, root))
    deliver(root, "test/bee/another.png", picture(7_000_000))
    deliver(root, "train/bee/another.png", picture(7_000_001))
    found = load_snapshot(store, prepared(store, root).dataset, tmp_path / "cache")
    assert found.test_copies == ()


def with_larger_files(tmp_path):
    """A version in use of files of 32 × 32 pixels, and one with 30 more of 80 × 40 and 40 × 80."""
    store, root = InMemoryStore(), first_delivery(tmp_path / "source")
    first = accept(store, prepared(store, root, settle_seconds=0))
    for number in range(30):
        image = picture(900 + number).resize((80, 40) if number % 2 else (40, 80))
        deliver(root, f"train/{CLASSES[number % 2]}/large{number}.png", image)
    return store, first, prepared(store, root)


def test_the_size_of_a_file_is_kept_in_each_version_and_compared(tmp_path):
    store, first, second = with_larger_files(tmp_path)
    new, in_use = (load_snapshot(store, each.dataset, tmp_path / "cache") for each in (second, first))
    assert {row.size for row in index_of(store, first).images} == {(32, 32)}
    sizes = {name: tuple(size) for name, size in zip(new.images.names, new.images.sizes.tolist(), strict=True)}
    assert (sizes["train/ant/large0.png"], sizes["train/bee/large1.png"]) == ((40, 80), (80, 40))
    rows = {row.check: row for row in check(new, in_use, QualityLimits()).rows}
    assert [(rows[name].passed, rows[name].value) for name in ("size", "aspect ratio")] == [(False, 1.0)] * 2
    assert "median 40 against 32" in rows["size"].text
    assert "median 2 against 1" in rows["aspect ratio"].text
    rows = {row.check: row for row in check(in_use, in_use, QualityLimits()).rows}
    assert "size" not in rows  # nothing was added


def test_a_version_from_before_sizes_were_kept_is_not_compared_by_them(tmp_path):
    store, first, _ = with_larger_files(tmp_path)
    content = json.loads(gzip.decompress(store.get(first.dataset.index)))
    del content["sizes"]
    ref = store.put(first.dataset.index, gzip.compress(canonical_json(content), mtime=0))
    old = first.dataset.model_copy(update={"index_sha256": ref.sha256})
    line = DatasetLine(source=str(tmp_path / "source"))
    delivered = delivered_files(open_line_source(line, Settings(), print), line, False, print)
    second = prepare_line(store, LINE, line, delivered, old, print)
    new, in_use = (load_snapshot(store, each, tmp_path / "cache") for each in (second.dataset, old))
    assert set(map(tuple, in_use.images.sizes.tolist())) == {(0, 0)}
    rows = {row.check: row for row in check(new, in_use, QualityLimits()).rows}
    assert [(rows[name].passed, rows[name].value) for name in ("size", "aspect ratio")] == [(True, None)] * 2
