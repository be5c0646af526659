"""The page "Models" for tests: a registered model with evaluated versions, and what an answer shows."""

import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from fastapi.testclient import TestClient
from torch import Tensor, nn

from cifar_tasks.data.preparation import prepare
from cifar_tasks.data.versions import DatasetVersion
from cifar_tasks.settings import Settings
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking.evaluations import StoredEvaluation, ensure_evaluated, read_evaluation
from cifar_tasks.tracking.saved_model import DIGEST_TAG, OpenedModel, SavedModel
from cifar_tasks.tracking.version_evidence import TEST_SET
from tests.names import NASTY_NAMES
from tests.unit.data.sources import NoiseSource, quiet

if TYPE_CHECKING:
    from mlflow import MlflowClient

NASTY = next(name for name in NASTY_NAMES if "onerror" in name)


class Brightness(nn.Module):
    """Logits of two classes from the mean of the red channel; at 0.5 and more it is for the second."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(threshold))

    def forward(self, images: Tensor) -> Tensor:
        brightness = images[..., 0].float().mean(dim=(1, 2)) / 255 - self.threshold
        return torch.stack((-brightness, brightness), dim=1) * 20


@dataclass(frozen=True)
class Registered:
    """A registered model with three versions, of which the second is the champion."""

    name: str
    data: DatasetVersion


def register(client: "MlflowClient", folder: Path, source: NoiseSource) -> Registered:
    """Of three networks, which classify the images of the source by a threshold each."""
    store, name = S3Store(Settings().bucket), f"page-{uuid.uuid4().hex[:8]}"
    data = prepare(source, store, 0, quiet)
    client.create_registered_model(name)
    for number, threshold in enumerate((0.4, 0.5, 0.6), start=1):
        saved = SavedModel(f"models:/m-{uuid.uuid4().hex}", uuid.uuid4().hex * 2)
        found = ensure_evaluated(store, saved, data, folder, opened=OpenedModel(Brightness(threshold), 2_000_000))
        tags = {
            DIGEST_TAG: saved.sha256,
            "cifar.model": NASTY if number == 3 else "cnn",
            "cifar.dataset": data.digest,
            TEST_SET: found.test_set.digest,
            "cifar.test_images": str(found.test_set.images),
            "cifar.test_accuracy": str(found.accuracy),
            "cifar.validation_accuracy": str(0.9 - number / 100),
            "cifar.workflow": f"cifar10_training/run-{number}",
        }
        client.create_model_version(name, source=f"s3://models/{number}", tags=tags)
    client.set_registered_model_alias(name, "champion", "2")
    return Registered(name, data)


def stored_evaluation(client: "MlflowClient", name: str, version: int) -> StoredEvaluation:
    tags = client.get_model_version(name, str(version)).tags
    found = read_evaluation(S3Store(Settings().bucket), tags[TEST_SET], tags[DIGEST_TAG])
    assert found
    return found


def read(page: TestClient, **query: object) -> str:
    response = page.get("/page", params=query)
    assert response.status_code == 200
    return response.text


def numbers(html: str) -> list[int]:
    """Version numbers in the order of the rows."""
    return [int(found) for found in re.findall(r'<td class="number"><a data-state[^>]*>(\d+)</a>', html)]
