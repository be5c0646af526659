"""Classify pictures with the champion."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cifar_tasks.data.image_format import ImageFormat, decode
from cifar_tasks.errors import ConfigError, DataError
from cifar_tasks.tracking import model_registry, runs
from cifar_tasks.tracking.saved_model import load_model
from cifar_tasks.training.logits import FastClassifier, predict_logits


@dataclass(frozen=True)
class Prediction:
    """The champion's prediction for one picture."""

    path: Path
    label: str
    probability: float
    """Softmax of the logits, 0–1; not calibrated."""


def predict(paths: Sequence[Path], registered_model: str, *, fast: bool = False) -> tuple[int, list[Prediction]]:
    """The champion's version and its prediction for each picture: PNG or JPEG, resized like the training images.

    Raises `DataError` for a file that is no picture, `ConfigError` if there is no champion yet.
    """
    for path in paths:
        if not path.is_file():
            raise DataError(f"there is no picture at {path}")
    client = runs.mlflow_client()
    with runs.tracking_errors():
        champion = model_registry.version_with_alias(client, registered_model, model_registry.CHAMPION)
        if champion is None:
            raise ConfigError(f"{registered_model} has no champion yet: train one first (`make demo` or `cifar run`).")
        classes, image_format = json.loads(champion.tags["cifar.classes"]), image_format_of(champion.tags)
        images = np.stack([decode(path.read_bytes(), str(path), image_format) for path in paths])
        model = load_model(model_registry.saved_model_of(champion))
    logits = torch.from_numpy(predict_logits(FastClassifier(model) if fast else model, images))
    probabilities, labels = logits.softmax(dim=1).max(dim=1)
    predicted = zip(paths, labels.tolist(), probabilities.tolist(), strict=True)
    return int(champion.version), [Prediction(path, classes[label], value) for path, label, value in predicted]


def image_format_of(tags: Mapping[str, str]) -> ImageFormat:
    """The format that a registered version was trained on; versions without these tags squashed images to 32 × 32."""
    return ImageFormat(int(tags.get("cifar.image_size", 32)), tags.get("cifar.resize", "squash"))  # type: ignore[arg-type]
