"""Preprocessing is part of the model, and the configuration decides what is built."""

import pytest
import torch
import torch.nn.functional as F

from cifar_tasks.config import with_values
from cifar_tasks.errors import WeightsError
from cifar_tasks.models import get_model
from cifar_tasks.models.classifier import ImageClassifier, build_classifier, load_pretrained, summarise

GREY = (0.5, 0.5, 0.5)


def build(model: str = "cnn", classes: int = 10, **changes) -> ImageClassifier:
    torch.manual_seed(0)
    return build_classifier(with_values(get_model(model).recipes["demo"], changes), classes, GREY, GREY)


class Identity(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_bytes_are_scaled_and_normalised_inside():
    model = ImageClassifier(Identity(), mean=(0.2, 0.4, 0.6), std=(0.1, 0.2, 0.5))
    image = torch.tensor([51, 102, 255], dtype=torch.uint8).expand(1, 32, 32, 3)
    pixel = model(image)[0, :, 0, 0]
    assert torch.allclose(pixel, torch.tensor([0.0, 0.0, 0.8]), atol=1e-6)


@pytest.mark.parametrize(("input_size", "expected"), [(0, 32), (24, 32), (32, 32), (64, 64)])
def test_only_images_smaller_than_the_input_size_are_upsampled(input_size, expected):
    model = ImageClassifier(Identity(), GREY, GREY, input_size=input_size)
    assert model(torch.zeros(2, 32, 32, 3, dtype=torch.uint8)).shape == (2, 3, expected, expected)


def test_logits_are_scaled():
    plain, scaled = (ImageClassifier(Identity(), GREY, GREY, logit_scale=scale) for scale in (1.0, 0.5))
    image = torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8)
    assert torch.equal(plain(image) * 0.5, scaled(image))


def test_resnet50_takes_imagenet_s_statistics_and_the_cnn_those_of_its_images():
    assert torch.allclose(build("cnn").mean.flatten() / 255, torch.tensor(GREY))
    assert torch.allclose(build("resnet50").mean.flatten() / 255, torch.tensor([0.485, 0.456, 0.406]))


def test_the_configuration_s_logit_scale_reaches_the_logits():
    image = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    whole, half = (build(logit_scale=scale).eval()(image) for scale in (1.0, 0.5))
    assert torch.allclose(whole * 0.5, half)


def test_the_configuration_s_input_size_reaches_the_network():
    seen = []
    model = build("resnet50", input_size=48).eval()
    model.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    model(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))
    assert seen == [(1, 3, 48, 48)]


@pytest.mark.parametrize(("model", "expected"), [("efficientnet_lite0", "bicubic"), ("resnet50", "bilinear")])
def test_images_are_upsampled_as_those_were_that_the_weights_were_trained_on(model, expected):
    built, image = build(model, input_size=48), torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8)
    pixels = (image.permute(0, 3, 1, 2) - built.mean) / built.std
    upsampled = F.interpolate(pixels, size=(48, 48), mode=expected)
    assert torch.allclose(built.prepare(image), upsampled, atol=1e-5)
    assert built.prepare(image).is_contiguous(memory_format=torch.channels_last)


def test_images_reach_the_convolutions_in_channels_last_layout():
    seen = []
    model = build()
    model.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(torch.zeros(2, 32, 32, 3, dtype=torch.uint8))
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert all(
        weight.is_contiguous(memory_format=torch.channels_last) for weight in model.parameters() if weight.ndim == 4
    )


def test_the_summary_lists_layers_shapes_and_parameters():
    text = summarise(build(), 32)
    assert "[1, 92, 32, 32]" in text
    assert "1,219,184" in text
    assert "58,890" in text
    assert "[1, 92, 48, 48]" in summarise(build(), 48)


def test_pretrained_weights_reach_all_of_the_network_but_its_head(tmp_path):
    path, told = tmp_path / "weights.pth", []
    # A publisher's network has another head, for its own classes.
    torch.save({**build("resnet50", classes=3).network.state_dict(), "fc.weight": torch.zeros(1000, 2048)}, path)
    stored = torch.load(path, weights_only=True)
    torch.manual_seed(1)
    model = build_classifier(get_model("resnet50").recipes["demo"], 10, GREY, GREY)
    head = {name: value.clone() for name, value in model.network.fc.state_dict().items()}
    load_pretrained(model, get_model("resnet50").recipes["demo"], path, told.append)
    for name, value in model.network.state_dict().items():
        expected = head[name.removeprefix("fc.")] if name.startswith("fc.") else stored[name]
        assert torch.equal(value, expected), name
    assert told == ["resnet50: pretrained weights loaded from weights.pth"]


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"conv1.weight": torch.zeros(64, 3, 7, 7)},
        {"conv1.weight": torch.zeros(1)},
        {"unknown.weight": torch.zeros(1)},
    ],
)
def test_weights_of_another_network_are_refused(tmp_path, state):
    path = tmp_path / "other.pth"
    torch.save(state, path)
    with pytest.raises(WeightsError, match=r"other\.pth does not hold the weights of resnet50"):
        load_pretrained(build("resnet50"), get_model("resnet50").recipes["demo"], path, print)


def test_weights_that_would_run_code_are_refused(tmp_path):
    path = tmp_path / "code.pth"
    torch.save({"conv1.weight": RunsCode(tmp_path / "ran")}, path)
    with pytest.raises(WeightsError, match="does not hold the weights"):
        load_pretrained(build("resnet50"), get_model("resnet50").recipes["demo"], path, print)
    assert not (tmp_path / "ran").exists()


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (type(self.path).touch, (self.path,))
