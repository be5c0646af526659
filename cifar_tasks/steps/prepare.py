"""The first task: the images as a dataset version, and the MLflow run of the whole workflow run.

A run with nothing to train has no MLflow run.
"""

import json
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from cifar_tasks.config import TrainConfig, with_values
from cifar_tasks.data.image_format import ImageFormat
from cifar_tasks.data.images import LabelledImages
from cifar_tasks.data.lines.line_log import read_line_log
from cifar_tasks.data.lines.line_versions import choose_version
from cifar_tasks.data.loading import load_split
from cifar_tasks.data.preparation import find_prepared, prepare
from cifar_tasks.data.source import PLACEHOLDER_BANNER, open_source
from cifar_tasks.data.source_names import line_of
from cifar_tasks.data.versions import DatasetVersion, load_version
from cifar_tasks.errors import CifarError, ConfigError, DataError, NothingToTrain
from cifar_tasks.evaluation import plots
from cifar_tasks.evaluation.names import markdown
from cifar_tasks.models import get_model
from cifar_tasks.settings import Settings
from cifar_tasks.steps.payloads import LineVersion, PreparedData, RunRequest, WorkflowRun, skipped_key
from cifar_tasks.storage.lease import acquire_lease
from cifar_tasks.storage.lease_terms import TERMS
from cifar_tasks.storage.s3 import S3Store, s3_client, sha256_hex
from cifar_tasks.tracking import model_registry, runs
from cifar_tasks.tracking.airflow_links import link_run, links_of_workflow, markdown_links
from cifar_tasks.tracking.decisions import keeping_decision
from cifar_tasks.tracking.endings import end_dead_runs, store_id
from cifar_tasks.tracking.runs import DATASET, MODEL, PROFILE, REQUEST, STORE, WORKFLOW
from cifar_tasks.tracking.trained_before import (
    TRAININGS,
    describe_trained,
    find_in_training,
    find_trained,
    training_keys,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_log = logging.getLogger(__name__)


def prepare_data(request: RunRequest, workflow: WorkflowRun) -> PreparedData:
    """Write the dataset version of the source, or find it; open the workflow run's MLflow run and show 32 images.

    Raises `NothingToTrain` if the same was trained before, unless the request forces it. A run that trains the same at
    the same time is waited for.
    """
    settings = Settings()
    store, client = S3Store(settings.bucket), runs.mlflow_client()
    with runs.tracking_errors():
        experiment = runs.experiment_id(client, settings.experiment)
        identity = {WORKFLOW: workflow.id, MODEL: "all"}
        end_dead_runs(client, experiment, store, workflow.id)
        earlier = next(iter(runs.find_runs(client, experiment, identity)), None)
        refuse_other_request(earlier, request, workflow)

        def open_parent() -> str:
            run = runs.open_run(client, experiment, identity, workflow.name)
            link_run(client, run, workflow.id, workflow.url, request.registered_model)
            runs.log_tags(client, run.info.run_id, {STORE: store_id(store)})
            _log.info("MLflow run: %s", runs.run_url(run.info.run_id, experiment))
            return str(run.info.run_id)

        try:
            began = earlier.data.tags.get(DATASET) if earlier else None
            version, line = find_version(request, store, began)
        except NothingToTrain:
            raise
        except CifarError:
            open_parent()  # a run that fails shows in MLflow too
            raise
        for name, reason in request.unused_overrides(version.placeholder).items():
            _log.warning("the override %s has no effect: %s", name, reason)
        if began not in (None, version.digest):
            raise DataError(f"{request.source} has changed since run {workflow.name!r} began. Start a new run.")
        if began or request.tune:  # what a search would find is not known before
            parent = open_parent()
        else:
            parent = open_if_new(client, experiment, request, version, workflow, open_parent)
        url = runs.run_url(parent, experiment)
        # Not before the data are ready: a run that failed for its source is resumed with another one.
        runs.log_tags(client, parent, {REQUEST: request.model_dump_json(), **(line.tags() if line else {})})
        banner = PLACEHOLDER_BANNER if version.placeholder else None
        links = links_of_workflow(workflow.id, workflow.url, request.registered_model) | (line.links() if line else {})
        _describe_dataset(client, parent, version, banner, markdown_links(links))
        images = load_split(store, version, "train", settings.home / "cache")
        _log_sample(client, parent, images, version, request.overrides.seed or 0)
    return PreparedData(
        workflow=workflow,
        request=request,
        dataset_uri=version.uri,
        parent_run_id=parent,
        experiment_id=experiment,
        mlflow_url=url,
        line=line,
        banner=banner,
    )


def find_version(
    request: RunRequest, store: S3Store, began: str | None = None
) -> tuple[DatasetVersion, LineVersion | None]:
    """The dataset version of the source, written if it is not there yet; of a line the one that the request names.

    `began` is the digest of the version with which an earlier try began: a line may have another one in use by now.
    """
    if name := line_of(request.source):
        log, wanted = read_line_log(store, name), began or request.dataset_version
        if not wanted and log.entry_in_use() is None:  # a schedule may come before the first delivery
            raise NothingToTrain(f"nothing to train: the dataset line {name} has no version in use yet.")
        entry = choose_version(log, wanted)
        _log.info("dataset line %s, entry %d: version %s", name, entry.number, entry.dataset.digest[:16])
        return load_version(store, entry.dataset.uri), LineVersion(line=name, entry=entry.number, url=entry.url)
    image_format, seed = ImageFormat(request.image_size, request.resize), request.overrides.seed or 0
    source = open_source(
        request.source,
        Settings(),
        _log.info,
        is_prepared=lambda s: find_prepared(s, store, seed, image_format) is not None,
    )
    return prepare(source, store, seed, _log.info, image_format), None


def refuse_other_request(earlier: "Run | None", request: RunRequest, workflow: WorkflowRun) -> None:
    """`ConfigError` names the values that differ from those with which the run of this name began."""
    began = json.loads(earlier.data.tags.get(REQUEST, "{}")) if earlier else {}
    now = request.model_dump(mode="json")
    for values in (began, now):
        values |= values.pop("overrides", {})
        values.pop("force", None)  # decides whether a run begins, and nothing of what it does
    if changed := [f"{key} {value!r}, now {now.get(key)!r}" for key, value in began.items() if now.get(key) != value]:
        raise ConfigError(
            f"run {workflow.name!r} began with {'; '.join(changed)}. Resume it with its own values, or start a new run."
        )


def open_if_new(
    client: "MlflowClient",
    experiment: str,
    request: RunRequest,
    version: DatasetVersion,
    workflow: WorkflowRun,
    open_parent: Callable[[], str],
) -> str:
    """Open the parent run, unless a run has trained all models of the request on these data, in the same way.

    Waits while another run is doing so. Raises `NothingToTrain` if one has. Neither holds for a forced run.
    """
    store = S3Store(Settings().bucket, s3_client(attempts=4, read_timeout=5))
    name, told = request.registered_model, None
    while True:
        configs = planned_configs(client, request, version)
        keys = training_keys(name, version.digest, configs, request.start_from)
        # Of runs that begin at once the second one sees the parent run of the first.
        with acquire_lease(store, f"runs/{sha256_hex(name.encode())[:16]}/lease.json"):
            end_dead_runs(client, experiment, store, workflow.id)
            other = None if request.force else find_in_training(client, experiment, keys, workflow.id)
            if other is None:
                if not request.force:
                    refuse_what_was_trained(client, store, request, version, configs)
                parent = open_parent()
                runs.log_tags(client, parent, {TRAININGS: " ".join(sorted(keys))})
                return parent
        if other != told:
            told = other
            _log.warning(
                "waiting for %s, which trains the same now. To train at once, also if that run is gone, "
                "set force (--force).",
                other,
            )
        time.sleep(TERMS.poll_interval)


def planned_configs(client: "MlflowClient", request: RunRequest, version: DatasetVersion) -> list[TrainConfig]:
    """Of each model of the request, with the hyperparameters that it will reuse."""
    name, overrides = request.registered_model, request.overrides_for(version.placeholder)
    configs = []
    for model in request.models:
        config = get_model(model).config(request.profile, overrides)
        tags = {MODEL: model, DATASET: version.digest, PROFILE: request.profile}
        reused = model_registry.reused_params(client, name, tags, overrides.given())
        configs.append(with_values(config, reused[0]) if reused else config)
    return configs


def refuse_what_was_trained(
    client: "MlflowClient", store: S3Store, request: RunRequest, version: DatasetVersion, configs: list[TrainConfig]
) -> None:
    """`NothingToTrain` if a run has trained with all of these configurations on these data."""
    name = request.registered_model

    def was_skipped(workflow: str, model: str) -> bool:
        return store.exists(skipped_key(workflow, model))

    if trained := find_trained(client, name, version.digest, configs, request.start_from, was_skipped):
        left = set(request.models) - {version.tags[MODEL] for version in trained}
        skipped = f" It went on without {', '.join(sorted(left))}, whose weights were not available." if left else ""
        found = describe_trained(client, name, trained)
        raise NothingToTrain(f"nothing to train: {found}.{skipped} To train again, set force (--force).")


def _describe_dataset(
    client: "MlflowClient", run_id: str, version: DatasetVersion, banner: str | None, links: str
) -> None:
    note = [f"**{banner}**" if banner else "", f"Data: {markdown(version.name)}, `{version.uri}`", links]
    text = keeping_decision("\n\n".join(filter(None, note)), runs.note(client, run_id))
    runs.log_tags(client, run_id, {DATASET: version.digest, runs.NOTE: text})
    runs.log_dataset(client, run_id, version, "training")
    counts = {f"{split}_images": version.size(split) for split in version.counts}
    params = {"dataset": version.name, "classes": len(version.classes), "image_size": version.image_size, **counts}
    runs.log_params(client, run_id, params)
    client.log_dict(run_id, version.as_dict(), "dataset/version.json")


def _log_sample(
    client: "MlflowClient", run_id: str, images: LabelledImages, version: DatasetVersion, seed: int
) -> None:
    shown = images.take(plots.sample_indices(len(images), seed))
    names = [version.classes[label] for label in shown.labels]
    client.log_figure(run_id, plots.image_grid(shown.images, names, title=version.name), "dataset/sample.png")
