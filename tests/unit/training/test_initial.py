"""The first layer starts as a whitening of the images' patches."""

import pytest
import torch

from cifar_tasks.config import configure
from cifar_tasks.models import build_classifier
from cifar_tasks.training import whiten_first_layer

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def whitened(images: torch.Tensor):
    torch.manual_seed(0)
    model = build_classifier(configure("cnn", "demo", {}), 10, MEAN, STD)
    before = model.network.features[0].weight.clone()
    whiten_first_layer(model, images)
    return model, before


def smooth_images(count: int) -> torch.Tensor:
    """Neighbouring pixels are alike, as in photographs."""
    noise = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    large = torch.nn.functional.interpolate(noise, size=(32, 32), mode="bilinear")
    return (large * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def test_strong_directions_answer_uncorrelated_and_with_unit_variance():
    images = smooth_images(200)
    model, _ = whitened(images)
    with torch.no_grad():
        first = model.network.features[0]
        answers = torch.nn.functional.conv2d(model.prepare(images), first.weight)
    strong = answers[:, :6].transpose(0, 1).flatten(1)
    moments = strong @ strong.T / strong.shape[1]
    off_diagonal = moments - moments.diag().diag()
    assert off_diagonal.abs().max() < 1e-3
    assert moments.diag()[:3] == pytest.approx(1, abs=0.25)


def test_each_direction_comes_with_both_signs_and_the_rest_stays_random():
    model, before = whitened(smooth_images(50))
    weight = model.network.features[0].weight
    assert torch.equal(weight[:27], -weight[27:54])
    shapes = [filters.flatten(1) / filters.flatten(1).norm(dim=1, keepdim=True) for filters in (weight, before)]
    assert torch.allclose(shapes[0][54:], shapes[1][54:], atol=1e-6)


@pytest.mark.parametrize("image", [torch.zeros(20, 32, 32, 3), torch.full((20, 32, 32, 3), 255)])
def test_images_without_contrast_leave_finite_filters(image):
    model, _ = whitened(image.to(torch.uint8))
    assert torch.isfinite(model.network.features[0].weight).all()


def test_the_number_of_threads_changes_nothing():
    filters = []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        filters.append(whitened(smooth_images(100))[0].network.features[0].weight.detach())
    torch.set_num_threads(before)
    assert torch.allclose(filters[0], filters[1], atol=1e-5)


def test_the_filters_can_still_learn():
    model, _ = whitened(smooth_images(50))
    assert model.network.features[0].weight.requires_grad
