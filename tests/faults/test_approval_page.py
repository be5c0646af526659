"""A promotion that waits for a person, in Chromium."""

import re

import requests
from playwright.sync_api import expect

from cifar_tasks.cli.dag_run import trigger
from cifar_tasks.deployment.dag_ids import PROMOTION_DAG
from cifar_tasks.tracking import runs
from tests.browser.conftest import needs_chromium
from tests.faults.test_promotion_run import champion, ended, last_entry, registered_as, wait_for_person

pytestmark = needs_chromium


def test_a_person_sees_the_comparison_with_its_figure_and_the_approval_moves_the_champion(
    page, keep, dag_run, connected
):
    client, name = runs.mlflow_client(), "approved-in-the-browser"
    rows = sorted(dag_run.result("report")["rows"], key=lambda row: row["test_accuracy"])
    worse, better = (registered_as(client, name, row["version"]) for row in (rows[0], rows[-1]))
    forced = {"registered_model": name, "version": worse, "mode": "force", "reason": "to be replaced"}
    assert ended(trigger(dag_run.client, forced, PROMOTION_DAG)).champion == worse
    conf = {"registered_model": name, "version": better, "mode": "approve"}
    run = trigger(dag_run.client, conf, PROMOTION_DAG)
    wait_for_person(run)
    assert champion(client, name) == worse
    comparison = run.result("propose")["comparison_url"]
    size = page.viewport_size
    for theme in ("light", "dark"):
        page.evaluate(f"localStorage.setItem('theme', '{theme}')")
        for width in (1440, 390):
            page.set_viewport_size({"width": width, "height": 900})
            page.goto(f"{run.url}/tasks/approve/required_actions")
            expect(page.get_by_text(f"Promote version {better} of {name}?")).to_be_visible()
            expect(page.get_by_text("replaces the champion").first).to_be_visible()
            figure = page.get_by_role("img", name=re.compile("Accuracy of the versions with intervals"))
            figure.scroll_into_view_if_needed()
            assert figure.evaluate("image => image.decode().then(() => image.naturalWidth)") == 900
            box = figure.bounding_box()
            assert 250 <= box["width"] <= 300
            assert 0 <= box["x"] <= box["x"] + box["width"] <= width, "the whole figure is on the screen"
            shown = page.get_by_role("table").first
            expect(shown).to_contain_text("test accuracy")
            expect(shown).to_contain_text(f"version {better}")
            expect(page.get_by_role("link", name="The whole comparison")).to_have_attribute("href", comparison)
            keep(f"airflow-approval-{theme}-{width}")
    page.evaluate("localStorage.removeItem('theme')")
    page.set_viewport_size(size)
    with page.context.expect_page() as opened:
        figure.click()
    address = opened.value.url
    opened.value.close()
    assert address == figure.evaluate("image => image.src")
    assert requests.get(address, timeout=60).status_code == 401, "without a log-in"
    page.goto(f"{run.url}/tasks/approve/required_actions")
    page.locator("input[name=element_answer_reason]").fill("as good as its figures")
    page.get_by_role("button", name="Approve", exact=True).click()
    assert ended(run).champion == champion(client, name) == better
    assert last_entry(name).answer_reason == "as good as its figures"
    page.goto(run.url)
    expect(page.get_by_text("replaces the champion").first).to_be_visible()  # Airflow shows the first line of a note
