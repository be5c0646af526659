import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import pytest
from matplotlib.figure import Figure
from wandb.util import get_core_path

from cifar_tasks.errors import ConfigError, Stopped
from cifar_tasks.settings import Settings
from cifar_tasks.tracking import wandb_run as module
from cifar_tasks.tracking.wandb_run import wandb_run, wanted

RUN = "0123456789abcdef0123456789abcdef"
KEY = "a-key-that-nobody-may-read-" + "0" * 20

Records = dict[str, list[Any]]


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """Offline, whatever the developer has set; wandb's own changes are undone as well."""
    with patch.dict(os.environ):
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            del os.environ[name]
        os.environ["WANDB_MODE"] = "offline"
        yield


@pytest.fixture
def short() -> Iterator[Path]:
    """For the sockets that a killed service leaves behind: their paths must be short."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home where one training was followed from its start to its end."""
    home = tmp_path_factory.mktemp("home")
    with wandb_run(Settings(home=home), RUN, "cnn", group="manual-1", tags=["demo"]) as tracker:
        tracker.log_parameters({"learning_rate": 0.1, "channels": (64, 128), "device": "CPU"})
        for epoch, loss in ((1, 1.5), (2, 1.2)):
            tracker.log_epoch(epoch, {"validation_loss": loss}, "head_")
        for epoch, loss in ((1, 0.9), (2, 0.5), (2, 7.7), (3, 0.6)):
            tracker.log_epoch(epoch, {"validation_loss": loss, "train_loss": loss / 2})
        tracker.log_figure(Figure(figsize=(1, 1)), "learning_curves.png")
        tracker.log_ending("validation loss did not fall for 1 epochs", 2)
    return home


@pytest.fixture(scope="module")
def records(trained: Path) -> Records:
    return read(trained)


def read(home: Path, number: int = 0) -> Records:
    """What the run's file holds, by kind of record, as `wandb leet inspect` shows it (which takes a second more)."""
    folder = sorted((home / "wandb").glob("offline-run-*"))[number]
    inspect = [get_core_path(), "leet", "inspect", "--no-observability", "--json"]
    command = [*inspect, "--run-file", folder / f"run-{RUN}.wandb", home]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: Records = defaultdict(list)
    for line in shown.splitlines():
        record = json.loads(line)
        found[record["type"]].append(record[record["type"]])
    return found


def merged(records: Records, kind: str) -> dict[str, Any]:
    return {key: value for record in records[kind] for key, value in record["update"].items()}


def services() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if "wandb" in child.name()]


def test_the_run_is_named_like_the_mlflow_run(records: Records) -> None:
    (run,) = records["run"]
    assert (run["run_id"], run["display_name"], run["run_group"], run["tags"]) == (RUN, "cnn", "manual-1", ["demo"])
    assert run["project"] == Settings().experiment


def test_the_parameters_are_the_configuration(records: Records) -> None:
    config = merged(records, "config")
    assert {key: config[key] for key in ("learning_rate", "channels", "device")} == {
        "learning_rate": 0.1,
        "channels": [64, 128],
        "device": "CPU",
    }


@pytest.mark.parametrize(("label", "losses"), [("head_", [(1, 1.5), (2, 1.2)]), ("", [(1, 0.9), (2, 0.5), (3, 0.6)])])
def test_every_epoch_of_each_part_is_there_once(records: Records, label: str, losses: list[Any]) -> None:
    items = [row["item"] for row in records["history"]]
    loss = f"{label}validation_loss"
    assert [(item[f"{label}epoch"], item[loss]) for item in items if loss in item] == losses


def test_charts_are_drawn_over_the_epoch(records: Records) -> None:
    axes = {record.get("name") or record.get("glob_name"): record["step_metric"] for record in records["metric"]}
    assert axes["*"] == "epoch"
    assert axes["head_*"] == "head_epoch"


def test_a_figure_is_kept_as_a_picture(trained: Path, records: Records) -> None:
    (path,) = [
        row["item"]["learning_curves.path"] for row in records["history"] if "learning_curves.path" in row["item"]
    ]
    (run,) = (trained / "wandb").glob("offline-run-*")
    assert (run / "files" / path).read_bytes().startswith(b"\x89PNG")


def test_the_summary_says_why_training_ended(records: Records) -> None:
    summary = merged(records, "summary")
    assert (summary["ended_because"], summary["best_epoch"]) == ("validation loss did not fall for 1 epochs", 2)
    assert records["exit"][0]["exit_code"] == 0


@pytest.mark.parametrize("error", [RuntimeError, Stopped])
def test_a_training_that_did_not_end_well_fails_and_goes_on_in_the_same_run(
    tmp_path: Path, error: type[BaseException]
) -> None:
    def train() -> None:
        with wandb_run(Settings(home=tmp_path), RUN, "cnn") as tracker:
            tracker.log_epoch(1, {"train_loss": 0.9})
            raise error

    with pytest.raises(error):
        train()
    with wandb_run(Settings(home=tmp_path), RUN, "cnn") as tracker:
        tracker.log_epoch(2, {"train_loss": 0.8})
    first, second = read(tmp_path, 0), read(tmp_path, 1)
    assert [tried["exit"][0]["exit_code"] for tried in (first, second)] == [1, 0]
    assert [tried["run"][0]["run_id"] for tried in (first, second)] == [RUN, RUN]
    assert second["run"][0]["resume"]


def test_nothing_is_left_running_printed_or_written_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(elsewhere)
    with wandb_run(Settings(home=tmp_path / "home"), RUN, "cnn") as tracker:
        assert services()
        tracker.log_epoch(1, {"train_loss": 0.9})
    assert not services()
    assert not list(elsewhere.iterdir())
    assert capfd.readouterr() == ("", "")


def test_a_server_that_does_not_answer_costs_a_warning_and_nothing_is_lost(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connects, and never says a word
        monkeypatch.setattr(module, "START_SECONDS", 0.5)
        monkeypatch.setenv("WANDB_MODE", "online")
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with caplog.at_level(logging.INFO), wandb_run(Settings(home=tmp_path), RUN, "cnn") as tracker:
            tracker.log_epoch(1, {"train_loss": 0.9})
    assert "the run is kept offline" in caplog.text
    assert f"wandb sync {tmp_path}/wandb/offline-run-" in caplog.text
    assert read(tmp_path)["history"][0]["item"]["train_loss"] == 0.9
    written = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert KEY not in caplog.text + "".join(capfd.readouterr())
    assert KEY.encode() not in written


def test_a_training_outlives_its_tracker(
    tmp_path: Path, short: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TMPDIR", str(short))
    with wandb_run(Settings(home=tmp_path), RUN, "cnn") as tracker:
        (core,) = [service for service in services() if service.name() == "wandb-core"]
        core.kill()
        core.wait()
        tracker.log_parameters({"learning_rate": 0.1})
        tracker.log_epoch(1, {"train_loss": 0.9})
        tracker.log_figure(Figure(figsize=(1, 1)), "learning_curves.png")
        tracker.log_ending("all epochs are done", 1)
    assert "the training goes on" in caplog.text


@pytest.mark.parametrize(
    ("mode", "key", "expected"),
    [
        ("", "", False),
        ("", KEY, True),
        ("online", KEY, True),
        ("online", "", False),
        ("offline", "", True),
        ("disabled", KEY, False),
    ],
)
def test_it_is_wanted_with_a_key_or_offline(
    monkeypatch: pytest.MonkeyPatch, mode: str, key: str, expected: bool
) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.setenv("WANDB_API_KEY", key)
    assert wanted() is expected


def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with (
        pytest.raises(ConfigError, match=r"pip install 'cifar-pipeline\[wandb\]'"),
        wandb_run(Settings(home=tmp_path), RUN, "cnn"),
    ):
        pass
