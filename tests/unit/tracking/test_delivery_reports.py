"""What the champion is asked about a delivery."""

from dataclasses import replace

import numpy as np

from cifar_tasks.data.lines.line_index import ImageRow, LineIndex
from cifar_tasks.tracking.delivery_reports import _not_in_training
from tests.snapshots import drawn_labels, pictures, snapshot


def test_the_champion_is_not_asked_about_an_image_that_it_has_learnt():
    """Relabelled since, or brought again after a rollback: it would repeat the label that it has learnt."""
    labels = drawn_labels(4, 0)
    new = snapshot(pictures(labels, 0), labels)
    digests = new.images.digests
    rows = [ImageRow("a.png", "1", digests[1], 0, "train"), ImageRow("b.png", "1", digests[2], 0, "validation")]
    index = LineIndex(new.classes, tuple(rows), (), (), frozenset(), np.empty((0, 2), np.uint64))
    assert _not_in_training(np.array([0, 1, 2]), new, index).tolist() == [0, 2]
    assert _not_in_training(np.array([1]), new, index).tolist() == []
    assert _not_in_training(np.array([], np.int64), new, replace(index, images=())).tolist() == []
