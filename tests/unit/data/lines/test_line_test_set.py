"""How a copy of a test image is described."""

import pytest

from cifar_tasks.data.lines.line_index import ImageRow
from cifar_tasks.data.lines.line_test_set import describe_copy

CLASSES = [f"c{number}" for number in range(1000)]


@pytest.mark.parametrize(("there", "here"), [(0, 0), (700, 700), (1, 2), (2, 1)])
def test_a_copy_with_another_label_says_both(there: int, here: int) -> None:
    test = ImageRow("test/a.png", "mark", "0" * 32, int(str(there)), "test")  # a new object, for `is`
    other = "" if there == here else f", which is c{there} there and c{here} here"
    assert describe_copy("equals", test, here, CLASSES) == f"equals the test image test/a.png{other}"
