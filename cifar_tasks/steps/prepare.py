"""The first two tasks: the images, and what to train on them."""

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cifar_tasks.config import AS_RECIPE, chosen_models, configure
from cifar_tasks.data import (
    PLACEHOLDER_BANNER,
    DatasetVersion,
    ImageFormat,
    LabelledImages,
    find_prepared,
    load_dataset,
    load_version,
    open_source,
    prepare,
)
from cifar_tasks.data.image_format import Resize
from cifar_tasks.evaluation import plots
from cifar_tasks.settings import Settings
from cifar_tasks.steps.workflow import WorkflowRun
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import runs
from cifar_tasks.tracking.runs import DATASET, MODEL, WORKFLOW

if TYPE_CHECKING:
    from mlflow import MlflowClient

Json = dict[str, Any]

_log = logging.getLogger(__name__)


def prepare_data(source: str, seed: int, workflow: Json, image_size: int = 32, resize: Resize = "crop") -> Json:
    """Write the dataset version that `source` holds, or find it; open the workflow's MLflow run and show the images.

    Returns `uri`, `parent_run_id`, `mlflow_url` and `banner` (none unless it is placeholder data).
    """
    settings, run, image_format = Settings(), WorkflowRun(**workflow), ImageFormat(image_size, resize)
    store, client = S3Store(settings.bucket), runs.connect()
    with runs.tracking_errors():
        experiment = runs.experiment_id(client, settings.experiment)
        parent = runs.open_run(client, experiment, {WORKFLOW: run.id, MODEL: "all"}, run.name).info.run_id
        url = runs.run_url(parent, experiment)
        _log.info("MLflow run: %s", url)
        opened = open_source(
            source, settings, _log.info, is_prepared=lambda s: find_prepared(s, store, seed, image_format) is not None
        )
        version = prepare(opened, store, seed, _log.info, image_format)
        banner = PLACEHOLDER_BANNER if version.placeholder else None
        _describe_dataset(client, parent, version, run, banner)
        sample = load_dataset(store, version, ["train"], settings.home / "cache").train
        _log_sample(client, parent, sample, version, seed)
    return {"uri": version.uri, "parent_run_id": parent, "mlflow_url": url, "banner": banner}


def plan_training(data: Json, models: str, profile: str, overrides: Json) -> list[Json]:
    """A lane for each model to train: its `config`, and the names that the user has `fixed`.

    Digits are never mirrored: a mirrored digit is no digit.
    """
    version = load_version(S3Store(Settings().bucket), data["uri"])
    if version.placeholder:
        overrides = {**overrides, "flip": "off"}
    fixed = [name for name, value in overrides.items() if value not in (None, AS_RECIPE)]
    return [
        {"config": asdict(configure(model, profile, overrides)), "fixed": fixed, "origin": None}
        for model in chosen_models(models)
    ]


def _describe_dataset(
    client: "MlflowClient", run_id: str, version: DatasetVersion, run: WorkflowRun, banner: str | None
) -> None:
    note = [f"**{banner}**"] if banner else []
    note += [f"Data: {version.name}, `{version.uri}`"]
    note += [f"Airflow: [{run.name}]({run.url})"] if run.url else []
    tags = {DATASET: version.digest, "airflow.dag_run_url": run.url, "mlflow.note.content": "\n\n".join(note)}
    runs.log_tags(client, run_id, tags)
    runs.log_dataset(client, run_id, version, "training")
    counts = {f"{split}_images": version.size(split) for split in version.counts}
    runs.log_params(client, run_id, {"dataset": version.name, "classes": len(version.classes), **counts})
    client.log_dict(run_id, version.as_dict(), "dataset/version.json")


def _log_sample(
    client: "MlflowClient", run_id: str, images: LabelledImages, version: DatasetVersion, seed: int
) -> None:
    shown = images.take(plots.sample_indices(len(images), seed))
    names = [version.classes[label] for label in shown.labels]
    client.log_figure(run_id, plots.image_grid(shown.images, names, title=version.name), "dataset/sample.png")
