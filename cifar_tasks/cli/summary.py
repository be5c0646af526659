"""Results of a run in a terminal: table, reasons, links."""

from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape

from cifar_tasks.cli.tables import print_table
from cifar_tasks.evaluation.names import printable
from cifar_tasks.steps.promotion_payloads import Promotion
from cifar_tasks.steps.report_payloads import RunReport


def print_summary(
    console: Console, report: RunReport, promotion: Promotion | None, hints: Mapping[str, str] | None = None
) -> None:
    """Print text that can be pasted; `hints` are titles and texts. Without a promotion it waits for a person."""
    if report.banner:
        console.print(f"[bold yellow]{escape(report.banner)}[/]")
    aliases = promotion.aliases() if promotion else {}
    columns = "model", "parameters", "epochs", "validation", "test", "version", "alias"
    rows = [
        (
            row.model,
            f"{row.parameters:,}",
            str(row.epochs),
            f"{row.validation_accuracy:.2%}",
            f"{row.test_accuracy:.2%}",
            str(row.version),
            ", ".join(alias for alias, version in aliases.items() if version == row.version),
        )
        for row in report.rows
    ]
    print_table(console, columns, rows)
    for warning in report.warnings:
        console.print(f"  [yellow]warning: {escape(printable(warning))}[/]", soft_wrap=True)
    decided = promotion.reasons if promotion else ["the promotion waits for a person"]
    for reason in [*report.reasons, *decided]:
        console.print(f"  {escape(printable(reason))}", soft_wrap=True)
    links = {
        "Report": report.report_url,
        "MLflow run": report.mlflow_url,
        "Compare": report.compare_url,
        "Airflow run": report.airflow_url,
    }
    for title, text in [*links.items(), *(hints or {}).items()]:
        if text:
            console.print(f"{title:<12} {escape(text)}", soft_wrap=True)
