"""The page "Models" inside of Airflow: what a person sees and does there, and who may see it."""

import re

import pytest
import requests
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from cifar_tasks.cli.dag_run import DagRun
from cifar_tasks.deployment.dag_ids import PROMOTION_DAG
from cifar_tasks.storage.promotion_log import read_log
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import runs
from tests.browser.conftest import needs_chromium
from tests.models_page_app import register
from tests.unit.data.sources import NoiseSource
from tests.waiting import wait_until

pytestmark = needs_chromium
NAME = "cifar10-classifier"


@pytest.fixture
def versions(dag_run: DagRun) -> dict[str, int]:
    """Network → the version that the DAG run has registered."""
    return {row["model"]: row["version"] for row in dag_run.result("report")["rows"]}


def test_the_navigation_leads_to_the_versions(page, keep, stack, versions):
    page.goto(stack.airflow_url)
    page.get_by_role("link", name="Models", exact=True).click()
    expect(page.get_by_role("heading", name=f"Versions of {NAME}")).to_be_visible()
    expect(page.get_by_role("row").filter(has_text="resnet50").first).to_be_visible()
    expect(page.locator(".cifar-badge.champion")).to_have_count(1)
    keep("airflow-models")
    expect(page.get_by_role("img", name=re.compile("^Recall per class: .*%")).first).to_be_visible()
    expect(page).to_have_url(re.compile(f"registered_model={NAME}$"))
    page.get_by_role("link", name=re.compile("^Test accuracy")).click()
    expect(page).to_have_url(re.compile("sort=accuracy"))


def test_the_filter_keeps_the_order(page, stack, connected, tmp_path):
    client = runs.mlflow_client()
    name = register(client, tmp_path, NoiseSource()).name
    page.goto(f"{stack.airflow_url}/plugin/models?registered_model={name}&sort=validation&ascending=True")
    page.get_by_label("Contains").fill("CNN")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("tbody tr")).to_have_count(2)
    expect(page).to_have_url(re.compile("sort=validation&ascending=True.*search=CNN"))
    expect(page.get_by_role("link", name="Validation ▲")).to_be_visible()
    client.delete_registered_model(name)


def test_the_address_of_two_versions_names_both_and_back_leads_to_the_page_before(page, stack, versions):
    page.goto(f"{stack.airflow_url}/plugin/models?view=history&registered_model={NAME}")
    expect(page.locator(".cifar-models h1")).to_be_visible()
    page.get_by_role("link", name="Side by side").click()
    expect(page).to_have_url(re.compile(rf"view=compare&registered_model={NAME}&a=\d+&b=\d+$"))
    expect(page.get_by_role("heading", name=re.compile("would (not )?replace version"))).to_be_visible()
    page.go_back()
    expect(page).to_have_url(re.compile("view=history"))
    expect(page.get_by_role("heading", name=f"History of {NAME}")).to_be_visible()


def test_with_the_keyboard_a_link_leads_to_the_heading_of_what_it_shows(page, stack, versions):
    page.goto(f"{stack.airflow_url}/plugin/models")
    link = page.get_by_role("link", name=re.compile("^Test accuracy"))
    link.focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("sort=accuracy"))
    expect(page.locator(".cifar-models h1")).to_be_focused()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_two_versions_side_by_side_show_verdict_charts_and_images(page, keep, stack, versions, theme):
    page.goto(stack.airflow_url)
    page.evaluate(f"localStorage.setItem('theme', '{theme}')")
    page.goto(f"{stack.airflow_url}/plugin/models?view=compare&a={versions['resnet50']}&b={versions['cnn']}")
    expect(page.get_by_role("heading", name=re.compile("would (not )?replace version"))).to_be_visible()
    expect(page.locator(".cifar-charts .main-svg").first).to_be_visible()
    expect(page.locator(".cifar-charts figure")).to_have_count(7)
    keep(f"airflow-comparison-{theme}")
    for title, cell in (("Recall per class", f"version {versions['cnn']}"), ("Difference of the two", "blue")):
        summary = page.locator("figure").filter(has_text=title).get_by_text("As a table")
        summary.focus()
        page.keyboard.press("Enter")
        table = page.get_by_role("table", name=title)
        expect(table.get_by_role("columnheader", name=cell)).to_be_visible()
        expect(table.get_by_role("rowheader", name="blue")).to_be_visible()
    assert serious_faults(page) == []
    picture = page.locator(".cifar-pictures img").first
    picture.scroll_into_view_if_needed()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 32
    page.evaluate("localStorage.removeItem('theme')")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_each_view_has_no_serious_fault_of_accessibility_and_fits_the_width_of_a_phone(page, stack, versions, theme):
    desktop = page.viewport_size
    page.evaluate(f"localStorage.setItem('theme', '{theme}')")
    for query in ("", f"?view=compare&a={versions['resnet50']}&b={versions['cnn']}", "?view=history"):
        page.goto(f"{stack.airflow_url}/plugin/models{query}")
        expect(page.locator(".cifar-models h1")).to_be_visible()
        expect(page.locator("html")).to_have_class(re.compile(theme))
        expect(page.locator(".cifar-charts figure:not(:has(.main-svg))")).to_have_count(0)
        for size in (desktop, {"width": 390, "height": 844}):
            page.set_viewport_size(size)
            assert serious_faults(page) == [], (query, size)
            assert page.locator(".cifar-models").evaluate("box => box.scrollWidth - box.clientWidth") <= 0, (
                query,
                size,
            )
        page.set_viewport_size(desktop)
    page.evaluate("localStorage.removeItem('theme')")


def serious_faults(page: Page) -> list[tuple[str, str]]:
    found = Axe().run(page, context=".cifar-models").response["violations"]
    return [(fault["id"], fault["nodes"][0]["html"]) for fault in found if fault["impact"] in ("serious", "critical")]


def test_the_tab_of_a_dag_run_shows_its_versions(page, dag_run, versions):
    page.goto(dag_run.url)
    page.get_by_role("link", name="Models of this run").click()
    expect(page.get_by_role("row").filter(has_text="resnet50")).to_have_count(1)
    page.goto(f"{page.url}?limit=25&run_after_lte=2100-01-01T00:00:00Z")  # keys of Airflow's own
    expect(page.get_by_role("row").filter(has_text="resnet50")).to_have_count(1)


def test_the_text_of_the_charts_follows_airflow_s_switch_between_light_and_dark(page, stack, versions):
    page.goto(stack.airflow_url)
    page.evaluate("localStorage.setItem('theme', 'light')")
    page.goto(f"{stack.airflow_url}/plugin/models?view=compare&a={versions['resnet50']}&b={versions['cnn']}")
    title = page.locator(".cifar-charts .gtitle").first
    expect(title).to_be_visible()
    light = title.evaluate("text => getComputedStyle(text).fill")
    page.evaluate("document.documentElement.classList.replace('light', 'dark')")
    expect(title).not_to_have_css("fill", light)
    page.evaluate("localStorage.removeItem('theme')")


def test_a_promotion_that_is_sent_twice_is_started_once_and_a_refusal_is_seen(page, stack, versions):
    page.goto(f"{stack.airflow_url}/plugin/models?view=compare&a={versions['resnet50']}&b={versions['cnn']}")
    button = page.locator("form[data-trigger] button")
    sent = []

    def refuse(route):
        sent.append(route.request.url)
        expect(button).to_be_disabled()
        route.fulfill(status=502, body="<html>Bad gateway</html>")

    page.route("**/dagRuns", refuse)
    try:
        button.dblclick()
        problem = page.get_by_role("alert")
        expect(problem).to_have_text(re.compile("was not started: the answer was 502"))
        expect(problem).to_be_in_viewport()
        expect(button).to_be_enabled()
        assert len(sent) == 1
    finally:
        page.unroute("**/dagRuns")  # the next test has the same page


def test_the_history_has_the_decision_and_a_promotion_can_be_started_from_the_page(page, stack, versions, connected):
    page.goto(f"{stack.airflow_url}/plugin/models?view=history")
    expect(page.get_by_text("is the first champion").first).to_be_visible()
    entries = len(read_log(S3Store("cifar"), NAME).entries)
    champion = read_log(S3Store("cifar"), NAME).entries[-1].champion
    other = next(version for version in versions.values() if version != champion)
    page.goto(f"{stack.airflow_url}/plugin/models?view=compare&a={other}")
    form = page.get_by_role("form", name=f"Promote version {other}")
    form.get_by_label("Mode").select_option("never")
    form.get_by_label("Reason").fill("only to see")
    form.get_by_role("button").click()
    page.wait_for_url(re.compile(f"/dags/{PROMOTION_DAG}/runs/"))
    wait_until(lambda: len(read_log(S3Store("cifar"), NAME).entries) > entries, 240)
    last = read_log(S3Store("cifar"), NAME).entries[-1]
    assert (last.action, last.candidate, last.mode, last.reason) == ("keep", other, "never", "only to see")


def test_without_a_log_in_no_route_answers(stack):
    base = f"{stack.airflow_url}/models-page"
    for path in ("page", "static/models.js", "static/plotly.min.js", "pictures/0000000000000000/1.png"):
        assert requests.get(f"{base}/{path}", timeout=30).status_code == 401, path
