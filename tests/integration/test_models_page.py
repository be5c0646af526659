"""What the page "Models" shows: versions, two of them side by side, the history."""

import json
import re
from html import unescape
from typing import get_args
from urllib.parse import parse_qs

import pytest
from models_page import class_recalls, pages, pairs, reading, version_table
from models_page.page_state import State, View

from cifar_tasks.evaluation.metrics import ClassScores
from cifar_tasks.settings import Settings
from cifar_tasks.storage.promotion_log import Outcome, append, read_log
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking.saved_model import DIGEST_TAG
from cifar_tasks.tracking.version_evidence import TEST_SET
from tests.models_page_app import NASTY, numbers, read, stored_evaluation


def test_the_versions_stand_in_a_table_with_alias_accuracy_and_interval(page, registered):
    html = read(page, registered_model=registered.name)
    assert numbers(html) == [3, 2, 1]
    assert html.count("cifar-badge champion") == 1
    accuracy = re.search(r"([\d.]+)%\s*<span class=\"cifar-muted\">\(([\d.]+)%–([\d.]+)%\)", html)
    assert accuracy
    shown, low, high = map(float, accuracy.groups())
    assert low < shown < high or shown in (low, high)


def test_each_version_has_bars_of_its_stored_recall_per_class_and_says_it_in_words(page, registered, client):
    html = read(page, registered_model=registered.name)
    found = re.findall(r'role="img"[^>]*><title>Recall per class: ([^<]*)</title><path d="(.*?)"', html)
    assert len(found) == 3
    for version, (words, path) in zip((3, 2, 1), found, strict=True):
        classes = stored_evaluation(client, registered.name, version).classes
        assert words == ", ".join(f"{each.name} {each.recall:.1%}" for each in classes)
        heights = [float(height) / 20 for height in re.findall("v-([\\d.]+)", path)]
        assert heights == pytest.approx([each.recall for each in classes], abs=0.005)


def test_of_many_classes_the_bars_are_those_with_the_lowest_recall():
    classes = [ClassScores(name=f"c{n}", images=n % 30, recall=n / 30, precision=0, f1=0) for n in reversed(range(30))]
    bars = class_recalls.bars(classes)
    assert bars.text.startswith("Recall per class, the lowest 20 of 29: c1 3.3%, c2 6.7%,"), "c0 has no images"
    assert bars.path.count("v-") == 20
    assert bars.lowest == "c1 3.3%"
    assert class_recalls.bars(classes[-1:]) is None


def test_a_version_whose_evaluation_cannot_be_read_has_no_bars(page, registered, client):
    store, name = S3Store(Settings().bucket), registered.name
    store.put(stored_evaluation(client, name, 1).probabilities.key.rpartition("/")[0] + "/evaluation.json", b"{")
    client.set_model_version_tag(name, "2", TEST_SET, "../../promotions")
    html = read(page, registered_model=name)
    assert numbers(html) == [3, 2, 1]
    assert html.count("cifar-bars") == 1
    assert "cifar-problem" not in html


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
    ("text", "expected"),
    [("CNN", [2, 1]), ("champ", [2]), ("3", [3]), ("onerror", [3]), ("nothing", []), ("dataset", [3, 2, 1])],
)
def test_a_text_finds_versions_by_network_alias_dataset_and_number(page, registered, client, text, expected):
    for version in "123":
        client.set_model_version_tag(registered.name, version, "cifar.dataset", "dataset")
    html = read(page, registered_model=registered.name, search=text)
    assert numbers(html) == expected
    assert ("No version matches." in html) == (not expected)
    assert "There is no version yet" not in html


def test_links_and_forms_of_the_table_keep_its_order_filter_and_run(page, registered):
    state = {"sort": "accuracy", "ascending": True, "search": "n", "dag_id": "cifar10_training", "run_id": "run-1"}
    html = read(page, registered_model=registered.name, **state)
    by_latency = re.search(r'href="plugin/models\?([^"]*sort=latency[^"]*)"', html)[1]
    assert "search=n" in by_latency
    assert "run_id=run-1" in by_latency
    form = html[html.index("<form") : html.index("</form>")]
    sent = dict(re.findall(r'<input[^>]* name="([^"]*)"[^>]* value="([^"]*)"', form))
    assert sent == {"view": "versions", **{name: str(value) for name, value in state.items()}}
    assert numbers(read(page, registered_model=registered.name, **sent)) == numbers(html)


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

    monkeypatch.setattr(pages, "PICTURES", 4)
    found = [disagreement(number, true) for number, true in enumerate(["ant"] * 9 + ["bee"] * 3)]

    def shown(**state: object) -> list[pairs.Disagreement]:
        return pages._shown(found, State(**state))["disagreements"]

    assert [each.true for each in shown()] == ["ant", "bee", "ant", "bee"]
    assert [each.image for each in shown(true_class="bee")] == [9, 10, 11]
    every = [each.image for number in (1, 2, 3) for each in shown(pictures=number)]
    assert sorted(every) == list(range(12))


def test_links_lead_to_the_next_images_and_back(page, registered, monkeypatch):
    query = {"view": "compare", "registered_model": registered.name, "a": 1, "b": 3}

    def shown(html: str) -> tuple[list[str], bool, bool]:
        images = re.findall(r"<span class=\"cifar-muted\">#(\d+)</span>", html)
        return images, "Previous images" in html, "Next images" in html

    every, *_ = shown(read(page, **query))
    assert len(every) > 2
    monkeypatch.setattr(pages, "PICTURES", len(every) - 1)
    html = read(page, **query)
    assert shown(html) == (every[:-1], False, True)
    assert f"1 to {len(every) - 1} of {len(every)}." in html
    (address,) = re.findall(r'href="plugin/models\?([^"]+)">Next images', html)
    assert shown(read(page, **parse_qs(unescape(address)))) == (every[-1:], True, False)
    assert shown(read(page, **query, pictures=99)) == (every[-1:], True, False)
    assert page.get("/page", params={**query, "pictures": 0}).status_code == 422


def test_the_verdict_uses_the_limits_of_the_settings(page, registered, monkeypatch):
    monkeypatch.setenv("CIFAR_PROMOTION_LIMITS", '{"confidence": 0.99}')
    html = read(page, view="compare", registered_model=registered.name, a=1, b=2)
    assert "99 % interval" in html
    assert "95 % interval" not in html


def test_a_link_shows_the_same_two_versions_after_a_promotion(page, registered, client):
    response = page.get("/page", params={"view": "compare", "registered_model": registered.name})
    assert selected(response.text) == [3, 2], "the newest version, and the champion"
    address = response.headers["content-location"]
    assert address == f"page?view=compare&registered_model={registered.name}&a=3&b=2"
    client.set_registered_model_alias(registered.name, "champion", "3")
    version_table.versions.clear()
    again = page.get(f"/{address}")
    assert selected(again.text) == [3, 2]
    assert "content-location" not in again.headers, "nothing is open"
    assert selected(read(page, view="compare", registered_model=registered.name)) == [2, 3]


def selected(html: str) -> list[int]:
    return [int(number) for number in re.findall(r'<option value="(\d+)" selected>', html)]


def test_the_champion_is_compared_with_the_newest_other_version(page, registered):
    assert selected(read(page, view="compare", registered_model=registered.name, a=2)) == [2, 3]


def test_the_newest_version_is_the_last_one_registered_and_not_the_last_one_changed(page, registered, client):
    client.update_model_version(registered.name, "1", "looked at again")
    assert selected(read(page, view="compare", registered_model=registered.name)) == [3, 2]


def test_beside_the_newest_version_stands_the_next_one(page, registered, client):
    assert selected(read(page, view="compare", registered_model=registered.name, b=3)) == [1, 3]
    for version in "13":
        client.delete_model_version(registered.name, version)
    version_table.versions.clear()
    alone = {"view": "compare", "registered_model": registered.name}
    for chosen in ({}, {"a": 2}, {"b": 2}):
        assert selected(read(page, **alone, **chosen)) == [2]


def test_keys_that_airflow_keeps_in_the_address_of_the_tab_of_a_run_change_nothing(page, registered):
    of_run = {"registered_model": registered.name, "dag_id": "cifar10_training", "run_id": "run-1"}
    assert read(page, **of_run, limit=25, run_after_lte="2026-01-02T03:04:05Z") == read(page, **of_run)


def test_of_a_run_without_a_version_the_page_says_so_and_shows_the_champion(page, registered):
    html = read(page, registered_model=registered.name, dag_id="cifar10_dataset", run_id="run-1")
    assert numbers(html) == [2]
    assert "The DAG run run-1 has registered no version yet. Shown is the champion." in html
    nothing = read(page, registered_model=f"new-{registered.name}", dag_id="cifar10_training", run_id="run-1")
    assert "has registered no version yet." in nothing
    assert "Shown is" not in nothing


def test_the_address_names_the_registered_model_of_the_settings(page, registered, monkeypatch):
    monkeypatch.setenv("CIFAR_REGISTERED_MODEL", registered.name)
    for view in ("versions", "history"):
        address = page.get("/page", params={"view": view}).headers["content-location"]
        assert f"registered_model={registered.name}" in address


def test_the_address_of_a_run_names_the_registered_model_beside_two_versions_only(page, registered, client):
    client.set_model_version_tag(registered.name, "1", "cifar.workflow", f"cifar10_training/of-{registered.name}")
    of_run = {"dag_id": "cifar10_training", "run_id": f"of-{registered.name}"}
    response = page.get("/page", params=of_run)
    assert numbers(response.text) == [2, 1]
    assert "content-location" not in response.headers, "the tab of another run shows the model of that run"
    address = page.get("/page", params={"view": "compare", **of_run}).headers["content-location"]
    assert f"registered_model={registered.name}&a=3&b=2" in address


def test_versions_that_cannot_be_compared_are_named_with_what_to_do(page, registered, client):
    client.create_model_version(registered.name, source="s3://models/4", tags={DIGEST_TAG: "0" * 64})
    for number, classes in ((5, ["cat", "dog"]), (6, ["ant", "bee"])):
        tags = {DIGEST_TAG: f"{number:064}", TEST_SET: f"{number:064}", "cifar.classes": json.dumps(classes)}
        client.create_model_version(registered.name, source=f"s3://models/{number}", tags=tags)
    html = read(page, view="compare", registered_model=registered.name, a=4, b=2)
    assert f"version 4 of {registered.name} was registered without an evaluation. Start the DAG" in html
    assert "has no version 9" in read(page, view="compare", registered_model=registered.name, a=9, b=2)
    html = read(page, view="compare", registered_model=registered.name, a=5, b=6)
    assert "know different classes and cannot be compared" in html


@pytest.mark.parametrize("changed", ["97.1", "nan", "-1", "a", "inf", "1e300"])
def test_numbers_that_somebody_has_changed_in_mlflow_are_left_out(page, registered, client, changed):
    for tag in ("cifar.test_accuracy", "cifar.test_images", "cifar.size_mb"):
        client.set_model_version_tag(registered.name, "2", tag, changed)
    for key in ("accuracy", "size"):
        assert sorted(numbers(read(page, registered_model=registered.name, sort=key))) == [1, 2, 3]


def test_an_evaluation_that_was_made_again_is_read_again(page, registered, client):
    store, where = S3Store(Settings().bucket), {"view": "compare", "registered_model": registered.name, "a": 1, "b": 2}
    assert "1234.0 MB" not in read(page, **where)
    stored = stored_evaluation(client, registered.name, 1)
    key = stored.probabilities.key.rpartition("/")[0] + "/evaluation.json"
    store.put(key, stored.model_copy(update={"size_mb": 1234.0}).model_dump_json().encode())
    for cached in (pairs._cached_pair, version_table.versions):
        cached.clear()
    assert "1234.0 MB" in read(page, **where)


def test_the_history_shows_each_decision_with_its_reasons(page, registered):
    store = S3Store(Settings().bucket)
    outcome = Outcome(action="promote", candidate=2, champion=2, previous=1, challenger=None, who=NASTY)
    append(store, read_log(store, registered.name), outcome.model_copy(update={"reasons": ("better by 2 points",)}))
    html = read(page, view="history", registered_model=registered.name)
    assert "better by 2 points" in html
    assert NASTY not in html
    assert NASTY in unescape(html)
    assert 'data-trigger="cifar10_rollback"' in html
    assert 'name="version" type="number" min="1" value="1"' in html, "the champion before"


def test_the_form_of_a_rollback_is_empty_without_an_earlier_champion(page, registered):
    store = S3Store(Settings().bucket)
    outcome = Outcome(action="promote", candidate=2, champion=2, previous=None, challenger=None)
    append(store, read_log(store, registered.name), outcome)
    html = read(page, view="history", registered_model=registered.name)
    assert 'name="version" type="number" min="1" value=""' in html


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


@pytest.mark.parametrize("name", ["models.js", "models.css", "plotly.min.js"])
def test_a_browser_asks_each_time_whether_a_file_has_changed_and_gets_it_once(page, name):
    first = page.get(f"/static/{name}")
    assert first.headers["Cache-Control"] == "private, no-cache"
    again = page.get(f"/static/{name}", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_the_choice_of_registered_models_has_none_that_the_page_cannot_open(page, registered, client):
    for name in ("team@model", "Zürich"):
        client.create_registered_model(f"{name}-{registered.name}")
    html = read(page, registered_model=registered.name)
    assert f"<option selected>{registered.name}</option>" in html
    assert "team@model" not in html
    assert "Zürich" not in html


@pytest.mark.parametrize("view", ["versions", "history"])
def test_the_choice_of_registered_models_has_the_one_that_is_shown_however_new_it_is(page, registered, client, view):
    """Else the form would send another one, the first of a list that was read before it was there."""
    read(page, registered_model=registered.name, view=view)
    client.create_registered_model(f"new-{view}-{registered.name}")
    shown = read(page, registered_model=f"new-{view}-{registered.name}", view=view)
    assert f"<option selected>new-{view}-{registered.name}</option>" in shown
