"""The pages that a person opens, in Chromium: the form, the graph, the buttons, the comparison, the report.

With `PICTURES=docs/pictures` set, each page leaves its screenshot there.
"""

import re

from playwright.sync_api import expect

from cifar_tasks.deployment.dag_ids import TRAINING_DAG
from cifar_tasks.steps.report import FIGURES
from tests.browser.conftest import needs_chromium

pytestmark = needs_chromium


def test_the_form_shows_every_field_and_refuses_a_bad_value(page, keep, dag_run, stack):
    page.goto(f"{stack.airflow_url}/dags/{TRAINING_DAG}")
    page.get_by_role("button", name="Trigger Dag").click()
    for title in ("Data source", "Models", "Profile", "Registered model", "Image size", "Resize"):
        expect(page.get_by_text(re.compile(f"^{title}")).first).to_be_visible()
    keep("airflow-form")
    page.locator("input[name=element_registered_model]").fill("a/b")
    page.get_by_role("button", name="Trigger", exact=True).last.click()
    expect(page.get_by_text(re.compile("Invalid input for param registered_model"))).to_be_visible()
    page.get_by_text("Tuning (Optuna)").click()
    for title in ("Tune", "Trials", "Minutes", "Workers"):
        expect(page.get_by_text(re.compile(f"^{title}")).first).to_be_visible()
    keep("airflow-form-search")
    page.get_by_text(re.compile("^Override the recipe")).click()
    for title in ("Epochs", "Batch size", "Learning rate", "Mirror images", "Seed"):
        expect(page.get_by_text(re.compile(f"^{title}")).first).to_be_visible()


def test_the_graph_shows_the_tasks_of_both_task_groups(page, keep, dag_run):
    page.goto(dag_run.url)
    page.get_by_role("button", name=re.compile("Show Graph")).click()
    for task in ("prepare", "plan_training", "select_params", "report", "promote"):
        expect(page.locator(".react-flow__node").filter(has_text=task).first).to_be_visible()
    page.get_by_role("button", name="Expand all task groups").click()
    for task in ("create_studies", "run_trials", "train", "evaluate", "register"):
        expect(page.locator(".react-flow__node").filter(has_text=task).first).to_be_visible()
    keep("airflow-graph")
    page.get_by_role("button", name=re.compile("Show Grid")).click()


def test_a_task_s_buttons_open_its_mlflow_run_and_the_report(page, dag_run):
    page.goto(f"{dag_run.url}/tasks/report/details")
    for name, address in (("MLflow run", "mlflow_url"), ("Report", "report_url")):
        link = page.get_by_role("link", name=name, exact=True)
        expect(link).to_be_visible()
        assert link.get_attribute("href") == dag_run.result("report")[address]


def test_mlflow_sets_both_models_side_by_side(page, keep, dag_run):
    page.goto(dag_run.result("report")["compare_url"])
    expect(page.get_by_text("2 matching runs")).to_be_visible()
    for name in ("cnn", "resnet50"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible()
    expect(page.get_by_text("test_accuracy").first).to_be_attached()
    close = page.get_by_role("complementary").get_by_role("button", name=re.compile("close", re.I))
    if close.count():
        close.first.click()
    keep("mlflow-comparison")


def test_the_report_shows_table_and_figures(page, keep, dag_run):
    page.goto(dag_run.result("report")["report_url"])
    report = page.frame_locator("iframe").first
    expect(report.get_by_role("heading", name="Training report")).to_be_visible()
    for row in dag_run.result("report")["rows"]:
        expect(report.get_by_role("row").filter(has_text=f"{row['parameters']:,}")).to_be_visible()
    expect(report.get_by_role("link", name=re.compile("^study cnn-"))).to_be_visible()
    assert report.get_by_role("img").count() == 1 + 2 * len(FIGURES)  # a sample of the data, and each model's
    keep("mlflow-report")


def test_a_study_s_charts_can_be_explored_in_mlflow(page, keep, dag_run):
    study = dag_run.result("select_params")[0]["params_source"]["study_url"]
    page.goto(study.replace("?", "/artifacts/search.html?"))
    charts = page.frame_locator("iframe").first.locator(".plotly-graph-div")
    expect(charts.first).to_be_visible()
    expect(charts.nth(2)).to_be_visible()
    keep("mlflow-search")
