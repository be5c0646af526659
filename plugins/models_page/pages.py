"""The pages as HTML."""

from collections.abc import Sequence
from functools import cache
from itertools import chain, zip_longest
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_tasks.errors import ConfigError, IntegrityError
from cifar_tasks.evaluation.comparison import p_text
from cifar_tasks.evaluation.names import printable
from cifar_tasks.promotion.comparison_tables import score_rows, verdict
from cifar_tasks.promotion.limits import MODES
from cifar_tasks.settings import Settings
from cifar_tasks.tracking.runs import WORKFLOW
from models_page import class_recalls, pairs, promotion_history, trainings
from models_page import plotly_figures as charts
from models_page import version_table as registry
from models_page.page_state import State
from models_page.reading import Problems

if TYPE_CHECKING:
    from jinja2 import Environment

PICTURES = 60
"""On one page of them."""


def complete(state: State) -> State:
    """The same page, with what its address leaves open. So a link that is sent shows the same after a promotion."""
    problems = Problems()
    name = _name(state, problems)
    if state.view != "compare":
        # What a DAG run registers is known by the run: its tab keeps its address when another run is chosen there.
        return state if state.run_id else state.model_copy(update={"registered_model": name})
    found = problems.value_of(lambda: registry.versions(name), ())
    if problems or not found:
        return state
    first, second = _chosen(found, state)
    return state.model_copy(update={"registered_model": name, "a": first, "b": second})


def render(state: State) -> str:
    """HTML of one page; raises `CifarError` if it cannot be read at all."""
    return {"versions": _versions_page, "compare": _compare_page, "history": _history_page}[state.view](state)


def render_problem(state: State, problem: str) -> str:
    return _html("problem", state, problems=[problem])


def plotly_bundle() -> Path:
    """The charts' library, as its wheel brings it."""
    import plotly

    return Path(plotly.__file__).parent / "package_data" / "plotly.min.js"


def _versions_page(state: State) -> str:
    problems = Problems()
    name = _name(state, problems)
    found = problems.value_of(lambda: registry.versions(name), ())
    shown = [row for row in found if _is_wanted(row, state)]
    return _html(
        "versions",
        state,
        name=name,
        names=_names(name, problems),
        rows=registry.ordered(tuple(shown), state.sort, descending=not state.ascending),
        models=sorted({row.model for row in found}),
        total=len(found),
        registered=any(row.tags.get(WORKFLOW) == state.workflow for row in found),
        champion=_champion(found),
        recalls=problems.value_of(lambda: class_recalls.of_versions(shown), {}),
        problems=problems,
    )


def _compare_page(state: State) -> str:
    problems = Problems()
    name = _name(state, problems)
    found = problems.value_of(lambda: registry.versions(name), ())
    rows = {row.number: row for row in found}
    chosen = _chosen(found, state)
    unknown = [f"{name} has no version {number}." for number in chosen if found and number and number not in rows]
    problems += unknown
    values: dict[str, Any] = {
        "name": name,
        "chosen": chosen,
        "champion": _champion(found),
        "rows": registry.ordered(found, "version", descending=True),
        "problems": problems,
    }
    if None in chosen or unknown or not found:
        return _html("compare", state, **values)
    first, second = (rows[number] for number in chosen if number)
    limits = Settings().promotion_limits
    try:
        pair = problems.value_of(lambda: pairs.find_pair(first, second, limits.confidence), None)
    except (ConfigError, IntegrityError) as error:
        problems.append(str(error))
        pair = None
    if pair is None:
        return _html("compare", state, **values)
    decision = pairs.decision_on(
        first, second, pair, limits, problems.value_of(lambda: promotion_history.uses(pair.first.test_set.digest), 0)
    )
    return _html(
        "compare",
        state,
        **values,
        first=first,
        second=second,
        pair=pair,
        decision=decision,
        verdict=verdict(decision),
        score_rows=score_rows(decision, pair.first, pair.second),
        charts=_charts(first, second, pair, problems),
        **_shown(pair.disagreements, state),
        modes=MODES,
        differences=problems.value_of(lambda: trainings.differences(first, second), []),
    )


def _chosen(found: Sequence[registry.Version], state: State) -> tuple[int | None, int | None]:
    """Without a choice the newest version beside the champion, and never a version beside itself."""
    champion = _champion(found)
    others = [row.number for row in found if row.number not in (champion, state.b)]
    newest = others[0] if others else champion if champion != state.b else None
    first = state.a or newest
    second = newest if first == champion else champion
    return first, state.b or (None if second == first else second)


def _shown(found: Sequence[pairs.Disagreement], state: State) -> dict[str, Any]:
    """A page of the pictures, of one class, or of all classes about as many; after the last page the last one."""
    by_class: dict[str, list[pairs.Disagreement]] = {}
    for each in found:
        if state.true_class in (None, each.true):
            by_class.setdefault(each.true, []).append(each)
    ordered = [each for each in chain.from_iterable(zip_longest(*by_class.values())) if each]
    number = min(state.pictures, max(1, ceil(len(ordered) / PICTURES)))
    before, after = PICTURES * (number - 1), PICTURES * number
    return {
        "disagreements": ordered[before:after],
        "first_picture": before + 1,
        "all_pictures": len(ordered),
        "previous_pictures": number - 1 if before else None,
        "next_pictures": number + 1 if after < len(ordered) else None,
    }


def _charts(first: registry.Version, second: registry.Version, found: pairs.Pair, problems: Problems) -> list[str]:
    """Plotly figures as JSON."""
    names = f"version {first.number}", f"version {second.number}"
    one, other, classes = found.first, found.second, found.first.test_set.classes
    drawn = [
        charts.recalls((one.classes, other.classes), names),
        charts.reliability((one.calibration, other.calibration), names),
        charts.robustness(names, one.robustness.accuracies, other.robustness.accuracies),
        charts.curves(problems.value_of(lambda: trainings.curves(first, second, names), [])),
        *(charts.matrix(matrix, classes, name) for matrix, name in zip(found.matrices, names, strict=True)),
        charts.matrix(found.matrices[0] - found.matrices[1], classes, "Difference of the two", difference=True),
    ]
    return [figure for figure in drawn if figure]


def _history_page(state: State) -> str:
    problems = Problems()
    name = _name(state, problems)
    entries = problems.value_of(lambda: promotion_history.entries(name), ())
    return _html(
        "history",
        state,
        name=name,
        names=_names(name, problems),
        entries=entries,
        problems=problems,
    )


def _is_wanted(row: registry.Version, state: State) -> bool:
    """Of a run its versions, and the champion beside them."""
    of_run = state.workflow in (None, row.tags.get(WORKFLOW)) or "champion" in row.aliases
    return of_run and state.model in (None, row.model) and row.contains(state.search or "")


def _champion(found: Sequence[registry.Version]) -> int | None:
    return next((row.number for row in found if "champion" in row.aliases), None)


def _links(row: registry.Version) -> list[tuple[str, str]]:
    """Titles and addresses of what belongs to a version."""
    links = [("MLflow", row.url)]
    tags = {
        "training": "cifar.mlflow_url",
        "report": "cifar.report_url",
        "Airflow run": "cifar.airflow_url",
        "delivery": "cifar.line_url",
    }
    return links + [(title, row.tags[tag]) for title, tag in tags.items() if row.tags.get(tag)]


def _name(state: State, problems: Problems) -> str:
    of_run, workflow = None, state.workflow
    if workflow and not state.registered_model:
        of_run = problems.value_of(lambda: registry.registered_by(workflow), None)
    return state.registered_model or of_run or Settings().registered_model


def _names(name: str, problems: Problems) -> list[str]:
    """Of the form's choice: with the one that is shown, which may be newer than the list that was read."""
    return sorted({*problems.value_of(registry.registered_models, []), name})


def _html(template: str, state: State, **values: Any) -> str:
    return _environment().get_template(f"{template}.html.jinja").render(state=state, settings=Settings(), **values)


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader

    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.globals["links"] = _links
    pages.tests["web_address"] = _is_web_address
    pages.filters |= {"p_text": p_text, "printable": printable, "percent": _percent, "number": _number}
    return pages


def _is_web_address(url: str | None) -> bool:
    """Whoever may write tags in MLflow may write `javascript:` there."""
    return bool(url and url.startswith(("http://", "https://")))


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2%}"


def _number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"
