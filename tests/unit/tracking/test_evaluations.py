"""Evaluations in storage: found again, verified, and made again when they are damaged."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cifar_tasks.data.image_format import ImageFormat
from cifar_tasks.data.preparation import prepare
from cifar_tasks.data.versions import DatasetVersion, content_digest, shards_of, write_manifest
from cifar_tasks.errors import IntegrityError
from cifar_tasks.evaluation.calibration import calibrate
from cifar_tasks.tracking.evaluations import (
    StoredEvaluation,
    ensure_evaluated,
    identify_test_set,
    read_evaluation,
    read_labels,
    read_probabilities,
)
from cifar_tasks.tracking.saved_model import OpenedModel, SavedModel
from tests.stores import InMemoryStore
from tests.unit.data.sources import NoiseSource, quiet

SAVED = SavedModel("models:/m-1", "a" * 64)


class Brightness(nn.Module):
    """Logits of two classes from the mean of the red channel; counts the images that it sees."""

    def __init__(self, classes: int = 2, scale: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-scale, scale, classes))
        self.seen = 0
        self.sizes: set[int] = set()

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        self.sizes.add(images.shape[1])
        return (images[..., 0].float().mean(dim=(1, 2)) - 127.5)[:, None] * self.weight


@pytest.fixture
def store() -> InMemoryStore:
    return InMemoryStore()


@pytest.fixture
def version(store: InMemoryStore) -> DatasetVersion:
    return prepare(NoiseSource(), store, 0, quiet)


def opened(model: nn.Module | None = None) -> OpenedModel:
    return OpenedModel(model or Brightness(), 1_234_567)


def evaluated(store: InMemoryStore, version: DatasetVersion, tmp_path: Path) -> StoredEvaluation:
    return ensure_evaluated(store, SAVED, version, tmp_path, opened=opened())


def test_all_scores_and_probabilities_are_stored_and_read_back(store, version, tmp_path):
    evaluation = evaluated(store, version, tmp_path)
    test_set = identify_test_set(store, version)
    assert read_evaluation(store, test_set.digest, SAVED.sha256) == evaluation
    assert (evaluation.test_set, evaluation.size_mb) == (test_set, 1.234567)
    labels, probabilities = read_labels(store, evaluation), read_probabilities(store, evaluation)
    assert (probabilities.shape, probabilities.dtype, labels.dtype) == ((20, 2), np.float16, np.int64)
    assert probabilities.flags.c_contiguous
    assert (probabilities.argmax(axis=1) == labels).mean() == evaluation.accuracy
    assert calibrate(probabilities, labels) == evaluation.calibration
    assert [row.name for row in evaluation.classes] == ["ant", "bee"]
    assert sum(pair.images for pair in evaluation.confused) == round(20 * (1 - evaluation.accuracy))
    assert evaluation.robustness.images == 20
    assert evaluation.latency.single_ms > 0


def test_the_evaluation_is_written_after_what_it_names(store, version, tmp_path):
    before = len(store.writes)
    evaluation = evaluated(store, version, tmp_path)
    labels, probabilities, last = store.writes[before:]
    assert (labels, probabilities) == (evaluation.labels.key, evaluation.probabilities.key)
    assert last.endswith(f"/{SAVED.sha256[:16]}/evaluation.json")
    assert labels.startswith(f"evaluations/{evaluation.test_set.digest[:16]}/")


def test_test_images_are_read_once_per_model(store, version, tmp_path):
    first = evaluated(store, version, tmp_path)
    model, reads = Brightness(), len(store.reads)
    shutil.rmtree(tmp_path)
    assert ensure_evaluated(store, SAVED, version, tmp_path, opened=opened(model)) == first
    assert model.seen == 0
    assert not [key for key in store.reads[reads:] if "test-images" in key]


def test_each_model_has_an_evaluation_of_its_own_beside_the_labels(store, version, tmp_path):
    first = evaluated(store, version, tmp_path)
    other = ensure_evaluated(store, SavedModel("models:/m-2", "b" * 64), version, tmp_path, opened=opened())
    assert other.labels == first.labels
    assert other.probabilities.key != first.probabilities.key
    assert read_evaluation(store, first.test_set.digest, SAVED.sha256) == first


def test_of_two_evaluations_at_once_that_round_differently_both_stay_readable(store, version, tmp_path):
    first = evaluated(store, version, tmp_path)
    store.delete(store.writes[-1])  # as long as it is not written, another process evaluates too
    second = ensure_evaluated(store, SAVED, version, tmp_path, opened=opened(Brightness(scale=1.01)))
    assert (read_probabilities(store, first) != read_probabilities(store, second)).any()


def test_a_model_that_was_not_evaluated_has_no_evaluation(store, version):
    assert read_evaluation(store, identify_test_set(store, version).digest, SAVED.sha256) is None


def test_another_validation_split_has_the_same_test_set(store, version):
    other = prepare(NoiseSource(), store, 1, quiet)
    assert other.digest != version.digest
    assert identify_test_set(store, other).digest == identify_test_set(store, version).digest


@pytest.mark.parametrize(("seed", "size"), [(1, 32), (0, 48)])
def test_other_test_images_are_another_test_set(store, version, seed, size):
    other = prepare(NoiseSource(seed), store, 0, quiet, ImageFormat(size))
    assert identify_test_set(store, other).digest != identify_test_set(store, version).digest


def test_the_same_images_in_other_classes_are_another_test_set(store, version):
    shards = shards_of(store, version)
    sha256 = {name: [ref.sha256 for ref in refs] for name, refs in shards.items()}
    classes = ("wasp", "bee")
    digest = content_digest(classes, version.image_size, version.resize, version.test_set, sha256)
    counts = {split: {"wasp": n["ant"], "bee": n["bee"]} for split, n in version.counts.items()}
    values = {**version.__dict__, "digest": digest, "classes": classes, "counts": counts}
    values["uri"] = store.uri(f"datasets/{digest[:16]}/manifest.json")
    other = write_manifest(store, DatasetVersion(**values), shards)
    assert identify_test_set(store, other).digest != identify_test_set(store, version).digest


def test_a_model_for_another_image_size_sees_the_test_images_in_its_size(store, version, tmp_path):
    model = Brightness()
    ensure_evaluated(store, SAVED, version, tmp_path, image_size=48, opened=opened(model))
    assert model.sizes == {48}


def damaged_json(store, evaluation, key):
    store.objects[key] = store.objects[key].replace(b'"size_mb"', b'"size"')


def json_of_another_model(store, evaluation, key):
    store.objects[key] = json.dumps({**json.loads(store.objects[key]), "model_sha256": "b" * 64}).encode()


def altered_probabilities(store, evaluation, key):
    content = bytearray(store.objects[evaluation.probabilities.key])
    content[-1] ^= 1
    store.objects[evaluation.probabilities.key] = bytes(content)


def deleted_probabilities(store, evaluation, key):
    store.delete(evaluation.probabilities.key)


def deleted_labels(store, evaluation, key):
    store.delete(evaluation.labels.key)


def probabilities_of_other_images(store, evaluation, key):
    """Whoever wrote them has named them with their digest."""
    ref = store.put(evaluation.probabilities.key, store.objects[evaluation.labels.key])
    changed = evaluation.model_copy(update={"probabilities": ref})
    store.objects[key] = changed.model_dump_json().encode()


DAMAGES = [
    damaged_json,
    json_of_another_model,
    altered_probabilities,
    deleted_probabilities,
    deleted_labels,
    probabilities_of_other_images,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_evaluation_is_refused_by_readers_and_made_again(store, version, tmp_path, damage):
    evaluation = evaluated(store, version, tmp_path)
    key = store.writes[-1]
    damage(store, evaluation, key)

    def read() -> None:
        found = read_evaluation(store, evaluation.test_set.digest, SAVED.sha256)
        assert found
        read_labels(store, found)
        read_probabilities(store, found)

    with pytest.raises(IntegrityError, match="evaluations/"):
        read()
    model = Brightness()
    again = ensure_evaluated(store, SAVED, version, tmp_path, opened=opened(model))
    assert model.seen > 0
    assert again.probabilities == evaluation.probabilities
    read()


@pytest.mark.parametrize("model", [Brightness(classes=3), Brightness(scale=float("inf"))])
def test_a_model_without_finite_logits_for_each_class_is_refused_and_leaves_nothing(store, version, tmp_path, model):
    with pytest.raises(IntegrityError, match="finite logits for each of the 2 classes"):
        ensure_evaluated(store, SAVED, version, tmp_path, opened=opened(model))
    assert not list(store.keys("evaluations/"))


def test_reading_loads_neither_torch_nor_mlflow():
    code = "import sys, cifar_tasks.tracking.evaluations; print({'torch', 'mlflow', 'sklearn'} & sys.modules.keys())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.strip() == "set()"
