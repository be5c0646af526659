"""Augmented batches alone, as the network takes them: float32, normalised."""

from collections import deque

import torch

from benchmarks.measure import Row, interleaved, rate
from benchmarks.plain_loop import in_own_process
from benchmarks.training_speed import CNN, GREY, random_split
from cifar_tasks.models.classifier import build_classifier
from cifar_tasks.training.augment import training_batches

IMAGES = 5120


def measure(rounds: int) -> list[Row]:
    train = random_split(IMAGES)
    model = build_classifier(CNN, 10, *GREY)

    def epoch() -> None:
        order = torch.Generator().manual_seed(0)
        batches = training_batches(train.images, train.labels, CNN, 1, order)
        deque((model.prepare(images) for images, _ in batches), maxlen=0)

    with in_own_process("loader", IMAGES, CNN.batch_size) as loader:
        figures = interleaved({"product": rate(IMAGES, epoch), "loader": loader}, rounds, "augmentation")
    both = {"product": f"{figures['product']:.0f}", "DataLoader": f"{figures['loader']:.0f} images/s"}
    return [Row("augmentation and batching", both, figures.ratio("product", "loader"), 10)]
