"""EfficientNet-Lite0 and the ImageNet weights that are installed with it."""

import pytest
import timm
import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_image
from torchvision.models._meta import _IMAGENET_CATEGORIES

from cifar_tasks.config import with_values
from cifar_tasks.errors import WeightsError
from cifar_tasks.models import get_model
from cifar_tasks.models.builtin.efficientnet_lite0 import NETWORK, read
from cifar_tasks.models.classifier import (
    ImageClassifier,
    build_classifier,
    count_parameters,
    load_pretrained,
    read_tensors,
)
from cifar_tasks.settings import Settings
from cifar_tasks.storage.weights import fetch_weights

SPEC = get_model("efficientnet_lite0")
CONFIG = SPEC.config("demo")
GREY = (0.5, 0.5, 0.5)


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    path, digest = fetch_weights(SPEC, Settings(), print)
    assert digest == SPEC.pretrained.sha256
    return read_tensors(path)


@pytest.fixture(scope="module")
def imagenet(published) -> ImageClassifier:
    """The network as it was trained, with the head of 1,000 classes."""
    network = timm.create_model(NETWORK)
    network.load_state_dict(read(CONFIG, published))
    return ImageClassifier(network, GREY, GREY, 224).eval()


@pytest.mark.parametrize(
    ("photograph", "shown"), [("china.jpg", {"palace", "bell cote", "stupa"}), ("flower.jpg", {"daisy", "bee", "pot"})]
)
def test_with_its_own_head_it_names_what_photographs_show(imagenet, photograph, shown):
    image = torch.from_numpy(load_sample_image(photograph).copy())
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = image[top : top + side, left : left + side].permute(2, 0, 1)[None].float()
    small = F.interpolate(square, size=(224, 224), mode="bilinear", antialias=True).round().to(torch.uint8)
    with torch.inference_mode():
        best = imagenet(small.permute(0, 2, 3, 1)).topk(5).indices[0].tolist()
    named = [_IMAGENET_CATEGORIES[index] for index in best]
    assert shown & set(named), named


def test_every_tensor_of_the_file_is_used_once_in_its_own_shape(published):
    network, renamed = timm.create_model(NETWORK).state_dict(), read(CONFIG, published)
    assert len(renamed) == len(published) == len(network)
    assert {name: value.shape for name, value in renamed.items()} == {name: v.shape for name, v in network.items()}


def test_the_classifier_starts_with_them_and_a_head_of_its_own(published, tmp_path):
    model = build_classifier(CONFIG, 10, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    head = model.network.classifier.weight.clone()
    load_pretrained(model, CONFIG, fetch_weights(SPEC, Settings(), print)[0], print)
    state = model.network.state_dict()
    for name, value in read(CONFIG, published).items():
        assert name.startswith("classifier.") or torch.equal(state[name], value), name
    assert torch.equal(model.network.classifier.weight, head)
    assert count_parameters(model)["trainable"] == 3_383_818


@pytest.mark.parametrize("change", ["missing", "unknown", "another shape"])
def test_a_file_that_does_not_match_is_refused(published, tmp_path, change):
    state = dict(published)
    weight = state.pop("_blocks.3._expand_conv.weight")
    if change == "unknown":
        state |= {"_blocks.3._expand_conv.weight": weight, "_blocks.16._bn0.weight": weight}
    if change == "another shape":
        state["_blocks.3._expand_conv.weight"] = weight[:-1]
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match="does not hold the weights of efficientnet_lite0"):
        load_pretrained(build_classifier(CONFIG, 10, GREY, GREY), CONFIG, tmp_path / "weights.pth", print)


@pytest.mark.parametrize(("size", "expected"), [(None, 224), (0, 0), (96, 96)])
def test_it_takes_the_normalisation_and_if_asked_the_input_size_that_it_was_trained_with(size, expected):
    model = build_classifier(with_values(CONFIG, {"input_size": size}), 10, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (model.mean.flatten() / 255).tolist() == (model.std.flatten() / 255).tolist() == [0.5] * 3
    assert model.input_size == expected
