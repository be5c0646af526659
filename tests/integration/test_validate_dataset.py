"""Validation of a line's version on real services: the report in S3 and MLflow, quarantine, release and rejection."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from cifar_tasks.data.lines.line_log import read_line_log
from cifar_tasks.settings import Settings
from cifar_tasks.steps.dataset_line import accept_version, prepare_version
from cifar_tasks.steps.line_payloads import ValidatedLine, Verdict
from cifar_tasks.steps.payloads import WorkflowRun
from cifar_tasks.steps.validate_dataset import quarantine_version, record_verdict, validate_dataset
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking.airflow_links import DAG_RUN
from cifar_tasks.tracking.approval_figures import read_figure
from cifar_tasks.tracking.runs import NOTE
from tests.conftest import connect
from tests.dataset_lines import deliver, first_delivery, picture

AT = datetime(2026, 1, 2, tzinfo=UTC)
LINE = "validated-line"


def workflow(number: int) -> WorkflowRun:
    return WorkflowRun(id=f"cifar10_dataset/{number}", name=str(number), url="http://localhost/run")


@pytest.fixture(scope="module")
def waiting(backend, tmp_path_factory) -> tuple[ValidatedLine, str]:
    """A line with a version in use, grey images in its source since, and that version quarantined; its settings."""
    root = first_delivery(tmp_path_factory.mktemp("line") / "source")
    lines = json.dumps({LINE: {"source": str(root), "settle_seconds": 0}})
    with pytest.MonkeyPatch.context() as patch:
        connect(patch, {**backend.environment, "CIFAR_DATASET_LINES": lines})
        first = validate_dataset(prepare_version(LINE), workflow(1))
        assert first.passed
        assert "![" not in first.markdown, "nobody is asked"
        accept_version(first.prepared, workflow(1))
        for number in range(10):
            deliver(root, f"train/bee/grey{number}.png", picture(900 + number).convert("L"))
        validated = validate_dataset(prepare_version(LINE), workflow(2))
        assert not validated.passed
        quarantine_version(validated, workflow(2))
    return validated, lines


@pytest.fixture
def quarantined(waiting, tracked, monkeypatch) -> Iterator[ValidatedLine]:
    """As nobody has answered yet."""
    validated, lines = waiting
    monkeypatch.setenv("CIFAR_DATASET_LINES", lines)
    store = S3Store(Settings().bucket)
    before = set(store.keys(f"lines/{LINE}/"))
    yield validated
    for key in set(store.keys(f"lines/{LINE}/")) - before:
        store.delete(key)


def kinds() -> list[str]:
    return [entry.kind for entry in read_line_log(S3Store(Settings().bucket), LINE).entries]


def test_a_version_that_fails_is_quarantined_with_a_report_in_s3_and_mlflow(client, quarantined):
    store, digest = S3Store(Settings().bucket), quarantined.prepared.dataset.digest
    assert any(reason.startswith("grey images: ") for reason in quarantined.reasons)
    assert "**failed** | grey images" in quarantined.markdown
    figure = re.search(r"\(models-page/figures/(\w+)\.png\)", quarantined.markdown)[1]
    assert read_figure(store, figure).startswith(b"\x89PNG")
    report = json.loads(store.get(f"lines/{LINE}/reports/{digest[:16]}.json"))
    page = store.get(f"lines/{LINE}/reports/{digest[:16]}.html").decode()
    assert report["reasons"] == quarantined.reasons
    assert page.count("data:image/png") >= 10
    (run,) = client.search_runs(
        [client.get_experiment_by_name(f"{Settings().experiment}-lines").experiment_id],
        f"tags.`cifar.line` = '{LINE}' AND tags.`cifar.quality` = 'failed'",
    )
    assert (run.data.tags["cifar.dataset"], run.info.status) == (digest, "FINISHED")
    assert run.data.metrics["grey images"] > 0.9
    assert run.data.tags[DAG_RUN] == "http://localhost/run"
    assert "[Airflow run](http://localhost/run)" in run.data.tags[NOTE]
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"report.html", "report.json"}
    assert run.info.run_id in quarantined.report_url
    entry = read_line_log(store, LINE).last
    assert (entry.kind, list(entry.reasons), entry.url) == ("quarantined", quarantined.reasons, quarantined.report_url)
    assert read_line_log(store, LINE).in_use() == quarantined.prepared.in_use


def test_a_retry_makes_no_second_report_and_no_second_entry(client, quarantined):
    again = validate_dataset(quarantined.prepared, workflow(2))
    quarantine_version(again, workflow(2))
    assert again == quarantined
    assert kinds() == ["accepted", "quarantined"]


@pytest.mark.parametrize(("release", "kind"), [(True, "released"), (False, "rejected")])
def test_the_answer_in_airflow_is_entered_once(quarantined, release, kind):
    verdict = Verdict(release=release, by="ada", reason="", at=AT)
    recorded = record_verdict(quarantined, verdict, workflow(2))
    assert record_verdict(quarantined, verdict, workflow(2)) == recorded
    assert kinds() == ["accepted", "quarantined", kind]
    last = read_line_log(S3Store(Settings().bucket), LINE).last
    assert (last.by, last.reason) == ("ada", "answered in Airflow by ada")


def test_without_an_answer_the_version_stays_quarantined(quarantined):
    recorded = record_verdict(quarantined, Verdict(release=False, by=None, at=AT), workflow(2))
    assert (recorded.kind, kinds()) == ("quarantined", ["accepted", "quarantined"])


def test_an_answer_after_another_decision_changes_nothing(quarantined):
    record_verdict(quarantined, Verdict(release=False, by="ada", at=AT), workflow(3))
    recorded = record_verdict(quarantined, Verdict(release=True, by="bob", at=AT), workflow(2))
    assert (recorded.kind, kinds()) == ("rejected", ["accepted", "quarantined", "rejected"])
