"""Classify pictures with the champion."""

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cifar_tasks.data.folders import SUFFIXES
from cifar_tasks.data.image_format import ImageFormat, decode
from cifar_tasks.data.images import Images
from cifar_tasks.errors import ConfigError, DataError
from cifar_tasks.tracking import model_registry, runs
from cifar_tasks.tracking.saved_model import SavedModel, load_model

if TYPE_CHECKING:
    from torch import nn

AT_ONCE = 256
"""Pictures in memory."""


@dataclass(frozen=True)
class Prediction:
    """The champion's prediction for one picture."""

    path: Path
    label: str
    probability: float
    """Softmax of the logits, 0–1; not calibrated."""


@dataclass
class Predictions:
    """Of all pictures that could be read; `problems` says what is wrong with the others."""

    registered_model: str
    version: int
    found: list[Prediction] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def as_json(self) -> str:
        rows = [{"picture": str(p.path), "class": p.label, "probability": p.probability} for p in self.found]
        about = {"registered_model": self.registered_model, "version": self.version}
        return json.dumps({**about, "predictions": rows, "errors": self.problems}, indent=2)

    def as_csv(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["picture", "class", "probability"])
        writer.writerows([str(p.path), p.label, p.probability] for p in self.found)
        return text.getvalue()


def predict(paths: Sequence[Path], registered_model: str, *, fast: bool = False) -> Predictions:
    """What the champion predicts for each picture: PNG or JPEG, resized like the training images; folders are searched.

    Raises `ConfigError` if there is no champion yet.
    """
    client = runs.mlflow_client()
    with runs.tracking_errors():
        champion = model_registry.version_with_alias(client, registered_model, model_registry.CHAMPION)
        if champion is None:
            model_registry.registered_model(client, registered_model)
            raise ConfigError(f"{registered_model} has no champion yet: train one first (`make demo` or `cifar run`).")
        saved, classes = model_registry.saved_model_of(champion), model_registry.class_names(champion)
        result = Predictions(registered_model, int(champion.version))
        pictures = find_pictures(paths, result.problems)
        classifier = _Classifier(saved, fast)
        for start in range(0, len(pictures), AT_ONCE):
            images = _decoded(pictures[start : start + AT_ONCE], image_format_of(champion.tags), result.problems)
            if images:
                predicted = classifier.predict(np.stack(list(images.values())))
                for path, (number, probability) in zip(images, predicted, strict=True):
                    result.found.append(Prediction(path, classes[number], probability))
    return result


def find_pictures(paths: Sequence[Path], problems: list[str]) -> list[Path]:
    """The files among `paths` and those in its folders that are pictures by their names, each once."""
    found: dict[Path, None] = {}
    for path in paths:
        try:
            if path.is_dir():
                found |= dict.fromkeys(find_pictures(_in_folder(path, problems), problems))
            elif path.is_file():
                found[path] = None
            else:
                problems.append(f"there is no picture at {path}")
        except OSError as error:
            problems.append(_unreadable(path, error))
    return list(found)


def _in_folder(folder: Path, problems: list[str]) -> list[Path]:
    """What has the name of a picture, in it and below. `Path.rglob` leaves out without a word what may not be read."""
    before, named = len(problems), []
    walk = os.walk(folder, onerror=lambda error: problems.append(_unreadable(error.filename, error)), followlinks=True)
    seen = {os.path.realpath(folder)}
    for where, folders, files in walk:
        named += [path for name in files if (path := Path(where, name)).suffix.lower() in SUFFIXES]
        real = {name: os.path.realpath(Path(where, name)) for name in folders}
        folders[:] = [name for name in folders if real[name] not in seen]  # a link may lead round in a circle
        seen.update(real.values())
    if not named and len(problems) == before:
        problems.append(f"{folder} has no pictures: no {', '.join(sorted(SUFFIXES))}")
    return sorted(named)


def _unreadable(path: Path | str, error: OSError) -> str:
    return f"{path} cannot be read: {error.strerror}"


def _decoded(paths: Sequence[Path], image_format: ImageFormat, problems: list[str]) -> dict[Path, Images]:
    images = {}
    for path in paths:
        try:
            images[path] = decode(path.read_bytes(), str(path), image_format)
        except DataError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(_unreadable(path, error))
    return images


class _Classifier:
    """Loads torch and the model when the first picture could be read."""

    def __init__(self, saved: SavedModel, fast: bool) -> None:
        self._saved, self._fast = saved, fast

    def predict(self, images: Images) -> list[tuple[int, float]]:
        """Number of the class and its probability, for images (N, H, W, 3)."""
        import torch

        from cifar_tasks.training.logits import predict_logits

        probabilities, labels = torch.from_numpy(predict_logits(self._model, images)).softmax(dim=1).max(dim=1)
        return list(zip(labels.tolist(), probabilities.tolist(), strict=True))

    @cached_property
    def _model(self) -> "nn.Module":
        from cifar_tasks.training.logits import FastClassifier

        model = load_model(self._saved)
        return FastClassifier(model) if self._fast else model


def image_format_of(tags: Mapping[str, str]) -> ImageFormat:
    """The format that a registered version was trained on; versions without these tags squashed images to 32 × 32."""
    return ImageFormat(int(tags.get("cifar.image_size", 32)), tags.get("cifar.resize", "squash"))  # type: ignore[arg-type]
