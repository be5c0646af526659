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
import torch
from wandb.util import get_core_path

from cifar_tasks.config import with_values
from cifar_tasks.errors import ConfigError, Stopped
from cifar_tasks.models import get_model
from cifar_tasks.settings import Settings
from cifar_tasks.tracking import wandb_run as module
from cifar_tasks.tracking.wandb_run import WandbCallback, wanted
from cifar_tasks.training.callbacks import Snapshot
from cifar_tasks.training.state import EpochMetrics, TrainingState

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


def state(*losses: float, label: str = "") -> TrainingState:
    """A training after epochs with these validation losses."""
    config = with_values(get_model("cnn").recipes["demo"], {"patience": 1})
    trained = TrainingState(torch.nn.Linear(2, 2), config, 1, label)
    for epoch, loss in enumerate(losses, 1):
        trained.record(EpochMetrics(epoch, loss / 2, 0.5, loss, 0.5, 0.1, 100.0))
    return trained


def callback(home: Path, **params: Any) -> WandbCallback:
    return WandbCallback(Settings(home=home), RUN, params)


def train(home: Path, *losses: float, resumed: int = 0, error: BaseException | None = None, **params: Any) -> None:
    """What a training of the whole network that resumes after an epoch says to its callback."""
    followed = callback(home, **params)
    followed.on_train_start(state(*losses[:resumed]))
    for epoch in range(resumed + 1, len(losses) + 1):
        followed.on_epoch_end(Snapshot.of(state(*losses[:epoch])))
    followed.on_train_end(state(*losses), error)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home where one training with two parts was followed from its start to its end."""
    home = tmp_path_factory.mktemp("home")
    followed = callback(home, learning_rate=0.1, channels=(64, 128), device="CPU")
    followed.on_train_start(state())
    for label, losses in (("head_", [1.5, 1.2]), ("", [0.9, 0.5, 0.6])):
        if label:
            followed.on_train_start(state(label=label))
        for epoch in range(1, len(losses) + 1):
            followed.on_epoch_end(Snapshot.of(state(*losses[:epoch], label=label)))
        followed.on_train_end(state(*losses, label=label), None)
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
    assert (run["run_id"], run["display_name"]) == (RUN, "cnn")
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


@pytest.mark.parametrize("error", [RuntimeError(), Stopped()])
def test_a_training_that_did_not_end_well_fails_and_resumes_in_the_same_run(
    tmp_path: Path, error: BaseException
) -> None:
    train(tmp_path, 0.9, error=error)
    train(tmp_path, 0.9, 0.8, resumed=1)
    first, second = read(tmp_path, 0), read(tmp_path, 1)
    assert [tried["exit"][0]["exit_code"] for tried in (first, second)] == [1, 0]
    assert [tried["run"][0]["run_id"] for tried in (first, second)] == [RUN, RUN]
    assert second["run"][0]["resume"]
    assert "ended_because" not in merged(first, "summary")


def test_a_resumed_training_logs_all_epochs_of_its_checkpoint_but_none_twice(tmp_path: Path) -> None:
    followed = callback(tmp_path)
    followed.on_train_start(state(0.9, 0.8))
    for losses in ([0.9, 0.8], [0.9, 0.8, 0.7]):
        followed.on_epoch_end(Snapshot.of(state(*losses)))
    followed.on_train_end(state(0.9, 0.8, 0.7), None)
    logged = [row["item"] for row in read(tmp_path)["history"] if "validation_loss" in row["item"]]
    assert [(item["epoch"], item["validation_loss"]) for item in logged] == [(1, 0.9), (2, 0.8), (3, 0.7)]


def test_nothing_is_left_running_printed_or_written_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(elsewhere)
    followed = callback(tmp_path / "home")
    followed.on_train_start(state())
    assert services()
    followed.on_epoch_end(Snapshot.of(state(0.9)))
    followed.on_train_end(state(0.9), None)
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
        with caplog.at_level(logging.INFO):
            train(tmp_path, 0.9)
    assert "the run is kept offline" in caplog.text
    assert f"wandb sync {tmp_path}/wandb/offline-run-" in caplog.text
    assert read(tmp_path)["history"][0]["item"]["validation_loss"] == 0.9
    written = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert KEY not in caplog.text + "".join(capfd.readouterr())
    assert KEY.encode() not in written


def test_a_training_outlives_its_tracker(
    tmp_path: Path, short: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TMPDIR", str(short))
    followed = callback(tmp_path)
    followed.on_train_start(state())
    (core,) = [service for service in services() if service.name() == "wandb-core"]
    core.kill()
    core.wait()
    followed.on_epoch_end(Snapshot.of(state(0.9)))
    followed.on_train_end(state(0.9), None)
    assert "the training continues" in caplog.text


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
    with pytest.raises(ConfigError, match=r"pip install 'cifar-pipeline\[wandb\]'"):
        callback(tmp_path).on_train_start(state())
