"""The comparison as a terminal, Markdown and a page show it."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from cifar_tasks.evaluation.comparison import Comparison, compare
from cifar_tasks.promotion.comparison_tables import (
    CLASSES_SHOWN,
    by_difference,
    class_rows,
    comparison_markdown,
    interval_chart,
    score_rows,
    verdict,
)
from cifar_tasks.promotion.decision import decide
from cifar_tasks.promotion.evidence import Decision, Unscored
from cifar_tasks.promotion.limits import Limits
from cifar_tasks.promotion.page import comparison_page
from tests.names import NASTY_NAMES
from tests.predictions import labels_of, probabilities_of, scores_of
from tests.unit.promotion.test_decision import BETTER, CANDIDATE, CHAMPION, CLASSES, EQUAL, LABELS, changed, decided

SCORES, OTHER = (scores_of(probabilities_of(LABELS, 2, range(wrong)), LABELS, CLASSES) for wrong in (100, 200))


def of_names(names: tuple[str, ...], images: int = 4_000):
    """A decision about models for these classes, and their scores; one class of the candidate is worse."""
    labels = labels_of(images, len(names))
    wrong = np.flatnonzero(labels == 0)
    candidate, champion = probabilities_of(labels, len(names), wrong), probabilities_of(labels, len(names), wrong + 1)
    scores = [scores_of(probabilities, labels, names) for probabilities in (candidate, champion)]
    scored = [changed(version, classes=names) for version in (CANDIDATE, CHAMPION)]
    return decide(*scored, compare(candidate, champion, labels, names), Limits(), "auto"), *scores


class Tags(HTMLParser):
    """Names, attributes and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href") and value]

    def handle_data(self, data):
        self.text += data


def test_measures_stand_side_by_side_with_their_difference():
    rows = {row.name: row[1:] for row in score_rows(decided(), SCORES, OTHER)}
    assert rows["test accuracy"][:2] == ("90.00%", "80.00%")
    assert re.fullmatch(r"\+10\.00 \(\+8\.\d+ to \+1\d\.\d+, p 1\.6e-30\)", rows["test accuracy"][2])
    assert rows["images that only this model classifies correctly"] == ("100", "0", "")
    assert rows["accuracy on noisy images"] == ("45.00%", "40.00%", "+5.00")
    assert rows["one image"] == ("2.50 ms", "2.50 ms", "")
    assert rows["size"] == ("9.3 MB", "9.3 MB", "")


def test_without_scores_of_a_champion_the_candidate_stands_alone():
    for champion in (None, Unscored(version=3, reason="it was deleted.", gone=True)):
        decision = decided(None, champion=champion)
        assert all(row.champion == row.difference == "" for row in score_rows(decision, SCORES, None))
        assert "calibration error" in comparison_markdown(decision, SCORES)
        page = Tags(comparison_page(decision, SCORES))
        assert decision.reasons[0] in page.text
        assert "svg" in page.tags


def test_the_classes_that_differ_most_stand_first():
    decision, *_ = of_names(tuple("abcdef"))
    rows = class_rows(by_difference(decision.comparison))
    assert [row.name[0] for row in rows[:2]] == ["a", "b"]
    assert rows[0].candidate == "0.0%"
    assert rows[0].difference.startswith("-100.00 (-100.00 to -100.00, p ")
    assert [row.name for row in rows[2:]] == [f"{name} ({667 if name < 'e' else 666})" for name in "cdef"]


def test_a_decision_from_before_intervals_were_computed_for_all_figures_is_shown_without_them():
    decision, candidate, champion = of_names(("a", "b"))
    before = decision.comparison.model_dump(exclude={"calibration_interval", "brier_interval"})
    for each in before["classes"]:
        del each["interval"]
    old = decision.model_copy(update={"comparison": Comparison.model_validate(before)})
    shown, now = (
        {row.name: row.difference for row in score_rows(each, candidate, champion)} for each in (old, decision)
    )
    for name in ("calibration error", "Brier score"):
        assert " to " not in shown[name]
        assert now[name].startswith(f"{shown[name]} (")
    assert class_rows(old.comparison.classes)[0].difference.startswith("-100.00 (p ")


def test_the_verdict_says_what_a_promotion_would_do():
    assert verdict(decided()) == "version 4 (cnn) would replace version 3 (resnet50)"
    assert verdict(decided(EQUAL)) == "version 4 (cnn) would not replace version 3 (resnet50)"


@pytest.mark.parametrize(
    "comparison", [BETTER, EQUAL, BETTER.model_copy(update={"interval": (0.0, 0.0), "difference": 0})]
)
def test_the_chart_shows_zero_and_the_difference_between_the_ends_of_its_interval(comparison):
    chart = interval_chart(comparison)
    line = re.fullmatch(r"worse -[\d.]+ (.+) \+[\d.]+ better", chart)[1]
    assert len(line) == 41
    assert line.count("●") == 1
    left, right = line.index("●"), 41 - line.index("●")
    assert (left > 20) == (comparison.difference > 0)
    assert left + right == 41


def test_markdown_has_the_reasons_and_tables_of_a_decision():
    decision = decided(mode="approve")
    text = comparison_markdown(decision, SCORES, OTHER)
    assert text.startswith("**version 4 (cnn) replaces the champion version 3 (resnet50)**")
    assert "- mode approve: a person decides" in text
    assert "| measure | version 4 (cnn) | version 3 (resnet50) | difference |\n| --- | ---: | ---: | ---: |" in text
    assert "| cat (500) | 90.0% | 80.0% | +10.00" in text
    assert comparison_markdown(decision, SCORES, OTHER, head="as I say").startswith("**as I say**")


def test_of_many_classes_markdown_shows_some_and_the_page_all():
    names = tuple(f"class {number:03}" for number in range(200))
    decision, *scores = of_names(names)
    text = comparison_markdown(decision, *scores)
    assert text.count("| class ") == CLASSES_SHOWN
    assert "The 20 of 200 classes that differ most." in text
    page = Tags(comparison_page(decision, *scores))
    assert all(f"{name} (20)" in page.text for name in names)


def test_names_of_any_kind_are_text_on_the_page_and_in_markdown():
    plain, *scores = of_names(tuple(f"name {number}" for number in range(len(NASTY_NAMES))))
    expected = Tags(comparison_page(plain, *scores)).tags
    decision, *scores = of_names(tuple(NASTY_NAMES))
    page = Tags(comparison_page(decision, *scores, title=NASTY_NAMES[0], links=[(NASTY_NAMES[1], "http://a/b")]))
    assert [tag for tag in page.tags if tag in ("script", "img", "b", "i")] == []
    assert sorted(set(page.tags) - {"dl", "dt", "dd", "a"}) == sorted(set(expected))
    text = comparison_markdown(decision, *scores)
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in tables} == {5}
    assert "<" not in text


def test_the_page_needs_no_other_file():
    page = Tags(comparison_page(decided(), SCORES, OTHER, links=[("Version 4", "http://127.0.0.1:5000/#/models")]))
    assert page.addresses == ["http://127.0.0.1:5000/#/models"]
    assert "script" not in page.tags


def test_the_page_marks_the_classes_that_are_worse():
    decision, *scores = of_names(tuple("abcdef"))
    page = comparison_page(decision, *scores)
    assert page.count('<tr class="worse">') == 1
    assert "failed: significantly worse by more than 3 points: a 0.0% against 100.0%" in page


def test_the_page_of_a_decision_from_the_log_is_the_same():
    decision = decided()
    again = Decision.model_validate_json(decision.model_dump_json())
    assert comparison_page(again, SCORES, OTHER) == comparison_page(decision, SCORES, OTHER)
