"""The report's VGG-style CNN, layer by layer."""

from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor, nn

WIDTHS = (92, 184, 368)


class VGGStyleCNN(nn.Module):
    """Three blocks of two 3×3 convolutions, each followed by ReLU and batch norm, then one dense layer.

    Takes float images (N, 3, 32, 32) and returns logits (N, classes). 2,429,270 parameters with 10 classes, 2,576 of
    them running statistics of the batch norms, which PyTorch keeps as buffers. With `hidden_units` a dense layer of
    that width comes before the last one; the report has none.
    """

    def __init__(self, classes: int = 10, dropout: float = 0.25, hidden_units: int = 0) -> None:
        super().__init__()
        blocks = (layer for before, width in pairwise((3, *WIDTHS)) for layer in _block(before, width, dropout))
        self.features = nn.Sequential(*blocks)
        features = WIDTHS[-1] * 4 * 4
        hidden = [nn.Linear(features, hidden_units), nn.ReLU(inplace=True)] if hidden_units else []
        self.classifier = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(hidden_units or features, classes))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images))
        return logits


def _block(before: int, width: int, dropout: float) -> Iterator[nn.Module]:
    for channels in (before, width):
        yield nn.Conv2d(channels, width, kernel_size=3, padding=1)
        yield nn.ReLU(inplace=True)
        yield nn.BatchNorm2d(width)
    yield nn.MaxPool2d(2)
    yield nn.Dropout(dropout)
