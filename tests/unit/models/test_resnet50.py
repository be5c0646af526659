"""ResNet50 with the report's head."""

import pytest
import torch
from torch import nn

from cifar_tasks.config import with_values
from cifar_tasks.errors import ConfigError
from cifar_tasks.models import get_model
from cifar_tasks.models.classifier import count_parameters


def build(classes: int = 10, **changes) -> nn.Module:
    spec = get_model("resnet50")
    return spec.build(with_values(spec.recipes["full"], changes), classes)


def test_the_head_is_dense_1024_512_classes():
    dense = [m for m in build().fc if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in dense] == [(2048, 1024), (1024, 512), (512, 10)]
    assert [sum(p.numel() for p in m.parameters()) for m in dense] == [2_098_176, 524_800, 5_130]


def test_hidden_units_widen_both_layers_of_the_head():
    assert [m.out_features for m in build(hidden_units=300).fc if isinstance(m, nn.Linear)] == [300, 150, 10]


@pytest.mark.parametrize("hidden_units", [0, 1])
def test_a_head_without_hidden_units_is_refused(hidden_units):
    with pytest.raises(ConfigError, match=f"hidden_units must be at least 2 for resnet50, got {hidden_units}"):
        build(hidden_units=hidden_units)


def test_parameters_are_those_of_the_reference():
    counted = count_parameters(build())
    assert counted["trainable"] == 26_136_138
    assert counted["not_trainable"] == 53_120


def test_the_backbone_without_its_top_has_23508032_parameters():
    network = build()
    head = sum(p.numel() for p in network.fc.parameters())
    assert count_parameters(network)["trainable"] - head == 23_508_032


def test_the_last_feature_map_of_224_pixels_is_7_by_7_by_2048():
    network = build().eval()
    shapes = []
    network.layer4.register_forward_hook(lambda m, i, output: shapes.append(tuple(output.shape)))
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 224, 224)).shape == (1, 10)
    assert shapes == [(1, 2048, 7, 7)]
