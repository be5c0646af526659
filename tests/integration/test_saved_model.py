"""Saving on a real MLflow: a program that computes something else than the trained model is not saved."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cifar_tasks.errors import IntegrityError
from cifar_tasks.settings import Settings
from cifar_tasks.tracking import runs
from cifar_tasks.tracking.saved_model import find_model, save_model


class OtherWhenExported(nn.Module):
    """A model whose exported program differs from what was trained."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8 * 8 * 3, 2)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layer(images.float().flatten(1) / 255)
        return logits + 1 if torch.compiler.is_exporting() else logits


def test_a_stored_program_that_differs_from_the_trained_model_is_an_error_and_no_model(tracked):
    client = runs.mlflow_client()
    experiment = runs.experiment_id(client, Settings().experiment)
    run_id = client.create_run(experiment).info.run_id
    example = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    with pytest.raises(IntegrityError, match=r"differs from the trained one: logits by 1"):
        save_model(client, run_id, OtherWhenExported(), example, {})
    assert find_model(client, experiment, run_id) is None
