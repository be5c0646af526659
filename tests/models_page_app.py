"""The page "Models" for tests: a registered model with evaluated versions, and what an answer shows."""

import re
from dataclasses import dataclass

import torch
from fastapi.testclient import TestClient
from torch import Tensor, nn

from cifar_tasks.data.versions import DatasetVersion
from tests.names import NASTY_NAMES

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


def read(page: TestClient, **query: object) -> str:
    response = page.get("/page", params=query)
    assert response.status_code == 200
    return response.text


def numbers(html: str) -> list[int]:
    """Version numbers in the order of the rows."""
    return [int(found) for found in re.findall(r'<td class="number"><a data-state[^>]*>(\d+)</a>', html)]
