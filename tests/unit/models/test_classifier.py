"""Preprocessing is part of the model."""

import torch

from cifar_tasks.config import configure
from cifar_tasks.models import ImageClassifier, build_classifier, summarise

GREY = (0.5, 0.5, 0.5)


class Identity(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_bytes_are_scaled_and_normalised_inside():
    model = ImageClassifier(Identity(), mean=(0.2, 0.4, 0.6), std=(0.1, 0.2, 0.5))
    image = torch.tensor([51, 102, 255], dtype=torch.uint8).expand(1, 32, 32, 3)
    pixel = model(image)[0, :, 0, 0]
    assert torch.allclose(pixel, torch.tensor([0.0, 0.0, 0.8]), atol=1e-6)


def test_images_are_upsampled_to_the_size_of_the_configuration():
    model = ImageClassifier(Identity(), GREY, GREY, image_size=64)
    assert model(torch.zeros(2, 32, 32, 3, dtype=torch.uint8)).shape == (2, 3, 64, 64)


def test_logits_are_scaled():
    plain, scaled = (ImageClassifier(Identity(), GREY, GREY, logit_scale=scale) for scale in (1.0, 0.5))
    image = torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8)
    assert torch.equal(plain(image) * 0.5, scaled(image))


def test_resnet50_takes_imagenet_s_statistics_and_the_cnn_those_of_its_images():
    cnn = build_classifier(configure("cnn", "demo", {}), 10, GREY, GREY)
    resnet = build_classifier(configure("resnet50", "demo", {}), 10, GREY, GREY)
    assert torch.allclose(cnn.mean.flatten() / 255, torch.tensor(GREY))
    assert torch.allclose(resnet.mean.flatten() / 255, torch.tensor([0.485, 0.456, 0.406]))


def test_images_reach_the_convolutions_in_channels_last_layout():
    seen = []
    model = build_classifier(configure("cnn", "demo", {}), 10, GREY, GREY)
    model.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(torch.zeros(2, 32, 32, 3, dtype=torch.uint8))
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_the_summary_lists_layers_shapes_and_parameters():
    text = summarise(build_classifier(configure("cnn", "demo", {}), 10, GREY, GREY))
    assert "[1, 92, 32, 32]" in text
    assert "1,219,184" in text
    assert "58,890" in text
