"""`cifar data`: the versions of dataset lines, as tables and as JSON."""

import json

import pytest
from PIL import ImageOps
from typer.testing import CliRunner

from cifar_tasks.cli import data_commands
from cifar_tasks.cli.main import app
from cifar_tasks.data.lines.line_log import read_line_log
from cifar_tasks.data.lines.unused_objects import KEPT_SECONDS
from cifar_tasks.errors import ConfigError
from tests.dataset_lines import LINE, accept, deliver, first_delivery, picture, prepared
from tests.stores import InMemoryStore


@pytest.fixture
def digests(tmp_path, monkeypatch) -> list[str]:
    """Two versions of a line: some images are new, gone, relabelled, dropped and unreadable."""
    store, root = InMemoryStore(), first_delivery(tmp_path / "source")
    monkeypatch.setenv("CIFAR_HOME", str(tmp_path / "home"))  # no stack, so no Airflow
    first = accept(store, prepared(store, root), workflow="dag/1")
    for number in range(3):
        deliver(root, f"train/bee/<b>{number}.png", picture(800 + number))
    (root / "train/ant/000.png").unlink()
    (root / "train/ant/001.png").rename(root / "train/bee/from ant.png")
    deliver(root, "train/ant/copy.png", ImageOps.mirror(picture(1_000_002)))
    (root / "train/ant/broken.png").write_bytes(b"broken")
    second = accept(store, prepared(store, root), workflow="dag/2")
    monkeypatch.setattr(data_commands, "_connected", lambda: (store, {LINE: str(root), "new": "cifar10"}))
    monkeypatch.setattr(data_commands, "store_of_test", store, raising=False)
    return [first.dataset.digest, second.dataset.digest]


def run(*words: str) -> str:
    result = CliRunner().invoke(app, ["data", *words], catch_exceptions=False, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def refused(*words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        CliRunner().invoke(app, ["data", *words], catch_exceptions=False)
    return str(caught.value)


def test_lines_are_listed_with_the_version_in_use_also_those_without_one(digests):
    listed = json.loads(run("list", "--json"))
    assert [(line["line"], line["in_use"], line["images"], line["entries"]) for line in listed] == [
        ("new", None, 0, 0),
        (LINE, digests[1][:16], 52, 2),
    ]
    assert digests[1][:16] in run("list")


def test_the_log_of_a_line_is_shown(digests):
    table = run("show", LINE)
    assert [line.split()[0] for line in table.splitlines()] == ["entry", "1", "2"]
    entries = json.loads(run("show", LINE, "--json"))
    assert [entry["dataset"]["digest"] for entry in entries] == digests
    assert entries[1]["diff"] == {"new": 3, "gone": 1, "relabelled": 1, "dropped": 1, "unreadable": 1}
    assert "Lines with versions: pets" in refused("show", "cars")


def test_a_difference_names_counts_and_files(digests):
    found = json.loads(run("diff", digests[0][:8], digests[1][:8], "--json"))
    assert found["counts"] == {"ant": {"before": 25, "after": 23}, "bee": {"before": 25, "after": 29}}
    assert [each["file"] for each in found["new"]] == [f"train/bee/<b>{number}.png" for number in range(3)]
    assert [(each["file"], each["class"]) for each in found["gone"]] == [("train/ant/000.png", "ant")]
    (moved,) = found["relabelled"]
    assert (moved["file"], moved["before"], moved["after"]) == ("train/bee/from ant.png", "ant", "bee")
    assert [each["file"] for each in found["dropped"]] == ["train/ant/copy.png"]
    assert [each["file"] for each in found["unreadable"]] == ["train/ant/broken.png"]
    assert "3 new, 1 gone, 1 relabelled, 1 dropped, 1 unreadable" in run("diff", *digests)


def test_a_difference_backwards_swaps_new_and_gone(digests):
    found = json.loads(run("diff", digests[1], digests[0], "--json"))
    assert (len(found["new"]), len(found["gone"]), found["relabelled"][0]["after"]) == (1, 3, "ant")
    same = json.loads(run("diff", digests[1], digests[1], "--json"))
    assert (same["new"], same["gone"], same["relabelled"]) == ([], [], [])


def test_a_page_shows_an_example_of_each_change_and_escapes_names(digests, tmp_path):
    page = tmp_path / "diff.html"
    run("diff", *digests, "--html", str(page))
    html = page.read_text()
    assert html.count("<img ") == 5
    assert "&lt;b&gt;0.png" in html
    assert "<b>0" not in html
    assert "ant → bee" in html
    assert "http" not in html.replace("<!doctype", "")
    assert "cannot be written" in refused("diff", *digests, "--html", str(tmp_path))


def test_a_version_that_there_is_not_is_named(digests):
    assert "no version begins with 'zzzz'" in refused("diff", "zzzz", digests[0])
    assert "versions of pets begin with ''" in refused("diff", "", digests[0])


def test_a_rollback_needs_a_reason_and_is_logged_with_it(digests):
    store = data_commands.store_of_test
    assert CliRunner().invoke(app, ["data", "rollback", LINE]).exit_code == 2
    told = run("rollback", LINE, "--reason", "grey pictures")
    assert f"Version {digests[0][:16]} of {LINE} is in use" in told
    entry = read_line_log(store, LINE).entry_in_use()
    assert (entry.kind, entry.dataset.digest, entry.reason) == ("rolled_back", digests[0], "grey pictures")
    assert entry.by
    run("rollback", LINE, digests[1][:6], "--reason", "they were fine")
    assert read_line_log(store, LINE).in_use().digest == digests[1]


def test_a_quarantined_version_is_released_or_rejected_with_a_reason(digests, tmp_path):
    store = data_commands.store_of_test
    for command, kind in (("reject", "rejected"), ("release", "released")):
        deliver(tmp_path / "source", f"train/ant/{command}.png", picture(820 + len(command)))
        version = accept(store, prepared(store, tmp_path / "source"), "quarantined").dataset.digest
        answered = run(command, LINE, "--reason", "looked at")
        assert f"Version {version[:16]}" in answered
        last = read_line_log(store, LINE).last
        assert (last.kind, last.reason, last.dataset.digest) == (kind, "looked at", version)
        assert last.by
    assert "is quarantined" in refused("release", LINE, "--reason", "again")


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({}, "CIFAR_AIRFLOW_API and CIFAR_AIRFLOW_PASSWORD are not set"),
        ({"API": "http://127.0.0.1:1"}, "CIFAR_AIRFLOW_PASSWORD is not set"),
        ({"API": "http://127.0.0.1:1", "PASSWORD": "correct horse"}, "http://127.0.0.1:1 does not answer"),
    ],
)
@pytest.mark.parametrize("command", ["rollback", "release"])
def test_a_decision_stands_where_airflow_is_away_and_the_command_says_how_to_start_the_training_later(
    digests, tmp_path, monkeypatch, settings, why, command
):
    store = data_commands.store_of_test
    for name, value in settings.items():
        monkeypatch.setenv(f"CIFAR_AIRFLOW_{name}", value)
    deliver(tmp_path / "source", "train/ant/quarantined.png", picture(840))
    accept(store, prepared(store, tmp_path / "source"), "quarantined")
    told = run(command, LINE, "--reason", "looked at")
    assert read_line_log(store, LINE).entry_in_use() == read_line_log(store, LINE).last
    assert f"is in use. Entry {read_line_log(store, LINE).last.number} of its log" in told
    assert f"is not sent: {'there is no log-in to an Airflow: ' if not settings else ''}" in told
    assert why in told
    assert f"The next run of the DAG cifar10_dataset for {LINE} sends it. To train at once start that DAG." in told
    assert "correct horse" not in told


def test_a_rejection_starts_nothing(digests, tmp_path):
    store = data_commands.store_of_test
    deliver(tmp_path / "source", "train/ant/quarantined.png", picture(841))
    accept(store, prepared(store, tmp_path / "source"), "quarantined")
    assert "event" not in run("reject", LINE, "--reason", "looked at")


def test_what_interrupted_preparations_left_is_counted_then_deleted(digests, tmp_path):
    store = data_commands.store_of_test
    deliver(tmp_path / "source", "train/ant/interrupted.png", picture(900))
    prepared(store, tmp_path / "source")
    assert "0 objects (0.0 MB) were deleted" in run("clean", LINE)
    for key in store.written:
        store.written[key] -= KEPT_SECONDS + 1
    before = set(store.objects)
    told = run("clean", LINE, "--dry-run")
    assert "would be deleted" in told
    assert set(store.objects) == before
    assert run("clean", LINE).split(" (")[0] == told.split(" (")[0] == f"{len(before - set(store.objects))} objects"
    assert len(before) > len(store.objects)
    assert run("diff", *digests)
