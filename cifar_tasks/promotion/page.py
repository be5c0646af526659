"""The comparison as one page that needs no other file, and so can be mailed."""

from collections.abc import Sequence

from cifar_tasks.evaluation.page_templates import page_template
from cifar_tasks.evaluation.scores import Scores
from cifar_tasks.promotion.checks import points, worse_classes
from cifar_tasks.promotion.comparison_tables import by_difference, class_rows, column_names, score_rows
from cifar_tasks.promotion.evidence import Decision


def comparison_page(
    decision: Decision,
    candidate: Scores,
    champion: Scores | None = None,
    *,
    title: str = "Comparison of two models",
    head: str = "",
    links: Sequence[tuple[str, str]] = (),
) -> str:
    """HTML. `champion` are the scores on the same test images, if there are any; `head` takes the place of the
    decision's first line; `links` are titles and addresses."""
    names, comparison = column_names(decision, champion), decision.comparison
    ordered = by_difference(comparison) if comparison else []
    return page_template("cifar_tasks.promotion", "comparison.html.jinja").render(
        decision=decision,
        comparison=comparison,
        title=title,
        head=head or decision.reasons[0],
        names=names,
        scores=score_rows(decision, candidate, champion),
        classes=list(zip(class_rows(ordered), ordered, strict=True)),
        worse=worse_classes(comparison, decision.limits) if comparison else [],
        widest=max((abs(c.difference) for c in ordered), default=0) or 1,
        reach=max(map(abs, comparison.interval)) or 0.001 if comparison else 1,
        points=points,
        sides=[(name, side) for name, side in zip(names, (candidate, champion), strict=True) if side],
        links=links,
    )
