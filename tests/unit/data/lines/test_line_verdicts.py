"""What a person decides about a quarantined version, and when nothing can be decided."""

import pytest

from cifar_tasks.data.lines.line_decisions import Decider, roll_back
from cifar_tasks.data.lines.line_log import read_line_log
from cifar_tasks.data.lines.line_verdicts import reject, release, waiting
from cifar_tasks.errors import ConfigError, IntegrityError
from tests.dataset_lines import LINE, accept, deliver, first_delivery, picture, prepared
from tests.stores import InMemoryStore

ANN = Decider(by="ann", reason=" checked\nby hand ")


@pytest.fixture
def store() -> InMemoryStore:
    return InMemoryStore()


@pytest.fixture
def versions(store, tmp_path):
    """A version in use, and one that is quarantined."""
    root = first_delivery(tmp_path / "source")
    first = accept(store, prepared(store, root))
    deliver(root, "train/ant/new.png", picture(500))
    second = accept(store, prepared(store, root), "quarantined", reasons=("brightness",), url="http://report")
    return root, first.dataset.digest, second.dataset.digest


def in_use(store) -> str:
    return read_line_log(store, LINE).in_use().digest


def test_a_released_version_is_in_use_with_the_person_and_the_reason_in_the_log(store, versions):
    _, first, second = versions
    assert in_use(store) == first
    entry = release(store, LINE, None, ANN)
    assert (entry.kind, entry.by, entry.reason, entry.number) == ("released", "ann", "checked by hand", 3)
    assert (entry.reasons, entry.url) == (("brightness",), "http://report")
    assert in_use(store) == second
    assert waiting(read_line_log(store, LINE)) == []


def test_a_rejected_version_is_never_used(store, versions):
    _, first, second = versions
    assert reject(store, LINE, second[:8], ANN).kind == "rejected"
    assert in_use(store) == first
    with pytest.raises(ConfigError, match=f"{second[:16]} of pets is not waiting: it is rejected"):
        release(store, LINE, second, ANN)
    with pytest.raises(ConfigError, match="no version of the dataset line pets is quarantined"):
        release(store, LINE, None, ANN)


@pytest.mark.parametrize("decide", [reject, release, roll_back])
@pytest.mark.parametrize("reason", ["", " \n"])
def test_a_person_gives_a_reason(store, versions, decide, reason):
    with pytest.raises(ConfigError, match="give the reason"):
        decide(store, LINE, None, Decider(by="ann", reason=reason))
    assert len(read_line_log(store, LINE).entries) == 2


def test_a_retry_finds_what_its_run_decided(store, versions):
    decider = Decider(workflow="dag/run", by="ann", reason="yes")
    first = release(store, LINE, versions[2], decider)
    assert release(store, LINE, versions[2], decider) == first
    assert len(read_line_log(store, LINE).entries) == 3


def test_a_version_beside_an_older_one_in_use_is_not_released(store, versions):
    root, _, second = versions
    (root / "train/ant/new.png").unlink()
    deliver(root, "train/bee/newer.png", picture(600))
    third = accept(store, prepared(store, root)).dataset.digest
    with pytest.raises(ConfigError, match=r"another version of pets has come into use .*entry 3"):
        release(store, LINE, second, ANN)
    assert in_use(store) == third
    assert reject(store, LINE, second, ANN).number == 4


def test_after_a_rollback_a_version_that_waits_can_be_released(store, versions):
    root, _, second = versions
    release(store, LINE, second, ANN)
    deliver(root, "train/bee/newer.png", picture(600))
    third = accept(store, prepared(store, root), "quarantined").dataset.digest
    roll_back(store, LINE, None, ANN)
    assert release(store, LINE, third, ANN).dataset.digest == third == in_use(store)


def test_a_newer_version_that_was_rolled_back_does_not_prevent_a_release(store, versions):
    root, first, second = versions
    (root / "train/ant/new.png").unlink()
    deliver(root, "train/bee/newer.png", picture(600))
    third = accept(store, prepared(store, root)).dataset.digest
    roll_back(store, LINE, None, ANN)
    assert in_use(store) == first
    roll_back(store, LINE, third, ANN)
    with pytest.raises(ConfigError, match=r"another version of pets has come into use .*entry 5"):
        release(store, LINE, second, ANN)
    roll_back(store, LINE, first, ANN)
    assert release(store, LINE, second, ANN).dataset.digest == second == in_use(store)


def test_a_run_that_was_cleared_decides_about_the_version_that_it_prepared_now(store, versions):
    root, _, second = versions
    decider = Decider(workflow="dag/run", by="ann", reason="yes")
    reject(store, LINE, second, decider)
    deliver(root, "train/bee/newer.png", picture(600))
    third = accept(store, prepared(store, root), "quarantined").dataset.digest
    assert release(store, LINE, third, decider).dataset.digest == third == in_use(store)


def test_of_several_that_wait_one_is_named(store, versions):
    root, _, second = versions
    deliver(root, "train/bee/newer.png", picture(600))
    third = accept(store, prepared(store, root), "quarantined").dataset.digest
    with pytest.raises(ConfigError, match=f"name one of them: {second[:16]}, {third[:16]}"):
        reject(store, LINE, None, ANN)
    release(store, LINE, third[:12], ANN)
    assert in_use(store) == third


def test_a_version_of_which_something_is_missing_is_not_released(store, versions):
    _, first, second = versions
    store.delete(read_line_log(store, LINE).of_version(second).dataset.index)
    with pytest.raises(IntegrityError, match="is missing: the version cannot be released"):
        release(store, LINE, second, ANN)
    assert in_use(store) == first
