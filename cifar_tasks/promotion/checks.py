"""What a candidate must meet: floors for each one, and more if there is a champion."""

from cifar_tasks.evaluation.comparison import ClassComparison, Comparison, p_text
from cifar_tasks.evaluation.names import printable, shortened
from cifar_tasks.promotion.evidence import Champion, Check, CheckName, Scored, Unscored
from cifar_tasks.promotion.limits import Limits

NAMED_CLASSES = 5
"""In a text, of those that are worse."""


def points(share: float) -> str:
    """A difference of two shares, in percentage points."""
    return f"{100 * share:+.2f}"


def floors(candidate: Scored, limits: Limits) -> list[Check]:
    """For each candidate, also a first one. What has no limit is not checked."""
    accuracy = f"test accuracy {candidate.accuracy:.2%}"
    checks = [_check("accuracy", candidate.accuracy >= limits.min_accuracy, accuracy, f"{limits.min_accuracy:.2%}")]
    measured: tuple[tuple[CheckName, float | None, float | None, str], ...] = (
        ("latency", candidate.latency_ms, limits.max_latency_ms, "ms for one image"),
        ("size", candidate.size_mb, limits.max_size_mb, "MB"),
    )
    for name, value, limit, unit in measured:
        if limit is not None:
            text = f"{name} {value:.4g} {unit}" if value is not None else f"{name} was not measured"
            checks.append(_check(name, value is not None and value <= limit, text, f"{limit:g} {unit}", at_most=True))
    return checks


def against(candidate: Scored, champion: Champion, comparison: Comparison | None, limits: Limits) -> list[Check]:
    """What it must meet because there is a champion.

    `ValueError` if two that can be compared were not, or not on the same test set.
    """
    if champion is None:
        return []
    if isinstance(champion, Unscored):
        what = f"the champion version {champion.version} cannot be evaluated: {' '.join(champion.reason.split())}"
        remedy = "" if champion.gone else f" It stays. To use version {candidate.version}, promote it with mode force"
        return [Check(name="champion", passed=champion.gone, text=what + remedy)]
    if candidate.placeholder and not champion.placeholder:
        text = "a model of placeholder data does not replace one of real data"
        return [Check(name="champion", passed=False, text=text)]
    if candidate.classes != champion.classes:
        return [_other_classes(candidate, champion)]
    if candidate.test_set != champion.test_set:
        raise ValueError("candidate and champion were evaluated on different test sets")
    if comparison is None:
        raise ValueError("candidate and champion were evaluated and not compared")
    return [_gain(comparison, limits), _classes(comparison, limits), _calibration(comparison, limits)]


def worse_classes(comparison: Comparison, limits: Limits) -> list[ClassComparison]:
    """Significantly and by more than the margin; of many classes some differ by chance, so Bonferroni's correction."""
    level = (1 - limits.confidence) / len(comparison.classes)
    return [c for c in comparison.classes if c.difference < -limits.class_margin and c.p_value < level]


def _check(name: CheckName, passed: bool, text: str, limit: str, *, at_most: bool = False) -> Check:
    wanted = f"{'at most' if at_most else 'at least'} {limit}"
    return Check(name=name, passed=passed, text=f"{text} ({wanted})" if passed else f"{text}, wanted {wanted}")


def _other_classes(candidate: Scored, champion: Scored) -> Check:
    if champion.placeholder and not candidate.placeholder:
        text = f"it knows the real classes; version {champion.version} was trained on placeholder data"
        return Check(name="champion", passed=True, text=text)
    text = (
        "they know different classes and cannot be compared. Register under another name (form field, or "
        "CIFAR_REGISTERED_MODEL) to keep both"
    )
    return Check(name="champion", passed=False, text=text)


def _gain(comparison: Comparison, limits: Limits) -> Check:
    """Significant by the interval and by the exact test: with few images the interval alone is too narrow."""
    low, high = comparison.interval
    significant = low > 0 and comparison.p_value < 1 - limits.confidence
    text = (
        f"test accuracy {comparison.candidate_accuracy:.2%} against {comparison.champion_accuracy:.2%} on the same "
        f"{comparison.images:,} images: {points(comparison.difference)} points, "
        f"{100 * comparison.confidence:.4g} % interval {points(low)} to {points(high)}, p {p_text(comparison.p_value)}"
    )
    if not significant:
        text += ": not significantly better"
    elif comparison.difference < limits.min_gain:
        text += f", wanted at least {points(limits.min_gain)}"
    return Check(name="gain", passed=significant and comparison.difference >= limits.min_gain, text=text)


def _classes(comparison: Comparison, limits: Limits) -> Check:
    worse = sorted(worse_classes(comparison, limits), key=lambda c: c.difference)
    margin = f"{100 * limits.class_margin:.4g}"
    if not worse:
        return Check(name="classes", passed=True, text=f"no class is significantly worse by more than {margin} points")
    named = ", ".join(map(_named, worse[:NAMED_CLASSES]))
    more = f" and {len(worse) - NAMED_CLASSES} more" if len(worse) > NAMED_CLASSES else ""
    return Check(name="classes", passed=False, text=f"significantly worse by more than {margin} points: {named}{more}")


def _named(found: ClassComparison) -> str:
    name = shortened(printable(found.name), 60)
    return f"{name} {found.candidate_recall:.1%} against {found.champion_recall:.1%} (p {p_text(found.p_value)})"


def _calibration(comparison: Comparison, limits: Limits) -> Check:
    new, old = comparison.candidate_calibration_error, comparison.champion_calibration_error
    highest = old + limits.calibration_margin
    text = f"calibration error {new:.3f} against {old:.3f}"
    return _check("calibration", new <= highest, text, f"{highest:.3f}", at_most=True)
