"""The tasks of a dataset line: what is new in its source, and how it comes into use."""

import json
import shutil
from pathlib import Path

import pytest

from cifar_tasks.errors import ConfigError, DataError, SourceChanged
from cifar_tasks.steps.dataset_line import (
    accept_version,
    await_delivery,
    check_source,
    prepare_version,
    version_in_use,
)
from cifar_tasks.steps.payloads import WorkflowRun
from tests.dataset_lines import LINE, deliver, first_delivery, picture
from tests.unit.steps.conftest import Services


@pytest.fixture
def root(services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The source of the line, with a first delivery."""
    configure(monkeypatch, tmp_path / "source", settle_seconds=0)
    return first_delivery(tmp_path / "source")


def configure(monkeypatch: pytest.MonkeyPatch, source: Path, **values: object) -> None:
    monkeypatch.setenv("CIFAR_DATASET_LINES", json.dumps({LINE: {"source": str(source), **values}}))


def run(name: str) -> WorkflowRun:
    return WorkflowRun(id=f"cli/{name}", name=name)


def test_a_delivery_is_complete_prepared_and_in_use_and_then_nothing_is_new(root: Path):
    assert version_in_use(LINE) is None
    assert check_source(LINE, run("first")).status == "complete"
    prepared = prepare_version(LINE)
    assert (prepared.changed, prepared.in_use, prepared.base) == (True, None, None)
    accepted = accept_version(prepared, run("first"))
    assert (accepted.number, accepted.dataset) == (1, prepared.dataset)
    assert accept_version(prepared, run("first")) == accepted  # a retry
    assert version_in_use(LINE) == accepted
    found = check_source(LINE, run("second"))
    assert (found.line, found.status) == (LINE, "unchanged")
    assert found.reason.startswith("nothing new: 50 objects")


def test_a_later_delivery_is_prepared_beside_the_version_in_use(root: Path):
    first = accept_version(prepare_version(LINE), run("first"))
    for number in range(1, 5):  # whose digests come before and after that of the version in use
        deliver(root, f"train/bee/new{number}.png", picture(5000 + number))
        second = prepare_version(LINE)
        assert (second.changed, second.in_use, second.base) == (True, first.dataset, first.dataset.digest)
        assert second.diff.new == number
    assert accept_version(second, run("second")).number == 2


def test_a_delivery_that_is_the_version_in_use_counts_as_handled(root: Path):
    accept_version(prepare_version(LINE), run("first"))
    (root / "train/bee/000.png").touch()  # a new listing of the same images
    assert check_source(LINE, run("second")).status == "complete"
    assert not prepare_version(LINE).changed
    assert check_source(LINE, run("third")).status == "unchanged"


def test_a_source_that_changes_again_is_not_prepared(root: Path, monkeypatch: pytest.MonkeyPatch):
    configure(monkeypatch, root, settle_seconds=600)
    assert check_source(LINE, run("first")).status == "waiting"
    with pytest.raises(SourceChanged, match=r"has changed again: .*It is prepared when complete"):
        prepare_version(LINE)


def test_a_later_run_waits_in_place_of_the_earlier_one(root: Path):
    assert check_source(LINE, run("first")).status == "complete"
    assert check_source(LINE, run("second")).status == "complete"
    found = await_delivery(LINE, run("first"))
    assert (found.status, "cli/second waits" in found.reason) == ("superseded", True)


def test_the_first_version_needs_enough_images_of_each_class_and_a_later_one_may_have_fewer(root: Path):
    most = sorted((root / "train/ant").iterdir())[1:]
    kept = root.parent / "kept"
    kept.mkdir()
    for path in most:
        shutil.move(path, kept)
    with pytest.raises(DataError, match=r"class 'ant' has too few training images \(1\)"):
        prepare_version(LINE)
    shutil.copytree(kept, root / "train/ant", dirs_exist_ok=True)
    accept_version(prepare_version(LINE), run("first"))
    for path in most:
        path.unlink()
    assert prepare_version(LINE).diff.gone == len(most)


def test_a_line_that_is_not_configured_is_named_with_those_that_are(root: Path):
    for step in (lambda name: check_source(name, run("x")), prepare_version, version_in_use):
        with pytest.raises(ConfigError, match=r"there is no dataset line 'pet' \(did you mean pets\?\).*has: pets"):
            step("pet")
