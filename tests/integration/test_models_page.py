"""What the page "Models" shows: versions, two of them side by side, the history."""

import re
from html import unescape
from typing import get_args

import pytest
from models_page import pages, pairs, reading
from models_page.page_state import View

from cifar_tasks.settings import Settings
from cifar_tasks.storage.promotion_log import Outcome, append, read_log
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking.saved_model import DIGEST_TAG
from tests.models_page_app import NASTY, numbers, read


def test_the_versions_stand_in_a_table_with_alias_accuracy_and_interval(page, registered):
    html = read(page, registered_model=registered.name)
    assert numbers(html) == [3, 2, 1]
    assert html.count("cifar-badge champion") == 1
    accuracy = re.search(r"([\d.]+)%\s*<span class=\"cifar-muted\">\(([\d.]+)%–([\d.]+)%\)", html)
    assert accuracy
    shown, low, high = map(float, accuracy.groups())
    assert low < shown < high or shown in (low, high)


def test_a_link_to_another_state_leads_to_the_page_also_in_another_tab(page, registered):
    for view in get_args(View):
        links = re.findall(r'<a data-state href="([^"]*)"', read(page, view=view, registered_model=registered.name))
        assert links
        assert all(link.startswith("plugin/models?") for link in links), view


def test_the_address_sorts_and_filters(page, registered):
    by_validation = {"registered_model": registered.name, "sort": "validation"}
    assert numbers(read(page, **by_validation)) == [1, 2, 3]
    assert numbers(read(page, **by_validation, ascending=True)) == [3, 2, 1]
    assert numbers(read(page, registered_model=registered.name, model="cnn")) == [2, 1]


@pytest.mark.parametrize(
    ("dag", "expected"), [("cifar10_training", [2, 1]), ("cifar10_promotion", [2, 1]), ("cifar10_rollback", [2])]
)
def test_of_a_run_the_page_shows_its_versions_and_the_champion_beside_them(page, registered, dag, expected):
    of_run = {"registered_model": registered.name, "dag_id": dag, "run_id": "run-1"}
    assert numbers(read(page, **of_run)) == expected


def test_two_versions_side_by_side_show_the_verdict_of_the_promotion_and_where_they_differ(page, registered):
    html = read(page, view="compare", registered_model=registered.name, a=1, b=2)
    assert "version 1 (cnn) would not replace version 2 (cnn)" in html
    assert html.count("data-chart=") == 6, "no curves: these versions have no run"
    pictures = re.findall(r'src="models-page(/pictures/[^"]+)"', html)
    assert pictures
    shown = page.get(pictures[0])
    assert shown.headers["content-type"] == "image/png"
    assert "immutable" in shown.headers["cache-control"]


def test_the_images_are_of_all_classes_or_of_the_one_in_the_address(monkeypatch):
    def disagreement(number: int, true: str) -> pairs.Disagreement:
        return pairs.Disagreement(number, true, (true, 0.9), ("other", 0.8), first_is_right=True)

    monkeypatch.setattr(pages, "MAX_PICTURES", 4)
    found = [disagreement(number, true) for number, true in enumerate(["ant"] * 9 + ["bee"] * 3)]
    assert [each.true for each in pages._shown(found, None)] == ["ant", "bee", "ant", "bee"]
    assert [each.image for each in pages._shown(found, "bee")] == [9, 10, 11]


def test_the_verdict_uses_the_limits_of_the_settings(page, registered, monkeypatch):
    monkeypatch.setenv("CIFAR_PROMOTION_LIMITS", '{"confidence": 0.99}')
    html = read(page, view="compare", registered_model=registered.name, a=1, b=2)
    assert "99 % interval" in html
    assert "95 % interval" not in html


def test_without_a_choice_the_newest_version_is_compared_with_the_champion(page, registered):
    html = read(page, view="compare", registered_model=registered.name)
    assert '<option value="3" selected>' in html
    assert '<option value="2" selected>' in html


def test_versions_that_cannot_be_compared_are_named_with_what_to_do(page, registered, client):
    client.create_model_version(registered.name, source="s3://models/4", tags={DIGEST_TAG: "0" * 64})
    html = read(page, view="compare", registered_model=registered.name, a=4, b=2)
    assert f"version 4 of {registered.name} was registered without an evaluation. Start the DAG" in html
    assert "has no version 9" in read(page, view="compare", registered_model=registered.name, a=9, b=2)


def test_the_history_shows_each_decision_with_its_reasons(page, registered):
    store = S3Store(Settings().bucket)
    outcome = Outcome(action="promote", candidate=2, champion=2, previous=1, challenger=None, who=NASTY)
    append(store, read_log(store, registered.name), outcome.model_copy(update={"reasons": ("better by 2 points",)}))
    html = read(page, view="history", registered_model=registered.name)
    assert "better by 2 points" in html
    assert NASTY not in html
    assert NASTY in unescape(html)
    assert 'data-trigger="cifar10_rollback"' in html


def test_the_history_has_a_new_entry_as_soon_as_the_page_reads_again(page, registered, monkeypatch):
    monkeypatch.setattr(reading, "FRESH_SECONDS", 0.0)
    store, outcome = (
        S3Store(Settings().bucket),
        Outcome(action="keep", candidate=2, champion=2, previous=1, challenger=None),
    )
    for number in (1, 2):
        append(store, read_log(store, registered.name), outcome)
        assert read(page, view="history", registered_model=registered.name).count("<li>\n    <div") == number


def test_the_library_of_the_charts_comes_from_its_wheel(page):
    response = page.get("/static/plotly.min.js")
    assert response.status_code == 200
    assert response.content == pages.plotly_bundle().read_bytes()
