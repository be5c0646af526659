"""`cifar predict`, `compare`, `studies` and `dashboard`: what trainings and studies have given."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from cifar_tasks.cli.connect import connect, limit_threads, require_servers
from cifar_tasks.cli.request import StrictCommand, check_model_name
from cifar_tasks.cli.run_commands import RegisteredModelName
from cifar_tasks.cli.tables import print_table
from cifar_tasks.cli.terminal import console, errors
from cifar_tasks.errors import ConfigError
from cifar_tasks.evaluation.names import printable

commands = typer.Typer()


@commands.command(cls=StrictCommand)
def predict(
    pictures: Annotated[
        list[str], typer.Argument(help="PNG or JPEG files of any size, or folders of them.", metavar="PICTURE…")
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
    if "" in pictures:  # as a path it would be the current folder
        raise ConfigError("PICTURE is empty: give a file or a folder.")
    check_model_name(registered_model)
    require_servers(connect(errors))
    limit_threads()
    with errors.status("Classifying"):
        from cifar_tasks.cli.predict import predict as classify

        result = classify([Path(picture) for picture in pictures], registered_model, fast=fast)
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


@commands.command(cls=StrictCommand)
def compare(
    first: Annotated[str, typer.Argument(help="A version number or an alias.", metavar="VERSION")],
    registered_model: RegisteredModelName,
    second: Annotated[str, typer.Argument(help="What it is compared with.", metavar="[VERSION]")] = "champion",
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Markdown instead of the tables.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="An object instead of the tables.")] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write one page that needs no other file.")
    ] = None,
) -> None:
    """Compare two registered versions on the same test images, by their stored evaluations.

    The verdict is what a promotion of the first version over the second would be, by CIFAR_PROMOTION_LIMITS.

    Example: [b]cifar compare 4 champion --html comparison.html[/b]
    """
    if as_json and as_markdown:
        raise ConfigError("--json and --markdown exclude each other: give one of them.")
    check_model_name(registered_model)
    settings = connect(errors)
    require_servers(settings)
    with errors.status("Comparing"):
        from cifar_tasks.cli.compare import compare_versions
        from cifar_tasks.storage.s3 import S3Store
        from cifar_tasks.tracking import runs

        with runs.tracking_errors():
            result = compare_versions(
                runs.mlflow_client(),
                S3Store(settings.bucket),
                registered_model,
                first,
                second,
                settings.promotion_limits,
            )
    if html:
        try:
            html.write_text(result.as_page(), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--html: {html} cannot be written: {error.strerror}.") from None
    if as_json:
        typer.echo(result.as_json())
    elif as_markdown:
        typer.echo(result.as_markdown())
    else:
        result.print(console)
    if html:
        errors.print(Text(f"written: {html}"), soft_wrap=True)


@commands.command(cls=StrictCommand)
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


@commands.command(cls=StrictCommand)
def dashboard(
    port: Annotated[int, typer.Option(min=1, max=65535, help="On 127.0.0.1.")] = 8081,
) -> None:
    """Serve Optuna Dashboard, until Ctrl-C.

    Example: [b]cifar dashboard --port 8090[/b]
    """
    connect(errors)
    from cifar_tasks.tuning.dashboard import serve

    serve(port, report=lambda url: console.print(f"Optuna Dashboard: {url}  (stop it with Ctrl-C)"))
