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
    """Of each image by a model that has not learnt it; 0 for all classes if the image is the only one of its class.
    None if fewer than two classes have two images."""
    counts = np.bincount(labels, minlength=classes)
    learnt = np.flatnonzero(counts >= 2)
    if len(learnt) < 2:
        return None
    used, folds = np.isin(labels, learnt), min(FOLDS, int(counts[learnt].min()))
    model = LogisticRegression(C=INVERSE_REGULARIZATION, max_iter=ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = cross_val_predict(
            model,
            embeddings[used],
            labels[used],
            cv=StratifiedKFold(folds, shuffle=True, random_state=0),
            method="predict_proba",
        )
    probabilities = np.zeros((len(labels), classes))
    probabilities[np.ix_(used, learnt)] = found
    return probabilities


def label_quality(labels: Labels, probabilities: Probabilities) -> NDArray[np.float64]:
    """Between 0 and 1 for each label; the lower, the more suspicious."""
    from cleanlab.rank import get_label_quality_scores

    scores: NDArray[np.float64] = get_label_quality_scores(labels, probabilities)  # refuses nothing that is 0–1
    return scores


def estimate_label_errors(
    labels: Labels, probabilities: Probabilities, reference_labels: Labels, reference_probabilities: Probabilities
) -> LabelErrors | None:
    """None if no class has images to compare with, or the model only guesses. Images without a probability do not
    count."""
    classes = probabilities.shape[1]
    has_prediction = reference_probabilities.any(1)
    reference_labels = reference_labels[has_prediction]
    reference_probabilities = reference_probabilities[has_prediction]
    known = np.isin(labels, np.unique(reference_labels)) & probabilities.any(1)
    labels, predicted = labels[known], probabilities[known].argmax(1)
    if not len(labels):
        return None
    right = reference_probabilities.argmax(1) == reference_labels
    # The agreement that the same classes in the same proportions have in use.
    weights = np.bincount(labels, minlength=classes) / np.maximum(np.bincount(reference_labels, minlength=classes), 1)
    weight = weights[reference_labels]
    expected = float(np.average(right, weights=weight))
    agreement = float((predicted == labels).mean())
    shares = (np.bincount(each, minlength=classes) / len(labels) for each in (predicted, labels))
    chance = float(np.dot(*shares))
    if expected <= chance + 0.05:
        return None
    share = (expected - agreement) / (expected - chance)
    # Kish's effective sample size: a few images of rare classes may have most of the weight.
    reference_size = float(weight.sum() ** 2 / (weight**2).sum())
    p_value = _lower(agreement, len(labels), expected, round(reference_size))
    return LabelErrors(min(max(share, 0.0), 1.0), p_value, agreement, expected)


def _lower(agreement: float, count: int, expected: float, reference_count: int) -> float:
    """Exact test that the agreement is not lower than the expected one, which was itself measured on images."""
    agreed, of_reference = round(agreement * count), round(expected * reference_count)
    table = [[agreed, count - agreed], [of_reference, reference_count - of_reference]]
    return float(fisher_exact(table, alternative="less").pvalue)
