"""Whether added images are like those in use: distributions of single statistics, of classes and of embeddings."""

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2_contingency, fisher_exact, ks_2samp, mannwhitneyu
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from cifar_tasks.data.images import Labels
from cifar_tasks.data.quality.embeddings import Embeddings
from cifar_tasks.data.quality.image_statistics import Values
from cifar_tasks.data.splits import Indices

DRIFT_DIMENSIONS = 50
MIN_IMAGES = 20
"""On either side, for a classifier that tells them apart."""


class Measured(NamedTuple):
    value: float
    p_value: float
    """Of a value as large as this by chance alone."""


def class_shift(counts: NDArray[np.int64], in_use: NDArray[np.int64]) -> Measured:
    """Population stability index of the shares of the classes in use, and a chi-squared test of both samples."""
    total = counts.sum()
    expected = in_use / in_use.sum()
    shares = np.maximum(counts / total, 0.5 / total)  # so that a class without images has a finite index
    index = float(((shares - expected) * np.log(shares / expected)).sum())
    return Measured(index, float(chi2_contingency([counts, in_use], correction=False).pvalue))


def statistic_shift(added: Values, reference: Values) -> Measured:
    found = ks_2samp(added, reference, method="asymp")
    return Measured(float(found.statistic), float(found.pvalue))


def excess_share(added: NDArray[np.bool_], reference: NDArray[np.bool_]) -> Measured:
    """By how much the share of added images is higher, and Fisher's exact test of both samples."""
    table = [[each.sum(), (~each).sum()] for each in (added, reference)]
    return Measured(float(added.mean() - reference.mean()), float(fisher_exact(table, alternative="greater").pvalue))


def embedding_drift(added: Embeddings, reference: Embeddings) -> Measured | None:
    """Area under the ROC curve of a classifier that tells them apart, out of fold. None with too few images."""
    if min(len(added), len(reference)) < MIN_IMAGES:
        return None
    both = np.concatenate([added, reference])[:, :DRIFT_DIMENSIONS]
    both = (both - both.mean(0)) / np.maximum(both.std(0), 1e-9)
    is_added = np.arange(len(both)) < len(added)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    model = LogisticRegression(C=0.1, class_weight="balanced", max_iter=100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        scores = cross_val_predict(model, both, is_added, cv=folds, method="decision_function")
    found = mannwhitneyu(scores[is_added], scores[~is_added], alternative="greater")
    return Measured(float(found.statistic) / (len(added) * len(reference)), float(found.pvalue))


def with_class_mix(labels: Labels, wanted: Labels, random: np.random.Generator) -> Indices:
    """Positions in `labels`, as many as possible, whose classes have the proportions of `wanted`.

    Without that, a delivery of pictures of airplanes would count as too bright and too blue.
    """
    classes = int(max(labels.max(initial=0), wanted.max(initial=0))) + 1
    counts, mix = (np.bincount(each, minlength=classes) for each in (labels, wanted))
    shared = (mix > 0) & (counts > 0)
    if not shared.any():
        return np.empty(0, np.int64)
    scale = (counts[shared] / mix[shared]).min()
    chosen = []
    for number in np.flatnonzero(shared):
        members = np.flatnonzero(labels == number)
        chosen.append(random.permutation(members)[: max(1, int(scale * mix[number]))])
    return np.sort(np.concatenate(chosen))
