"""Training the CNN: the product's own `fit` beside a plain loop, and beside what the machine's matrix products give."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch

from benchmarks.measure import Candidate, Row, interleaved, rate
from benchmarks.plain_loop import in_own_process
from cifar_tasks.config import TrainConfig, with_values
from cifar_tasks.models import get_model
from cifar_tasks.models.classifier import build_classifier
from cifar_tasks.training import device as training_device
from cifar_tasks.training.augment import steps_per_epoch
from cifar_tasks.training.loop import Split, fit
from cifar_tasks.training.state import TrainingState

GFLOP_PER_IMAGE = 1.89
"""Forward and backward of the CNN's convolutions and dense layer, a multiplication and an addition counted as two."""
IMAGES = 512
MATRIX = 2048
PRODUCTS = 10
GREY = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
"""Channel statistics; the images are random, which speed does not depend on."""
CNN = get_model("cnn").recipes["full"]


def measure(rounds: int) -> list[Row]:
    precision = training_device.precision(torch.device("cpu"))
    name = str(precision).removeprefix("torch.")
    precisions = {"float32": torch.float32, name: precision}
    candidates = {f"fit {kind}": training(kind_dtype) for kind, kind_dtype in precisions.items()}
    candidates["sharpness-aware"] = training(precision, config=with_values(CNN, {"sam_share": 1.0}))
    candidates |= {f"product {kind}": matrix_product(kind_dtype) for kind, kind_dtype in precisions.items()}
    with in_own_process("training", IMAGES, CNN.batch_size) as plain:
        figures = interleaved({**candidates, "plain": plain}, rounds, "CNN training")

    def against_plain(kind: str) -> Row:
        both = {f"product, {kind}": f"{figures[f'fit {kind}']:.0f}", "plain loop": f"{figures['plain']:.0f} images/s"}
        return Row("CNN training", both, figures.ratio(f"fit {kind}", "plain"), 1.7)

    aware = {"product": f"{figures['sharpness-aware']:.0f}", "plain loop": f"{figures['plain']:.0f} images/s"}

    def share(trained: str, multiplied: str) -> Row:
        reached = {f"training, {trained}": f"{GFLOP_PER_IMAGE * figures[f'fit {trained}']:.0f}"}
        possible = {f"products, {multiplied}": f"{figures[f'product {multiplied}']:.0f} GFLOP/s"}
        ratio = figures.ratio(f"fit {trained}", f"product {multiplied}", GFLOP_PER_IMAGE)
        return Row("share of matrix products", reached | possible, ratio, 0.8 if multiplied == "float32" else None)

    pairs = dict.fromkeys([(name, "float32"), (name, name), ("float32", "float32")])
    return [
        *(against_plain(kind) for kind in reversed(precisions)),
        Row("CNN training, sharpness-aware steps", aware, figures.ratio("sharpness-aware", "plain")),
        *(share(*pair) for pair in pairs),
    ]


def training(precision: torch.dtype, images: int = IMAGES, config: TrainConfig = CNN) -> Candidate:
    """An epoch by `fit` in this precision, on the CPU; augmentation and optimizer included, validation not."""
    config = with_values(config, {"epochs": 1})
    train, validation = random_split(images), random_split(2)

    def measure() -> float:
        state = TrainingState(build_classifier(config, 10, *GREY), config, steps_per_epoch(images, config))
        with computing_in(precision):
            fit(state, train, validation)
        return state.history[-1].images_per_second

    return measure


@contextmanager
def computing_in(precision: torch.dtype) -> Iterator[None]:
    """The product chooses by the hardware and has no switch: its choice is replaced for the comparison."""
    with patch.object(training_device, "precision", lambda _: precision):
        yield


def matrix_product(precision: torch.dtype, device: str = "cpu", size: int = MATRIX) -> Candidate:
    """GFLOP/s of square matrix products."""
    a, b = torch.randn(2, size, size, device=device, dtype=precision)
    out = torch.empty_like(a)

    def work() -> None:
        for _ in range(PRODUCTS):
            torch.mm(a, b, out=out)
        if device != "cpu":
            torch.cuda.synchronize()

    return rate(PRODUCTS * 2 * size**3 / 1e9, work)


def random_split(count: int, device: str = "cpu") -> Split:
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8, generator=generator)
    return Split(images.to(device), torch.randint(0, 10, (count,), generator=generator).to(device))
