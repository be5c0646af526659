"""EfficientNet-Lite0 as the profile full trains it: training and features beside an ordinary eager loop with timm."""

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.measure import Row, interleaved, rate
from benchmarks.training_speed import GREY, random_split, training
from cifar_tasks.config import with_values
from cifar_tasks.models import get_model
from cifar_tasks.models.builtin.efficientnet_lite0 import NETWORK
from cifar_tasks.models.classifier import build_classifier
from cifar_tasks.training.device import precision
from cifar_tasks.training.transfer import compute_features, first_trained_layer

MODEL = "efficientnet_lite0"
RECIPE = get_model(MODEL).recipes["full"]
IMAGES, BATCH, SIDE = 256, RECIPE.batch_size, RECIPE.input_size
WANTED = 1.5


def measure(rounds: int) -> list[Row]:
    """The whole network in training; features once for its head, and once for the last stages of the demo."""
    config = with_values(RECIPE, {"epochs": 1, "head_epochs": 0})
    model, split = build_classifier(config, 10, *GREY), random_split(IMAGES)
    stages = first_trained_layer(model, get_model(MODEL).recipes["demo"], split.images[:2])
    layers = {"head": get_model(MODEL).head(model.network), "last stages": str(stages)}
    plain = timm.create_model(NETWORK, num_classes=10)
    candidates = {
        "training": training(precision(torch.device("cpu")), IMAGES, config),
        "plain training": rate(IMAGES, lambda: train_plainly(plain, split.images, split.labels)),
        "plain forward": rate(IMAGES, lambda: run_plainly(plain, split.images)),
    }
    for name, layer in layers.items():
        candidates[name] = rate(IMAGES, lambda layer=layer: compute_features(model, layer, split.images))
    figures = interleaved(candidates, rounds, "EfficientNet-Lite0")

    def row(what: str, product: str, other: str) -> Row:
        both = {"product": f"{figures[product]:.0f}", "plain loop": f"{figures[other]:.0f} images/s"}
        return Row(f"EfficientNet-Lite0, {what}", both, figures.ratio(product, other), WANTED)

    features = [row(f"features for the {name}", name, "plain forward") for name in layers]
    return [row("training", "training", "plain training"), *features]


def train_plainly(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """An epoch in float32, as timm's documentation fine-tunes."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    for part, answers in zip(images.split(BATCH), labels.split(BATCH), strict=True):
        optimizer.zero_grad()
        F.cross_entropy(model(_prepared(part)), answers, label_smoothing=0.1).backward()
        optimizer.step()


@torch.no_grad()
def run_plainly(model: nn.Module, images: Tensor) -> None:
    """What the network gives of the images before its head, in float32."""
    model.eval()
    for part in images.split(BATCH):
        model.forward_head(model.forward_features(_prepared(part)), pre_logits=True)


def _prepared(images: Tensor) -> Tensor:
    scaled = (images.permute(0, 3, 1, 2).contiguous().float() / 255 - 0.5) / 0.5
    return F.interpolate(scaled, size=(SIDE, SIDE), mode="bicubic")
