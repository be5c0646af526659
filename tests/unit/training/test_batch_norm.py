"""Batch norm over several processes equals torch's own over all of their images; here both have the same images."""

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from cifar_tasks.training import batch_norm
from cifar_tasks.training.batch_norm import SynchronisedBatchNorm2d, synchronise_batch_norm

IMAGES = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def two_equal_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_norm.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(batch_norm.dist, "all_reduce", lambda values: values.mul_(2))


def trained_norm() -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(4, eps=0.01, momentum=0.3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 2.0, 0.5, -1.0]))
        layer.bias.copy_(torch.tensor([0.0, 1.0, -1.0, 0.5]))
        layer.running_mean.copy_(torch.arange(4.0))
    return layer


def test_it_computes_learns_and_remembers_what_torch_s_does_with_the_images_of_all():
    model = nn.Sequential(trained_norm(), nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4)))
    expected = trained_norm()
    synchronise_batch_norm(model)
    layer = model[0]
    assert [type(each) for each in (layer, model[1][1])] == [SynchronisedBatchNorm2d] * 2
    mine, all_images = IMAGES.clone().requires_grad_(), IMAGES.repeat(2, 1, 1, 1).requires_grad_()
    for _ in range(2):
        normal, others = layer(mine), expected(all_images)
    torch.testing.assert_close(normal, others[:3])
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(layer.state_dict()[name], value)
    weights = torch.randn(IMAGES.shape, generator=torch.Generator().manual_seed(1))
    (normal * weights).sum().backward()
    (others * weights.repeat(2, 1, 1, 1)).sum().backward()
    torch.testing.assert_close(mine.grad, all_images.grad[:3])


@pytest.mark.parametrize("training", [True, False])
def test_the_activation_inside_timm_s_batch_norm_stays_and_its_names_too(training):
    model, expected = nn.Sequential(nn.Identity(), BatchNormAct2d(4)).train(training), BatchNormAct2d(4).train(training)
    names = list(model.state_dict())
    synchronise_batch_norm(model)
    assert type(model[1]) is SynchronisedBatchNorm2d
    assert list(model.state_dict()) == names
    normal, others = model.train(training)(IMAGES), expected(IMAGES.repeat(2, 1, 1, 1))
    assert (others == 0).any()
    torch.testing.assert_close(normal, others[:3])
    torch.testing.assert_close(model[1].running_mean, expected.running_mean)


def test_it_takes_half_precision_and_gives_it_back():
    layer = SynchronisedBatchNorm2d(nn.BatchNorm2d(4))
    normal = layer(IMAGES.bfloat16())
    assert normal.dtype is torch.bfloat16
    torch.testing.assert_close(normal.float(), layer(IMAGES), rtol=0.02, atol=0.02)


def test_outside_of_training_it_uses_what_it_remembers():
    layer = SynchronisedBatchNorm2d(nn.BatchNorm2d(4)).eval()
    torch.testing.assert_close(layer(IMAGES), nn.BatchNorm2d(4).eval()(IMAGES))
    assert layer.num_batches_tracked == 0
