"""The report page and the description of the parent run show names as text."""

from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cifar_tasks.data.versions import DatasetVersion
from cifar_tasks.evaluation.names import printable
from cifar_tasks.steps import register, report
from cifar_tasks.steps.payloads import EvaluatedModel, RegisteredModel, TrainedModel, TrainPlan
from cifar_tasks.steps.plan import plan_training
from cifar_tasks.tracking import runs
from cifar_tasks.tracking.saved_model import SavedModel
from tests.names import NASTY_NAMES
from tests.predictions import labels_of, probabilities_of, scores_of
from tests.unit.cli.test_summary import REPORT, ROW

PIXEL = "data:image/png;base64,AAAA"


def version(name: str) -> DatasetVersion:
    counts = {split: {name: 3, "other": 2} for split in ("train", "validation", "test")}
    warnings = (f"class {name} has few images",)
    return DatasetVersion("s3://b/m", "0" * 64, name, (name, "other"), counts, 32, "crop", False, warnings)


class Page(HTMLParser):
    """Tags with their attributes, and the text outside of the style sheet."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(name: str) -> Page:
    model = {"name": "cnn", "params_source": None, "figures": [("Curves", PIXEL)], "table": printable(name)}
    summary = REPORT.model_copy(update={"reasons": [name], "banner": name})
    return Page(report.render(summary, version(name), [model], PIXEL))


@pytest.mark.parametrize("name", [name for name in NASTY_NAMES if name])
def test_a_name_is_text_wherever_the_page_shows_it(name: str) -> None:
    page, plain = page_of(name), page_of("plain")
    assert page.tags == plain.tags
    assert page.text.count(printable(name)) >= 5  # title, banner, data, reason, warning


def test_each_address_stands_in_the_text_because_a_sandboxed_viewer_opens_no_links() -> None:
    page = page_of("plain")
    links = [attributes for tag, attributes in page.tags if tag == "a"]
    for url in (REPORT.airflow_url, REPORT.mlflow_url, REPORT.compare_url, ROW.mlflow_url, ROW.registry_url):
        assert url in page.text
    assert all(link["href"] for link in links)
    # Without a new window the frame itself would go there, and stay blank.
    assert all(link["target"] == "_blank" for link in links)


def test_the_page_names_a_model_that_was_skipped_and_does_without_a_sample_that_is_gone() -> None:
    summary = REPORT.model_copy(update={"notes": ["resnet50 is not trained: no weights"]})
    page = Page(report.render(summary, version("plain"), [], sample=""))
    assert "resnet50 is not trained: no weights" in page.text
    assert "img" not in dict(page.tags)


@pytest.mark.parametrize("name", NASTY_NAMES)
def test_the_description_of_the_parent_run_has_the_table_and_the_links(name: str) -> None:
    text = report.describe(
        REPORT.model_copy(update={"reasons": [name], "banner": None}), version(name), {"Airflow run": "https://airflow"}
    )
    assert f"| [cnn]({ROW.mlflow_url}) | 64.65% | 67.12% | [2]({ROW.registry_url}) | yes |" in text
    assert f"[Report]({REPORT.report_url})" in text
    assert "[Airflow run](https://airflow)" in text
    assert name not in text or name == printable(name)
    assert len(text.splitlines()) == 9


def model(version: int, validation: float, test: float, parameters: int, name: str = "cnn") -> SimpleNamespace:
    plan = SimpleNamespace(config=SimpleNamespace(model=name))
    trained = SimpleNamespace(validation_accuracy=validation, parameters=parameters, plan=plan)
    return SimpleNamespace(version=version, evaluated=SimpleNamespace(trained=trained, test_accuracy=test))


@pytest.mark.parametrize(
    ("models", "chosen"),
    [
        ([model(1, 0.9, 0.8, 5), model(2, 0.8, 0.9, 1)], 1),
        ([model(1, 0.9, 0.8, 5), model(2, 0.9, 0.9, 1)], 2),
        ([model(2, 0.9, 0.9, 5), model(1, 0.9, 0.8, 5)], 1),
    ],
    ids=["better on validation", "smaller of equals", "older of equals"],
)
def test_the_candidate_is_chosen_on_validation_and_not_on_test_images(models, chosen) -> None:
    assert report.choose_candidate(models).version == chosen


def test_the_reason_names_all_models_the_best_one_first() -> None:
    models = [model(1, 0.8, 0.9, 5), model(2, 0.9, 0.8, 5, "resnet50"), model(3, 0.85, 0.8, 5, "timm/resnet18")]
    assert report._ranking(models) == (
        "validation accuracy: resnet50 90.00% (version 2), timm/resnet18 85.00% (version 3), cnn 80.00% (version 1); "
        "version 2 is the candidate"
    )


def test_a_figure_stands_in_the_page_itself_and_one_that_was_deleted_is_left_out(services: Any) -> None:
    run = services.client.create_run(services.experiment).info.run_id
    services.client.log_text(run, "pixels", "evaluation/reliability.png")
    assert report._image(services.client, run, "evaluation/reliability.png") == "data:image/png;base64,cGl4ZWxz"
    assert report._image(services.client, run, "evaluation/confusion_matrix.png") == ""


def test_one_model_of_the_run_is_the_candidate_and_is_promoted(services: Any) -> None:
    plans = plan_training(services.prepared(models=["cnn", "efficientnet_lite0"], promotion="approve"))
    done = report.report(registered_of(services, plans), plans)
    assert [(row.model, row.candidate) for row in done.rows] == [("cnn", False), ("efficientnet_lite0", True)]
    assert (done.promotion.version, done.promotion.mode, done.notes) == (2, "approve", [])
    metrics = services.client.get_run(plans[0].data.parent_run_id).data.metrics
    assert metrics == pytest.approx(
        {"accuracy": 0.2, "test_accuracy": 0.2, "cnn_test_accuracy": 0.3, "efficientnet_lite0_test_accuracy": 0.2}
    )


def test_a_search_that_has_found_nothing_is_told_wherever_the_run_is_shown(services: Any) -> None:
    # given
    why = "cnn is trained without tuning: there was no time"
    plans = [plan.model_copy(update={"search_warning": why}) for plan in plan_training(services.prepared())]
    # when
    done = report.report(registered_of(services, plans), plans)
    # then
    assert (done.notes, done.warnings[0]) == ([why], why)
    parent = plans[0].data.parent_run_id
    assert f"**Warning:** {why}" in services.client.get_run(parent).data.tags[runs.NOTE]
    assert why in Path(services.client.download_artifacts(parent, runs.REPORT_PAGE)).read_text()


def test_the_description_of_a_version_tells_of_a_search_that_has_found_nothing(services: Any) -> None:
    # given
    why, labels = "cnn is trained without tuning: there was no time", labels_of(100, 2)
    plans = [plan.model_copy(update={"search_warning": why}) for plan in plan_training(services.prepared())]
    (registered,) = registered_of(services, plans)
    scores = scores_of(probabilities_of(labels, 2, range(9)), labels, ("ant", "bee"))
    # when
    text = register.describe(registered.evaluated, SimpleNamespace(**dict(scores), size_mb=9.3), version("plain"))
    # then
    assert text.startswith(f"**Warning:** {why}")
    assert "Hyperparameters: recipe." in text


def registered_of(services: Any, plans: list[TrainPlan]) -> list[RegisteredModel]:
    """A version for each plan, the last one the best."""
    registered = []
    for number, (plan, validation) in enumerate(zip(plans, (0.6, 0.7), strict=False), start=1):
        run = services.client.create_run(services.experiment).info.run_id
        fields = {"run_id": run, "mlflow_url": run, "prefix": "", "saved": SavedModel("models:/m-1", "0" * 64)}
        fields |= {"initial_weights": "random", "parameters": 5, "epochs": 2, "config_sha256": "", "code_sha256": ""}
        trained = TrainedModel(plan=plan, validation_accuracy=validation, validation_images=10, **fields)
        evaluated = EvaluatedModel(
            trained=trained, mlflow_url=run, test_set="", test_loss=1, test_accuracy=0.9 - validation
        )
        registered.append(RegisteredModel(evaluated=evaluated, mlflow_url=run, name="mine", version=number))
    return registered
