"""A network of timm with weights from a bucket, from its name to the champion."""

import hashlib
import json
from pathlib import Path

import pytest
import timm
import torch
from mlflow import MlflowClient
from safetensors.torch import save

from cifar_tasks.cli.local_run import run_workflow
from cifar_tasks.errors import WeightsError
from cifar_tasks.settings import Settings
from cifar_tasks.steps.train import train_model
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import model_registry
from tests.trainings import child_run, prepared, request, train_plan

NAME = "timm/resnet10t.c3_in1k"


@pytest.fixture
def weights(s3_store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Source and SHA-256 of a file in S3, told to the steps as the weights of the network."""
    torch.manual_seed(0)
    content = save(timm.create_model("resnet10t").state_dict())
    s3_store.put("weights/resnet10t.safetensors", content)
    own = {"source": f"s3://{s3_store.bucket}/weights/resnet10t.safetensors"}
    own["sha256"] = hashlib.sha256(content).hexdigest()
    monkeypatch.setenv("CIFAR_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CIFAR_PRETRAINED_WEIGHTS", json.dumps({NAME: own}))
    return own


def test_it_is_trained_from_them_evaluated_and_promoted(client: MlflowClient, weights, pictures):
    overrides = {"epochs": 2, "input_size": 32, "batch_size": 64}
    _, promotion = run_workflow(
        "timm-weights", request(pictures, models=[NAME], registered_model="timm-weights", overrides=overrides)
    )
    assert (promotion.action, promotion.champion) == ("promote", 1)
    version = model_registry.version_with_alias(client, "timm-weights", "champion")
    assert version.tags["cifar.model"] == NAME
    assert version.tags["cifar.initial_weights"] == f"pretrained (SHA-256 {weights['sha256']})"
    (run,) = child_run(client, "cli/timm-weights", NAME)
    assert run.data.params["initial_weights"] == version.tags["cifar.initial_weights"]
    (kept,) = (Settings().home / "weights").glob("*.safetensors")
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == weights["sha256"]


def test_a_file_in_s3_with_another_digest_is_refused_and_not_kept(weights, pictures, monkeypatch):
    wrong = weights | {"sha256": "0" * 64}
    monkeypatch.setenv("CIFAR_PRETRAINED_WEIGHTS", json.dumps({NAME: wrong}))
    plan = train_plan(prepared(pictures, "timm-wrong-weights"), NAME, pretrained="required", input_size=32)
    with pytest.raises(WeightsError, match="SHA-256"):
        train_model(plan)
    assert list((Settings().home / "weights").glob("*.safetensors")) == []
