"""Lineage: from a registered version to its dataset version and the delivery that it came from, and back.

An image is found by its pixels as they are prepared for a dataset version, whatever its file is called or encoded as.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from cifar_tasks.data.image_format import ImageFormat, decode
from cifar_tasks.data.lines.line_index import read_index
from cifar_tasks.data.lines.line_log import LineEntry, line_names, read_line_log
from cifar_tasks.data.loading import load_split
from cifar_tasks.data.versions import SPLITS, DatasetVersion, load_version
from cifar_tasks.errors import ConfigError
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import runs
from cifar_tasks.tracking.airflow_links import DAG_RUN
from cifar_tasks.tracking.model_registry import number_in
from cifar_tasks.tracking.runs import DATASET, INITIAL_WEIGHTS, MODEL

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHUNK = 4096
"""Images that are compared at once."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class TracedEntry(_Value):
    """What happened to a dataset version in a line."""

    line: str
    entry: int
    kind: str
    time: str
    objects: int
    """Of the delivery."""
    listing: str
    """Digest of the names and marks of the delivery."""
    by: str | None
    url: str | None


class TracedDataset(_Value):
    digest: str
    uri: str
    name: str
    images: dict[str, int]
    """By split."""
    entries: tuple[TracedEntry, ...]
    """Of the logs of the lines; empty for a source that is no line."""


class TracedModel(_Value):
    registered_model: str
    version: int
    model: str
    dataset: str
    """Digest."""
    test_accuracy: float | None
    initial_weights: str
    train_images: int | None
    """Of a training on a sample; none: on all."""
    mlflow_url: str
    airflow_url: str | None


class FoundImage(_Value):
    """An image in a dataset version."""

    dataset: str
    split: str
    """`left out` if it was delivered and left out."""
    label: str
    file: str
    """Its name in the delivery, or why it was left out; empty where no line knows it."""


class Trace(_Value):
    """What a version, a dataset version or an image is connected with."""

    models: tuple[TracedModel, ...]
    datasets: tuple[TracedDataset, ...]
    images: tuple[FoundImage, ...] = ()


def trace_version(client: "MlflowClient", store: S3Store, version: "ModelVersion") -> Trace:
    uri = version.tags.get("cifar.dataset_uri")
    if uri is None:
        raise ConfigError(
            f"version {version.version} of {version.name} names no dataset version: it was not registered by this "
            "pipeline, or somebody has changed its tags."
        )
    dataset = _dataset(store, load_version(store, uri))
    return Trace(models=(_model(client, version),), datasets=(dataset,))


def trace_dataset(client: "MlflowClient", store: S3Store, digest: str) -> Trace:
    """`ConfigError` unless one dataset version begins with these 8 or more hex digits."""
    found = [version for version in dataset_versions(store) if version.digest.startswith(digest)]
    if len(found) != 1:
        raise ConfigError(
            f"{'several' if found else 'no'} dataset versions begin with {digest!r}. List: cifar data list"
        )
    return Trace(models=_models(client, found[0].digest), datasets=(_dataset(store, found[0]),))


def trace_image(client: "MlflowClient", store: S3Store, content: bytes, name: str, cache: Path) -> Trace:
    """The dataset versions that hold the picture, and the models that were trained on them."""
    datasets, images = [], []
    for version in dataset_versions(store):
        pixels = decode(content, name, ImageFormat(version.image_size, version.resize))  # type: ignore[arg-type]
        dataset = _dataset(store, version)
        if found := list(_find(store, version, pixels, cache)):
            datasets.append(dataset)
            images += found
    digests = {image.dataset for image in images if image.split != LEFT_OUT}
    models = [model for digest in sorted(digests) for model in _models(client, digest)]
    return Trace(models=tuple(models), datasets=tuple(datasets), images=tuple(images))


LEFT_OUT = "left out"


def dataset_versions(store: S3Store) -> list[DatasetVersion]:
    keys = (key for key in store.keys("datasets/") if re.fullmatch(r"datasets/[0-9a-f]{16}/manifest\.json", key))
    return [load_version(store, store.uri(key)) for key in keys]


def _find(store: S3Store, version: DatasetVersion, pixels: Any, cache: Path) -> Iterator[FoundImage]:
    """A line has a list of its images. Of other sources the stored images are compared."""
    if entry := next((entry for entry in _entries(store) if entry.dataset.digest == version.digest), None):
        index, digest = read_index(store, entry.dataset), hashlib.blake2b(pixels.data, digest_size=16).hexdigest()
        for row in index.images:
            if row.digest == digest:
                label = index.classes[row.label]
                yield FoundImage(dataset=version.digest, split=row.split, label=label, file=row.name)
        for left in index.dropped:
            if left.digest == digest:
                why = f"{left.name} {left.why}"
                yield FoundImage(dataset=version.digest, split=LEFT_OUT, label="", file=why)
        return
    for split in SPLITS:
        part = load_split(store, version, split, cache)
        for start in range(0, len(part), CHUNK):
            chunk = part.images[start : start + CHUNK]
            for position in np.flatnonzero((chunk == pixels).all(axis=(1, 2, 3))):
                label = version.classes[part.labels[start + position]]
                yield FoundImage(dataset=version.digest, split=split, label=label, file="")


def _entries(store: S3Store) -> list[LineEntry]:
    return [entry for line in line_names(store) for entry in read_line_log(store, line).entries]


def _dataset(store: S3Store, version: DatasetVersion) -> TracedDataset:
    entries = [entry for entry in _entries(store) if entry.dataset.digest == version.digest]
    return TracedDataset(
        digest=version.digest,
        uri=version.uri,
        name=version.name,
        images={split: version.size(split) for split in SPLITS},
        entries=tuple(
            TracedEntry(
                line=entry.line,
                entry=entry.number,
                kind=entry.kind,
                time=f"{entry.time:%Y-%m-%d %H:%M} UTC",
                objects=entry.delivery.objects,
                listing=entry.delivery.listing,
                by=entry.by or entry.workflow,
                url=entry.url,
            )
            for entry in entries
        ),
    )


def _models(client: "MlflowClient", dataset: str) -> tuple[TracedModel, ...]:
    """Of all registered models, that were trained on a dataset version."""
    found = client.search_model_versions(f"tags.`{DATASET}` = '{dataset}'")
    return tuple(_model(client, version) for version in sorted(found, key=lambda v: (v.name, int(v.version))))


def _model(client: "MlflowClient", version: "ModelVersion") -> TracedModel:
    tags, number = version.tags, int(version.version)
    run = client.get_run(version.run_id) if version.run_id and runs.exists(client, version.run_id) else None
    sample = (run.data.params if run else {}).get("train_images", "None")
    return TracedModel(
        registered_model=version.name,
        version=number,
        model=tags.get(MODEL, ""),
        dataset=tags.get(DATASET, ""),
        test_accuracy=number_in(tags, "cifar.test_accuracy"),
        initial_weights=tags.get(INITIAL_WEIGHTS, ""),
        train_images=int(sample) if sample.isdigit() else None,
        mlflow_url=runs.version_url(version.name, number),
        airflow_url=tags.get(DAG_RUN) or tags.get("cifar.airflow_url") or None,
    )
