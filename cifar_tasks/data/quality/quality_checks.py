"""All checks of a delivery: a dataset version against the one in use, by the limits of the settings."""

from collections.abc import Iterator

import numpy as np

from cifar_tasks.data.messages import listed, readable
from cifar_tasks.data.quality import drift
from cifar_tasks.data.quality.check_results import Result, not_measured, row, share, statistical
from cifar_tasks.data.quality.copies import copies_of, copies_within
from cifar_tasks.data.quality.delivery import EXAMPLES, SUSPICIOUS, Delivery
from cifar_tasks.data.quality.image_statistics import EXTREME, Values, is_grey
from cifar_tasks.data.quality.label_errors import LabelErrors, estimate_label_errors, label_quality
from cifar_tasks.data.quality.quality_limits import QualityLimits
from cifar_tasks.data.quality.quality_report import Example, QualityReport
from cifar_tasks.data.quality.snapshot import Predictions, Snapshot
from cifar_tasks.data.splits import Indices

TAIL = 0.005
"""Share of the images in use on either side of which an image counts as extreme."""


def check(
    new: Snapshot, in_use: Snapshot | None, limits: QualityLimits, predictions: Predictions | None = None
) -> QualityReport:
    """Added and relabelled images alone are judged. Without a version in use nothing is compared."""
    delivery = Delivery(new, in_use)
    results = list(_results(delivery, limits, predictions))
    rows = [result.row for result in results]
    return QualityReport(
        passed=all(row.passed for row in rows),
        reasons=tuple(row.text for row in rows if not row.passed),
        rows=tuple(rows),
        examples=tuple(example for result in results if not result.row.passed for example in result.examples),
        suspicious=tuple(_suspicious(delivery, predictions)),
        images=len(new.images),
        added=len(delivery.changes.added),
        relabelled=len(delivery.changes.relabelled),
        gone=delivery.changes.gone,
        judged=len(delivery.judged),
        limits=limits,
    )


def _results(delivery: Delivery, limits: QualityLimits, predictions: Predictions | None) -> Iterator[Result]:
    if delivery.in_use:
        yield from _classes(delivery, delivery.in_use, limits)
        yield from _replaced(delivery, delivery.in_use, limits)
    yield _unreadable(delivery, limits)
    yield _test_copies(delivery, limits)
    yield _copies(delivery, limits)
    if delivery.in_use and len(delivery.judged_added):
        yield _balance(delivery, limits)
        yield from statistic_results(delivery, limits)
        yield from _sizes(delivery, limits)
        yield _drift(delivery, limits)
    if delivery.in_use and len(delivery.judged):
        yield from _label_errors(delivery, limits, predictions)


def _classes(delivery: Delivery, in_use: Snapshot, limits: QualityLimits) -> Iterator[Result]:
    new, old = delivery.new.classes_with_images(), in_use.classes_with_images()
    for name, found, allowed in (
        ("missing classes", old - new, limits.missing_classes),
        ("new classes", new - old, limits.new_classes),
    ):
        named = listed([readable(each) for each in sorted(found)]) or "none"
        text = f"{named} (allowed)" if found and allowed else named
        yield Result(row(name, len(found), None if allowed else 0, allowed or not found, text))


def _replaced(delivery: Delivery, in_use: Snapshot, limits: QualityLimits) -> Iterator[Result]:
    changes, digests, of = delivery.changes, delivery.new.images.digests, len(set(in_use.images.digests))
    where = "of the images in use"
    yield Result(share("removed images", changes.gone, of, limits.max_removed, where))
    relabelled = len({digests[position] for position in changes.relabelled.tolist()})
    examples = delivery.examples(changes.relabelled, "has another label in the version in use")
    yield Result(share("relabelled images", relabelled, of, limits.max_relabelled, where), examples)


def _unreadable(delivery: Delivery, limits: QualityLimits) -> Result:
    known = set(delivery.in_use.unreadable) if delivery.in_use else set()
    broken = [readable(name) for name in delivery.new.unreadable if name not in known]
    of = len(broken) + len(delivery.changes.added)
    limit = limits.max_unreadable
    return Result(share("unreadable images", len(broken), of, limit, "of the added files", listed(broken)))


def _test_copies(delivery: Delivery, limits: QualityLimits) -> Result:
    """Those that were left out already, and any that are among the added images all the same."""
    known = set(delivery.in_use.test_copies) if delivery.in_use else set()
    left_out = [readable(name) for name in delivery.new.test_copies if name not in known]
    added, test = delivery.changes.added, delivery.new.test
    found = copies_of(added, delivery.new.images, test)
    how = {True: "equals", False: "resembles"}
    examples = [
        delivery.example(copy.position, f"{how[copy.exact]} the test image {readable(test.names[copy.original])}")
        for copy in found
    ]
    count, of, limit = len(found) + len(left_out), len(added) + len(left_out), limits.max_test_copies
    told = f"left out: {listed(left_out)}" if left_out else ""
    return Result(share("copies of test images", count, of, limit, "of the added images", told), examples[:EXAMPLES])


def _copies(delivery: Delivery, limits: QualityLimits) -> Result:
    added, images = delivery.changes.added, delivery.new.images
    originals = {copy.position: images.names[copy.original] for copy in copies_within(added, images)}
    if delivery.in_use:
        old = delivery.in_use.images
        originals |= {copy.position: old.names[copy.original] for copy in copies_of(added, images, old)}
    examples = [
        delivery.example(each, f"resembles {readable(originals[each])}") for each in sorted(originals)[:EXAMPLES]
    ]
    limit = limits.max_copies
    return Result(share("copies", len(originals), len(added), limit, "of the added images"), examples)


def _balance(delivery: Delivery, limits: QualityLimits) -> Result:
    name, limit, classes = "class balance", limits.max_class_psi, delivery.new.classes
    counts = np.bincount(delivery.labels[delivery.changes.added], minlength=len(classes))
    usual = np.bincount(delivery.in_use_labels[delivery.in_use_labels >= 0], minlength=len(classes))
    known = usual > 0
    if known.sum() < 2 or not counts[known].sum():
        return not_measured(name, limit, "fewer than two classes in common")
    absent = [readable(classes[number]) for number in np.flatnonzero(known & (counts == 0))]
    what = "population stability index" + (f"; no added image of {listed(absent)}" if absent else "")
    return Result(statistical(name, drift.class_shift(counts[known], usual[known]), limit, limits, what))


def statistic_results(delivery: Delivery, limits: QualityLimits) -> Iterator[Result]:
    added, reference = delivery.statistics
    shown = delivery.judged_added[delivery.alike[0]]
    for name in added:
        found = drift.statistic_shift(added[name], reference[name])
        means = f"mean {added[name].mean():.3g} against {reference[name].mean():.3g}"
        judged = statistical(name, found, limits.max_ks, limits, f"Kolmogorov–Smirnov distance, {means}")
        yield Result(judged, _most_unlike(delivery, shown, name, added[name], reference[name]))
    if not added:
        return
    beyond = {name: np.quantile(reference[name], [TAIL, 1 - TAIL]) for name in EXTREME}
    extreme = [
        np.any([(values[name] < low) | (values[name] > high) for name, (low, high) in beyond.items()], axis=0)
        for values in (added, reference)
    ]
    for check_name, limit, flags, why in (
        ("extreme images", limits.max_extreme, extreme, "extreme brightness, contrast or sharpness"),
        ("grey images", limits.max_grey, [is_grey(added), is_grey(reference)], "has no colour"),
    ):
        found = drift.excess_share(flags[0], flags[1])
        examples = delivery.examples(shown[flags[0]], why)
        yield Result(statistical(check_name, found, limit, limits, "share above that of the images in use"), examples)


def _most_unlike(delivery: Delivery, shown: Indices, name: str, added: Values, reference: Values) -> list[Example]:
    """The images that lie farthest on the side to which the delivery has moved."""
    up = float(added.mean()) >= float(reference.mean())
    order = np.argsort(-added if up else added, kind="stable")
    return delivery.examples(shown[order], f"has a {'high' if up else 'low'} value of {name} beside the images in use")


def _sizes(delivery: Delivery, limits: QualityLimits) -> Iterator[Result]:
    added, reference = delivery.sizes
    for name in added:
        if not len(added[name]) or not len(reference[name]):
            yield not_measured(name, limits.max_ks, "the sizes of the files are not known")
            continue
        found = drift.statistic_shift(added[name], reference[name])
        medians = f"median {np.median(added[name]):.3g} against {np.median(reference[name]):.3g}"
        yield Result(statistical(name, found, limits.max_ks, limits, f"Kolmogorov–Smirnov distance, {medians}"))


def _drift(delivery: Delivery, limits: QualityLimits) -> Result:
    shared, alike = delivery.alike
    reference, judged = delivery.embeddings
    compared = np.isin(delivery.judged, delivery.judged_added[shared])
    found = drift.embedding_drift(judged[compared], reference[alike])
    if found is None:
        return not_measured("embedding drift", limits.max_drift, f"fewer than {drift.MIN_IMAGES} images to compare")
    return Result(statistical("embedding drift", found, limits.max_drift, limits, "area under the ROC curve"))


def _label_errors(delivery: Delivery, limits: QualityLimits, predictions: Predictions | None) -> Iterator[Result]:
    probabilities, size = delivery.out_of_fold, len(delivery.reference)
    found = None
    if probabilities is not None:
        reference = delivery.reference_labels, probabilities[:size]
        found = estimate_label_errors(delivery.labels[delivery.judged], probabilities[size:], *reference)
    yield _wrong_labels("label errors (out of fold)", found, limits)
    if predictions:
        labels, reference = (
            delivery.labels[predictions.positions],
            (predictions.reference_labels, predictions.reference_probabilities),
        )
        found = estimate_label_errors(labels, predictions.probabilities, *reference)
        yield _wrong_labels(f"label errors ({predictions.model})", found, limits)


def _wrong_labels(name: str, found: LabelErrors | None, limits: QualityLimits) -> Result:
    limit = limits.max_label_errors
    if found is None:
        return not_measured(name, limit, "a model cannot learn these classes from so few images")
    agree = f"labels agree with predictions in {found.agreement:.0%}, in use in {found.reference_agreement:.0%}"
    measured = drift.Measured(found.share, found.p_value)
    return Result(statistical(name, measured, limit, limits, f"estimated share of wrong labels; {agree}"))


def _suspicious(delivery: Delivery, predictions: Predictions | None) -> Iterator[Example]:
    """By the champion's predictions if there are any, else by those out of fold."""
    positions: Indices = predictions.positions if predictions else delivery.judged
    if not len(positions):
        return
    probabilities = predictions.probabilities if predictions else delivery.out_of_fold
    if probabilities is None:
        return
    probabilities = probabilities[-len(positions) :]
    quality, likely = label_quality(delivery.labels[positions], probabilities), probabilities.argmax(1)
    other = probabilities.any(1) & (likely != delivery.labels[positions])
    order = [n for n in np.argsort(quality, kind="stable") if other[n]]
    for number in order[:SUSPICIOUS]:
        looks = f"looks like {readable(delivery.new.classes[likely[number]])}"
        yield delivery.example(int(positions[number]), looks)
