"""The training step with two processes, on real storage and a real MLflow: what one process would leave, and once."""

from typing import Any

import pytest
import torch

from cifar_tasks import tracking
from cifar_tasks.checkpoints import newest_checkpoint
from cifar_tasks.errors import ConfigError
from cifar_tasks.process import run_step
from cifar_tasks.settings import Settings
from cifar_tasks.steps import train
from cifar_tasks.steps.prepare import prepare_data
from cifar_tasks.storage import S3Store
from cifar_tasks.training import device
from tests.conftest import RunningStack, connect
from tests.integration.trainings import child_run, train_config, workflow

METRICS = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")

train_in_run = train.train_in_run


def train_in_float32(**arguments: Any) -> Any:
    """The step, with its processes in float32: in bfloat16, where the CPU has AMX, roundings made 2 of 8 trainings
    count one image otherwise, which of 160 is 0.006."""
    train.train_in_run = train_in_run_in_float32
    return train.train_model(**arguments)


def train_in_run_in_float32(**arguments: Any) -> Any:
    device.precision = lambda _: torch.float32
    return train_in_run(**arguments)


def train_with(processes: int, name: str, data: dict[str, Any], lines: list[str]) -> dict[str, Any]:
    # Without dropout, whose masks are others than those of one process.
    config = train_config(epochs=1, learning_rate=0.005) | {"dropout": 0.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setenv("CIFAR_TRAINING_PROCESSES", str(processes))
        step = f"{__name__}:train_in_float32"
        return run_step(step, on_line=lines.append, config=config, data=data, workflow=workflow(name))


@pytest.fixture(scope="module")
def trained(backend: RunningStack, pictures) -> dict[int, Any]:
    """Results and log of the same training with one process and with two."""
    with pytest.MonkeyPatch.context() as patch:
        connect(patch, backend.environment)
        data = prepare_data(str(pictures), 0, workflow("alone"))
        found = {}
        for processes in (1, 2):
            lines: list[str] = []
            found[processes] = {**train_with(processes, f"by-{processes}", data, lines), "lines": lines}
        return found


def test_two_processes_leave_one_finished_run_with_each_epoch_once(trained, tracked):
    client = tracking.connect()
    (run,) = child_run(client, "test/by-2")
    assert run.info.run_id == trained[2]["run_id"]
    assert run.info.status == "FINISHED"
    assert run.data.params["processes"] == "2"
    assert run.data.params["device"].endswith("1 threads, float32")
    for name in METRICS:
        assert [metric.step for metric in client.get_metric_history(run.info.run_id, name)] == [1], name


def test_two_processes_leave_one_model_and_no_checkpoints(trained, tracked):
    client, store = tracking.connect(), S3Store(Settings().bucket)
    experiment = tracking.experiment_id(client, Settings().experiment)
    saved = client.search_logged_models([experiment], filter_string=f"source_run_id='{trained[2]['run_id']}'")
    assert [f"models:/{model.model_id}" for model in saved] == [trained[2]["model_uri"]]
    assert newest_checkpoint(store, f"{trained[2]['prefix']}/checkpoints/epochs") is None
    assert not list(store.keys(f"{trained[2]['prefix']}/checkpoints"))


def test_two_processes_score_as_one_does(trained, tracked):
    client = tracking.connect()
    alone, together = (client.get_run(trained[processes]["run_id"]).data.metrics for processes in (1, 2))
    assert {name: together[name] for name in METRICS} == pytest.approx(
        {name: alone[name] for name in METRICS}, abs=1e-3
    )


def test_one_process_speaks_for_all(trained):
    assert len([line for line in trained[2]["lines"] if line.startswith("epoch 1/1")]) == 1


def test_a_batch_that_cannot_be_shared_equally_is_refused_before_a_run_is_opened(tracked, pictures):
    data = prepare_data(str(pictures), 0, workflow("unequal"))
    with pytest.raises(ConfigError, match=r"batch of 16 images .* by 3 processes"):
        train_with(3, "unequal", data, [])
    assert child_run(tracking.connect(), "test/unequal") == []
