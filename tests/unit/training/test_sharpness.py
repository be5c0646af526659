"""A perturbation is as long as its radius, is undone exactly, and leaves the gradients that were computed inside."""

import pytest
import torch
from torch import nn

from cifar_tasks.config import with_values
from cifar_tasks.errors import ConfigError
from cifar_tasks.models import get_model
from cifar_tasks.training.sharpness import sam_perturbation, sharpness_aware

IMAGES = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 3))


def loss(model: nn.Module) -> torch.Tensor:
    model.zero_grad()
    value = nn.functional.cross_entropy(model(IMAGES), torch.arange(16) % 3)
    value.backward()
    return value


def flat(tensors) -> torch.Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def test_inside_the_weights_are_the_radius_away_and_the_loss_is_higher():
    model = network()
    here, at = loss(model), flat(model.parameters())
    direction = flat(p.grad for p in model.parameters())
    with sam_perturbation(model, 0.3):
        moved = flat(model.parameters()) - at
        higher = loss(model)
    assert moved.norm().item() == pytest.approx(0.3, rel=1e-4)
    assert nn.functional.cosine_similarity(moved, direction, dim=0).item() == pytest.approx(1, abs=1e-5)
    assert higher > here


def test_on_leaving_weights_and_statistics_are_what_they_were_and_the_gradients_those_of_the_other_place():
    model = network()
    loss(model)
    before, gradient = (
        [value.clone() for value in model.state_dict().values()],
        flat(p.grad for p in model.parameters()),
    )
    with sam_perturbation(model, 0.3):
        loss(model)
        there = flat(p.grad for p in model.parameters())
    assert all(torch.equal(one, other) for one, other in zip(before, model.state_dict().values(), strict=True))
    assert torch.equal(flat(p.grad for p in model.parameters()), there)
    assert not torch.allclose(there, gradient)


def test_weights_without_a_gradient_stay_and_a_gradient_of_nothing_goes_nowhere():
    model = network()
    model[0].requires_grad_(False)
    loss(model)
    for parameter in model[4].parameters():
        parameter.grad.zero_()
    model[1].weight.grad.zero_()
    model[1].bias.grad.zero_()
    before = flat(model.parameters())
    with sam_perturbation(model, 0.3):
        assert torch.equal(flat(model.parameters()), before)


@pytest.mark.parametrize(
    ("epochs", "share", "expected"),
    [(12, 1 / 3, [9, 10, 11, 12]), (5, 1 / 2, [4, 5]), (1, 1 / 2, []), (3, 1, [1, 2, 3])],
)
def test_it_is_used_in_the_last_epochs(epochs: int, share: float, expected: list[int]):
    config = with_values(get_model("cnn").recipes["full"], {"epochs": epochs, "sam_radius": 0.1, "sam_share": share})
    assert [epoch for epoch in range(1, epochs + 1) if sharpness_aware(config, epoch)] == expected
    without = with_values(config, {"sam_radius": 0.0})
    assert not any(sharpness_aware(without, epoch) for epoch in range(1, epochs + 1))


@pytest.mark.parametrize(
    "wrong", [{"sam_share": 1.5}, {"sam_share": float("nan")}, {"sam_radius": -0.1}, {"sam_images": 0}]
)
def test_what_cannot_be_is_refused(wrong: dict[str, float]):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        with_values(get_model("cnn").recipes["full"], wrong)
