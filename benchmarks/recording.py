"""What logging to MLflow and checkpoints in S3 cost a training: with the real services, in a stack of its own."""

from benchmarks.measure import Row, interleaved, rate
from benchmarks.temporary_stack import own_stack
from benchmarks.training_speed import GREY, random_split
from cifar_tasks.config import with_values
from cifar_tasks.models import get_model
from cifar_tasks.models.classifier import build_classifier
from cifar_tasks.settings import Settings
from cifar_tasks.storage.checkpoints import CheckpointCallback
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import runs
from cifar_tasks.tracking.mlflow_run import MlflowCallback
from cifar_tasks.training.augment import steps_per_epoch
from cifar_tasks.training.callbacks import BackgroundWriter, LogProgress
from cifar_tasks.training.loop import fit
from cifar_tasks.training.state import TrainingState

IMAGES = 6000
"""As many as the demo's, an eighth of the full training's: what an epoch costs is spread over few images."""
VALIDATION = 256
EPOCHS = 1
"""The last, or only, checkpoint is waited for; those before it are written beside the next epoch."""


def measure(rounds: int) -> list[Row]:
    config = with_values(get_model("cnn").recipes["demo"], {"epochs": EPOCHS})
    train, validation = random_split(IMAGES), random_split(VALIDATION)

    def state() -> TrainingState:
        return TrainingState(build_classifier(config, 10, *GREY), config, steps_per_epoch(IMAGES, config))

    def alone() -> None:
        fit(state(), train, validation)

    with own_stack():
        client, store = runs.mlflow_client(), S3Store(Settings().bucket)
        experiment = runs.experiment_id(client, "benchmarks")

        def recorded() -> None:
            run_id = client.create_run(experiment).info.run_id
            writers = [CheckpointCallback(store, run_id), MlflowCallback(client, run_id, {})]
            fit(state(), train, validation, [LogProgress(), BackgroundWriter(writers)])

        candidates = {"on": rate(EPOCHS * IMAGES, recorded), "off": rate(EPOCHS * IMAGES, alone)}
        figures = interleaved(candidates, rounds, "recording")
    ratio = figures.ratio("on", "off")
    measured = {
        "recorded": f"{figures['on']:.0f}",
        "not recorded": f"{figures['off']:.0f} images/s",
        "costs": f"{(1 / ratio - 1) * IMAGES / figures['off']:.2f} s per epoch",
    }
    return [Row("MLflow and checkpoints", measured, ratio, 0.97)]
