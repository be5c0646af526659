"""Which version of a line a training takes: the one in use, or a past one that was in use once."""

import re

import pytest

from cifar_tasks.data.lines.line_log import read_line_log
from cifar_tasks.data.lines.line_versions import VERSION_PATTERN, choose_version, used_versions
from cifar_tasks.errors import ConfigError
from tests.stores import InMemoryStore
from tests.unit.data.lines.test_line_log import LINE, written

HISTORY = [("accepted", "a"), ("quarantined", "b"), ("accepted", "c"), ("quarantined", "d"), ("released", "b")]
HISTORY += [("rolled_back", "a")]


@pytest.fixture
def log():
    store = InMemoryStore()
    written(store, *HISTORY)
    return read_line_log(store, LINE)


@pytest.mark.parametrize(
    ("wanted", "number", "version"),
    [
        (None, 6, "a"),
        ("", 6, "a"),
        ("1", 1, "a"),
        ("3", 3, "c"),
        ("000003", 3, "c"),
        ("6", 1, "a"),  # the entry that brought it into use first
        ("2", 5, "b"),  # quarantined, then released
        ("c" * 8, 3, "c"),
        ("b" * 64, 5, "b"),
    ],
)
def test_the_version_in_use_or_a_past_one_by_number_or_digest(log, wanted, number, version):
    entry = choose_version(log, wanted)
    assert (entry.number, entry.dataset.digest) == (number, version * 64)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("4", "never in use: it did not pass its validation. Release it first: cifar data release products"),
        ("d" * 16, "version dddddddddddddddd of the dataset line products was never in use"),
        ("7", "the log of the dataset line products has no entry 7: it has 6"),
        ("0", "has no entry 0"),
        ("e" * 8, "no version of the dataset line products begin with 'eeeeeeee'"),
    ],
)
def test_a_version_that_was_never_in_use_or_is_not_there_is_refused(log, wanted, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        choose_version(log, wanted)


def test_a_line_without_a_version_says_what_to_start():
    with pytest.raises(ConfigError, match=r"has no version in use\. Start the DAG cifar10_dataset"):
        choose_version(read_line_log(InMemoryStore(), LINE))


def test_past_versions_are_those_that_were_in_use_each_once_in_order(log):
    assert [(entry.number, entry.dataset.digest[0]) for entry in used_versions(log)] == [(1, "a"), (3, "c"), (5, "b")]


@pytest.mark.parametrize("text", ["1", "999999", "0123abcd", "f" * 64])
def test_a_version_is_written_as_a_number_or_a_digest(text):
    assert re.search(VERSION_PATTERN, text)


@pytest.mark.parametrize("text", ["", "abc", "1234567", "0123ABCD", "f" * 65, "1\n2"])
def test_other_texts_are_no_version(text):
    assert not re.search(VERSION_PATTERN, text)
