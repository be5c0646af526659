"""`cifar promotions` and `cifar rollback`: who was champion when and why, and the way back."""

import json
import secrets
from typing import Annotated, Any

import typer
from rich.markup import escape

from cifar_tasks.cli.connect import connect, limit_threads, require_servers
from cifar_tasks.cli.request import StrictCommand, StrictGroup, check_model_name, option
from cifar_tasks.cli.run_commands import RegisteredModelName
from cifar_tasks.cli.tables import print_table
from cifar_tasks.cli.terminal import console, errors, person
from cifar_tasks.evaluation.names import printable
from cifar_tasks.settings import Settings
from cifar_tasks.storage.promotion_log import Entry, Log

commands = typer.Typer()
promotions = typer.Typer(cls=StrictGroup, invoke_without_command=True)
commands.add_typer(promotions, name="promotions")
COLUMNS = "entry", "time (UTC)", "decision", "version", "champion", "by", "reason"


@promotions.callback()
def show_promotions(
    context: typer.Context,
    registered_model: RegisteredModelName,
    as_json: Annotated[bool, typer.Option("--json", help="All entries with their evidence, as JSON.")] = False,
) -> None:
    """List the promotion log: who was champion when, and why.

    Example: [b]cifar promotions --json[/b]
    """
    context.obj = check_model_name(registered_model)
    if context.invoked_subcommand:
        if as_json:
            context.fail(f"--json belongs to the list of promotions: leave it out before {context.invoked_subcommand}.")
        return
    settings = _connected()
    from cifar_tasks.storage.promotion_log import read_log
    from cifar_tasks.storage.s3 import S3Store

    log = read_log(S3Store(settings.bucket), context.obj)
    if not log.entries and _is_given(context):  # perhaps it is misspelled
        from cifar_tasks.tracking import model_registry, runs

        with runs.tracking_errors():
            model_registry.registered_model(runs.mlflow_client(), context.obj)
    if as_json:
        typer.echo(json.dumps([entry.model_dump(mode="json") for entry in log.entries], indent=1))
    elif log.entries:
        print_table(console, COLUMNS, [_row(entry) for entry in log.entries])
    else:
        console.print(f"The promotion log of {escape(context.obj)} is empty.")


def _is_given(context: Any) -> bool:
    """Whether the user has named the registered model. `context` is one of Typer's or of its parent."""
    source = context.get_parameter_source("registered_model")
    return source is not None and source.name == "COMMANDLINE"


@promotions.command(cls=StrictCommand)
def repair(
    context: typer.Context,
    registered_model: Annotated[str | None, typer.Option(help="As of [b]cifar promotions[/b].")] = None,
) -> None:
    """Move the aliases to what the log says, if a promotion was killed before it did.

    An alias that somebody has moved in MLflow stays, and is entered into the log.

    Example: [b]cifar promotions repair[/b]
    """
    if registered_model is not None and context.parent and _is_given(context.parent):
        context.fail("--registered-model is given 2 times: give it once.")
    name = context.obj if registered_model is None else check_model_name(registered_model)
    settings = _connected()
    from cifar_tasks.storage.promotion_log import read_log
    from cifar_tasks.storage.s3 import S3Store
    from cifar_tasks.tracking import model_registry, runs
    from cifar_tasks.tracking.aliases import compare_aliases, follow_log, read_registry

    client, store = runs.mlflow_client(), S3Store(settings.bucket)
    with runs.tracking_errors():
        registry, before = read_registry(client, name), read_log(store, name)
        if not before.entries:
            model_registry.registered_model(client, name)
        state = compare_aliases(store, before, registry) if registry else None
        after = follow_log(client, store, name)
    console.print(escape(printable(_repaired(state, before, after))), soft_wrap=True)


@commands.command(cls=StrictCommand)
def rollback(
    registered_model: RegisteredModelName,
    reason: Annotated[str, typer.Option(help="Why; the promotion log keeps it.")],
    version: Annotated[
        int | None, typer.Argument(min=1, help="Empty: the version that was the champion before.", metavar="[VERSION]")
    ] = None,
) -> None:
    """Make an earlier version the champion again, after its file and its answers on test images were verified.

    Example: [b]cifar rollback --reason "slow on old phones"[/b]
    """
    check_model_name(registered_model)
    from cifar_tasks.steps.payloads import WorkflowRun
    from cifar_tasks.steps.promotion_payloads import RollbackRequest

    asked = RollbackRequest.checked(
        {"registered_model": registered_model, "version": version, "reason": reason}, option
    )
    _connected()
    limit_threads()
    from cifar_tasks.steps.rollback import roll_back

    name = f"rollback-{secrets.token_hex(4)}"
    with errors.status("Verifying"):
        done = roll_back(asked, WorkflowRun(id=f"cli/{name}", name=name, by=person()))
    for text in done.reasons:
        console.print(f"  {escape(printable(text))}", soft_wrap=True)
    console.print(f"Entry {done.number} of the promotion log of {escape(done.registered_model)}", soft_wrap=True)


def _connected() -> Settings:
    settings = connect(errors)
    require_servers(settings)
    return settings


def _row(entry: Entry) -> tuple[str, ...]:
    versions = ("–" if number is None else str(number) for number in (entry.candidate, entry.champion))
    return (
        str(entry.number),
        f"{entry.time:%Y-%m-%d %H:%M}",
        entry.action,
        *versions,
        entry.who or entry.workflow or "somebody in MLflow",
        "; ".join(entry.reasons),
    )


def _repaired(state: str | None, before: Log, after: Log) -> str:
    if state == "in line" or after.last is None:
        return "The aliases follow the promotion log already."
    if len(after.entries) > len(before.entries):
        return f"Entry {after.last.number} of the promotion log: {'; '.join(after.last.reasons)}."
    return f"The aliases follow entry {after.last.number} of the promotion log now."
