"""The `cifar` command. Each command imports heavy modules when it runs."""

import json
import os
import secrets
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from cifar_tasks.cli.connect import checked_settings, connect, give_up_soon, limit_threads, require_servers
from cifar_tasks.cli.request import StrictCommand, check_model_name
from cifar_tasks.cli.tables import print_table
from cifar_tasks.config import PROFILES, RESIZES, Overrides
from cifar_tasks.errors import CifarError, ConfigError, StackError
from cifar_tasks.evaluation.names import printable
from cifar_tasks.models import available_models, default_models
from cifar_tasks.settings import Settings, read_settings
from cifar_tasks.steps.payloads import RunReport, RunRequest

if TYPE_CHECKING:
    from cifar_tasks.deployment.doctor.check_runner import CheckResult

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Train, compare and promote image classifiers. The whole stack runs on this machine: [b]cifar up[/b].",
)


def _console(*, stderr: bool = False) -> Console:
    made = Console(stderr=stderr, highlight=False, emoji=False)
    made.width = made.width or 80  # COLUMNS=0 would print nothing
    return made


console = _console()
MODELS = available_models()
INTERRUPTED = 130
"""Exit status after Ctrl-C, as of a shell."""
errors = _console(stderr=True)


def main() -> None:
    """Entry point. A `CifarError` is printed without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # names may not fit the terminal
    try:
        app()
    except CifarError as error:
        message = "\n".join(map(printable, str(error).splitlines()))  # may hold the name of a file
        errors.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
        sys.exit(1)


@app.command(cls=StrictCommand)
def up(
    airflow: Annotated[bool, typer.Option(help="Also start Airflow, which `cifar run` does not need.")] = True,
) -> None:
    """Start the services of the embedded stack that are not running.

    Example: [b]cifar up --no-airflow[/b]
    """
    from cifar_tasks.deployment import stack

    home = checked_settings().home
    with console.status("Starting the stack"):
        stack.up(home, report=lambda line: console.print(f"  {escape(line)}"), without=() if airflow else ("airflow",))
    variables = stack.environment(home)
    if airflow:
        login = f"user admin, password in {stack.password_file(home)}"
        console.print(f"Airflow  {variables['CIFAR_AIRFLOW_URL']}  ({login})", soft_wrap=True)
    console.print(f"MLflow   {variables['MLFLOW_TRACKING_URI']}")
    console.print(f"S3       {variables['AWS_ENDPOINT_URL_S3']}  (keys in {home / 'secrets.json'})", soft_wrap=True)
    console.print("Show the services: [b]cifar status[/]. Stop them: [b]cifar down[/].")


@app.command(cls=StrictCommand)
def status() -> None:
    """Show the services of the embedded stack; the exit status is 1 if one is not running.

    Example: [b]cifar status || cifar up[/b]
    """
    from cifar_tasks.deployment import stack

    services = stack.status(read_settings().home)
    if not services:
        console.print("There is no embedded stack here. Start one: [b]cifar up[/]")
        raise typer.Exit(1)
    table = Table("service", "state", "process", "responds", "address")
    for service in services:
        colour = "green" if service.answering else "red"
        responds = "yes" if service.answering else "no"
        table.add_row(
            service.name, f"[{colour}]{service.state}[/]", str(service.pid or "–"), responds, service.url or ""
        )
    console.print(table)
    for service in services:
        if service.state in ("exited", "fatal"):
            console.print(f"{service.name} has exited. Log: {escape(str(service.log))}", soft_wrap=True)
    if not all(service.answering for service in services):
        console.print("Start the missing services: [b]cifar up[/]")
        raise typer.Exit(1)


@app.command(cls=StrictCommand)
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
        results = run_checks(deployment, CHECKS)
    if as_json:
        typer.echo(json.dumps([asdict(result) for result in results], indent=2))
    else:
        _print_results(results)
    if any(result.status == "failure" for result in results):
        raise typer.Exit(1)


def _print_results(results: "Sequence[CheckResult]") -> None:
    """One row per check, by area, with the remedy under the message; then the counts."""
    colours = {"failure": "bold red", "warning": "yellow", "ok": "green", "skipped": "dim"}
    table = Table.grid("", "", Column(overflow="fold", ratio=1), padding=(0, 2))
    for area, found in groupby(results, key=lambda result: result.area):
        table.add_row(f"[b]{area}[/]")
        for result in found:
            remedy = f"\n[b]→[/] {escape(result.remedy)}" if result.remedy else ""
            status = f"  [{colours[result.status]}]{result.status}[/]"
            table.add_row(status, result.check, escape(result.message) + remedy)
    console.print(table, width=min(100, console.width))
    counts = Counter(result.status for result in results)
    console.print(", ".join(f"{counts[status]} {status}" for status in counts))


@app.command(cls=StrictCommand)
def env() -> None:
    """Print the variables that aws, airflow, mlflow and optuna-dashboard need to use the embedded stack.

    They hold its passwords: let your shell read them, and do not log them.

    Example: [b]eval "$(cifar env)"[/b]
    """
    from cifar_tasks.deployment import stack

    for line in stack.shell_commands(read_settings().home, os.environ):
        typer.echo(line)


@app.command(cls=StrictCommand)
def down() -> None:
    """Stop the embedded stack; runs, models and data stay.

    Example: [b]cifar down[/b]
    """
    from cifar_tasks.deployment import stack

    with console.status("Stopping the stack"):
        stopped = stack.down(read_settings().home)
    console.print("Stopped. Start again: [b]cifar up[/]" if stopped else "Nothing was running.")


def _help(field: str) -> str:
    return str(RunRequest.model_fields[field].description)


def _setting(name: str, metavar: str | None = None, more: str = "") -> Any:
    """An option whose default is the setting of this name."""
    default = Settings.model_fields[name].default or ",".join(default_models())
    return typer.Option(
        metavar=metavar,
        help=f"{_help(name)} {more}",
        default_factory=lambda: getattr(read_settings(), name) or default,
        show_default=f"CIFAR_{name.upper()}, or {default}",
    )


Source = Annotated[str, _setting("source", "SOURCE", "Here the path may be relative.")]
Models = Annotated[
    str,
    _setting("models", "MODEL[,MODEL…]", " ".join(f"[b]{s.name}[/b]: {s.description}" for s in MODELS.values())),
]
RunProfile = Annotated[str, _setting("profile", "|".join(PROFILES))]
RegisteredModelName = Annotated[str, _setting("registered_model")]
ImageSize = Annotated[int, _setting("image_size")]
ResizeMode = Annotated[str, _setting("resize", "|".join(RESIZES))]
Tune = Annotated[str, typer.Option(metavar="MODEL[,MODEL…]", help=_help("tune"))]
Trials = Annotated[int | None, typer.Option(help=_help("trials"))]
SetOverride = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help=f"Override a value of the recipe: {', '.join(Overrides.model_fields)}."
    ),
]


@app.command(cls=StrictCommand)
def demo(
    source: Source,
    models: Models,
    profile: RunProfile,
    registered_model: RegisteredModelName,
    image_size: ImageSize,
    resize: ResizeMode,
    tune: Tune = "",
    trials: Trials = None,
    override: SetOverride = None,
) -> None:
    """Start the stack, run the training DAG in Airflow, and print the results.

    If CIFAR_AIRFLOW_API is set, the DAG runs in that Airflow.

    Example: [b]cifar demo --source ~/pictures.zip --models cnn --set epochs=6[/b]
    """
    from cifar_tasks.cli import dag_run
    from cifar_tasks.cli.request import build_request, check_source
    from cifar_tasks.cli.summary import print_summary
    from cifar_tasks.cli.watch import Watcher
    from cifar_tasks.deployment import stack
    from cifar_tasks.deployment.airflow_api import airflow

    request = build_request(
        source,
        models,
        tune,
        override,
        profile=profile,
        registered_model=registered_model,
        image_size=image_size,
        resize=resize,
        trials=trials,
    )
    settings = read_settings()
    stored = request.source.startswith("s3://")
    if not stored:
        check_source(request)
    access = dag_run.access_to_deployment(settings)
    if access is None:
        up()
        connect(errors)
        access = dag_run.access_to_embedded_stack(settings.home)
    if stored:
        check_source(request)
    give_up_soon()
    with airflow(access.url, stack.AIRFLOW_USER, access.password) as client:
        conf = request.model_dump(exclude={"overrides"}) | request.overrides.as_form()
        run = dag_run.trigger(client, conf)
        console.print(f"Airflow run {escape(run.run_id)}: {escape(run.url)}", soft_wrap=True)
        try:
            state = Watcher(console, run).watch()
        except KeyboardInterrupt:
            errors.print(f"Not watched any more. The run goes on: {escape(run.url)}", soft_wrap=True)
            raise typer.Exit(INTERRUPTED) from None
        if state != "success":
            raise StackError(f"the run failed; its logs are at {run.url}")
        print_summary(console, RunReport.model_validate(run.result("report")), access.hints)


@app.command(cls=StrictCommand)
def run(
    source: Source,
    models: Models,
    profile: RunProfile,
    registered_model: RegisteredModelName,
    image_size: ImageSize,
    resize: ResizeMode,
    name: Annotated[
        str | None, typer.Option(help="With the name and the values of an earlier run it is resumed.")
    ] = None,
    tune: Tune = "",
    trials: Trials = None,
    override: SetOverride = None,
) -> None:
    """Run the same steps in this process, without Airflow. S3 and MLflow must be running (`cifar up --no-airflow`).

    Example: [b]cifar run --source digits --models cnn --set epochs=3[/b]
    """
    from cifar_tasks.cli.request import build_request, check_name, check_source

    name = check_name(f"run-{secrets.token_hex(4)}" if name is None else name)
    settings = connect(errors)
    request = build_request(
        source,
        models,
        tune,
        override,
        profile=profile,
        registered_model=registered_model,
        image_size=image_size,
        resize=resize,
        trials=trials,
        search_workers=1,  # one process
    )
    require_servers(settings)
    check_source(request)
    limit_threads()
    from cifar_tasks.cli.local_run import run_workflow
    from cifar_tasks.cli.summary import print_summary
    from cifar_tasks.steps.process import log_to_stdout

    log_to_stdout()
    console.print(f"Run {escape(name)}")
    try:
        print_summary(console, run_workflow(name, request))
    except KeyboardInterrupt:
        errors.print(f"Stopped. To resume, give the same options and [b]--name {escape(shlex.quote(name))}[/]")
        raise typer.Exit(INTERRUPTED) from None


@app.command(cls=StrictCommand)
def predict(
    pictures: Annotated[
        list[Path], typer.Argument(help="PNG or JPEG files of any size, or folders of them.", metavar="PICTURE…")
    ],
    registered_model: RegisteredModelName,
    fast: Annotated[
        bool,
        typer.Option("--fast", help="In the precision this machine is fast in; probabilities change by a percent."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="An object instead of the table.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values instead of the table.")] = False,
) -> None:
    """Classify pictures with the champion. The exit status is 1 if a picture cannot be read; the others are classified.

    Example: [b]cifar predict cat.jpg pictures/ --csv[/b]
    """
    if as_json and as_csv:
        raise ConfigError("--json and --csv exclude each other: give one of them.")
    check_model_name(registered_model)
    require_servers(connect(errors))
    limit_threads()
    with console.status("Classifying"):
        from cifar_tasks.cli.predict import predict as classify

        result = classify(pictures, registered_model, fast=fast)
    if as_json:
        typer.echo(result.as_json())
    elif as_csv:
        typer.echo(os.fsencode(result.as_csv()), nl=False)
    elif result.found:
        rows = [(str(p.path), p.label, f"{p.probability:.1%}") for p in result.found]
        caption = f"{result.registered_model}, version {result.version}"
        print_table(console, ("picture", "class", "probability"), rows, caption)
    for problem in result.problems:
        errors.print(Text.assemble(("error: ", "bold red"), printable(problem)), soft_wrap=True)
    if result.problems:
        raise typer.Exit(1)


@app.command(cls=StrictCommand)
def studies() -> None:
    """List the studies and the best hyperparameters of each.

    Example: [b]cifar studies[/b]
    """
    connect(errors)
    from cifar_tasks.tuning.space import format_params
    from cifar_tasks.tuning.study import all_studies

    rows = []
    for study in all_studies():
        best, about = study.best_trial, study.user_attrs
        found = (f"{best.value:.2%}", format_params(best.params)) if best and best.value is not None else ("–", "")
        rows.append((study.study_name, str(about.get("dataset", "")), str(study.n_trials), *found))
    if rows:
        print_table(console, ("study", "data", "trials", "best", "hyperparameters"), rows)
    else:
        console.print("There is no study yet. Start one: [b]cifar run --tune cnn[/]")


@app.command(cls=StrictCommand)
def dashboard(
    port: Annotated[int, typer.Option(min=1, max=65535, help="On 127.0.0.1.")] = 8081,
) -> None:
    """Serve Optuna Dashboard, until Ctrl-C.

    Example: [b]cifar dashboard --port 8090[/b]
    """
    connect(errors)
    from cifar_tasks.tuning.dashboard import serve

    serve(port, report=lambda url: console.print(f"Optuna Dashboard: {url}  (stop it with Ctrl-C)"))


if __name__ == "__main__":
    main()
