"""Training one model: resumable, followed by MLflow, ended by a saved model that was read back."""

import logging
from typing import TYPE_CHECKING, Any

from cifar_tasks.config import TrainConfig, flat
from cifar_tasks.data.versions import DatasetVersion, load_version
from cifar_tasks.errors import ModelSkipped
from cifar_tasks.models.classifier import ImageClassifier, count_parameters, summarise
from cifar_tasks.settings import Settings
from cifar_tasks.steps.inputs import check_model, earlier_result, initial_model, load_training_images
from cifar_tasks.steps.payloads import ParamsSource, TrainedModel, TrainPlan
from cifar_tasks.steps.process import log_to_stdout
from cifar_tasks.storage.checkpoints import CheckpointCallback, forget_checkpoints
from cifar_tasks.storage.lease import Lease, acquire_lease
from cifar_tasks.storage.lease_callback import LeaseCallback
from cifar_tasks.storage.s3 import S3Store, canonical_json, s3_client, sha256_hex
from cifar_tasks.tracking import runs, wandb_run
from cifar_tasks.tracking.airflow_links import link_run
from cifar_tasks.tracking.champion_weights import ChampionWeights
from cifar_tasks.tracking.mlflow_run import MlflowCallback
from cifar_tasks.tracking.provenance import code_digest, git_commit
from cifar_tasks.tracking.runs import DATASET, INITIAL_WEIGHTS, MODEL, START_FROM, TRAINING, WORKFLOW
from cifar_tasks.tracking.saved_model import find_model, save_model
from cifar_tasks.tracking.trained_before import config_digest
from cifar_tasks.training import distributed
from cifar_tasks.training.callbacks import BackgroundWriter, Callback, LogProgress
from cifar_tasks.training.device import choose_device, describe
from cifar_tasks.training.setup import run_params, to_split
from cifar_tasks.training.transfer import fit_classifier

if TYPE_CHECKING:
    from mlflow import MlflowClient

_log = logging.getLogger(__name__)


def train_model(plan: TrainPlan) -> TrainedModel:
    """Train, save and describe one model; resumes from the newest checkpoint that an earlier try left.

    Waits while another process does the same training. Raises `LeaseLost` when one has taken it over, `ModelSkipped`
    if the run does without this model.
    """
    settings = Settings()
    store, config = S3Store(settings.bucket), plan.config
    version = load_version(store, plan.data.dataset_uri)
    digest = training_digest(config, version, plan.start)
    workflow = plan.data.workflow
    prefix = f"runs/{sha256_hex(workflow.id.encode())[:16]}/{config.model}-{digest[:16]}"
    done, checkpoints = f"{prefix}/trained.json", f"{prefix}/checkpoints"
    distributed.check_batch(config.batch_size, settings.training_processes)
    # A task can be started twice: its message is delivered again, or its worker is believed lost but still trains.
    with acquire_lease(_impatient_store(), f"{prefix}/lease.json") as lease:
        if earlier := earlier_result(store, done, TrainedModel):
            _log.info("trained already")
            forget_checkpoints(store, checkpoints)  # the earlier try may have ended just before
            return earlier
        identity = {WORKFLOW: workflow.id, MODEL: config.model, TRAINING: digest}
        try:
            check_model(config, version, plan.start)
            trained = _train(plan, identity, prefix, lease)
        except ModelSkipped as skipped:
            store.put(plan.skipped_key, str(skipped).encode())
            raise
        lease.check()
        store.put(done, trained.model_dump_json().encode())
        forget_checkpoints(store, checkpoints)
    return trained


def training_digest(config: TrainConfig, version: DatasetVersion, start: ChampionWeights | None = None) -> str:
    """What decides how a training ends: data, configuration, code, and the champion's weights if it has them."""
    decisive = {"data": version.digest, "config": flat(config), "code": code_digest()}
    decisive |= {"start": start.saved.sha256} if start else {}
    return sha256_hex(canonical_json(decisive))


def params_source_tags(source: ParamsSource | None) -> dict[str, Any]:
    """Tags of the MLflow run: where the hyperparameters come from."""
    if source is None:
        return {"cifar.params_source": "recipe"}
    return {"cifar.params_source": source.text, "cifar.study": source.study, "cifar.trial": source.trial}


def _impatient_store() -> S3Store:
    """For the lease: a request that hangs must not keep it from being renewed in time. Gives up after 27 s at most."""
    return S3Store(Settings().bucket, s3_client(attempts=4, read_timeout=5))


def _train(plan: TrainPlan, identity: dict[str, str], prefix: str, lease: Lease) -> TrainedModel:
    """Train in the MLflow run that has this identity, found or made."""
    client, data = runs.mlflow_client(), plan.data
    with runs.tracking_errors():
        run = runs.open_run(client, data.experiment_id, identity, identity[MODEL], parent=data.parent_run_id)
        run_id, url = run.info.run_id, runs.run_url(run.info.run_id, data.experiment_id)
        _log.info("MLflow run: %s", url)
        link_run(client, run, data.workflow.id, data.workflow.url, data.request.registered_model)
        runs.log_tags(client, run_id, params_source_tags(plan.params_source))
        with runs.closing(client, run_id):
            trained: TrainedModel = distributed.run(
                train_in_run,
                Settings().training_processes,
                plan=plan,
                run_id=run_id,
                mlflow_url=url,
                prefix=prefix,
                lease=lease,
            )
            return trained


def train_in_run(plan: TrainPlan, run_id: str, mlflow_url: str, prefix: str, lease: Lease) -> TrainedModel | None:
    """Train and save one model in an MLflow run that is open.

    Of several processes that train together each calls this; all train, and the first one writes and returns.
    """
    # A new process has no log yet. The first one logs for all that train together.
    log_to_stdout(logging.WARNING if distributed.rank() else logging.INFO)
    config, client = plan.config, runs.mlflow_client()
    images = load_training_images(plan.data.dataset_uri, config)
    distributed.check_batch(min(config.batch_size, len(images.train)), distributed.size())
    device = choose_device()
    sizes = len(images.train), len(images.validation)
    _log.info("%s on %s: %d images, %d to validate", config.model, describe(device), *sizes)

    model, recipe, weights = initial_model(config, images, plan.start)
    callbacks: list[Callback] = [LeaseCallback(lease)]
    if distributed.rank() == 0:
        _describe(client, run_id, images.version, model)
        runs.log_tags(client, run_id, {START_FROM: plan.data.request.start_from, INITIAL_WEIGHTS: weights})
        # A retry that starts from other weights than the first try resumes none of its epochs.
        checkpoints = f"{prefix}/checkpoints/{sha256_hex(weights.encode())[:16]}"
        params = run_params(recipe, model, weights, device)
        callbacks += _writers(client, run_id, checkpoints, params)
    train, validation = (to_split(device, part.images, part.labels) for part in (images.train, images.validation))
    state = fit_classifier(model.to(device), recipe, train, validation, callbacks)
    lease.check()
    if distributed.rank() > 0:
        return None
    _log.info("best epoch %d, ended because %s", state.best.epoch, state.ending)
    digests = {"config_sha256": config_digest(config), "code_sha256": code_digest()}
    saved = find_model(client, plan.data.experiment_id, run_id) or save_model(
        client,
        run_id,
        model,
        images.validation.images[:2],
        {MODEL: config.model, DATASET: images.version.digest, **digests},
        metadata_of(images.version),
    )
    return TrainedModel(
        plan=plan,
        run_id=run_id,
        mlflow_url=mlflow_url,
        prefix=prefix,
        saved=saved,
        initial_weights=weights,
        parameters=count_parameters(model)["total"],
        epochs=len(state.history),
        validation_accuracy=state.best.validation_accuracy,
        validation_images=len(images.validation),
        **digests,
    )


def metadata_of(version: DatasetVersion) -> dict[str, Any]:
    """What a client needs to know of the images that a model was trained on."""
    return {"classes": list(version.classes), "image_size": version.image_size, "resize": version.resize}


def _writers(client: "MlflowClient", run_id: str, checkpoints: str, params: dict[str, Any]) -> list[Callback]:
    """The log, then beside the training: checkpoints, MLflow, and Weights & Biases where it is set up."""
    settings = Settings()
    trackers: list[Callback] = [MlflowCallback(client, run_id, params)]
    if wandb_run.wanted():
        trackers.append(wandb_run.WandbCallback(settings, run_id, params))
    return [LogProgress(), BackgroundWriter([CheckpointCallback(S3Store(settings.bucket), checkpoints), *trackers])]


def _describe(client: "MlflowClient", run_id: str, version: DatasetVersion, model: ImageClassifier) -> None:
    tags = {DATASET: version.digest, "cifar.code_sha256": code_digest(), "mlflow.source.git.commit": git_commit()}
    runs.log_tags(client, run_id, tags)
    runs.log_dataset(client, run_id, version, "training")
    client.log_text(run_id, summarise(model, version.image_size), "model_summary.txt")
