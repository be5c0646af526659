"""Names that are markup, on each view of the page "Models" in a browser: they are shown, and nothing in them runs."""

from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from mlflow import MlflowClient
from playwright.sync_api import Page, expect

from cifar_tasks.settings import Settings
from cifar_tasks.storage.promotion_log import Outcome, append, read_log
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import runs
from tests.browser.conftest import needs_chromium
from tests.models_page_app import NASTY, Registered, register
from tests.unit.data.sources import NoiseSource

pytestmark = needs_chromium
BOLD = "<b>bee</b> <a href='https://example.org'>x</a>"
WHOLE = """charts => [...charts.querySelectorAll(".ytick text")].every((label) =>
  label.getBoundingClientRect().left >= label.closest("figure").getBoundingClientRect().left)"""
TAGS = ("cifar.model", "cifar.dataset", "cifar.line", "cifar.params_source", "cifar.mlflow_url", "cifar.airflow_url")


@pytest.fixture
def nasty(connected, tmp_path) -> Iterator[Registered]:
    """Classes, tags, reasons and another registered model with markup in their names."""
    client, store = runs.mlflow_client(), S3Store(Settings().bucket)
    registered = register(client, tmp_path, NoiseSource(name="nasty", classes=(NASTY, BOLD)))
    for tag in TAGS:
        client.set_model_version_tag(registered.name, "1", tag, NASTY)
    outcome = Outcome(action="promote", candidate=1, champion=2, previous=1, challenger=None, who=NASTY, url=NASTY)
    append(store, read_log(store, registered.name), outcome.model_copy(update={"reason": NASTY, "reasons": (NASTY,)}))
    client.create_registered_model(NASTY)
    yield registered
    delete_all(client, NASTY, registered.name)


def delete_all(client: MlflowClient, *names: str) -> None:
    for name in names:
        client.delete_registered_model(name)


def test_markup_in_names_is_text_on_each_view_and_in_the_charts(page: Page, stack, nasty):
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    def show(**state: object) -> None:
        page.goto(f"{stack.airflow_url}/plugin/models?{urlencode({'registered_model': nasty.name, **state})}")
        expect(page.locator(".cifar-models").get_by_text("<img src=q").first).to_be_attached()
        expect(page.locator(".cifar-charts figure:not(:has(.main-svg))")).to_have_count(0)
        assert page.locator("[onerror], img[src=q]").count() == 0

    show()
    show(search=NASTY, model=NASTY, dag_id=NASTY, run_id=NASTY)
    show(view="history")
    show(**{NASTY: 1})
    for true_class in (NASTY, BOLD):
        show(view="compare", a=1, b=3, true_class=true_class)
    charts = page.locator(".cifar-charts")
    expect(charts.locator("text").filter(has_text="<b>bee</b> <a").first).to_be_visible()
    assert charts.evaluate(WHOLE), "no label is cut"
    for summary in charts.get_by_text("As a table").all():
        summary.click()
    for text in ("<img src=q", "<b>bee</b> <a"):
        expect(charts.locator("th").filter(has_text=text).first).to_be_visible()
    assert charts.locator("[onerror], img[src=q], th a, th b").count() == 0
    matrix = charts.locator("figure").nth(3).locator(".nsewdrag")
    matrix.scroll_into_view_if_needed()
    matrix.hover(position={"x": 40, "y": 40}, force=True)  # below Plotly's own layers; the cell of the first class
    expect(charts.locator(".hoverlayer text").filter(has_text="<img src=q").first).to_be_visible()
    assert charts.locator("svg a").count() == 0
    assert page.title() != "X"
    assert [url for url in asked if url.endswith("/q")] == []
