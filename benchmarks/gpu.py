"""What a GPU adds: the CNN's epoch, and the pretrained networks at the size they were made for; compiled and eager."""

import statistics

import torch

from benchmarks.measure import Row, interleaved
from benchmarks.training_speed import CNN, GFLOP_PER_IMAGE, GREY, matrix_product, random_split
from cifar_tasks.config import TrainConfig, with_values
from cifar_tasks.models import get_model
from cifar_tasks.models.classifier import build_classifier
from cifar_tasks.training import loop
from cifar_tasks.training.augment import steps_per_epoch
from cifar_tasks.training.state import TrainingState

CNN_IMAGES = 45_000
PRETRAINED_IMAGES = 10_240
PRETRAINED_SIZE = 224
PRETRAINED_GFLOP = {"resnet50": 24.5, "efficientnet_lite0": 2.4}
"""Per image at 224 pixels: 4.09 and 0.4 billion multiply-adds forward (torchvision, timm), two operations each, and
twice as many backward."""
LARGE_BATCH = 256
A100_AMP = 2_500
"""Images/s that ResNet50 trains at on one A100 with mixed precision, to compare with."""
MATRIX = 8192


def measure(rounds: int) -> list[Row]:
    device = torch.device("cuda")
    peak = interleaved({"": matrix_product(torch.bfloat16, "cuda", MATRIX)}, rounds, "matrix products")[""]
    rows = []
    for steps, share in (("plain", 0.0), ("sharpness-aware", 1.0)):
        config = with_values(CNN, {"sam_share": share})
        speeds = both_speeds(config, CNN_IMAGES, rounds, device)
        rows.append(Row(f"CNN, epoch of {CNN_IMAGES:,} images, {steps} steps", epochs(speeds), ratio(speeds)))
        if not share:
            rows.append(share_of(peak, "CNN", GFLOP_PER_IMAGE * max(speeds.values())))
    for name, gflop in PRETRAINED_GFLOP.items():
        recipe = with_values(get_model(name).recipes["full"], {"input_size": PRETRAINED_SIZE})
        for batch in (recipe.batch_size, LARGE_BATCH):
            config = with_values(recipe, {"batch_size": batch})
            speeds = both_speeds(config, PRETRAINED_IMAGES, rounds, device)
            figures = {mode: f"{speed:.0f} images/s" for mode, speed in speeds.items()}
            title = f"{get_model(name).title}, {PRETRAINED_SIZE} px, batch {batch}"
            rows.append(Row(title, figures, ratio(speeds)))
            rows.append(share_of(peak, title, gflop * max(speeds.values())))
            if name == "resnet50":
                best = max(speeds.values())
                beside = {"product": f"{best:.0f}", "A100 with AMP": f"{A100_AMP} images/s"}
                rows.append(Row(title, beside, best / A100_AMP))
    return rows


def share_of(peak: float, what: str, reached: float) -> Row:
    """Both in GFLOP/s."""
    figures = {"training": f"{reached / 1e3:.0f}", "bfloat16": f"{peak / 1e3:.0f} TFLOP/s"}
    return Row(f"{what}: share of matrix products", figures, reached / peak)


def epochs(speeds: dict[str, float]) -> dict[str, str]:
    return {mode: f"{CNN_IMAGES / speed:.2f} s, {speed:.0f} images/s" for mode, speed in speeds.items()}


def ratio(speeds: dict[str, float]) -> float:
    return speeds["compiled"] / speeds["eager"]


def both_speeds(config: TrainConfig, images: int, rounds: int, device: torch.device) -> dict[str, float]:
    """Images/s as the product trains, and compiled."""
    return {mode: epoch_speed(config, images, rounds, device, mode) for mode in ("eager", "compiled")}


def epoch_speed(config: TrainConfig, images: int, rounds: int, device: torch.device, mode: str) -> float:
    """Median images/s of training alone; the first epoch compiles and warms up, and does not count."""
    config = with_values(config, {"epochs": rounds + 1, "patience": rounds + 1})
    train, validation = random_split(images, device.type), random_split(2, device.type)
    state = TrainingState(build_classifier(config, 10, *GREY).to(device), config, steps_per_epoch(images, config))
    if mode == "compiled":
        state.model.compile()
    loop.fit(state, train, validation)
    return statistics.median(epoch.images_per_second for epoch in state.history[1:])
