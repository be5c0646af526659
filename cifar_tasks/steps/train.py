"""Training one model: resumable, watched by trackers, ended by a saved model that was read back."""

import json
import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from cifar_tasks.config import TrainConfig, config_from_dict
from cifar_tasks.data import DatasetVersion, load_version
from cifar_tasks.evaluation import plots
from cifar_tasks.models import ImageClassifier, count_parameters, summarise
from cifar_tasks.settings import Settings
from cifar_tasks.steps.process import log_to_stdout
from cifar_tasks.steps.start import load_parts, on_device, start_model
from cifar_tasks.steps.workflow import WorkflowRun
from cifar_tasks.storage.checkpoints import forget_checkpoints
from cifar_tasks.storage.lease import Hold, hold_lease
from cifar_tasks.storage.s3 import S3Store, canonical_json, s3_client, sha256_hex
from cifar_tasks.tracking import runs, wandb_run
from cifar_tasks.tracking.mlflow_run import MlflowRun
from cifar_tasks.tracking.provenance import code_digest, git_commit
from cifar_tasks.tracking.recorder import Follower, Recorder
from cifar_tasks.tracking.runs import DATASET, MODEL, TRAINING, WORKFLOW
from cifar_tasks.tracking.saved_model import find_model, save_model
from cifar_tasks.tracking.tracker import Tracker
from cifar_tasks.training import (
    Progress,
    Split,
    TrainingState,
    choose_device,
    describe,
    distributed,
    fit,
    head_config,
    head_features,
)
from cifar_tasks.training.augment import steps_per_epoch

if TYPE_CHECKING:
    from mlflow import MlflowClient

Json = dict[str, Any]

_log = logging.getLogger(__name__)


def train_model(config: Json, data: Json, workflow: Json, origin: Json | None = None) -> Json:
    """Train, save and describe one model; goes on from the newest checkpoint that an earlier try left.

    Waits while another process does the same training. Raises `LeaseLost` when one has taken it over.
    `origin` says where the parameters come from, as `steps.tune` writes it; none means the recipe.
    Returns where run and model are, the digests of what they came from, and the numbers of the best epoch.
    """
    settings, run = Settings(), WorkflowRun(**workflow)
    store = S3Store(settings.bucket)
    chosen, version = config_from_dict(config), load_version(store, data["uri"])
    digest = training_digest(chosen, version)
    prefix = f"runs/{sha256_hex(run.id.encode())[:16]}/{chosen.model}-{digest[:16]}"
    done = f"{prefix}/trained.json"
    distributed.check_batch(chosen.batch_size, settings.training_processes)
    # A task can be started twice: its message is delivered again, or its worker is believed lost but still trains.
    with hold_lease(_quick_store(), f"{prefix}/lease.json") as lease:
        if store.exists(done):
            _log.info("trained already")
            return dict(json.loads(store.get(done)))
        identity = {WORKFLOW: run.id, MODEL: chosen.model, TRAINING: digest}
        trained = _train(config, data, identity, origin, prefix, lease)
        lease.check()
        store.put(done, canonical_json(trained))
        forget_checkpoints(store, f"{prefix}/checkpoints")
    return trained


def _quick_store() -> S3Store:
    """For the lease: a request that hangs must not keep it from being renewed in time. Gives up after 27 s at most."""
    return S3Store(Settings().bucket, s3_client(attempts=4, read_timeout=5))


def _train(config: Json, data: Json, identity: Json, origin: Json | None, prefix: str, lease: Hold) -> Json:
    """Train in the MLflow run that has this identity, found or made."""
    settings, client = Settings(), runs.connect()
    with runs.tracking_errors():
        experiment = runs.experiment_id(client, settings.experiment)
        run = runs.open_run(client, experiment, identity, identity[MODEL], parent=data["parent_run_id"])
        run_id, url = run.info.run_id, runs.run_url(run.info.run_id, experiment)
        _log.info("MLflow run: %s", url)
        runs.log_tags(client, run_id, runs.origin_tags(origin))
        with runs.closing(client, run_id):
            trained: Json = distributed.run(
                train_in_run,
                settings.training_processes,
                config=config,
                data_uri=data["uri"],
                run_id=run_id,
                experiment=experiment,
                prefix=prefix,
                lease=lease,
            )
            return trained | {"prefix": prefix, "mlflow_url": url, "origin": origin}


def training_digest(config: TrainConfig, version: DatasetVersion) -> str:
    """What decides how a training ends: data, configuration and code."""
    return sha256_hex(canonical_json({"data": version.digest, "config": config.digest(), "code": code_digest()}))


class _Recorder(Recorder):
    """Records no more once the training's lease is lost, and ends the training with `LeaseLost`."""

    def __init__(self, lease: Hold, *recorded: Any) -> None:
        super().__init__(*recorded)
        self._lease = lease

    def epoch_done(self, state: TrainingState) -> None:
        self._lease.check()
        super().epoch_done(state)

    def progress(self, now: Progress) -> None:
        self._lease.check()
        super().progress(now)


def train_in_run(config: Json, data_uri: str, run_id: str, experiment: str, prefix: str, lease: Hold) -> Json:
    """Train and save one model in an MLflow run that is open.

    Of several processes that train together each calls this; all train and the first one writes.
    """
    log_to_stdout()  # a process that trains beside the first one has no log yet
    settings, chosen = Settings(), config_from_dict(config)
    store, client = S3Store(settings.bucket), runs.connect()
    version = load_version(store, data_uri)
    train, validation = load_parts(store, version, chosen)
    distributed.check_batch(min(chosen.batch_size, len(train)), distributed.size())
    device = choose_device()
    _log.info("%s on %s: %d images, %d to validate", chosen.model, describe(device), len(train), len(validation))

    model, recipe, imagenet = start_model(chosen, len(version.classes), train)
    # A retry that starts from other weights than the first try goes on with none of its epochs.
    checkpoints = f"{prefix}/checkpoints/{f'imagenet-{imagenet[:16]}' if imagenet else 'random'}"
    splits = on_device(device, train), on_device(device, validation)
    with ExitStack() as stack:
        trackers: list[Tracker] = []
        if distributed.rank() == 0:
            _describe(client, run_id, version, model)
            trackers = _trackers(stack, client, run_id, chosen)
        for tracker in trackers:
            tracker.log_parameters(surroundings(recipe, model, imagenet, device))
        record = partial(_Recorder, lease, store, checkpoints, trackers, run_id)
        state = fit_in_parts(model.to(device), recipe, *splits, record)
        lease.check()
        _log.info("best epoch %d, ended because %s", state.best.epoch, state.ending)
        title = f"{chosen.model}: best epoch {state.best.epoch} of {len(state.history)}"
        for tracker in trackers:
            tracker.log_figure(plots.learning_curves(state.history, title), "learning_curves.png")
            tracker.log_ending(state.ending, state.best.epoch)
    digests = {"config_sha256": chosen.digest(), "code_sha256": code_digest()}
    trained = {
        "model": chosen.model,
        "run_id": run_id,
        "parameters": count_parameters(model)["total"],
        "epochs": len(state.history),
        "validation_accuracy": state.best.validation_accuracy,
        "validation_images": len(validation),
        "seed": chosen.seed,
        **digests,
    }
    lease.check()
    if distributed.rank() == 0:
        saved = find_model(client, experiment, run_id) or save_model(
            client, run_id, model, validation.images[:2], {MODEL: chosen.model, DATASET: version.digest, **digests}
        )
        trained |= {"model_uri": saved.uri, "model_sha256": saved.sha256}
    return trained


def fit_in_parts(
    model: ImageClassifier,
    config: TrainConfig,
    train: Split,
    validation: Split,
    record: Callable[[str], Follower],
) -> TrainingState:
    """Train `model` from where an earlier try left it: its head alone where the configuration says so, then all of it.

    `record` makes what follows each part, given the label of that part.
    """
    state = TrainingState(distributed.synchronised(model), config, steps_per_epoch(len(train.images), config))
    with record("") as recorder:
        recorder.resume(state)
        if not state.history and config.head_epochs:
            _fit_head(model, config, train, validation, record)
            state.model.load_state_dict(model.state_dict())
        fit(state, train, validation, recorder.epoch_done, recorder.progress)
    model.load_state_dict(state.model.state_dict())
    return state


def _fit_head(
    model: ImageClassifier, config: TrainConfig, train: Split, validation: Split, record: Callable[[str], Follower]
) -> None:
    alone = head_config(config)
    state = TrainingState(model.network.get_submodule("fc"), alone, steps_per_epoch(len(train.images), alone))
    with record("head_") as recorder:
        recorder.resume(state)
        if not state.finished:
            _log.info("computing the features of %d images once", len(train.images) + len(validation.images))
            train, validation = (Split(head_features(model, part.images), part.labels) for part in (train, validation))
        fit(state, train, validation, recorder.epoch_done, recorder.progress)


def _trackers(stack: ExitStack, client: "MlflowClient", run_id: str, config: TrainConfig) -> list[Tracker]:
    """MLflow, and Weights & Biases where it is set up; the latter ends with `stack`."""
    trackers: list[Tracker] = [MlflowRun(client, run_id)]
    if wandb_run.wanted():
        trackers.append(stack.enter_context(wandb_run.wandb_run(Settings(), run_id, config.model)))
    return trackers


def surroundings(config: TrainConfig, model: ImageClassifier, imagenet: str | None, device: torch.device) -> Json:
    """What the trackers say of a training: its configuration, and what it starts from and runs on."""
    counted = {f"parameters_{kind}": number for kind, number in count_parameters(model).items()}
    weights = f"ImageNet (SHA-256 {imagenet})" if imagenet else "random"
    runs_on = {"device": describe(device), "processes": distributed.size()}
    return {**asdict(config), **counted, "initial_weights": weights, **runs_on}


def _describe(client: "MlflowClient", run_id: str, version: DatasetVersion, model: ImageClassifier) -> None:
    tags = {DATASET: version.digest, "cifar.code_sha256": code_digest(), "mlflow.source.git.commit": git_commit()}
    runs.log_tags(client, run_id, tags)
    runs.log_dataset(client, run_id, version, "training")
    client.log_text(run_id, summarise(model), "model_summary.txt")
