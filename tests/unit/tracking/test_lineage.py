"""Lineage on a real MLflow: from a version to its data and delivery, and from an image to the models that saw it."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from cifar_tasks.data.lines.line_index import ImageRow, LeftOut, LineIndex, write_index
from cifar_tasks.data.lines.line_log import Delivery, LineDataset, LineOutcome, append_entry
from cifar_tasks.data.loading import load_split
from cifar_tasks.data.preparation import prepare
from cifar_tasks.data.versions import DatasetVersion
from cifar_tasks.errors import ConfigError, DataError
from cifar_tasks.tracking import model_registry
from cifar_tasks.tracking.lineage import Trace, trace_dataset, trace_image, trace_version
from cifar_tasks.tracking.runs import DATASET, INITIAL_WEIGHTS, MODEL
from cifar_tasks.tracking.saved_model import SavedModel
from tests.stores import InMemoryStore
from tests.unit.data.sources import NoiseSource, quiet

IMAGE = ImageRow("train/cat/1.png", "1", "0" * 32, 0, "train")


@pytest.fixture
def store() -> InMemoryStore:
    return InMemoryStore()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return request.node.name


def register(client: MlflowClient, name: str, data: DatasetVersion, **params: object) -> int:
    run = client.create_run("0").info.run_id
    for key, value in params.items():
        client.log_param(run, key, value)
    model = client.create_logged_model("0", name="model", source_run_id=run)
    tags = {MODEL: "cnn", DATASET: data.digest, "cifar.dataset_uri": data.uri, INITIAL_WEIGHTS: "random"}
    tags["cifar.test_accuracy"] = "0.5"
    return model_registry.register(client, name, SavedModel(f"models:/{model.model_id}", "abc"), run, tags)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def accept(store: InMemoryStore, line: str, data: DatasetVersion, index: LineIndex) -> None:
    ref = write_index(store, line, index)
    dataset = LineDataset(digest=data.digest, uri=data.uri, counts=data.counts, index=ref.key, index_sha256=ref.sha256)
    delivery = Delivery(objects=7, listing="list")
    append_entry(store, line, lambda _: LineOutcome(kind="accepted", dataset=dataset, delivery=delivery, by="ada"))


def versions(found: Trace) -> list[int]:
    return [model.version for model in found.models]


def test_a_version_leads_to_its_dataset_version_and_the_delivery(default_client, store, name):
    data = prepare(NoiseSource(1), store, 0, quiet)
    accept(store, "products", data, LineIndex(data.classes, (IMAGE,), (), (), frozenset(), np.empty((0, 2), np.uint64)))
    number = register(default_client, name, data, train_images=16)
    found = trace_version(default_client, store, default_client.get_model_version(name, str(number)))
    (model,), (dataset,) = found.models, found.datasets
    assert (model.version, model.dataset, model.train_images, model.test_accuracy) == (1, data.digest, 16, 0.5)
    assert (dataset.digest, dataset.images["test"]) == (data.digest, 20)
    (entry,) = dataset.entries
    assert (entry.line, entry.entry, entry.kind, entry.objects, entry.by) == ("products", 1, "accepted", 7, "ada")


def test_a_version_without_a_dataset_version_is_an_error(default_client, store, name):
    number = register(default_client, name, prepare(NoiseSource(1), store, 0, quiet))
    default_client.delete_model_version_tag(name, str(number), "cifar.dataset_uri")
    with pytest.raises(ConfigError, match=f"version 1 of {name} names no dataset version: it was not registered by"):
        trace_version(default_client, store, default_client.get_model_version(name, str(number)))


def test_a_dataset_version_leads_to_all_models_that_were_trained_on_it(default_client, store, name):
    first, second = (prepare(NoiseSource(seed), store, 0, quiet) for seed in (11, 12))
    for data in (first, second, first):
        register(default_client, name, data)
    assert versions(trace_dataset(default_client, store, first.digest[:8])) == [1, 3]
    assert versions(trace_dataset(default_client, store, second.digest)) == [2]
    with pytest.raises(ConfigError, match="no dataset versions begin with 'ffffffff'"):
        trace_dataset(default_client, store, "f" * 8)


def test_an_image_is_found_by_its_pixels_in_the_split_where_it_stands(default_client, store, name, tmp_path):
    first, second = (prepare(NoiseSource(seed), store, 0, quiet) for seed in (21, 22))
    for data in (first, second):
        register(default_client, name, data)
    for split in ("train", "validation", "test"):
        part = load_split(store, second, split, tmp_path)
        found = trace_image(default_client, store, png(part.images[3]), "any-name.png", tmp_path)
        ((image),) = found.images
        assert (image.dataset, image.split, image.label) == (second.digest, split, second.classes[part.labels[3]])
        assert versions(found) == [2]


def test_an_unknown_picture_is_in_no_dataset_version_and_a_file_that_is_none_is_named(
    default_client, store, tmp_path: Path
):
    data = prepare(NoiseSource(31), store, 0, quiet)
    known = load_split(store, data, "train", tmp_path).images[0]
    unknown = np.random.default_rng(99).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    brighter, darker = np.maximum(known, 1), np.minimum(known, 254)
    for pixels in (unknown, brighter, darker, np.zeros_like(known), np.full_like(known, 255)):
        found = trace_image(default_client, store, png(pixels), "unknown.png", tmp_path)
        assert found == Trace(models=(), datasets=())
    with pytest.raises(DataError, match=r"notes\.txt"):
        trace_image(default_client, store, b"no picture", "notes.txt", tmp_path)


def test_a_line_knows_the_file_of_an_image_and_which_one_was_left_out(default_client, store, name, tmp_path):
    data = prepare(NoiseSource(41), store, 0, quiet)
    pixels = np.random.default_rng(5).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    digests = [hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest() for image in pixels]
    row = ImageRow("train/bee/5.png", "mark", digests[0], 1, "train")
    dropped = LeftOut("train/ant/6.png", "mark", digests[1], "is equal to test/ant/1.png")
    index = LineIndex(data.classes, (row,), (dropped,), (), frozenset(), np.empty((0, 2), np.uint64))
    accept(store, "products", data, index)
    register(default_client, name, data)
    trained, left_out = (trace_image(default_client, store, png(each), "x.png", tmp_path) for each in pixels)
    assert [(i.split, i.label, i.file) for i in trained.images] == [("train", "bee", "train/bee/5.png")]
    assert versions(trained) == [1]
    assert [(i.split, i.file) for i in left_out.images] == [("left out", f"{dropped.name} {dropped.why}")]
    assert (versions(left_out), len(left_out.datasets)) == ([], 1)
    other = prepare(NoiseSource(42), store, 0, quiet)
    assert other.digest != data.digest
    for each in pixels:  # not in the version that no line has
        (image,) = trace_image(default_client, store, png(each), "x.png", tmp_path).images
        assert image.dataset == data.digest
