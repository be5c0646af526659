"""The table and the links at the end of a run."""

import io

from rich.console import Console

from cifar_tasks.cli.summary import print_summary
from cifar_tasks.promotion.limits import Limits
from cifar_tasks.steps.promotion_payloads import Promotion, PromotionRequest
from cifar_tasks.steps.report_payloads import ReportRow, RunReport

ROW = ReportRow(
    model="cnn",
    parameters=2_429_270,
    epochs=4,
    validation_accuracy=0.6465,
    test_accuracy=0.6712,
    version=2,
    candidate=True,
    mlflow_url="http://127.0.0.1:5000/#/run/1",
    registry_url="http://127.0.0.1:5000/#/version/2",
)
REPORT = RunReport(
    rows=[ROW],
    banner="PLACEHOLDER DATA",
    reasons=["version 2 is the candidate"],
    promotion=PromotionRequest(registered_model="model", version=2, limits=Limits()),
    report_url="http://127.0.0.1:5000/#/report",
    mlflow_url="http://127.0.0.1:5000/#/run",
    compare_url="http://127.0.0.1:5000/#/compare",
    airflow_url="http://127.0.0.1:8080/run",
)


PROMOTION = Promotion(
    registered_model="model",
    number=1,
    action="promote",
    candidate=2,
    champion=2,
    previous=None,
    challenger=None,
    reasons=["version 2 is the first champion"],
    mlflow_url=REPORT.mlflow_url,
)


def printed(report: RunReport, hints: dict[str, str], terminal: bool = True) -> str:
    console = Console(file=io.StringIO(), width=80, force_terminal=terminal, color_system=None)
    print_summary(console, report, PROMOTION, hints)
    return console.file.getvalue()


def test_each_number_stands_in_its_own_column():
    lines = printed(REPORT, {}).splitlines()
    header, row = (next(line for line in lines if word in line) for word in ("parameters", "2,429,270"))
    cells = [cell.strip() for cell in row.strip("│┃ ").split("│")]
    assert [title.strip() for title in header.strip("┃ ").split("┃")] == [
        "model",
        "parameters",
        "epochs",
        "validation",
        "test",
        "version",
        "alias",
    ]
    assert cells == ["cnn", "2,429,270", "4", "64.65%", "67.12%", "2", "champion"]


def test_banner_reasons_and_every_link_are_printed_unbroken(tmp_path):
    text = printed(REPORT, {"Stop": f"make down {tmp_path}/[x]"})
    for wanted in ("PLACEHOLDER DATA", "is the candidate", "first champion"):
        assert wanted in text
    for url in (REPORT.report_url, REPORT.mlflow_url, REPORT.compare_url, REPORT.airflow_url):
        assert f" {url}\n" in text
    assert f"{tmp_path}/[x]\n" in text


def test_warnings_about_the_data_are_repeated_as_plain_text():
    text = printed(REPORT.model_copy(update={"warnings": ["train/[red]cat/1.png = test/dog/2.png\x1b[31m"]}), {})
    assert "  warning: train/[red]cat/1.png = test/dog/2.png\\x1b[31m\n" in text


def test_without_airflow_there_is_no_line_for_it():
    assert "Airflow run" not in printed(REPORT.model_copy(update={"airflow_url": None}), {})


def test_in_a_pipe_the_table_is_plain_text():
    lines = printed(REPORT, {}, terminal=False).splitlines()
    assert lines[1].split() == ["model", "parameters", "epochs", "validation", "test", "version", "alias"]
    assert lines[2].split() == ["cnn", "2,429,270", "4", "64.65%", "67.12%", "2", "champion"]
    assert lines[1].index("epochs") == lines[2].index("4 ")
    assert "─" not in "".join(lines)


def test_a_promotion_that_waits_for_a_person_is_said_and_where_it_is_answered():
    console = Console(file=io.StringIO(), width=80)
    print_summary(console, REPORT, None, {"Approve": "http://127.0.0.1:8080/approve"})
    text = console.file.getvalue()
    assert "the promotion waits for a person" in text
    assert "Approve      http://127.0.0.1:8080/approve\n" in text
    assert "champion" not in text
