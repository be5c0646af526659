"""`cifar up`, `status`, `doctor`, `env` and `down`: the deployment."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from cifar_tasks.cli.connect import checked_settings, connect, give_up_soon
from cifar_tasks.cli.request import StrictCommand
from cifar_tasks.cli.tables import print_table
from cifar_tasks.cli.terminal import console, errors
from cifar_tasks.settings import read_settings

if TYPE_CHECKING:
    from cifar_tasks.deployment.doctor.check_runner import Check, Finding

commands = typer.Typer()


@commands.command(cls=StrictCommand)
def up(
    airflow: Annotated[bool, typer.Option(help="Also start Airflow, which `cifar run` does not need.")] = True,
) -> None:
    """Start the services of the embedded stack that are not running.

    Example: [b]cifar up --no-airflow[/b]
    """
    from cifar_tasks.deployment import stack

    home = checked_settings().home
    with errors.status("Starting the stack"):
        stack.up(home, report=lambda line: errors.print(f"  {escape(line)}"), without=() if airflow else ("airflow",))
    variables = stack.environment(home)
    if airflow:
        login = f"user admin, password in {escape(str(stack.password_file(home)))}"
        console.print(f"Airflow  {variables['CIFAR_AIRFLOW_URL']}  ({login})", soft_wrap=True)
    console.print(f"MLflow   {variables['MLFLOW_TRACKING_URI']}")
    keys = escape(str(home / "secrets.json"))
    console.print(f"S3       {variables['AWS_ENDPOINT_URL_S3']}  (keys in {keys})", soft_wrap=True)
    console.print("Show the services: [b]cifar status[/]. Stop them: [b]cifar down[/].")


@commands.command(cls=StrictCommand)
def status() -> None:
    """Show the services of the embedded stack; the exit status is 1 if one is not running.

    Example: [b]cifar status || cifar up[/b]
    """
    from cifar_tasks.deployment import stack

    home = read_settings().home
    services = stack.status(home)
    if not services:
        console.print(f"There is no embedded stack in {escape(str(home))}. Start one: [b]cifar up[/]", soft_wrap=True)
        raise typer.Exit(1)
    columns = ("service", "state", "process", "responds", "address")
    rows = [
        (each.name, each.state, str(each.pid or "–"), "yes" if each.answering else "no", each.url or "")
        for each in services
    ]
    print_table(console, columns, rows, styles=["" if each.answering else "red" for each in services])
    for service in services:
        if service.state in ("exited", "fatal"):
            console.print(f"{service.name} has exited. Log: {escape(str(service.log))}", soft_wrap=True)
    if not all(service.answering for service in services):
        console.print("Start the missing services: [b]cifar up[/]")
        raise typer.Exit(1)


@commands.command(cls=StrictCommand)
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="A list of objects instead of the table.")] = False,
) -> None:
    """Check the deployment and name a remedy for each problem; the exit status is 1 after a failure.

    Example: [b]cifar doctor --json[/b]
    """
    from cifar_tasks.deployment.doctor import CHECKS
    from cifar_tasks.deployment.doctor.check_runner import find_deployment, run_checks

    user_variables = dict(os.environ)
    deployment = find_deployment(connect(errors), user_variables)
    give_up_soon()
    with errors.status("Checking the deployment"):
        found = run_checks(deployment, CHECKS)
    results = [(check, found[check.name]) for check in CHECKS]
    if as_json:
        rows = [{"area": check.area, "check": check.name, **asdict(finding)} for check, finding in results]
        typer.echo(json.dumps(rows, indent=2))
    else:
        print_findings(console, results)
    if any(finding.status == "failure" for _, finding in results):
        raise typer.Exit(1)


def print_findings(console: Console, results: "Sequence[tuple[Check, Finding]]") -> None:
    """By area, with the remedy under the message, then the counts. In a pipe one line per check, with its remedy."""
    if console.is_terminal:
        _print_by_area(console, results)
    else:
        lines = [
            (finding.status, check.area, check.name, " → ".join(filter(None, [finding.message, finding.remedy])))
            for check, finding in results
        ]
        print_table(console, ("status", "area", "check", "message"), lines)
    counts = Counter(finding.status for _, finding in results)
    console.print(", ".join(f"{counts[status]} {status}" for status in counts))


def _print_by_area(console: Console, results: "Sequence[tuple[Check, Finding]]") -> None:
    colours = {"failure": "bold red", "warning": "yellow", "ok": "green", "skipped": "dim"}
    table, area = Table.grid("", "", Column(overflow="fold", ratio=1), padding=(0, 2)), ""
    for check, finding in results:
        if check.area != area:
            area = check.area
            table.add_row(f"[b]{area}[/]")
        remedy = f"\n[b]→[/] {escape(finding.remedy)}" if finding.remedy else ""
        status = f"  [{colours[finding.status]}]{finding.status}[/]"
        table.add_row(status, check.name, escape(finding.message) + remedy)
    console.print(table, width=min(100, console.width))


@commands.command(cls=StrictCommand)
def env() -> None:
    """Print the variables that aws, airflow, mlflow and optuna-dashboard need to use the embedded stack.

    They hold its passwords: let your shell read them, and do not log them.

    Example: [b]eval "$(cifar env)"[/b]
    """
    from cifar_tasks.deployment import stack

    for line in stack.shell_commands(read_settings().home, os.environ):
        typer.echo(line)


@commands.command(cls=StrictCommand)
def down() -> None:
    """Stop the embedded stack; runs, models and data stay.

    Example: [b]cifar down[/b]
    """
    from cifar_tasks.deployment import stack

    home = read_settings().home
    with errors.status("Stopping the stack"):
        stopped = stack.down(home)
    done = "Stopped. Start again: [b]cifar up[/]" if stopped else f"Nothing was running in {escape(str(home))}."
    console.print(done, soft_wrap=True)
