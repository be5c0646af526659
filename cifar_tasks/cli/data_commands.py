"""`cifar data`: the versions of dataset lines, what differs between two of them, what a person decides about one."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from cifar_tasks.cli.connect import connect, require_servers
from cifar_tasks.cli.request import StrictCommand
from cifar_tasks.cli.tables import print_table
from cifar_tasks.cli.terminal import console, errors, person
from cifar_tasks.deployment.dag_ids import DATASET_DAG
from cifar_tasks.errors import CifarError, ConfigError
from cifar_tasks.evaluation.names import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from cifar_tasks.data.lines.line_log import LineEntry, LineLog
    from cifar_tasks.storage.s3 import S3Store

commands = typer.Typer()
data = typer.Typer(no_args_is_help=True, help="Versions of dataset lines.")
commands.add_typer(data, name="data")

Line = Annotated[str, typer.Argument(metavar="LINE", help="A dataset line.")]
Reason = Annotated[str, typer.Option(help="Why; the log of the line keeps it.")]
Waiting = Annotated[
    str | None, typer.Argument(metavar="[VERSION]", help="First digits of its digest. Empty: the one that waits.")
]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]
COLUMNS = "entry", "time (UTC)", "decision", "version", "images", "new", "gone", "relabelled", "dropped", "by"


@data.command("list", cls=StrictCommand)
def list_lines(as_json: AsJson = False) -> None:
    """List the dataset lines, and the version of each that is in use.

    Example: [b]cifar data list[/b]
    """
    store, sources = _connected()
    from cifar_tasks.data.lines.line_log import line_names, read_line_log

    logs = [read_line_log(store, name) for name in sorted({*line_names(store), *sources})]
    if as_json:
        typer.echo(json.dumps([_line(log, sources.get(log.line)) for log in logs], indent=1))
    elif logs:
        rows = [[str(value) for value in _line(log, sources.get(log.line)).values()] for log in logs]
        print_table(console, ("line", "source", "version in use", "images", "entries"), rows)
    else:
        console.print("There are no dataset lines. To configure one set CIFAR_DATASET_LINES.")


@data.command(cls=StrictCommand)
def show(line: Line, as_json: AsJson = False) -> None:
    """Show the log of a dataset line: which versions there were, and what was decided about each.

    Example: [b]cifar data show products[/b]
    """
    log = log_of_line(_connected()[0], line)
    if as_json:
        typer.echo(json.dumps([entry.model_dump(mode="json") for entry in log.entries], indent=1))
        return
    in_use = log.entry_in_use()
    styles = ["bold" if entry == in_use else "" for entry in log.entries]
    print_table(console, COLUMNS, [_row(entry) for entry in log.entries], styles=styles)
    for entry in log.entries[-1:]:
        for reason in entry.reasons:
            console.print(f"  {escape(printable(reason))}", soft_wrap=True)


@data.command(cls=StrictCommand)
def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="First digits of the digest of a version.")],
    after: Annotated[str, typer.Argument(metavar="B", help="The same of another version.")],
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with example images.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare two versions: images per class, and which images are new, gone, relabelled or were dropped.

    Example: [b]cifar data diff 1f3c 90ab --html diff.html[/b]
    """
    store, _ = _connected()
    from cifar_tasks.data.lines.diff_page import diff_page
    from cifar_tasks.data.lines.line_diff import diff_versions
    from cifar_tasks.data.lines.line_index import read_index
    from cifar_tasks.data.lines.line_shards import image_reader

    entries = [_version(store, digest) for digest in (before, after)]
    found = diff_versions(*(read_index(store, entry.dataset) for entry in entries))
    if html:
        readers = [image_reader(store, entry.line, entry.dataset.uri) for entry in entries]
        title = " → ".join(f"{entry.line} {entry.dataset.digest[:16]}" for entry in entries)
        try:
            html.write_text(diff_page(title, found, *readers), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{html} cannot be written: {error.strerror}. Give another file.") from None
    if as_json:
        typer.echo(json.dumps(found.as_dict(), indent=1))
        return
    rows = [(name, f"{old:,}", f"{new:,}", f"{new - old:+,}") for name, (old, new) in found.counts.items()]
    print_table(console, ("class", "before", "after", "change"), rows)
    kinds = ("new", "gone", "relabelled", "dropped", "unreadable")
    console.print(", ".join(f"{len(getattr(found, kind)):,} {kind}" for kind in kinds))


@data.command(cls=StrictCommand)
def rollback(
    line: Line,
    reason: Reason,
    version: Annotated[
        str | None, typer.Argument(metavar="[VERSION]", help="First digits of its digest. Empty: the one before.")
    ] = None,
) -> None:
    """Bring an older version into use again, and start its training. The next delivery is compared with it.

    Example: [b]cifar data rollback products --reason "grey pictures"[/b]
    """
    store, _ = _connected()
    from cifar_tasks.data.lines.line_decisions import Decider, roll_back

    log_of_line(store, line)
    _print_in_use(roll_back(store, line, version, Decider(by=person(), reason=reason)))


@data.command(cls=StrictCommand)
def release(line: Line, reason: Reason, version: Waiting = None) -> None:
    """Bring a quarantined version into use, after a look at its report, and start its training.

    Example: [b]cifar data release products --reason "a new camera"[/b]
    """
    from cifar_tasks.data.lines.line_verdicts import release

    _print_in_use(_decide(release, line, version, reason))


@data.command(cls=StrictCommand)
def reject(line: Line, reason: Reason, version: Waiting = None) -> None:
    """Decide that a quarantined version is never used. The version in use stays.

    Example: [b]cifar data reject products --reason "labels are swapped"[/b]
    """
    from cifar_tasks.data.lines.line_verdicts import reject

    entry = _decide(reject, line, version, reason)
    console.print(
        f"Version {entry.dataset.digest[:16]} of {escape(line)} is rejected. Entry {entry.number} of its log."
    )


@data.command(cls=StrictCommand)
def clean(line: Line, dry_run: Annotated[bool, typer.Option("--dry-run", help="Delete nothing.")] = False) -> None:
    """Delete what interrupted preparations have left in storage for more than a week.

    What a version in the log refers to stays, also of a rejected one. Needs a key that may delete.

    Example: [b]cifar data clean products --dry-run[/b]
    """
    store, _ = _connected()
    from cifar_tasks.data.lines.unused_objects import unused_objects

    log_of_line(store, line)
    found = unused_objects(store, line)
    for entry in () if dry_run else found:
        store.delete(entry.key)
    megabytes = sum(entry.size for entry in found) / 1e6
    console.print(f"{len(found):,} objects ({megabytes:,.1f} MB) {'would be' if dry_run else 'were'} deleted.")


def _print_in_use(entry: "LineEntry") -> None:
    console.print(
        f"Version {entry.dataset.digest[:16]} of {escape(entry.line)} is in use. Entry {entry.number} of its log."
    )
    try:
        url = _send_event(entry.line)
        console.print(f"This run sends its event, which starts a training: {escape(url)}", soft_wrap=True)
    except CifarError as error:  # the version is in use all the same
        console.print(
            f"[yellow]note:[/] its event, which starts a training, is not sent: {escape(str(error))}\n"
            f"The next run of the DAG cifar10_dataset for {escape(entry.line)} sends it. "
            "To train at once start that DAG.",
            soft_wrap=True,
        )


def _send_event(line: str) -> str:
    """Address of the run that does; it sends none if the version in use has one."""
    from cifar_tasks.cli.dag_run import trigger
    from cifar_tasks.deployment import airflow_api
    from cifar_tasks.settings import read_settings

    access = airflow_api.access_to_airflow(read_settings())
    with airflow_api.airflow(access.url, access.user, access.password) as client:
        return trigger(client, {"line": line, "event_only": True}, DATASET_DAG).url


def _decide(verdict: "Callable[..., LineEntry]", line: str, version: str | None, reason: str) -> "LineEntry":
    store, _ = _connected()
    from cifar_tasks.data.lines.line_decisions import Decider

    log_of_line(store, line)
    return verdict(store, line, version, Decider(by=person(), reason=reason))


def _connected() -> "tuple[S3Store, dict[str, str]]":
    """The store, and the sources of the configured lines."""
    settings = connect(errors)
    require_servers(settings)
    from cifar_tasks.storage.s3 import S3Store

    return S3Store(settings.bucket), {name: line.source for name, line in settings.dataset_lines.items()}


def log_of_line(store: "S3Store", line: str) -> "LineLog":
    """`ConfigError`, with the lines that have versions, if it has none."""
    from cifar_tasks.data.lines.line_log import line_names, read_line_log

    known = line_names(store)
    if line not in known:
        raise ConfigError(
            f"there is no version of a dataset line {line!r} yet. Lines with versions: {', '.join(known) or 'none'}."
        )
    return read_line_log(store, line)


def _version(store: "S3Store", digest: str) -> "LineEntry":
    """The last entry about a version of any line."""
    from cifar_tasks.data.lines.line_log import line_names, read_line_log

    logs = [read_line_log(store, name) for name in line_names(store)]
    found = [log for log in logs if any(entry.dataset.digest.startswith(digest) for entry in log.entries)]
    if len(found) != 1 or not digest:
        what = f"versions of {', '.join(log.line for log in found)} begin" if found else "no version begins"
        raise ConfigError(f"{what} with {digest!r}. `cifar data show LINE` lists the versions of a line.")
    return found[0].of_version(digest)


def _line(log: "LineLog", source: str | None) -> dict[str, Any]:
    dataset = log.in_use()
    images = sum(sum(counts.values()) for counts in dataset.counts.values()) if dataset else 0
    return {
        "line": log.line,
        "source": source or "not configured",
        "in_use": dataset.digest[:16] if dataset else None,
        "images": images,
        "entries": len(log.entries),
    }


def _row(entry: "LineEntry") -> tuple[str, ...]:
    images = sum(sum(counts.values()) for counts in entry.dataset.counts.values())
    counts = (images, entry.diff.new, entry.diff.gone, entry.diff.relabelled, entry.diff.dropped)
    return (
        str(entry.number),
        f"{entry.time:%Y-%m-%d %H:%M}",
        entry.kind,
        entry.dataset.digest[:16],
        *(f"{count:,}" for count in counts),
        f"{entry.by}: “{entry.reason}”" if entry.by else entry.workflow or "",
    )
