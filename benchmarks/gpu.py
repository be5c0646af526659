"""What a GPU adds: the CNN's epoch, and ResNet50 at the size it was made for."""

import statistics

import torch

from benchmarks.measure import Row, interleaved
from benchmarks.training_speed import CNN, GREY, matrix_product, random_split
from cifar_tasks.config import TrainConfig, with_values
from cifar_tasks.models import get_model
from cifar_tasks.models.classifier import build_classifier
from cifar_tasks.training.augment import steps_per_epoch
from cifar_tasks.training.loop import fit
from cifar_tasks.training.state import TrainingState

CNN_IMAGES = 45_000
RESNET_IMAGES = 5_120
RESNET_GFLOP_PER_IMAGE = 24.5
"""At 224 pixels: 4.09 billion multiply-adds forward (torchvision), two operations each, backward twice as many."""
A100_AMP = 2_500
"""Images/s that ResNet50 trains at on one A100 with mixed precision, to compare with."""
MATRIX = 8192


def measure(rounds: int) -> list[Row]:
    device = torch.device("cuda")
    cnn = epoch_speeds(CNN, CNN_IMAGES, rounds, device)
    resnet = epoch_speeds(get_model("resnet50").recipes["full"], RESNET_IMAGES, rounds, device)
    product = matrix_product(torch.bfloat16, "cuda", MATRIX)
    peak = interleaved({"product": product}, rounds, "matrix products")["product"]
    reached = RESNET_GFLOP_PER_IMAGE * resnet
    return [
        Row(f"CNN, epoch of {CNN_IMAGES:,} images", {"product": f"{CNN_IMAGES / cnn:.2f} s, {cnn:.0f} images/s"}),
        Row(
            "ResNet50 training, 224 px",
            {"product": f"{resnet:.0f}", "A100 with AMP": f"{A100_AMP} images/s"},
            resnet / A100_AMP,
        ),
        Row(
            "share of matrix products",
            {"ResNet50": f"{reached / 1e3:.0f}", "bfloat16": f"{peak / 1e3:.0f} TFLOP/s"},
            reached / peak,
        ),
    ]


def epoch_speeds(config: TrainConfig, images: int, rounds: int, device: torch.device) -> float:
    """Median images/s of training alone; the first epoch compiles and warms up, and does not count."""
    config = with_values(config, {"epochs": rounds + 1, "patience": rounds + 1})
    train, validation = random_split(images, device.type), random_split(2, device.type)
    state = TrainingState(build_classifier(config, 10, *GREY).to(device), config, steps_per_epoch(images, config))
    fit(state, train, validation)
    return statistics.median(epoch.images_per_second for epoch in state.history[1:])
