"""A promotion that waits for a person, in Chromium."""

from playwright.sync_api import expect

from cifar_tasks.cli.dag_run import trigger
from cifar_tasks.deployment.airflow_api import PROMOTION_DAG
from cifar_tasks.tracking import runs
from tests.browser.conftest import keep, needs_chromium, page  # noqa: F401 – fixtures
from tests.faults.test_promotion_run import champion, ended, registered_as, wait_for_person

pytestmark = needs_chromium


def test_a_person_who_approves_the_comparison_moves_the_champion(page, keep, dag_run, connected):  # noqa: F811
    client, name = runs.mlflow_client(), "approved-in-the-browser"
    version = registered_as(client, name, dag_run.result("report")["promotion"]["version"])
    conf = {"registered_model": name, "version": version, "mode": "approve"}
    run = trigger(dag_run.client, conf, PROMOTION_DAG)
    wait_for_person(run)
    assert champion(client, name) is None
    page.goto(f"{run.url}/tasks/approve/required_actions")
    expect(page.get_by_text(f"Promote version {version} of {name}?")).to_be_visible()
    expect(page.get_by_text("is the first champion").first).to_be_visible()
    keep("airflow-approval")
    page.get_by_role("button", name="Approve", exact=True).click()
    assert ended(run).champion == champion(client, name) == version
    page.goto(run.url)
    expect(page.get_by_text("is the first champion").first).to_be_visible()  # Airflow shows the first line of a note
