"""Each parameter learns at its own rate, and Muon steps in orthogonal directions."""

import dataclasses

import pytest
import torch

from cifar_tasks.config import configure
from cifar_tasks.models import build_classifier
from cifar_tasks.training.optimizer import MUON_RATE, FilterMuon, build_optimizers, one_cycle

GREY = (0.5, 0.5, 0.5)


def groups_of(model, config):
    """Of each parameter: the optimizer's name, learning rate and weight decay."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {}
    for optimizer in build_optimizers(model, config):
        for group in optimizer.param_groups:
            owners = optimizer.filters if isinstance(optimizer, FilterMuon) else group["params"]
            for parameter in owners:
                found[names[id(parameter)]] = (type(optimizer).__name__, group["lr"], group["weight_decay"])
    return found


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_every_parameter_is_trained_once_and_weight_decay_spares_biases_and_batch_norm(optimizer):
    config = dataclasses.replace(configure("cnn", "full", {}), optimizer=optimizer)
    model = build_classifier(config, 10, GREY, GREY)
    found = groups_of(model, config)
    assert found.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        assert (found[name][2] > 0) == (parameter.ndim > 1), name


def test_muon_takes_the_filters_of_all_convolutions_but_the_first():
    config = configure("cnn", "full", {})
    model = build_classifier(config, 10, GREY, GREY)
    found = groups_of(model, config)
    filters = [name for name, parameter in model.named_parameters() if parameter.ndim == 4]
    assert [name for name, (kind, _, _) in found.items() if kind == "FilterMuon"] == filters[1:]
    assert found[filters[1]][1] == pytest.approx(config.learning_rate * MUON_RATE)
    assert found[filters[0]][1] == config.learning_rate


def test_muon_and_sgd_look_back_equally_far():
    config = configure("cnn", "full", {})
    optimizers = build_optimizers(build_classifier(config, 10, GREY, GREY), config)
    assert [{group["momentum"] for group in optimizer.param_groups} for optimizer in optimizers] == [{0.9}, {0.9}]


def test_a_resnet_s_stages_learn_the_slower_the_nearer_they_are_to_the_image():
    config = dataclasses.replace(configure("resnet50", "full", {}), stage_decay=0.5, learning_rate=0.32)
    found = groups_of(build_classifier(config, 10, GREY, GREY), config)
    rates = {
        stage: {rate for name, (_, rate, _) in found.items() if f"network.{stage}." in name}
        for stage in ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc")
    }
    assert [rates.pop("conv1"), rates.pop("bn1")] == [{0.01}, {0.01}]
    assert list(rates.values()) == [{0.02}, {0.04}, {0.08}, {0.16}, {0.32}]


def test_a_muon_step_turns_the_filters_themselves_by_an_orthogonal_matrix():
    filters = torch.nn.Parameter(torch.zeros(4, 3, 2, 2).to(memory_format=torch.channels_last))
    optimizer = FilterMuon([filters], lr=1.0, weight_decay=0.0)
    filters.grad = torch.randn(filters.shape, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    step = filters.detach().flatten(1)
    singular = torch.linalg.svdvals(step)
    assert singular.min() > 0.5  # Newton–Schulz stops between 0.5 and 1.5, as its authors say
    assert singular.max() < 1.5
    optimizer.zero_grad()
    assert filters.grad is None


@pytest.mark.parametrize("steps", range(1, 13))
def test_a_training_of_few_steps_has_a_schedule(steps):
    """A handful of images, a single epoch."""
    weight = torch.nn.Parameter(torch.zeros(2, 2))
    optimizer = torch.optim.SGD([weight], lr=0.12)
    schedule = one_cycle(optimizer, configure("cnn", "full", {}), steps)
    for _ in range(steps):
        assert 0 < schedule.get_last_lr()[0] <= 0.12
        optimizer.step()
        schedule.step()


def test_all_groups_rise_and_fall_together():
    config = dataclasses.replace(configure("resnet50", "full", {}), stage_decay=0.5)
    (optimizer,) = build_optimizers(build_classifier(config, 10, GREY, GREY), config)
    schedule = one_cycle(optimizer, config, 100)
    seen = []
    for _ in range(100):
        seen.append(schedule.get_last_lr())
        optimizer.step()
        schedule.step()
    peaks = [max(rates) for rates in zip(*seen, strict=True)]
    assert {rates.index(peak) for rates, peak in zip(zip(*seen, strict=True), peaks, strict=True)} == {24}
    assert max(peaks) == pytest.approx(config.learning_rate)
    assert min(peaks) == pytest.approx(config.learning_rate * 0.5**5)
