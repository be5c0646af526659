"""What a model's answers are worth: the report's three evaluations, from predictions alone."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from cifar_tasks.evaluation.names import printable, shortened


@dataclass(frozen=True)
class Evaluation:
    """Of one model on one split."""

    accuracy: float
    """Share of 0–1."""
    confusion: NDArray[np.int64]
    """(classes, classes): rows are true, columns are predicted."""
    report: dict[str, Any]
    """Precision, recall, F1 and support by class under `classes`; beside it the averages over classes with images."""
    table: str
    """The same to be read, of the classes with images, with names of at most 40 characters."""


class ClassScores(BaseModel):
    """Of one class on one split; shares of 0–1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    images: int
    recall: float
    precision: float
    f1: float


class ConfusedPair(BaseModel):
    """Images of one class that were taken for another."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    true: str
    predicted: str
    images: int


def accuracy_interval(right: int, images: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of the accuracy of a model that classifies so many images correctly."""
    from scipy.stats import binomtest

    found = binomtest(right, images).proportion_ci(confidence, "wilson")
    return float(found.low), float(found.high)


def evaluate(predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: tuple[str, ...]) -> Evaluation:
    """Score predicted classes (N,) against the true ones (N,)."""
    from sklearn.metrics import accuracy_score, classification_report, confusion_matrix

    numbers, tested = list(range(len(classes))), np.unique(labels).tolist()
    # By number: a class may have the name of an average.
    rows = classification_report(labels, predicted, labels=numbers, zero_division=0, output_dict=True)
    options: dict[str, Any] = {"labels": tested, "zero_division": 0}
    averages = classification_report(labels, predicted, output_dict=True, **options)
    shown = [shortened(printable(classes[number]), 40) for number in tested]
    return Evaluation(
        accuracy=float(accuracy_score(labels, predicted)),
        confusion=confusion_matrix(labels, predicted, labels=numbers),
        report={
            "classes": {name: rows[str(number)] for number, name in enumerate(classes)},
            **{name: averages[name] for name in ("macro avg", "weighted avg")},
        },
        table=classification_report(labels, predicted, digits=3, target_names=shown, **options),
    )


def cross_entropy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Mean in nats, of logits (N, classes)."""
    from scipy.special import log_softmax

    return float(-log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels].mean())


def class_scores(evaluation: Evaluation) -> tuple[ClassScores, ...]:
    """The table of the classes, in the order of the logits."""
    return tuple(
        ClassScores(
            name=name, images=int(row["support"]), recall=row["recall"], precision=row["precision"], f1=row["f1-score"]
        )
        for name, row in evaluation.report["classes"].items()
    )


def confused_pairs(
    confusion: NDArray[np.int64], classes: tuple[str, ...], wanted: int = 10
) -> tuple[ConfusedPair, ...]:
    """The pairs that are confused most often, the most frequent first; of equals the earlier classes."""
    mistakes = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:wanted]
    pairs = zip(*np.unravel_index(order, mistakes.shape), strict=True)
    return tuple(
        ConfusedPair(true=classes[true], predicted=classes[predicted], images=int(mistakes[true, predicted]))
        for true, predicted in pairs
        if mistakes[true, predicted] > 0
    )


def confused_positions(
    labels: NDArray[np.int64], probabilities: NDArray[np.float16], true: int, predicted: int, wanted: int = 8
) -> NDArray[np.int64]:
    """Where images of class `true` were taken for `predicted`, the most confident mistakes first."""
    found = np.flatnonzero((labels == true) & (probabilities.argmax(axis=1) == predicted))
    return found[np.argsort(-probabilities[found, predicted], kind="stable")][:wanted]


def agrees(trained: float, reloaded: float, count: int) -> bool:
    """Whether two accuracies over `count` images are the same answer.

    One image in a thousand may flip: an exported program adds in another order, and bfloat16 rounds. The report's
    defect was 157 in a thousand.
    """
    return abs(trained - reloaded) * count <= max(1.0, count / 1000) + 1e-6
