"""The log of a dataset line: which version is in use after which decision."""

import pytest

from cifar_tasks.data.lines.line_log import (
    Delivery,
    DiffSummary,
    LineDataset,
    LineEntry,
    LineOutcome,
    append_entry,
    line_names,
    read_line_log,
)
from cifar_tasks.errors import ConfigError, IntegrityError
from tests.stores import InMemoryStore

LINE = "products"


def outcome(kind: str, version: str, **more: object) -> LineOutcome:
    dataset = LineDataset(digest=version * 64, uri=f"memory://{version}", counts={}, index="", index_sha256="")
    delivery = Delivery(objects=1, listing=version)
    return LineOutcome.model_validate({"kind": kind, "dataset": dataset, "delivery": delivery, **more})


def written(store: InMemoryStore, *entries: tuple[str, str]) -> None:
    for kind, version in entries:
        append_entry(store, LINE, lambda log, kind=kind, version=version: outcome(kind, version))


@pytest.mark.parametrize(
    ("entries", "in_use"),
    [
        ([], None),
        ([("quarantined", "a")], None),
        ([("quarantined", "a"), ("rejected", "a")], None),
        ([("quarantined", "a"), ("released", "a")], "a"),
        ([("accepted", "a"), ("quarantined", "b")], "a"),
        ([("accepted", "a"), ("accepted", "b")], "b"),
        ([("accepted", "a"), ("accepted", "b"), ("rolled_back", "a")], "a"),
        ([("accepted", "a"), ("accepted", "b"), ("rolled_back", "a"), ("quarantined", "c")], "a"),
    ],
)
def test_the_version_in_use_is_the_last_that_was_accepted_released_or_rolled_back_to(entries, in_use):
    store = InMemoryStore()
    written(store, *entries)
    found = read_line_log(store, LINE).in_use()
    assert (found and found.digest) == (in_use and in_use * 64)


def test_an_entry_that_is_there_already_is_returned_and_nothing_is_written():
    store = InMemoryStore()
    append_entry(store, LINE, lambda log: outcome("accepted", "a", workflow="dag/run"))

    def again(log) -> LineEntry:
        return log.of_workflow("dag/run", "a" * 64, "accepted") or pytest.fail("decided again")

    assert append_entry(store, LINE, again).number == 1
    assert len(read_line_log(store, LINE).entries) == 1


def test_a_version_is_found_by_the_first_digits_of_its_digest():
    store = InMemoryStore()
    written(store, ("accepted", "a"), ("accepted", "b"), ("rolled_back", "a"))
    log = read_line_log(store, LINE)
    assert log.of_version("aaaa").number == 3
    for digits in ("c", ""):
        with pytest.raises(ConfigError, match=f"no version of the dataset line {LINE} begin with .* {'a' * 16}, b"):
            log.of_version(digits)


def test_digits_with_which_several_digests_begin_name_no_version():
    store = InMemoryStore()
    for version in ("ab", "ac"):
        append_entry(store, LINE, lambda log, version=version: outcome("accepted", version))
    with pytest.raises(ConfigError, match=f"several versions of the dataset line {LINE} begin with 'a'"):
        read_line_log(store, LINE).of_version("a")


def test_a_run_finds_its_own_entry_of_the_kind_that_is_asked_for():
    store = InMemoryStore()
    for kind, version, workflow in (
        ("accepted", "a", "dag/1"),
        ("quarantined", "b", "dag/2"),
        ("released", "b", "dag/2"),
    ):
        append_entry(store, LINE, lambda log, k=kind, v=version, w=workflow: outcome(k, v, workflow=w))
    log = read_line_log(store, LINE)
    assert [log.of_workflow("dag/2", "b" * 64, kind).number for kind in ("quarantined", "released")] == [2, 3]
    assert log.of_workflow("dag/2", "b" * 64, "accepted") is None
    assert log.of_workflow("dag/3", "b" * 64, "accepted", "quarantined", "released") is None


def test_the_entry_of_a_run_about_another_version_is_not_taken_for_this_one():
    store = InMemoryStore()
    for version in ("a", "b"):
        append_entry(store, LINE, lambda log, v=version: outcome("accepted", v, workflow="dag/1"))
    log = read_line_log(store, LINE)
    assert log.of_workflow("dag/1", "b" * 64, "accepted") == log.last
    for version in ("a", "c"):
        assert log.of_workflow("dag/1", version * 64, "accepted") is None


def test_without_a_diff_nothing_differs():
    assert set(DiffSummary().model_dump().values()) == {0}


def test_a_missing_entry_is_named_with_what_to_do():
    store = InMemoryStore()
    written(store, ("accepted", "a"), ("accepted", "b"))
    store.delete(f"lines/{LINE}/log/000001.json")
    with pytest.raises(IntegrityError, match=r"entry 1 of the log of the dataset line products is missing: .*/000001"):
        read_line_log(store, LINE)


def test_lines_that_have_a_log_are_listed():
    store = InMemoryStore()
    written(store, ("accepted", "a"))
    store.put("lines/other/watch/seen.json", b"{}")
    assert line_names(store) == [LINE]
