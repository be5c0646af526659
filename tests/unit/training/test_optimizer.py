"""Each parameter learns at its own rate, and Muon steps in orthogonal directions."""

import pytest
import torch

from cifar_tasks.config import with_values
from cifar_tasks.errors import ConfigError
from cifar_tasks.models import get_model
from cifar_tasks.models.classifier import ImageClassifier, build_classifier
from cifar_tasks.training.optimizer import FilterMuon, build_optimizers, one_cycle

GREY = (0.5, 0.5, 0.5)


def recipe(model, **changes):
    return with_values(get_model(model).recipes["full"], changes)


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
    config = recipe("cnn", optimizer=optimizer)
    model = build_classifier(config, 10, GREY, GREY)
    found = groups_of(model, config)
    assert found.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        assert (found[name][2] > 0) == (parameter.ndim > 1), name


def test_muon_takes_the_filters_of_all_convolutions_but_the_first():
    config = recipe("cnn")
    model = build_classifier(config, 10, GREY, GREY)
    found = groups_of(model, config)
    filters = [name for name, parameter in model.named_parameters() if parameter.ndim == 4]
    assert [name for name, (kind, _, _) in found.items() if kind == "FilterMuon"] == filters[1:]
    assert found[filters[1]][1] == pytest.approx(config.optimizer.learning_rate / 4)
    assert found[filters[0]][1] == config.optimizer.learning_rate


def test_muon_and_sgd_look_back_equally_far():
    config = recipe("cnn")
    optimizers = build_optimizers(build_classifier(config, 10, GREY, GREY), config)
    assert [{group["momentum"] for group in optimizer.param_groups} for optimizer in optimizers] == [{0.9}, {0.9}]


def test_a_resnet_s_stages_learn_the_slower_the_nearer_they_are_to_the_image():
    config = recipe("resnet50", stage_decay=0.5, learning_rate=0.32)
    found = groups_of(build_classifier(config, 10, GREY, GREY), config)
    rates = {
        stage: {rate for name, (_, rate, _) in found.items() if f"network.{stage}." in name}
        for stage in ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc")
    }
    assert [rates.pop("conv1"), rates.pop("bn1")] == [{0.01}, {0.01}]
    assert list(rates.values()) == [{0.02}, {0.04}, {0.08}, {0.16}, {0.32}]


def test_a_layer_that_is_in_no_stage_is_an_error_and_not_taken_for_the_head():
    model = ImageClassifier(torch.nn.Sequential(torch.nn.Linear(2, 2)), GREY, GREY)
    with pytest.raises(ConfigError, match=r"resnet50: 0\.weight is in none of its stages"):
        build_optimizers(model, recipe("resnet50", stage_decay=0.5))


def steps_of(config, gradients):
    """A filter and a bias that start at 1, of a second convolution, after each of these gradients."""
    layers = [torch.nn.Conv2d(1, 1, 1), torch.nn.Conv2d(1, 1, 1)]
    model = torch.nn.Sequential(*layers)
    for parameter in model.parameters():
        torch.nn.init.ones_(parameter)
    optimizers, places = build_optimizers(model, config), []
    for gradient in gradients:
        for optimizer in optimizers:
            optimizer.zero_grad()
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        for optimizer in optimizers:
            optimizer.step()
        places.append((layers[1].weight.item(), layers[1].bias.item()))
    return places


def test_an_sgd_step_is_the_learning_rate_times_the_gradient_with_nesterov_s_look_ahead():
    config = recipe("cnn", optimizer="sgd", learning_rate=0.1, weight_decay=0.5)
    ((weight, bias),) = steps_of(config, [1.0])
    assert bias == pytest.approx(1 - 0.1 * (1 + 0.9))  # without Nesterov's look-ahead 1 - 0.1
    assert weight == pytest.approx(1 - 0.1 * (1 + 0.9) * 1.5)


def test_an_adamw_step_is_as_long_as_the_learning_rate_and_decays_before():
    config = recipe("cnn", optimizer="adamw", learning_rate=0.1, weight_decay=0.5)
    ((weight, bias),) = steps_of(config, [3.0])
    assert bias == pytest.approx(1 - 0.1)
    assert weight == pytest.approx(1 * (1 - 0.1 * 0.5) - 0.1)


def test_muon_decays_filters_by_five_times_what_sgd_would():
    """20 times the weight decay at a quarter of the learning rate: its steps have a fixed length."""
    config = recipe("cnn", optimizer="muon", learning_rate=0.1, weight_decay=0.01)
    ((weight, _),) = steps_of(config, [0.0])
    assert weight == pytest.approx(1 - 0.1 * 5 * 0.01)


def test_muon_looks_ahead_as_nesterov_does():
    """The momentum alone, 0.9 · 0.1 - 0.1 · 0.5, would still move the filter down; 0.9 of it and 0.1 · -0.5 do not."""
    config = recipe("cnn", optimizer="muon", learning_rate=0.1, weight_decay=0.0)
    (first, _), (second, _) = steps_of(config, [1.0, -0.5])
    assert first < 1
    assert second > first


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
    schedule = one_cycle(optimizer, recipe("cnn"), steps)
    for _ in range(steps):
        assert 0 < schedule.get_last_lr()[0] <= 0.12
        optimizer.step()
        schedule.step()


def test_the_learning_rate_starts_at_a_tenth_of_its_peak_and_ends_at_almost_nothing():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2, 2))], lr=0.12)
    schedule, rates = one_cycle(optimizer, recipe("cnn", warmup_fraction=0.25), 100), []
    for _ in range(100):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(0.012)
    assert rates.index(max(rates)) == 24
    assert max(rates) == pytest.approx(0.12)
    assert rates[-1] == pytest.approx(0.12 / 1000)


def test_all_groups_rise_and_fall_together():
    config = recipe("resnet50", stage_decay=0.5)
    (optimizer,) = build_optimizers(build_classifier(config, 10, GREY, GREY), config)
    schedule = one_cycle(optimizer, config, 100)
    seen = []
    for _ in range(100):
        seen.append(schedule.get_last_lr())
        optimizer.step()
        schedule.step()
    peaks = [max(rates) for rates in zip(*seen, strict=True)]
    assert {rates.index(peak) for rates, peak in zip(zip(*seen, strict=True), peaks, strict=True)} == {24}
    assert max(peaks) == pytest.approx(config.optimizer.learning_rate)
    assert min(peaks) == pytest.approx(config.optimizer.learning_rate * 0.5**5)


@pytest.mark.parametrize(("device", "fused"), [("cpu", True), ("meta", False)])
def test_steps_are_fused_where_torch_can(device, fused):
    for chosen in ("sgd", "adamw"):
        (optimizer,) = build_optimizers(torch.nn.Linear(2, 2, device=device), recipe("cnn", optimizer=chosen))
        assert optimizer.defaults["fused"] is fused


def test_each_of_three_steps_learns():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2, 2))], lr=0.12)
    schedule, rates = one_cycle(optimizer, recipe("cnn"), 3), []
    for _ in range(3):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.012, 0.12, 0.06], rel=0.01)
