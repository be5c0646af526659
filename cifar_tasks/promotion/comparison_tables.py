"""A decision as people see it in a terminal, in Markdown and on a page: figures side by side, and a verdict."""

from collections.abc import Iterable
from typing import NamedTuple

from cifar_tasks.evaluation.comparison import ClassComparison, Comparison, Interval, p_text
from cifar_tasks.evaluation.names import markdown, printable, shortened
from cifar_tasks.evaluation.scores import Scores
from cifar_tasks.promotion.checks import points
from cifar_tasks.promotion.evidence import Decision, Scored

CLASSES_SHOWN = 20
"""In a terminal and in Markdown: those that differ most. The page has all."""
NAME_LENGTH = 40
CHART_WIDTH = 41
"""Characters between the ends of the interval's chart."""


class Row(NamedTuple):
    """One figure of both models; empty where there is none."""

    name: str
    candidate: str
    champion: str = ""
    difference: str = ""


def version_name(scored: Scored) -> str:
    return f"version {scored.version} ({scored.model})"


def verdict(decision: Decision) -> str:
    """What a promotion by these limits would do, for two versions of which none need be the champion."""
    other = f"version {decision.champion.version}" if decision.champion else "nothing"
    if isinstance(decision.champion, Scored):
        other = version_name(decision.champion)
    return f"{version_name(decision.candidate)} would {'' if decision.promote else 'not '}replace {other}"


def column_names(decision: Decision, champion: Scores | None) -> tuple[str, str]:
    """Of the candidate, and of the champion if its scores are shown."""
    other = decision.champion
    return version_name(decision.candidate), version_name(other) if champion and isinstance(other, Scored) else ""


def score_rows(decision: Decision, candidate: Scores, champion: Scores | None) -> list[Row]:
    """Accuracy first. Without a champion that was evaluated on the same images, the candidate's figures alone."""
    rows = [_share("test accuracy", candidate.accuracy, champion.accuracy if champion else None)]
    comparison = decision.comparison
    if comparison:
        alone = str(comparison.only_candidate_right), str(comparison.only_champion_right)
        rows = [
            rows[0]._replace(difference=_points(comparison)),
            Row("images that only this model classifies correctly", *alone),
        ]
    new, old = candidate.calibration, champion.calibration if champion else None
    altered = champion.robustness.accuracies if champion else {}
    return [
        *rows,
        _number("loss", candidate.loss, champion.loss if champion else None),
        _number(
            "calibration error",
            new.expected_error,
            old.expected_error if old else None,
            comparison.calibration_interval if comparison else None,
        ),
        _number(
            "Brier score", new.brier, old.brier if old else None, comparison.brier_interval if comparison else None
        ),
        *(
            _share(f"accuracy on {name} images", accuracy, altered.get(name))
            for name, accuracy in candidate.robustness.accuracies.items()
        ),
        *_cost_rows(decision, candidate, champion),
    ]


def _cost_rows(decision: Decision, candidate: Scores, champion: Scores | None) -> list[Row]:
    """Without differences: the models may have been measured on different machines."""
    measured = [scores.latency for scores in (candidate, champion) if scores]
    sizes = [scored.size_mb for scored in (decision.candidate, decision.champion) if isinstance(scored, Scored)]
    return [
        Row("one image", *(f"{latency.single_ms:.2f} ms" for latency in measured)),
        Row("large batch", *(f"{latency.batch_ms:.0f} ms for {latency.batch} images" for latency in measured)),
        Row("images per second", *(f"{latency.images_per_second:,.0f}" for latency in measured)),
        Row("measured on", *(latency.hardware for latency in measured)),
        Row("size", *(f"{size:.1f} MB" if size is not None else "" for size in sizes[: len(measured)])),
    ]


def _share(name: str, new: float, old: float | None) -> Row:
    return Row(name, f"{new:.2%}", *((f"{old:.2%}", points(new - old)) if old is not None else ()))


def _number(name: str, new: float, old: float | None, interval: Interval | None = None) -> Row:
    if old is None:
        return Row(name, f"{new:.4f}")
    around = f" ({interval[0]:+.4f} to {interval[1]:+.4f})" if interval else ""
    return Row(name, f"{new:.4f}", f"{old:.4f}", f"{new - old:+.4f}{around}")


def _points(difference: Comparison | ClassComparison) -> str:
    """With its interval, and the exact p."""
    p = f"p {p_text(difference.p_value)}"
    if difference.interval:
        low, high = difference.interval
        p = f"{points(low)} to {points(high)}, {p}"
    return f"{points(difference.difference)} ({p})"


def class_rows(classes: Iterable[ClassComparison]) -> list[Row]:
    """Recalls and their difference."""
    return [
        Row(
            f"{shortened(printable(c.name), NAME_LENGTH)} ({c.images:,})",
            f"{c.candidate_recall:.1%}",
            f"{c.champion_recall:.1%}",
            _points(c),
        )
        for c in classes
    ]


def by_difference(comparison: Comparison) -> list[ClassComparison]:
    """The classes in which the models differ most first."""
    return sorted(comparison.classes, key=lambda c: (-abs(c.difference), c.name))


def interval_chart(comparison: Comparison) -> str:
    """The interval of the difference around zero, in one line of text."""
    low, high = comparison.interval
    reach = max(abs(low), abs(high), 0.001)

    def column(value: float) -> int:
        return round((value + reach) / (2 * reach) * (CHART_WIDTH - 1))

    line = [" "] * CHART_WIDTH
    line[column(low) : column(high) + 1] = "─" * (column(high) + 1 - column(low))
    line[column(0)] = "│" if line[column(0)] == " " else "┼"
    line[column(comparison.difference)] = "●"
    return f"worse {points(-reach)} {''.join(line)} {points(reach)} better"


def comparison_markdown(
    decision: Decision, candidate: Scores, champion: Scores | None = None, head: str = "", figure: str = ""
) -> str:
    """Verdict, reasons and tables. `head` takes the place of the decision's first line, `figure` (Markdown) that of
    the chart of the interval in characters."""
    first, *reasons = decision.reasons
    names, comparison = column_names(decision, champion), decision.comparison
    parts = [f"**{markdown(head or first)}**", "\n".join(f"- {markdown(reason)}" for reason in reasons)]
    if figure:
        parts.append(figure)
    elif comparison:
        parts.append(f"```\n{interval_chart(comparison)}\n```")
    parts.append(_table("measure", names, score_rows(decision, candidate, champion)))
    if comparison:
        shown = by_difference(comparison)[:CLASSES_SHOWN]
        parts.append(_table("recall of a class (images)", names, class_rows(shown)))
        if len(comparison.classes) > len(shown):
            parts.append(f"The {len(shown)} of {len(comparison.classes)} classes that differ most.")
    return "\n\n".join(part for part in parts if part)


def _table(head: str, names: tuple[str, str], rows: Iterable[Row]) -> str:
    """Without the last columns if nothing stands in them."""
    shown = [(head, *names, "difference"), *rows] if names[1] else [(head, names[0]), *(row[:2] for row in rows)]
    lines = [[markdown(cell) for cell in line] for line in shown]
    lines.insert(1, ["---", "---:", "---:", "---:"][: len(lines[0])])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
