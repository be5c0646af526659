"""The whole way of a person through Airflow and the page "Models", in Chromium: from the form to the rollback."""

import re
import zipfile
from pathlib import Path
from urllib.parse import quote_plus

import numpy as np
import pytest
from airflow_client.client import ApiClient
from airflow_client.client.api.event_log_api import EventLogApi
from playwright.sync_api import Page, expect

from cifar_tasks.cli.dag_run import DagRun
from cifar_tasks.deployment.dag_ids import PROMOTION_DAG, ROLLBACK_DAG, TRAINING_DAG
from cifar_tasks.deployment.stack import AIRFLOW_USER
from cifar_tasks.storage.promotion_log import Entry, read_log
from cifar_tasks.storage.s3 import S3Store
from tests.browser.conftest import needs_chromium
from tests.conftest import COLOURS, picture
from tests.faults.test_promotion_run import wait_for_person
from tests.waiting import wait_for_success, wait_until

pytestmark = [needs_chromium, pytest.mark.timeout(1200)]
NAME = "by-forms"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Every other image is grey noise of any class, which two models never classify alike."""
    path, random = tmp_path / "half-noise.zip", np.random.default_rng(1)
    with zipfile.ZipFile(path, "w") as archive:
        for name, colour in COLOURS.items():
            for split, count in (("train", 60), ("test", 40)):
                for number in range(count):
                    shown = picture(colour if number % 2 else (128, 128, 128), random)
                    archive.writestr(f"{split}/{name}/{number:04}.png", shown)
    return path


def test_from_the_form_over_a_running_task_and_an_approval_to_a_rollback(
    page, keep, stack, airflow, connected, pictures
):
    run = start_training(page, airflow, f"{stack.airflow_url}/dags/{TRAINING_DAG}", pictures)
    follow_link_of_running_task(page, run)
    wait_for_success(run, 480)
    candidate = run.result("report")["promotion"]["version"]
    other = next(row["version"] for row in run.result("report")["rows"] if row["version"] != candidate)

    approve(page, DagRun(airflow, run.run_id, PROMOTION_DAG), candidate)
    models = f"{stack.airflow_url}/plugin/models?registered_model={NAME}"
    look_at_an_image_on_which_they_differ(page, f"{models}&view=compare&a={other}&b={candidate}")
    keep("forms-comparison")

    force_and_roll_back(page, models, candidate, other)
    keep("forms-timeline")
    for dag in (PROMOTION_DAG, ROLLBACK_DAG):
        assert AIRFLOW_USER in starters(airflow, dag)


def start_training(page: Page, airflow, dag: str, pictures: Path) -> DagRun:
    """By the form of the DAG; asks a person about the promotion."""
    page.goto(dag)
    page.get_by_role("button", name="Trigger Dag").click()
    page.locator("input[name=element_source]").fill(str(pictures))
    page.locator("input[name=element_registered_model]").fill(NAME)
    choose(page, "promotion", "approve")
    page.get_by_text(re.compile("^Override the recipe")).click()
    page.locator("#element_epochs input, input[name=element_epochs]").first.fill("2")
    choose(page, "pretrained", "none")
    page.get_by_role("button", name="Trigger", exact=True).last.click()
    page.wait_for_url(re.compile(f"/dags/{TRAINING_DAG}/runs/"))
    return DagRun(airflow, re.search("/runs/([^/?]+)", page.url)[1].replace("%3A", ":").replace("%2B", "+"))


def starters(airflow: ApiClient, dag: str) -> set[str]:
    """Who has started runs of this DAG, by Airflow's audit log."""
    found = EventLogApi(airflow).get_event_logs(dag_id=dag, event="trigger_dag_run").event_logs
    return {str(entry.owner) for entry in found}


def choose(page: Page, field: str, value: str) -> None:
    """In a field of the form that has choices."""
    page.locator(f"#element_{field}").click()
    page.get_by_role("option", name=value, exact=True).click()


def follow_link_of_running_task(page: Page, run: DagRun) -> None:
    """From a training to MLflow, whose run leads back."""

    def is_training() -> bool:
        return any(
            task.task_id == "model.train" and str(task.state.value) == "running" for task in run.tasks() if task.state
        )

    wait_until(is_training, 300)
    page.goto(f"{run.url}/tasks/model.train/mapped/0/details")
    link = page.get_by_role("link", name="MLflow run", exact=True)
    expect(link).to_be_visible()
    own = re.compile(f"/plugin/models\\?dag_id={TRAINING_DAG}&run_id={re.escape(quote_plus(run.run_id))}$")
    expect(page.get_by_role("link", name="Comparison", exact=True)).to_have_attribute("href", own)
    assert is_training()
    with page.context.expect_page() as opened:
        link.click()
    expect(opened.value.get_by_role("link", name="Airflow run")).to_have_attribute("href", run.url)
    opened.value.close()


def approve(page: Page, promotion: DagRun, version: int) -> None:
    wait_for_person(promotion)
    page.goto(f"{promotion.url}/tasks/approve/required_actions")
    expect(page.get_by_text(f"Promote version {version} of {NAME}?")).to_be_visible()
    page.get_by_role("button", name="Approve", exact=True).click()
    wait_for_success(promotion, 240)
    assert last_entry().champion == version


def look_at_an_image_on_which_they_differ(page: Page, comparison: str) -> None:
    page.goto(comparison)
    expect(page.get_by_role("heading", name=re.compile("would (not )?replace version"))).to_be_visible()
    expect(page.locator(".cifar-charts .main-svg").first).to_be_visible()
    shown = page.locator(".cifar-pictures li").first
    shown.scroll_into_view_if_needed()
    assert shown.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 32
    answers = [text.split()[1] for text in shown.locator("div").all_inner_texts() if text[:2] in ("A:", "B:")]
    assert len(set(answers)) == 2, "both answers, of which one is right"


def force_and_roll_back(page: Page, models: str, candidate: int, other: int) -> None:
    """By the forms of the page; the timeline has both, and the approval before."""
    form = page.get_by_role("form", name=f"Promote version {other}")
    form.get_by_label("Mode").select_option("force")
    form.get_by_label("Reason").fill("to roll it back")
    form.get_by_role("button").click()
    page.wait_for_url(re.compile(f"/dags/{PROMOTION_DAG}/runs/"))
    wait_until(lambda: last_entry().champion == other, 240)

    page.goto(f"{models}&view=history")
    form = page.get_by_role("form", name="Roll back")
    form.get_by_label("Reason").fill("it was only a test")
    form.get_by_role("button").click()
    page.wait_for_url(re.compile(f"/dags/{ROLLBACK_DAG}/runs/"))
    wait_until(lambda: last_entry().action == "rollback", 240)
    assert last_entry().champion == candidate

    page.goto(f"{models}&view=history")
    decided = page.locator(".cifar-timeline > li")
    expect(decided).to_have_count(3)
    for entry, texts in enumerate((("Rolled back", "it was only a test"), ("Promoted", "force"), ("Promoted",))):
        for text in texts:
            expect(decided.nth(entry).get_by_text(text).first).to_be_visible()


def last_entry() -> Entry:
    entry = read_log(S3Store("cifar"), NAME).last
    assert entry is not None
    return entry
