"""The CNN is the report's, row by row."""

import pytest
import torch
from torch import nn

from cifar_tasks.config import with_values
from cifar_tasks.models import get_model
from cifar_tasks.models.classifier import count_parameters

# Output shape after each layer that changes it, and the parameters of each layer that has some (the report's table;
# of a batch norm 2 per channel are trained, 2 are running statistics).
CONVOLUTIONS = [(92, 32, 2_576), (92, 32, 76_268), (184, 16, 152_536), (184, 16, 304_888), (368, 8, 609_776)]
CONVOLUTIONS += [(368, 8, 1_219_184)]
BATCH_NORMS = [368, 368, 736, 736, 1_472, 1_472]


def build(classes: int = 10, **changes) -> nn.Module:
    spec = get_model("cnn")
    return spec.build(with_values(spec.recipes["full"], changes), classes)


def shapes_of(model: nn.Module, kind: type[nn.Module], size: int = 32) -> list[tuple[int, ...]]:
    shapes: list[tuple[int, ...]] = []
    for module in model.modules():
        if isinstance(module, kind):
            module.register_forward_hook(lambda m, i, output: shapes.append(tuple(output.shape[1:])))
    model.eval()(torch.zeros(1, 3, size, size))
    return shapes


def parameters_of(module: nn.Module) -> int:
    statistics = sum(b.numel() for name, b in module.named_buffers() if "running" in name)
    return sum(p.numel() for p in module.parameters()) + statistics


def test_convolutions_have_the_shapes_and_parameters_of_the_report():
    model = build()
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [parameters_of(layer) for layer in layers] == [count for _, _, count in CONVOLUTIONS]
    assert shapes_of(model, nn.Conv2d) == [(channels, size, size) for channels, size, _ in CONVOLUTIONS]
    assert all(layer.kernel_size == (3, 3) for layer in layers)


def test_batch_norms_have_the_parameters_of_the_report():
    layers = [m for m in build().modules() if isinstance(m, nn.BatchNorm2d)]
    assert [parameters_of(layer) for layer in layers] == BATCH_NORMS


def test_each_block_is_convolution_relu_norm_twice_then_pooling_and_dropout():
    unit = [nn.Conv2d, nn.ReLU, nn.BatchNorm2d]
    block = [*unit, *unit, nn.MaxPool2d, nn.Dropout]
    assert [type(layer) for layer in build().features] == block * 3


def test_pooling_halves_the_images_to_4_pixels():
    assert shapes_of(build(), nn.MaxPool2d) == [(92, 16, 16), (184, 8, 8), (368, 4, 4)]


def test_pooling_before_the_dense_layer_changes_nothing_at_32_pixels():
    model, features = build().eval(), torch.randn(2, 368, 4, 4)
    assert torch.equal(model.pool(features), features)


@pytest.mark.parametrize("size", [16, 48, 128])
def test_images_of_any_size_are_classified_by_the_same_dense_layer(size):
    model = build(classes=3)
    assert shapes_of(model, nn.Linear, size) == [(3,)]
    assert parameters_of(model.classifier) == 5_888 * 3 + 3


def test_the_dense_layer_has_58890_parameters():
    (dense,) = [m for m in build().modules() if isinstance(m, nn.Linear)]
    assert (dense.in_features, dense.out_features, parameters_of(dense)) == (5_888, 10, 58_890)


def test_the_total_is_the_report_s():
    assert count_parameters(build()) == {"trainable": 2_429_270 - 2_576, "not_trainable": 2_576, "total": 2_429_270}


def test_other_numbers_of_classes_change_the_last_layer_only():
    assert build(classes=3)(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


def test_hidden_units_are_a_dense_layer_before_the_last_one():
    dense = [m for m in build(hidden_units=64).modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in dense] == [(5_888, 64), (64, 10)]
    assert [m.out_features for m in build().modules() if isinstance(m, nn.Linear)] == [10]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_configuration_s_dropout_is_that_of_every_block(dropout):
    assert [m.p for m in build(dropout=dropout).modules() if isinstance(m, nn.Dropout)] == [dropout] * 3


def test_hidden_units_leave_the_convolutions_their_initial_weights():
    """Layers draw their random numbers in the order in which the image passes through them."""
    torch.manual_seed(0)
    plain = build()
    torch.manual_seed(0)
    wider = build(hidden_units=18)
    assert torch.equal(plain.features[-5].weight, wider.features[-5].weight)
