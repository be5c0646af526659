"""What a delivery has changed follows from the content of the images alone."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cifar_tasks.data.quality.snapshot import ImageSet, Snapshot, compare_snapshots, image_set

NOTHING = image_set(np.empty((0, 1, 1, 3), np.uint8), np.empty(0, int))
CONTENT = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2)), max_size=12)


def version(content: list[tuple[int, int]], prefix: str = "", classes: tuple[str, ...] = ("a", "b", "c")) -> Snapshot:
    digests = [str(image) for image, _ in content]
    labels = np.array([label for _, label in content], np.int64)
    names = [f"{prefix}{number}" for number in range(len(content))]
    return Snapshot(classes, ImageSet(labels, names, digests, NOTHING.read), NOTHING)


@given(new=CONTENT, old=CONTENT)
def test_added_relabelled_and_gone_agree_with_sets_of_images(new, old):
    changes = compare_snapshots(version(new), version(old))
    known = {image for image, _ in old}
    assert [new[position][0] for position in changes.added] == [image for image, _ in new if image not in known]
    relabelled = [(image, label) for image, label in new if image in known and (image, label) not in old]
    assert [new[position] for position in changes.relabelled] == relabelled
    assert changes.gone == len(known - {image for image, _ in new})


@given(content=CONTENT)
def test_renamed_and_reordered_images_are_no_change(content):
    changes = compare_snapshots(version(content[::-1], "renamed-"), version(content))
    assert (len(changes.added), len(changes.relabelled), changes.gone) == (0, 0, 0)


def test_labels_are_compared_by_the_names_of_their_classes():
    old = version([(1, 0), (2, 1)], classes=("a", "b"))
    new = version([(1, 1), (2, 0)], classes=("b", "a"))
    assert len(compare_snapshots(new, old).relabelled) == 0


def test_a_first_version_is_all_new():
    assert compare_snapshots(version([(1, 0), (2, 1)]), None).added.tolist() == [0, 1]
