"""`cifar trace` and `cifar backfill`: where a model comes from, and training on past dataset versions."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.text import Text

from cifar_tasks.cli.connect import connect, require_servers
from cifar_tasks.cli.data_commands import log_of_line
from cifar_tasks.cli.request import StrictCommand, build_request, check_model_name
from cifar_tasks.cli.run_commands import Force, Models, RegisteredModelName, RunProfile, SetOverride, Start
from cifar_tasks.cli.tables import print_table
from cifar_tasks.cli.terminal import console, errors
from cifar_tasks.data.source_names import LINE
from cifar_tasks.errors import ConfigError
from cifar_tasks.evaluation.names import printable

if TYPE_CHECKING:
    from cifar_tasks.tracking.lineage import Trace

commands = typer.Typer()
ALIASES = ("champion", "challenger", "previous")


@commands.command(cls=StrictCommand)
def trace(
    what: Annotated[
        str,
        typer.Argument(
            help="A version number or an alias; the first 8 or more digits of a dataset version; or a picture, which "
            "is a file or an s3:// URL.",
            metavar="VERSION|DATASET|FILE",
        ),
    ],
    registered_model: RegisteredModelName,
    as_json: Annotated[bool, typer.Option("--json", help="An object instead of the tables.")] = False,
) -> None:
    """Show where a version comes from, and which models saw a dataset version or a picture.

    A picture is found by its pixels as they are prepared, whatever its file is called.

    Example: [b]cifar trace champion[/b], [b]cifar trace cat.jpg --json[/b]
    """
    check_model_name(registered_model)
    settings = connect(errors)
    require_servers(settings)
    from cifar_tasks.storage.s3 import S3Store
    from cifar_tasks.tracking import lineage, model_registry, runs

    client, store = runs.mlflow_client(), S3Store(settings.bucket)
    with errors.status("Tracing"), runs.tracking_errors():
        may_be_alias = what in ALIASES or (re.fullmatch(r"[\w-]{1,255}", what) and not Path(what).is_file())
        if re.fullmatch(r"\d{1,6}", what):
            version = model_registry.get_version(client, registered_model, int(what))
            found = lineage.trace_version(client, store, version)
        elif may_be_alias and (named := model_registry.version_with_alias(client, registered_model, what)):
            found = lineage.trace_version(client, store, named)
        elif what in ALIASES:
            model_registry.registered_model(client, registered_model)
            raise ConfigError(f"{registered_model} has no {what}.")
        elif re.fullmatch(r"[0-9a-f]{8,64}", what) and not Path(what).is_file():
            found = lineage.trace_dataset(client, store, what)
        else:
            found = lineage.trace_image(client, store, _content(what), what, settings.home / "cache")
    if as_json:
        typer.echo(found.model_dump_json(indent=1))
    else:
        _print(found)


def _content(where: str) -> bytes:
    """Of a picture."""
    from cifar_tasks.storage.s3 import S3Store, split_s3_url

    try:
        if where.startswith("s3://"):
            bucket, key = split_s3_url(where)
            return S3Store(bucket).get(key)
        return Path(where).expanduser().read_bytes()
    except (OSError, KeyError, RuntimeError):  # the last of a `~user` that there is not
        raise ConfigError(
            f"{where} is no version, alias, dataset version (8 or more hex digits) or picture that can be read."
        ) from None


def _print(found: "Trace") -> None:
    if found.images:
        rows = [(image.dataset[:16], image.split, image.label, image.file) for image in found.images]
        print_table(console, ("dataset", "split", "class", "file in the delivery"), rows)
    datasets = [
        (
            dataset.digest[:16],
            dataset.name,
            ", ".join(f"{count:,} {split}" for split, count in dataset.images.items()),
            "; ".join(f"{e.line} {e.entry}: {e.kind}, {e.time}, {e.objects:,} objects" for e in dataset.entries),
        )
        for dataset in found.datasets
    ]
    if datasets:
        print_table(console, ("dataset", "name", "images", "entries of dataset lines"), datasets)
        for entry in (entry for dataset in found.datasets for entry in dataset.entries if entry.url):
            console.print(Text(printable(f"{entry.line} {entry.entry}: {entry.url}")), soft_wrap=True)
    else:
        console.print("No dataset version has it.")
    models = [
        (
            f"{model.registered_model} {model.version}",
            model.model,
            model.dataset[:16],
            "all" if model.train_images is None else f"a sample of {model.train_images:,}",
            model.initial_weights,
            "" if model.test_accuracy is None else f"{model.test_accuracy:.2%}",
        )
        for model in found.models
    ]
    if models:
        columns = "version", "model", "dataset", "training images", "initial weights", "test"
        print_table(console, columns, models)
        for link in found.models:
            console.print(Text(f"{link.registered_model} {link.version}: {link.mlflow_url}"), soft_wrap=True)
    elif datasets:
        console.print("No registered version was trained on it.")


@commands.command(cls=StrictCommand)
def backfill(
    line: Annotated[str, typer.Argument(help="A dataset line.", metavar="LINE")],
    models: Models,
    profile: RunProfile,
    registered_model: RegisteredModelName,
    start_from: Start,
    first: Annotated[int, typer.Option("--from", min=1, help="Entry of the log of the line.")] = 1,
    last: Annotated[int | None, typer.Option("--to", min=1, help="Entry; empty: the last one.")] = None,
    override: SetOverride = None,
    force: Force = False,
) -> None:
    """Train on each past dataset version of a line, one after another, in Airflow. No version is promoted.

    Each run names its dataset version and all its values. What was trained before is skipped.

    Example: [b]cifar backfill products --from 3 --to 8 --models cnn[/b]
    """
    from cifar_tasks.cli import dag_run
    from cifar_tasks.data.lines.line_versions import used_versions
    from cifar_tasks.deployment import airflow_api
    from cifar_tasks.storage.s3 import S3Store

    settings = connect(errors)
    require_servers(settings)
    used = used_versions(log_of_line(S3Store(settings.bucket), line))
    fields = {"profile": profile, "registered_model": registered_model, "start_from": start_from}
    request = build_request(f"{LINE}{line}", models, "", override, **fields, force=force, promotion="never")
    chosen = [entry for entry in used if first <= entry.number <= (last or entry.number)]
    if not chosen:
        known = ", ".join(str(entry.number) for entry in used) or "none"
        raise ConfigError(
            f"no entry of the dataset line {line} from {first} to {last or 'the last one'} brought a version into use. "
            f"Those that did: {known}."
        )
    access = airflow_api.access_to_airflow(settings)
    with airflow_api.airflow(access.url, access.user, access.password) as client:
        for entry in chosen:
            past = request.model_copy(update={"dataset_version": entry.dataset.digest[:16]})
            run = dag_run.trigger(client, past.as_form())
            console.print(
                f"entry {entry.number}, version {entry.dataset.digest[:16]}: {escape(run.url)}", soft_wrap=True
            )
    console.print(Text(printable(f"{len(chosen)} runs of {run.dag_id}; one trains at a time")), soft_wrap=True)
