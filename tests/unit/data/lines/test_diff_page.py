"""The difference of two versions as a page."""

import re

import numpy as np
import pytest

from cifar_tasks.data.lines.diff_page import EXAMPLES, LISTED, diff_page
from cifar_tasks.data.lines.line_diff import Change, LineDiff
from cifar_tasks.data.lines.line_index import LeftOut

NONE = LineDiff({}, (), (), (), (), ())
IMAGE = np.zeros((4, 4, 3), np.uint8)


def page(**fields: object) -> str:
    return diff_page("pets", LineDiff(**{**vars(NONE), **fields}), lambda change: IMAGE, lambda change: IMAGE)


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, []),
        (1, [0]),
        (EXAMPLES, list(range(EXAMPLES))),
        (EXAMPLES + 1, list(range(0, EXAMPLES + 1, 2))),
        (100, list(range(0, 100, 5))),
    ],
)
def test_the_examples_of_a_kind_are_spread_over_all_of_them(count, shown):
    new = [Change(f"{number}.png", "train", number, None, "ant") for number in range(count)]
    html = page(new=new)
    assert f"<h2>New: {count}</h2>" in html
    assert re.findall(r'alt="(\d+)\.png"', html) == [str(number) for number in shown]


def test_the_images_of_a_class_are_counted_before_and_after():
    html = page(counts={"ant": (1_200, 1_500), "bee": (3, 1), "cat": (7, 7)})
    rows = re.findall(r"<tr><td>(\w+)</td><td>([\d,]+)</td><td>([\d,]+)</td><td>([-+\d,]+)</td></tr>", html)
    assert rows == [("ant", "1,200", "1,500", "+300"), ("bee", "3", "1", "-2"), ("cat", "7", "7", "+0")]


def test_files_that_were_left_out_are_listed_with_the_reason_and_counted():
    dropped = [LeftOut(f"{number}.png", "mark", "", "equals a test image") for number in range(LISTED + 1)]
    html = page(dropped=dropped, unreadable=[LeftOut("broken.png", "mark", "", "is no image")])
    assert f"<h2>Dropped: in the frozen test set: {LISTED + 1}</h2><ul><li>0.png equals a test image</li>" in html
    assert html.count("<li>") == LISTED + 1
    assert "<h2>Unreadable: 1</h2><ul><li>broken.png is no image</li></ul>" in html
