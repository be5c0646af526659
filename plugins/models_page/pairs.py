"""Two versions on the same test images: from their stored evaluations, without a model."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifar_tasks.evaluation.comparison import Comparison
from cifar_tasks.promotion.decision import decide
from cifar_tasks.promotion.evidence import Decision
from cifar_tasks.promotion.limits import Limits
from cifar_tasks.tracking.evaluations import StoredEvaluation, read_labels, read_probabilities
from cifar_tasks.tracking.saved_model import DIGEST_TAG
from cifar_tasks.tracking.version_evidence import TEST_SET, common_evaluations, compare_evaluations, score_version
from models_page.reading import Cached, Result, store
from models_page.version_table import Version


@dataclass(frozen=True)
class Disagreement:
    """An image that exactly one of the two models classifies correctly."""

    image: int
    """Number in the test split."""
    true: str
    first: tuple[str, float]
    """Class and its probability."""
    second: tuple[str, float]
    first_is_right: bool


@dataclass(frozen=True)
class Pair:
    """The first is the candidate, the second the champion."""

    first: StoredEvaluation
    second: StoredEvaluation
    comparison: Comparison
    matrices: tuple[NDArray[np.int64], NDArray[np.int64]]
    """(classes, classes) each; rows are true."""
    disagreements: tuple[Disagreement, ...]


def find_pair(first: Version, second: Version, confidence: float) -> Result[Pair]:
    """On the test images of one of the two; `ConfigError` if not both were evaluated on them."""
    return _cached_pair(first, second, confidence)


def _find_pair(first: Version, second: Version, confidence: float) -> Pair:
    found = common_evaluations(store(), [first.entity, second.entity])
    return _pair(found[0].model_dump_json(), found[1].model_dump_json(), confidence)


def _key(first: Version, second: Version, confidence: float) -> object:
    versions = [(each.number, each.tags.get(DIGEST_TAG), each.tags.get(TEST_SET)) for each in (first, second)]
    return first.entity.name, *versions, confidence


_cached_pair = Cached("S3", _find_pair, _key)


@lru_cache(maxsize=32)
def _pair(first_evaluation: str, second_evaluation: str, confidence: float) -> Pair:
    """Of evaluations as JSON, which name the digests of the probabilities: a new evaluation is another one."""
    s3 = store()
    first, second = map(StoredEvaluation.model_validate_json, (first_evaluation, second_evaluation))
    labels, classes = read_labels(s3, first), first.test_set.classes
    probabilities = read_probabilities(s3, first), read_probabilities(s3, second)
    predicted = tuple(each.argmax(axis=1) for each in probabilities)
    right = tuple(each == labels for each in predicted)
    disagreements = tuple(
        Disagreement(
            image=int(image),
            true=classes[labels[image]],
            first=_answer(probabilities[0], predicted[0], image, classes),
            second=_answer(probabilities[1], predicted[1], image, classes),
            first_is_right=bool(right[0][image]),
        )
        for image in np.flatnonzero(right[0] != right[1])
    )
    return Pair(
        first=first,
        second=second,
        comparison=compare_evaluations(s3, first, second, confidence),
        matrices=(_matrix(labels, predicted[0], len(classes)), _matrix(labels, predicted[1], len(classes))),
        disagreements=disagreements,
    )


def decision_on(first: Version, second: Version, found: Pair, limits: Limits, uses: int) -> Decision:
    """What the promotion would decide if the first were the candidate and the second the champion."""
    candidate, champion = score_version(first.entity, found.first), score_version(second.entity, found.second)
    return decide(candidate, champion, found.comparison, limits, "auto", uses=uses)


def _answer(
    probabilities: NDArray[np.float16], predicted: NDArray[np.int64], image: Any, classes: tuple[str, ...]
) -> tuple[str, float]:
    return classes[predicted[image]], float(probabilities[image, predicted[image]])


def _matrix(labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)
