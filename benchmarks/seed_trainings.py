"""Trainings that differ by their seed only: how often is one of them promoted over another?

    .venv/bin/python -m benchmarks.seed_trainings --data cifar10-images.zip --state /tmp/seeds

Each comparison draws the test images anew with replacement, from real predictions. Can be stopped at any time; the same
command continues after the last whole training.
"""

import itertools
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from benchmarks.simulated_promotions import decision_on
from cifar_tasks.config import TrainConfig, with_values
from cifar_tasks.data.image_format import ImageFormat
from cifar_tasks.data.preparation import VALIDATION_FRACTION
from cifar_tasks.data.source import open_source
from cifar_tasks.data.spool import RawDataset, spooled
from cifar_tasks.evaluation.calibration import to_float16
from cifar_tasks.models import get_model
from cifar_tasks.models.classifier import build_classifier
from cifar_tasks.settings import Settings
from cifar_tasks.steps.process import restart_in_step_environment
from cifar_tasks.training.callbacks import Callback, Snapshot
from cifar_tasks.training.device import choose_device, describe
from cifar_tasks.training.logits import predict_logits
from cifar_tasks.training.setup import channel_statistics, init_running_stats, sample_indices, to_split
from cifar_tasks.training.transfer import fit_classifier

COMPARISONS = 40
"""Of each pair of trainings, half of them in each direction."""

Probabilities = NDArray[np.float16]


def main(
    state: Annotated[Path, typer.Option(help="Folder that keeps the predictions of each training.")],
    data: Annotated[str, typer.Option(help="Source of the images, as for `cifar demo --source`.")] = "digits",
    seeds: Annotated[int, typer.Option(min=2)] = 2,
    images: Annotated[int, typer.Option(min=64, help="To train on, of each class in proportion.")] = 30_000,
    epochs: Annotated[int, typer.Option(min=1)] = 4,
    image_size: Annotated[int, typer.Option(min=16, max=512, help="Pixels per side.")] = 32,
) -> None:
    """Train the CNN with several seeds on the same images, then decide about each pair."""
    print(f"CNN on {describe(choose_device())}, torch {torch.__version__}", flush=True)
    state.mkdir(parents=True, exist_ok=True)
    recipe = get_model("cnn").recipes["full"]
    config = with_values(recipe, {"epochs": epochs, "sam_radius": 0.0, "flip": data != "digits"})
    with spooled(open_source(data, Settings(), print).read(print), ImageFormat(image_size), print) as raw:
        for seed in range(seeds):
            if not (done := state / f"seed-{seed}.npy").exists():
                np.save(done, train(raw, replace(config, seed=seed), images))
        labels, classes = raw.labels[raw.test], raw.classes
    trained = [np.load(state / f"seed-{seed}.npy") for seed in range(seeds)]
    for line in decide_pairs(trained, labels, classes):
        print(line, flush=True)


class PrintEpoch(Callback):
    def on_epoch_end(self, snapshot: Snapshot) -> None:
        metrics = snapshot.history[-1]
        print(f"epoch {metrics.epoch}: validation accuracy {metrics.validation_accuracy:.2%}", flush=True)


def train(raw: RawDataset, config: TrainConfig, images: int) -> Probabilities:
    """Probabilities (N, classes) of the test images."""
    began, device = time.perf_counter(), choose_device()
    splits = raw.splits(VALIDATION_FRACTION, seed=0)
    chosen, held_out = (
        splits[name][sample_indices(raw.labels[splits[name]], min(wanted, len(splits[name])), seed=0)]
        for name, wanted in (("train", images), ("validation", 1_000))
    )
    pictures = raw.read(chosen)
    torch.manual_seed(config.seed)
    model = build_classifier(config, len(raw.classes), *channel_statistics(pictures))
    init_running_stats(model, pictures)
    split = to_split(device, pictures, raw.labels[chosen])
    validation = to_split(device, raw.read(held_out), raw.labels[held_out])
    fit_classifier(model.to(device, memory_format=torch.channels_last), config, split, validation, [PrintEpoch()])
    probabilities = to_float16(predict_logits(model.eval(), raw.read(raw.test)))
    accuracy = (probabilities.argmax(axis=1) == raw.labels[raw.test]).mean()
    print(f"seed {config.seed}: test accuracy {accuracy:.2%}, {time.perf_counter() - began:.0f} s", flush=True)
    return probabilities


def decide_pairs(trained: list[Probabilities], labels: NDArray[np.int64], classes: tuple[str, ...]) -> Iterable[str]:
    """What was decided about each pair, on test images that are drawn anew each time."""
    for first, second in itertools.combinations(range(len(trained)), 2):
        random, pair = np.random.default_rng(0), (trained[first], trained[second])
        right = [probabilities.argmax(axis=1) == labels for probabilities in pair]
        promoted = 0
        for number in range(COMPARISONS):
            drawn = random.integers(0, len(labels), len(labels))
            candidate, champion = pair if number % 2 else pair[::-1]
            promoted += decision_on(candidate[drawn], champion[drawn], labels[drawn], classes).promote
        yield (
            f"seeds {first} and {second}: {right[0].mean():.2%} and {right[1].mean():.2%}, correlation of their errors "
            f"{np.corrcoef(*right)[0, 1]:.2f}, {promoted} of {COMPARISONS} promoted"
        )


if __name__ == "__main__":
    restart_in_step_environment()
    typer.run(main)
