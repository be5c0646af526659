"""The training step with two processes, on real storage and a real MLflow: what one process would leave, and once.

That two learn what one would is tested in `tests/unit/training/test_distributed.py`.
"""

from pathlib import Path
from typing import NamedTuple

import pytest

from cifar_tasks.errors import ConfigError
from cifar_tasks.models import get_model
from cifar_tasks.settings import Settings
from cifar_tasks.steps.payloads import TrainedModel
from cifar_tasks.steps.process import run_step
from cifar_tasks.steps.train import train_model
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import runs
from cifar_tasks.training import distributed
from tests.conftest import RunningStack, connect
from tests.trainings import TRAIN, as_json, child_run, prepared, train_plan
from tests.unit import ranks_of_a_test as ranks


class Together(NamedTuple):
    result: TrainedModel
    lines: list[str]
    home: Path


@pytest.fixture(scope="module")
def trained(backend: RunningStack, pictures, tmp_path_factory) -> Together:
    """Result and log of a training with two processes, followed in Weights & Biases as well."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        connect(patch, backend.environment)
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setenv("CIFAR_TRAINING_PROCESSES", "2")
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("CIFAR_HOME", str(home))
        data, lines = prepared(pictures, "together"), []
        plan = train_plan(data, epochs=1)
        result = TrainedModel.model_validate(run_step(TRAIN, on_line=lines.append, plan=as_json(plan)))
        return Together(result, lines, home)


def test_two_processes_leave_one_finished_run_with_each_epoch_once(trained, tracked):
    client = runs.mlflow_client()
    (run,) = child_run(client, "test/together")
    assert run.info.run_id == trained.result.run_id
    assert run.info.status == "FINISHED"
    assert run.data.params["processes"] == "2"
    for name in ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy"):
        assert [metric.step for metric in client.get_metric_history(run.info.run_id, name)] == [1], name


def test_two_processes_leave_one_model_and_no_checkpoints(trained, tracked):
    client, store = runs.mlflow_client(), S3Store(Settings().bucket)
    experiment = runs.experiment_id(client, Settings().experiment)
    saved = client.search_logged_models([experiment], filter_string=f"source_run_id='{trained.result.run_id}'")
    assert [f"models:/{model.model_id}" for model in saved] == [trained.result.saved.uri]
    assert not list(store.keys(f"{trained.result.prefix}/checkpoints"))


def test_weights_and_biases_hears_of_it_once(trained):
    (file,) = (trained.home / "wandb").glob(f"offline-run-*/run-{trained.result.run_id}.wandb")
    assert b"all epochs are done" in file.read_bytes()


def test_one_process_speaks_for_all(trained):
    for said in ("cnn on ", "epoch 1/1"):
        assert len([line for line in trained.lines if line.startswith(said)]) == 1, said


def test_a_batch_that_cannot_be_shared_equally_is_refused_before_a_run_is_opened(tracked, pictures, monkeypatch):
    monkeypatch.setenv("CIFAR_TRAINING_PROCESSES", "3")
    data = prepared(pictures, "unequal")
    with pytest.raises(ConfigError, match=r"batch of 32 images .* by 3 processes"):
        train_model(train_plan(data, epochs=1))
    assert child_run(runs.mlflow_client(), "test/unequal") == []


@pytest.mark.parametrize("kind", ["resnet50", "efficientnet_lite0", "timm/resnet10t.c3_in1k"])
def test_the_last_stages_of_every_kind_move_alone_and_alike_in_two_processes(kind, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    first, second = distributed.run(ranks.train_kind, 2, kind=kind, head_epochs=1, trained_stages=1)
    assert first == second
    spec = get_model(kind)
    network = spec.build(spec.recipes["demo"], ranks.CLASSES)
    stages = spec.stages_to_head(network)
    last = {name.rpartition(".")[0] for name, stage in stages.items() if stage <= 1}
    moved = {name.removeprefix("network.").rpartition(".")[0] for name in first["moved"]}
    assert moved == last
