"""What a model's answers are worth: the report's three evaluations, from logits alone."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifar_tasks.evaluation.names import printable, shortened


@dataclass(frozen=True)
class Evaluation:
    """Of one model on one split."""

    loss: float
    """Mean cross-entropy in nats."""
    accuracy: float
    """Share of 0–1."""
    confusion: NDArray[np.int64]
    """(classes, classes): rows are true, columns are predicted."""
    report: dict[str, Any]
    """Precision, recall, F1 and support by class under `classes`, and their macro and weighted averages beside it."""
    table: str
    """The same to be read, with names of at most 40 characters."""


def evaluate(logits: NDArray[np.float32], labels: NDArray[np.int64], classes: tuple[str, ...]) -> Evaluation:
    """Score float32 logits (N, classes) against int64 labels (N,)."""
    from scipy.special import log_softmax
    from sklearn.metrics import accuracy_score, classification_report, confusion_matrix

    predicted = logits.argmax(axis=1)
    log_probabilities = log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels]
    numbers = list(range(len(classes)))
    options: dict[str, Any] = {"labels": numbers, "zero_division": 0}
    # By number: a class may have the name of an average.
    report = classification_report(labels, predicted, output_dict=True, **options)
    by_class = {name: report.pop(str(number)) for number, name in enumerate(classes)}
    shown = [shortened(printable(name), 40) for name in classes]
    return Evaluation(
        loss=float(-log_probabilities.mean()),
        accuracy=float(accuracy_score(labels, predicted)),
        confusion=confusion_matrix(labels, predicted, labels=numbers),
        report={"classes": by_class, **report},
        table=classification_report(labels, predicted, digits=3, target_names=shown, **options),
    )


def agrees(trained: float, reloaded: float, count: int) -> bool:
    """Whether two accuracies over `count` images are the same answer.

    One image in a thousand may flip: an exported program adds in another order, and bfloat16 rounds. The report's
    defect was 157 in a thousand.
    """
    return abs(trained - reloaded) * count <= max(1.0, count / 1000) + 1e-6
