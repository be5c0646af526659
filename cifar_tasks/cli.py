"""The `cifar` command: a thin face of the library. Everything heavy is imported by the command that needs it."""

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cifar_tasks.errors import CifarError
from cifar_tasks.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Train, compare and promote image classifiers. The whole stack runs on this machine: [b]cifar up[/b].",
)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def main() -> None:
    """Entry point: an error of ours is a line, not a traceback."""
    try:
        app()
    except CifarError as error:
        errors.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)


@app.command()
def up(
    airflow: Annotated[bool, typer.Option(help="Also start Airflow; `cifar run` does without.")] = True,
) -> None:
    """Start the embedded stack, or what of it does not run.

    Example: [b]cifar up --no-airflow[/b]
    """
    from cifar_tasks import stack

    home = Settings().home
    with console.status("Starting the stack"):
        stack.up(home, report=lambda line: console.print(f"  {escape(line)}"), without=() if airflow else ("airflow",))
    variables = stack.environment(home)
    if airflow:
        login = f"user admin, password in {stack.password_file(home)}"
        console.print(f"Airflow  {variables['CIFAR_AIRFLOW_URL']}  ({login})", soft_wrap=True)
    console.print(f"MLflow   {variables['MLFLOW_TRACKING_URI']}")
    console.print(f"S3       {variables['AWS_ENDPOINT_URL_S3']}  (keys in {home / 'secrets.json'})", soft_wrap=True)
    console.print("Look at it: [b]cifar status[/]. Stop it: [b]cifar down[/].")


@app.command()
def status() -> None:
    """Show each service of the embedded stack; the exit status is 1 if one does not run.

    Example: [b]cifar status || cifar up[/b]
    """
    from cifar_tasks import stack

    services = stack.status(Settings().home)
    if not services:
        console.print("There is no embedded stack here. Start one: [b]cifar up[/]")
        raise typer.Exit(1)
    table = Table("service", "state", "process", "answers", "address")
    for service in services:
        colour = "green" if service.answering else "red"
        answers = "yes" if service.answering else "no"
        table.add_row(
            service.name, f"[{colour}]{service.state}[/]", str(service.pid or "–"), answers, service.url or ""
        )
    console.print(table)
    for service in services:
        if service.state in ("exited", "fatal"):
            console.print(f"{service.name} died. Log: {escape(str(service.log))}", soft_wrap=True)
    if not all(service.answering for service in services):
        console.print("Start what does not run: [b]cifar up[/]")
        raise typer.Exit(1)


@app.command()
def down() -> None:
    """Stop the embedded stack; runs, models and data stay.

    Example: [b]cifar down[/b]
    """
    from cifar_tasks import stack

    with console.status("Stopping the stack"):
        stopped = stack.down(Settings().home)
    console.print("Stopped. [b]cifar up[/] brings everything back." if stopped else "Nothing was running.")


if __name__ == "__main__":
    main()
