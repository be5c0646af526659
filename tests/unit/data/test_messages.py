"""What is wrong with files is said at once, in text that any log can show."""

import pytest

from cifar_tasks.data.messages import BadFiles, listed, readable
from cifar_tasks.errors import DataError


def test_the_first_names_are_listed_and_all_are_counted() -> None:
    names = [f"{number}.png" for number in range(1234)]
    assert listed(names[:20]) == ", ".join(names[:20])
    assert listed(names) == f"{', '.join(names[:20])}, … (the first 20 of 1,234)"


@pytest.mark.parametrize("name", ["a\nb\x1b[31m.png", "\udcff.png", "x" * 70_000, "a\u202eb"])
def test_any_name_becomes_short_text_on_one_line(name: str) -> None:
    text = readable(name)
    text.encode()
    assert text.isprintable()
    assert len(text) <= 200


def test_an_ordinary_name_stays_as_it_is() -> None:
    assert readable("train/Füchse & Löwen 🦊/1 (2).png") == "train/Füchse & Löwen 🦊/1 (2).png"


def test_no_bad_file_is_no_error_and_one_is_one_line() -> None:
    bad = BadFiles("pets")
    bad.check("the layout is wrong")
    bad.add("1.png", "is no image.")
    bad.add("1.png", "is too large.")
    with pytest.raises(DataError, match=r"^pets: 1\.png is no image\.$"):
        bad.check()


@pytest.mark.parametrize(("count", "first"), [(2, ""), (20, ""), (21, "; the first 20")])
def test_of_many_bad_files_the_first_are_named_and_all_are_counted(count: int, first: str) -> None:
    bad = BadFiles("pets")
    for number in range(count):
        bad.add(f"{number}.png", "is no image.")
    with pytest.raises(DataError) as caught:
        bad.check()
    head, *lines = str(caught.value).splitlines()
    assert head == f"pets: {count} files cannot be used{first}:"
    assert lines == [f"{number}.png is no image." for number in range(min(count, 20))]


def test_what_else_is_wrong_is_said_first() -> None:
    bad = BadFiles("pets")
    bad.add("1.png", "is no image.")
    with pytest.raises(DataError, match=r"^there is one class\npets: 1\.png is no image\.$"):
        bad.check("there is one class")
