"""A version of a line as the checks read it."""

import hashlib

import numpy as np

from cifar_tasks.data.lines.line_snapshot import load_snapshot, validation_positions
from cifar_tasks.data.quality.quality_checks import check
from cifar_tasks.data.quality.quality_limits import QualityLimits
from tests.dataset_lines import CLASSES, accept, deliver, first_delivery, index_of, picture, prepared
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
