"""Labels that are likely wrong: cleanlab ranks them; how many there are follows from how often a model agrees.

A model that is right in 60 % of cases disagrees with many right labels. So its agreement with the labels of a delivery
is compared with its agreement with those of images in use that it has not learnt either.
"""

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import fisher_exact
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from cifar_tasks.data.images import Labels
from cifar_tasks.data.quality.embeddings import Embeddings

Probabilities = NDArray[np.floating]
"""N × classes."""
FOLDS, INVERSE_REGULARIZATION, ITERATIONS = 5, 3.0, 60
"""Found on 5,000 images of CIFAR-10: 56 % right, and more iterations change nothing."""


class LabelErrors(NamedTuple):
    share: float
    """Estimated, of wrong labels beyond those among the images in use; not below 0."""
    p_value: float
    """Of an agreement as low as this, if no more labels are wrong than in use."""
    agreement: float
    reference_agreement: float


def out_of_fold(embeddings: Embeddings, labels: Labels, classes: int) -> Probabilities | None:
    """Of each image by a model that has not learnt it. None if a class has one image alone, or there is one class."""
    counts = np.bincount(labels, minlength=classes)
    present = np.flatnonzero(counts)
    folds = min(FOLDS, int(counts[present].min())) if len(present) else 0
    if folds < 2 or len(present) < 2:
        return None
    model = LogisticRegression(C=INVERSE_REGULARIZATION, max_iter=ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = cross_val_predict(
            model, embeddings, labels, cv=StratifiedKFold(folds, shuffle=True, random_state=0), method="predict_proba"
        )
    probabilities = np.zeros((len(labels), classes))
    probabilities[:, present] = found
    return probabilities


def label_quality(labels: Labels, probabilities: Probabilities) -> NDArray[np.float64]:
    """Between 0 and 1 for each label; the lower, the more suspicious."""
    from cleanlab.rank import get_label_quality_scores

    scores: NDArray[np.float64] = get_label_quality_scores(labels, probabilities)  # refuses nothing that is 0–1
    return scores


def estimate_label_errors(
    labels: Labels, probabilities: Probabilities, reference_labels: Labels, reference_probabilities: Probabilities
) -> LabelErrors | None:
    """None if a class has no image to compare with, or the model only guesses."""
    classes = probabilities.shape[1]
    known = np.isin(labels, np.unique(reference_labels))
    labels, predicted = labels[known], probabilities[known].argmax(1)
    if not len(labels):
        return None
    right = reference_probabilities.argmax(1) == reference_labels
    # The agreement that the same classes in the same proportions have in use.
    weights = np.bincount(labels, minlength=classes) / np.maximum(np.bincount(reference_labels, minlength=classes), 1)
    expected = float(np.average(right, weights=weights[reference_labels]))
    agreement = float((predicted == labels).mean())
    shares = (np.bincount(each, minlength=classes) / len(labels) for each in (predicted, labels))
    chance = float(np.dot(*shares))
    if expected <= chance + 0.05:
        return None
    share = (expected - agreement) / (expected - chance)
    return LabelErrors(min(max(share, 0.0), 1.0), _lower(agreement, expected, len(labels), right), agreement, expected)


def _lower(agreement: float, expected: float, count: int, right: NDArray[np.bool_]) -> float:
    """Exact test that the agreement is not lower than the expected one, which was itself measured on images."""
    agreed, of_reference = round(agreement * count), round(expected * len(right))
    table = [[agreed, count - agreed], [of_reference, len(right) - of_reference]]
    return float(fisher_exact(table, alternative="less").pvalue)
