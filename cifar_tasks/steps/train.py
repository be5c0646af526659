"""Training one model: resumable, watched in MLflow, ended by a saved model that was read back."""

import json
import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from cifar_tasks import figures, tracking
from cifar_tasks.checkpoints import forget_checkpoints, newest_checkpoint, save_checkpoint
from cifar_tasks.config import TrainConfig, config_from_dict
from cifar_tasks.data import DatasetVersion, LabelledImages, load_dataset, load_version
from cifar_tasks.errors import WeightsError
from cifar_tasks.models import (
    Channels,
    ImageClassifier,
    build_classifier,
    count_parameters,
    load_imagenet_weights,
    summarise,
)
from cifar_tasks.provenance import code_digest, git_commit
from cifar_tasks.saved_model import find_model, save_model
from cifar_tasks.settings import Settings
from cifar_tasks.storage import ObjectStore, S3Store, canonical_json, sha256_hex
from cifar_tasks.tracking import DATASET, MODEL, TRAINING, WORKFLOW
from cifar_tasks.training import Progress, Split, TrainingState, choose_device, fit
from cifar_tasks.training.augment import steps_per_epoch
from cifar_tasks.workflow import WorkflowRun

if TYPE_CHECKING:
    from mlflow import MlflowClient

Json = dict[str, Any]

_log = logging.getLogger(__name__)


def train_model(config: Json, data: Json, workflow: Json) -> Json:
    """Train, save and describe one model; goes on from the newest checkpoint that an earlier try left.

    Returns where run and model are, the digests of what they came from, and the numbers of the best epoch.
    """
    settings, run = Settings(), WorkflowRun(**workflow)
    store, client = S3Store(settings.bucket), tracking.connect()
    chosen, version = config_from_dict(config), load_version(store, data["uri"])
    digest = training_digest(chosen, version)
    prefix = f"runs/{sha256_hex(run.id.encode())[:16]}/{chosen.model}-{digest[:16]}"
    done = f"{prefix}/trained.json"
    if store.exists(done):
        _log.info("trained already")
        return dict(json.loads(store.get(done)))
    with tracking.tracking_errors():
        experiment = tracking.experiment_id(client, settings.experiment)
        identity = {WORKFLOW: run.id, MODEL: chosen.model, TRAINING: digest}
        run_id = tracking.open_run(client, experiment, identity, chosen.model, parent=data["parent_run_id"]).info.run_id
        _log.info("MLflow run: %s", tracking.run_url(run_id, experiment))
        with tracking.closing(client, run_id):
            trained = _train(chosen, version, store, client, run_id, experiment, prefix)
            trained |= {"prefix": prefix, "mlflow_url": tracking.run_url(run_id, experiment)}
    store.put(done, canonical_json(trained))
    forget_checkpoints(store, f"{prefix}/checkpoints")
    return trained


def training_digest(config: TrainConfig, version: DatasetVersion) -> str:
    """What decides how a training ends: data, configuration and code."""
    return sha256_hex(canonical_json({"data": version.digest, "config": config.digest(), "code": code_digest()}))


def sample(part: LabelledImages, wanted: int | None, seed: int) -> LabelledImages:
    """So many of the images, the same for the same seed; all of them if none is said or there are not more."""
    if wanted is None or wanted >= len(part):
        return part
    return part.take(np.sort(np.random.default_rng(seed).permutation(len(part))[:wanted]))


def _train(
    config: TrainConfig,
    version: DatasetVersion,
    store: ObjectStore,
    client: "MlflowClient",
    run_id: str,
    experiment: str,
    prefix: str,
) -> Json:
    dataset = load_dataset(store, version, ["train", "validation"])
    train = sample(dataset.train, config.train_images, config.seed)
    validation = sample(dataset.validation, config.validation_images, config.seed)
    device = choose_device()
    _log.info("%s on %s: %d images, %d to validate", config.model, device, len(train), len(validation))

    torch.manual_seed(config.seed)
    model = build_classifier(config, len(version.classes), *channel_statistics(train.images))
    weights = _initialise(model, config)
    _describe(client, run_id, config, version, model, weights)

    state = TrainingState(model.to(device), config, steps_per_epoch(len(train), config))
    watch = _Watch(store, client, run_id, f"{prefix}/checkpoints")
    watch.resume(state)
    fit(state, _on(device, train), _on(device, validation), watch.epoch_done, watch.progress)
    _log.info("best epoch %d, ended because %s", state.best.epoch, _ending(state))

    title = f"{config.model}: best epoch {state.best.epoch} of {len(state.history)}"
    client.log_figure(run_id, figures.learning_curves(state.history, title), "learning_curves.png")
    tracking.log_tags(client, run_id, {"cifar.ended_because": _ending(state), "cifar.best_epoch": state.best.epoch})
    digests = {"config_sha256": config.digest(), "code_sha256": code_digest()}
    saved = find_model(client, experiment, run_id) or save_model(
        client, run_id, model, validation.images[:2], {MODEL: config.model, DATASET: version.digest, **digests}
    )
    return {
        "model": config.model,
        "run_id": run_id,
        "model_uri": saved.uri,
        "model_sha256": saved.sha256,
        "parameters": count_parameters(model)["total"],
        "epochs": len(state.history),
        "validation_accuracy": state.best.validation_accuracy,
        "validation_images": len(validation),
        "seed": config.seed,
        **digests,
    }


class _Watch:
    """What happens beside the training: checkpoints, MLflow metrics, lines for the log."""

    def __init__(self, store: ObjectStore, client: "MlflowClient", run_id: str, prefix: str) -> None:
        self.store, self.client, self.run_id, self.prefix = store, client, run_id, prefix

    def resume(self, state: TrainingState) -> None:
        data = newest_checkpoint(self.store, self.prefix)
        if data is None:
            return
        state.load_bytes(data)
        _log.info("resuming after epoch %d", len(state.history))
        # A try that was killed between the two writes left a checkpoint whose epoch MLflow does not show yet.
        known = tracking.logged_steps(self.client, self.run_id, "validation_loss")
        for metrics in state.history:
            if metrics.epoch not in known:
                self._log_epoch(asdict(metrics))

    def epoch_done(self, state: TrainingState) -> None:
        metrics = state.history[-1]
        save_checkpoint(self.store, self.prefix, metrics.epoch, state.to_bytes())
        self._log_epoch(asdict(metrics))
        _log.info(
            "epoch %d/%d  train loss %.4f acc %.2f %%  validation loss %.4f acc %.2f %%  %.0f images/s",
            metrics.epoch,
            state.config.epochs,
            metrics.train_loss,
            100 * metrics.train_accuracy,
            metrics.validation_loss,
            100 * metrics.validation_accuracy,
            metrics.images_per_second,
        )

    def progress(self, now: Progress) -> None:
        share = now.step / now.steps
        _log.info(
            "epoch %d %3.0f %%  loss %.4f  %.0f images/s", now.epoch, 100 * share, now.loss, now.images_per_second
        )

    def _log_epoch(self, metrics: dict[str, float]) -> None:
        epoch = int(metrics.pop("epoch"))
        tracking.log_metrics(self.client, self.run_id, metrics, step=epoch)


def channel_statistics(images: NDArray[np.uint8]) -> tuple[Channels, Channels]:
    """Mean and deviation of each colour channel, of values 0–1; a channel without contrast counts as deviation 1."""
    values = images.reshape(-1, images.shape[-1])
    count = len(values)
    mean = values.sum(axis=0, dtype=np.float64) / count
    square = np.einsum("ij,ij->j", values, values, dtype=np.float64) / count
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    return _channels(mean), _channels(np.where(deviation > 0, deviation, 255))


def _channels(values: NDArray[np.float64]) -> Channels:
    red, green, blue = (float(value) / 255 for value in values)
    return red, green, blue


def _initialise(model: ImageClassifier, config: TrainConfig) -> str:
    """ImageNet weights where the configuration asks for them; returns what the network starts from."""
    if config.model == "cnn" or config.pretrained == "none":
        return "random"
    settings = Settings()
    try:
        digest = load_imagenet_weights(
            model.network, settings.resnet50_weights, settings.resnet50_weights_sha256, _log.info
        )
    except WeightsError as error:
        if config.pretrained == "required":
            raise
        _log.warning("%s", error)
        _log.warning("RANDOM WEIGHTS: ResNet50 starts without ImageNet; expect a low accuracy from a short training.")
        return "random, because ImageNet weights could not be had"
    return f"ImageNet (SHA-256 {digest})"


def _describe(
    client: "MlflowClient",
    run_id: str,
    config: TrainConfig,
    version: DatasetVersion,
    model: ImageClassifier,
    weights: str,
) -> None:
    counted = {f"parameters_{kind}": number for kind, number in count_parameters(model).items()}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    tracking.log_params(client, run_id, {**asdict(config), **counted, "initial_weights": weights, "device": device})
    tags = {DATASET: version.digest, "cifar.code_sha256": code_digest(), "mlflow.source.git.commit": git_commit()}
    tracking.log_tags(client, run_id, tags)
    tracking.log_dataset(client, run_id, version, "training")
    client.log_text(run_id, summarise(model), "model_summary.txt")


def _on(device: torch.device, part: LabelledImages) -> Split:
    return Split(torch.from_numpy(part.images).to(device), torch.from_numpy(part.labels).to(device))


def _ending(state: TrainingState) -> str:
    if state.stopped_early:
        return f"validation loss did not fall for {state.config.patience} epochs"
    return "all epochs are done"
