"""What differs between two versions of a line, for images whose pixels are in them once or several times."""

import numpy as np

from cifar_tasks.data.lines.line_diff import diff_versions
from cifar_tasks.data.lines.line_index import ImageRow, LeftOut, LineIndex


def index(*images: str, left_out: tuple[str, ...] = ()) -> LineIndex:
    """Of images as `pixels name class`, of the classes ant, bee and cat."""
    classes = ("ant", "bee", "cat")
    rows = []
    for image in images:
        pixels, name, label = image.split()
        rows.append(ImageRow(name, "mark", pixels * 32, classes.index(label), "train"))
    dropped = tuple(LeftOut(name, "mark", "", "equals a test image") for name in left_out)
    return LineIndex(classes, tuple(rows), dropped, (), frozenset(), np.empty((0, 2), np.uint64))


def named(before: LineIndex, after: LineIndex) -> dict[str, list[tuple[str, str | None, str | None]]]:
    found = diff_versions(before, after)
    return {
        kind: [(each.name, each.before, each.after) for each in getattr(found, kind)]
        for kind in ("new", "gone", "relabelled")
    }


def test_an_image_that_moved_is_the_same_and_one_with_another_label_is_relabelled():
    before = index("a 1.png ant", "b 2.png bee", "c 3.png cat")
    after = index("a moved.png ant", "b 2.png ant", "d 4.png bee")
    assert named(before, after) == {
        "new": [("4.png", None, "bee")],
        "gone": [("3.png", "cat", None)],
        "relabelled": [("2.png", "bee", "ant")],
    }


def test_of_equal_images_those_with_the_same_label_belong_together():
    """The cat comes first after, and last before."""
    before = index("a 1.png ant", "a 2.png bee", "a 3.png cat")
    after = index("a 3.png cat", "a 2.png bee", "a 1.png bee")
    assert named(before, after) == {"new": [], "gone": [], "relabelled": [("1.png", "ant", "bee")]}
    assert named(after, before) == {"new": [], "gone": [], "relabelled": [("1.png", "bee", "ant")]}


def test_one_more_of_equal_images_is_new_and_one_fewer_is_gone():
    before, after = index("a 1.png ant"), index("a 1.png ant", "a 2.png ant")
    assert named(before, after) == {"new": [("2.png", None, "ant")], "gone": [], "relabelled": []}
    assert named(after, before) == {"new": [], "gone": [("2.png", "ant", None)], "relabelled": []}


def test_images_are_counted_by_class_and_what_the_later_version_left_out_is_listed():
    found = diff_versions(index("a 1.png ant", "b 2.png ant"), index("a 1.png bee", left_out=("x.png",)))
    assert found.counts == {"ant": (2, 0), "bee": (0, 1), "cat": (0, 0)}
    assert found.as_dict()["dropped"] == [{"file": "x.png", "why": "equals a test image"}]
