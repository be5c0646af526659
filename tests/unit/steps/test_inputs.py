"""What a training starts from: no file from a cache or from a store is executed, or believed unread."""

import hashlib
import json
import os
import pickle
from collections import OrderedDict
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from cifar_tasks.config import TrainConfig, with_values
from cifar_tasks.data.images import LabelledImages
from cifar_tasks.data.versions import DatasetVersion
from cifar_tasks.errors import ConfigError, ModelSkipped, WeightsError
from cifar_tasks.models import available_models, get_model, registry
from cifar_tasks.steps.inputs import TrainingImages, check_model, earlier_result, initial_model, sample
from cifar_tasks.steps.payloads import WorkflowRun
from cifar_tasks.tracking.champion_weights import ChampionWeights
from cifar_tasks.tracking.saved_model import SavedModel
from tests.stores import InMemoryStore


class Planted:
    """Writes a file when it is unpickled."""

    def __init__(self, note: Path) -> None:
        self.note = note

    def __reduce__(self):
        return os.system, (f"touch {self.note}",)


@pytest.fixture
def images() -> TrainingImages:
    pictures = np.random.default_rng(1).integers(0, 255, (4, 32, 32, 3), dtype=np.uint8)
    part = LabelledImages(pictures, np.array([0, 1, 0, 1]))
    version = DatasetVersion("memory://m", "0" * 64, "two", ("cat", "dog"), {}, 32, "crop", False, ())
    return TrainingImages(version, part, part)


def resnet50(pretrained: str) -> TrainConfig:
    return with_values(get_model("resnet50").config("demo"), {"pretrained": pretrained})


def use(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    weights = {"resnet50": {"source": str(path), "sha256": digest}}
    monkeypatch.setenv("CIFAR_PRETRAINED_WEIGHTS", json.dumps(weights))


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_a_planted_pickle_never_runs_not_even_with_the_digest_of_the_settings(monkeypatch, tmp_path, images, kind):
    note, path = tmp_path / "executed", tmp_path / "weights.pth"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Planted(note)))
    else:
        torch.save({"conv1.weight": Planted(note)}, path)
    use(monkeypatch, path)
    with pytest.raises(WeightsError, match=r"weights\.pth does not hold the weights of resnet50") as caught:
        initial_model(resnet50("required"), images)
    assert len(str(caught.value).splitlines()) == 1
    assert not note.exists()


@pytest.mark.parametrize("content", [b"", b"<!doctype html>", b"\x80\x02random", b"PK\x03\x04"])
def test_a_file_that_holds_no_weights_is_one_error_that_names_it(monkeypatch, tmp_path, images, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    use(monkeypatch, path)
    with pytest.raises(WeightsError, match=r"weights\.pth does not hold the weights of resnet50"):
        initial_model(resnet50("required"), images)


def test_the_full_profile_stops_without_its_pretrained_weights_and_the_demo_skips_the_model(monkeypatch, images):
    nowhere = {"resnet50": {"source": "/nowhere/weights.pth", "sha256": "0" * 64}}
    monkeypatch.setenv("CIFAR_PRETRAINED_WEIGHTS", json.dumps(nowhere))
    with pytest.raises(WeightsError, match=r"/nowhere/weights\.pth"):
        check_model(get_model("resnet50").config("full"), images.version)
    with pytest.raises(ModelSkipped, match=r"resnet50 is not trained: there are no weights at /nowhere/weights\.pth"):
        check_model(get_model("resnet50").config("demo"), images.version)


def test_a_training_that_starts_from_the_champion_needs_no_pretrained_weights(monkeypatch, images):
    nowhere = {"resnet50": {"source": "/nowhere/weights.pth", "sha256": "0" * 64}}
    monkeypatch.setenv("CIFAR_PRETRAINED_WEIGHTS", json.dumps(nowhere))
    champion = ChampionWeights(3, SavedModel("models:/m-1", "0" * 64))
    for profile in ("full", "demo"):
        check_model(get_model("resnet50").config(profile), images.version, champion)


def test_without_pretrained_weights_a_model_trains_at_once_and_at_one_rate(images):
    _, config, pretrained = initial_model(resnet50("none"), images)
    assert pretrained == "random"
    assert (config.transfer.head_epochs, config.transfer.stage_decay) == (0, 1)
    check_model(resnet50("none"), images.version)


class Unexportable(nn.Module):
    """Its flow depends on the values, which an exported program cannot have."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.dense(x.mean((2, 3)))
        return logits if logits.sum().item() > 0 else -logits


def build(config: TrainConfig, classes: int) -> nn.Module:
    return (
        Unexportable()
        if config.hidden_units
        else nn.Sequential(OrderedDict(flat=nn.Flatten(), dense=nn.Linear(3072, classes)))
    )


THIRD = replace(
    get_model("cnn"),
    name="third",
    builder=f"{__name__}:build",
    recipes={"demo": with_values(get_model("cnn").config("demo"), {"model": "third"})},
    stages=(("dense",),),
)


def test_a_network_of_another_package_that_cannot_be_exported_is_refused_before_it_trains(monkeypatch, images):
    point = EntryPoint("third", f"{__name__}:THIRD", registry.ENTRY_POINTS)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    available_models.cache_clear()
    check_model(THIRD.config("demo"), images.version)
    with pytest.raises(ConfigError, match=r"third cannot be exported by torch\.export.*Choose another model"):
        check_model(with_values(THIRD.config("demo"), {"hidden_units": 1}), images.version)
    monkeypatch.undo()
    available_models.cache_clear()


def test_random_weights_start_with_the_statistics_of_the_images(images):
    model, _, _ = initial_model(get_model("cnn").config("demo"), images)
    normalised: list[torch.Tensor] = []
    first = next(layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d))
    first.register_forward_hook(lambda layer, inputs, output: normalised.append(output))
    with torch.inference_mode():
        model.eval()(torch.from_numpy(images.train.images))
    values = normalised[0].transpose(0, 1).flatten(1)
    assert values.mean(1).abs().max() < 0.01
    assert values.std(1) == pytest.approx(1, abs=0.05)


def test_pretrained_weights_keep_their_statistics_and_their_seed_draws_the_head(monkeypatch, tmp_path, images):
    torch.manual_seed(1)
    state = models.resnet50(weights=None).state_dict()
    state["bn1.running_mean"] += 0.5
    torch.save(state, tmp_path / "weights.pth")
    use(monkeypatch, tmp_path / "weights.pth")
    first, other = (
        initial_model(with_values(resnet50("required"), {"seed": seed}), images)[0].network.state_dict()
        for seed in (0, 1)
    )
    assert torch.equal(first["bn1.running_mean"], state["bn1.running_mean"])
    assert not torch.equal(first["fc.0.weight"], other["fc.0.weight"])


def test_a_sample_has_as_many_images_as_wanted_of_each_class_in_proportion():
    labels = np.repeat([0, 1, 2], [40, 40, 20])
    part = LabelledImages(np.zeros((100, 32, 32, 3), np.uint8), labels)
    drawn = sample(part, 50, seed=3)
    assert np.bincount(drawn.labels).tolist() == [20, 20, 10]
    assert np.array_equal(sample(part, 50, seed=3).labels, drawn.labels)


@pytest.mark.parametrize("wanted", [None, 100, 101])
def test_all_images_are_taken_if_there_are_not_more_than_wanted(wanted):
    part = LabelledImages(np.zeros((100, 32, 32, 3), np.uint8), np.zeros(100, int))
    assert sample(part, wanted, seed=0) is part


def test_the_result_of_an_earlier_try_is_read_back():
    store, result = InMemoryStore(), WorkflowRun(id="a", name="b")
    assert earlier_result(store, "done.json", WorkflowRun) is None
    store.put("done.json", result.model_dump_json().encode())
    assert earlier_result(store, "done.json", WorkflowRun) == result


@pytest.mark.parametrize(
    "content", [b"", b'{"id": "a"', b'{"id": "a"}', b"<html>", b"null", b"\xff", b'{"id":1,"name":2}']
)
def test_a_result_that_was_truncated_or_altered_is_made_again(content, caplog):
    store = InMemoryStore()
    store.put("done.json", content)
    assert earlier_result(store, "done.json", WorkflowRun) is None
    assert "memory://done.json is damaged or was altered, the step is repeated" in caplog.text
