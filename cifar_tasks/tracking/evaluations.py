"""Stored evaluations: what each model scores on each test set, and the probabilities that it gives.

`evaluations/<test set>/` holds the labels once, and `<model>/` beside them the probabilities of a model. What names
both with their SHA-256, `evaluation.json`, is written last. Comparisons need these objects only: no model, no torch.
"""

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from cifar_tasks.data.loading import load_split
from cifar_tasks.data.versions import DatasetVersion, shards_of
from cifar_tasks.errors import IntegrityError
from cifar_tasks.evaluation.scores import Scores, score_model
from cifar_tasks.storage.s3 import ObjectRef, S3Store, canonical_json, sha256_hex
from cifar_tasks.tracking.saved_model import OpenedModel, SavedModel, open_model

_log = logging.getLogger(__name__)


class TestSet(BaseModel):
    """The test images of one or more dataset versions, which may differ in their training images."""

    __test__ = False  # not a class of tests, whatever pytest makes of its name
    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str
    """SHA-256 over class names, image size, and the test images and labels."""
    dataset_uri: str
    """Of the dataset version whose test images were read."""
    dataset_digest: str
    classes: tuple[str, ...]
    images: int
    image_size: int
    """Pixels per side."""
    placeholder: bool
    """Not CIFAR-10 but in its place."""


class StoredEvaluation(Scores):
    """Of one model on one test set."""

    model_sha256: str
    model_uri: str
    """`models:/m-…`: where the model was that was evaluated. Other versions may have an equal file."""
    size_mb: float
    """Of the saved model's file, in millions of bytes."""
    test_set: TestSet
    labels: ObjectRef
    """int64 (N,)."""
    probabilities: ObjectRef
    """float16 (N, classes)."""


def identify_test_set(store: S3Store, version: DatasetVersion) -> TestSet:
    shards = shards_of(store, version)
    sha256 = {name: [ref.sha256 for ref in shards[name]] for name in ("test-images", "test-labels")}
    content = {"classes": list(version.classes), "image_size": version.image_size, "shards": sha256}
    return TestSet(
        digest=sha256_hex(canonical_json(content)),
        dataset_uri=version.uri,
        dataset_digest=version.digest,
        classes=version.classes,
        images=version.size("test"),
        image_size=version.image_size,
        placeholder=version.placeholder,
    )


def read_evaluation(store: S3Store, test_digest: str, model_sha256: str) -> StoredEvaluation | None:
    """None if the model was not evaluated on the test set; `IntegrityError` if the stored evaluation is damaged."""
    key = _key(test_digest, model_sha256)
    try:
        found = StoredEvaluation.model_validate_json(store.get(key))
    except KeyError:
        return None
    except ValidationError as error:
        raise _damaged(store, key, str(error).splitlines()[0]) from None
    if (found.test_set.digest, found.model_sha256) != (test_digest, model_sha256):
        raise _damaged(store, key, "it is of another model or test set")
    return found


def read_probabilities(store: S3Store, evaluation: StoredEvaluation) -> NDArray[np.float16]:
    """(N, classes), verified."""
    width = len(evaluation.test_set.classes)
    array: NDArray[np.float16] = _read(store, evaluation, evaluation.probabilities, np.float16, width)
    return array


def read_labels(store: S3Store, evaluation: StoredEvaluation) -> NDArray[np.int64]:
    """(N,), verified."""
    array: NDArray[np.int64] = _read(store, evaluation, evaluation.labels, np.int64)
    return array


def find_whole_evaluation(store: S3Store, test_digest: str, model_sha256: str) -> StoredEvaluation | None:
    """None if the model was not evaluated on the test set, or a part of the evaluation is damaged or missing."""
    try:
        if found := read_evaluation(store, test_digest, model_sha256):
            read_labels(store, found)
            read_probabilities(store, found)
        return found
    except IntegrityError as error:
        _log.warning("%s It is evaluated again now.", error)
        return None


def ensure_evaluated(
    store: S3Store,
    saved: SavedModel,
    version: DatasetVersion,
    cache: Path,
    image_size: int | None = None,
    opened: OpenedModel | None = None,
) -> StoredEvaluation:
    """The evaluation of a model on the test images of a dataset version: the stored one, or made and stored now.

    `cache` is the folder of `load_split`. A model for another `image_size` sees the test images in its own size.
    `opened` is the model, if the caller has it already. A stored evaluation that is damaged is made again.
    """
    test_set = identify_test_set(store, version)
    if found := find_whole_evaluation(store, test_set.digest, saved.sha256):
        _log.info("%s was evaluated on these test images already", saved.uri)
        return found
    return _evaluate(store, saved, version, test_set, cache, image_size or version.image_size, opened)


def _evaluate(
    store: S3Store,
    saved: SavedModel,
    version: DatasetVersion,
    test_set: TestSet,
    cache: Path,
    image_size: int,
    opened: OpenedModel | None,
) -> StoredEvaluation:
    from cifar_tasks.training.device import choose_device
    from cifar_tasks.training.logits import resized

    model = opened or open_model(saved, choose_device())
    test = load_split(store, version, "test", cache)
    _log.info("evaluating %s on %d test images", saved.uri, len(test))
    scores, probabilities = score_model(model.module, resized(test.images, image_size), test.labels, version.classes)
    key, content = _key(test_set.digest, saved.sha256), _npy(probabilities)
    evaluation = StoredEvaluation(
        **dict(scores),
        model_sha256=saved.sha256,
        model_uri=saved.uri,
        size_mb=model.size / 1e6,
        test_set=test_set,
        labels=store.put(f"evaluations/{test_set.digest[:16]}/labels.npy", _npy(test.labels)),
        # Two tasks may evaluate the same model at once, and a GPU rounds differently each time.
        probabilities=store.put(f"{key.rpartition('/')[0]}/probabilities-{sha256_hex(content)[:16]}.npy", content),
    )
    store.put(key, canonical_json(evaluation.model_dump(mode="json")))
    return evaluation


def _key(test_digest: str, model_sha256: str) -> str:
    return f"evaluations/{test_digest[:16]}/{model_sha256[:16]}/evaluation.json"


def _npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()


def _read(store: S3Store, evaluation: StoredEvaluation, ref: ObjectRef, kind: type[np.generic], *width: int) -> Any:
    try:
        array = np.load(io.BytesIO(store.get(ref.key, ref.sha256)), allow_pickle=False)
    except KeyError:
        raise _damaged(store, ref.key, "it is missing") from None
    except ValueError as error:
        raise _damaged(store, ref.key, str(error)) from None
    if array.dtype != kind or array.shape != (evaluation.test_set.images, *width):
        raise _damaged(store, ref.key, f"it holds {array.dtype} {array.shape}")
    return array


def _damaged(store: S3Store, key: str, reason: str) -> IntegrityError:
    return IntegrityError(
        f"{store.uri(key)} cannot be used: {reason}. Start the promotion of this version again: it evaluates the model."
    )
