"""A backup restored into a new deployment with other secrets: the same runs, models and predictions."""

import os
import shutil
from collections.abc import Callable

import pytest
from mlflow import MlflowClient

from tests.compose.conftest import finish, kept, start
from tests.compose.deployment import Deployment

if not os.environ.get("COMPOSE"):
    pytest.skip("needs a Docker engine and 40 minutes: `make test-compose`", allow_module_level=True)

PREDICT = """
import json, pathlib
import numpy as np
from PIL import Image
from cifar_tasks.cli.predict import predict
random, paths = np.random.default_rng(0), []
for number in range(8):
    paths.append(pathlib.Path(f"/tmp/{number}.png"))
    Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(paths[-1])
result = predict(paths, "cifar10-classifier")
print(json.dumps([result.version, [(answer.label, answer.probability) for answer in result.found]]))
"""


def test_a_restore_replaces_no_used_deployment_and_brings_back_all_into_an_empty_one(
    deployment: Deployment, tracking: Callable[[str], MlflowClient]
):
    deployment.compose("up", "-d")
    deployment.wait_until_healthy(240)
    assert finish(deployment, start(deployment, models=["cnn"], epochs=1), 900) == "success"
    before, predicted = kept(deployment, tracking("reader")), deployment.python("gpu-worker", PREDICT)
    assert predicted.startswith("[")
    deployment.make("backup", "TO=backups/test")

    shutil.copytree(deployment.tree / "backups/test", deployment.tree / "backups/damaged")
    (deployment.tree / "backups/damaged/mlflow.dump").write_bytes(b"damaged")
    refused = deployment.make("restore", "FROM=backups/damaged", "FORCE=1", check=False)
    assert refused.returncode != 0
    assert "mlflow.dump is damaged" in refused.stderr
    assert "nothing was changed" in refused.stderr
    refused = deployment.make("restore", "FROM=backups/test", check=False)
    assert refused.returncode != 0
    assert "This deployment has run already" in refused.stderr
    assert "DAG runs: " in refused.stderr
    assert "add FORCE=1. Nothing was changed" in refused.stderr
    deployment.wait_until_healthy(60)
    assert kept(deployment, tracking("reader")) == before

    deployment.compose("down", "--volumes")
    deployment.write_secrets()
    deployment.make("restore", "FROM=backups/test")
    deployment.wait_until_healthy(300)

    assert kept(deployment, tracking("reader")) == before
    assert deployment.python("gpu-worker", PREDICT) == predicted
    assert finish(deployment, start(deployment, models=["cnn"], epochs=1), 900) == "success"
