"""`cifar demo` and `cifar run`: the training workflow with and without Airflow."""

import secrets
import shlex
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.markup import escape

from cifar_tasks.cli.connect import connect, give_up_soon, limit_threads, require_s3_address, require_servers
from cifar_tasks.cli.request import StrictCommand
from cifar_tasks.cli.stack_commands import up
from cifar_tasks.cli.terminal import INTERRUPTED, console, errors, person, waiting_for
from cifar_tasks.config import PRETRAINED_ONLY, PROFILES, RESIZES, STARTS, Overrides
from cifar_tasks.data.source_names import LINE
from cifar_tasks.deployment.dag_ids import PROMOTION_DAG
from cifar_tasks.errors import ConfigError, NothingToTrain, StackError
from cifar_tasks.evaluation.names import printable
from cifar_tasks.models import available_models, default_models
from cifar_tasks.promotion.limits import TrainingMode
from cifar_tasks.settings import Settings, read_settings
from cifar_tasks.steps.payloads import RunRequest
from cifar_tasks.steps.promotion_payloads import Answer, Promotion, Proposal
from cifar_tasks.steps.report_payloads import RunReport
from cifar_tasks.storage.hosts import without_login

if TYPE_CHECKING:
    from cifar_tasks.cli.dag_run import DagRun

commands = typer.Typer()


def _models() -> dict[str, str]:
    """Name → description; none where an installed model is broken: commands of the stack work all the same, and a
    command that needs models says what is wrong."""
    with suppress(ConfigError):
        return {spec.name: spec.description for spec in available_models().values()}
    return {}


def _default_models() -> str:
    with suppress(ConfigError):
        return ",".join(default_models())
    return ""


def _help(field: str) -> str:
    return str(RunRequest.model_fields[field].description)


def _setting(name: str, metavar: str | None = None, more: str = "") -> Any:
    """An option whose default is the setting of this name."""
    default = Settings.model_fields[name].default or _default_models()
    return typer.Option(
        metavar=metavar,
        help=f"{_help(name)} {more}",
        default_factory=lambda: getattr(read_settings(), name) or default,
        show_default=f"CIFAR_{name.upper()}, or {default}",
    )


Source = Annotated[str, _setting("source", "SOURCE", "Here the path may be relative.")]
Models = Annotated[
    str,
    _setting("models", "MODEL[,MODEL…]", " ".join(f"[b]{name}[/b]: {about}" for name, about in _models().items())),
]
RunProfile = Annotated[str, _setting("profile", "|".join(PROFILES))]
RegisteredModelName = Annotated[str, _setting("registered_model")]
ImageSize = Annotated[int, _setting("image_size")]
ResizeMode = Annotated[str, _setting("resize", "|".join(RESIZES))]
Start = Annotated[str, _setting("start_from", "|".join(STARTS))]
PromotionMode = Annotated[str, _setting("promotion", "|".join(get_args(TrainingMode)))]
Tune = Annotated[str, typer.Option(metavar="MODEL[,MODEL…]", help=_help("tune"))]
Trials = Annotated[int | None, typer.Option(help=_help("trials"))]
DatasetVersion = Annotated[str | None, typer.Option(help=_help("dataset_version"))]
Force = Annotated[bool, typer.Option("--force", help=_help("force"))]
SetOverride = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help=f"Override a value of the recipe: {', '.join(Overrides.model_fields)}. "
        f"{' and '.join(sorted(PRETRAINED_ONLY))}: for networks with pretrained weights only.",
    ),
]


@commands.command(cls=StrictCommand)
def demo(
    source: Source,
    models: Models,
    profile: RunProfile,
    registered_model: RegisteredModelName,
    image_size: ImageSize,
    resize: ResizeMode,
    start_from: Start,
    promotion: PromotionMode,
    tune: Tune = "",
    trials: Trials = None,
    force: Force = False,
    dataset_version: DatasetVersion = None,
    override: SetOverride = None,
) -> None:
    """Start the stack, run the training DAG in Airflow, and print the results.

    If CIFAR_AIRFLOW_API is set, the DAG runs in that Airflow.

    Example: [b]cifar demo --source ~/pictures.zip --models cnn --set epochs=6[/b]
    """
    from cifar_tasks.cli import dag_run
    from cifar_tasks.cli.request import build_request, check_source
    from cifar_tasks.cli.summary import print_summary
    from cifar_tasks.cli.watch import AWAITING_INPUT
    from cifar_tasks.deployment import airflow_api

    request = build_request(
        source,
        models,
        tune,
        override,
        profile=profile,
        registered_model=registered_model,
        image_size=image_size,
        resize=resize,
        start_from=start_from,
        promotion=promotion,
        trials=trials,
        force=force,
        dataset_version=dataset_version,
    )
    settings = read_settings()
    stored = request.source.startswith(("s3://", LINE))
    if not stored:
        check_source(request)
    access = airflow_api.access_to_deployment(settings)
    if access is None:
        up()
        connect(errors)
        access = airflow_api.access_to_embedded_stack(settings.home)
    else:
        if stored:
            require_s3_address(settings)
        if airflow_api.is_starting(access.url):
            seconds = airflow_api.START_SECONDS
            with waiting_for(f"Airflow at {without_login(access.url)}, up to {seconds:.0f} s"):
                airflow_api.wait_for_server(access.url, seconds)
    if stored:
        check_source(request)
    give_up_soon()
    with airflow_api.airflow(access.url, access.user, access.password) as client:
        run = dag_run.trigger(client, request.as_form())
        _follow(run)
        if run.is_skipped():
            console.print(escape(printable(run.result("prepare", key="skipped"))), soft_wrap=True)
            return
        promotion_run = dag_run.DagRun(client, run.run_id, PROMOTION_DAG)
        waits = _follow(promotion_run) == AWAITING_INPUT
        promoted = None if waits else Promotion.model_validate(promotion_run.result("record"))
        hints = {"Approve": f"{promotion_run.url}/tasks/approve/required_actions"} if waits else {}
        print_summary(console, RunReport.model_validate(run.result("report")), promoted, hints | dict(access.hints))


def _follow(run: "DagRun") -> str:
    """Show a DAG run until it succeeds or waits for a person; `StackError` if it fails."""
    from cifar_tasks.cli.watch import Watcher

    console.print(f"{run.dag_id} {escape(run.run_id)}: {escape(run.url)}", soft_wrap=True)
    try:
        state = Watcher(console, run).watch()
    except KeyboardInterrupt:
        errors.print(f"Not watched any more. The run goes on: {escape(run.url)}", soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None
    if state == "failed":
        raise StackError(f"the run failed; its logs are at {run.url}")
    return state


@commands.command(cls=StrictCommand)
def run(
    source: Source,
    models: Models,
    profile: RunProfile,
    registered_model: RegisteredModelName,
    image_size: ImageSize,
    resize: ResizeMode,
    start_from: Start,
    promotion: PromotionMode,
    name: Annotated[
        str | None, typer.Option(help="With the name and the values of an earlier run it is resumed.")
    ] = None,
    tune: Tune = "",
    trials: Trials = None,
    force: Force = False,
    dataset_version: DatasetVersion = None,
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
        start_from=start_from,
        promotion=promotion,
        trials=trials,
        force=force,
        dataset_version=dataset_version,
        search_workers=1,  # one process
    )
    require_servers(settings, patient=True)
    check_source(request)
    limit_threads()
    from cifar_tasks.cli.local_run import run_workflow
    from cifar_tasks.cli.summary import print_summary
    from cifar_tasks.steps.process import log_to_stdout

    log_to_stdout()
    console.print(f"Run {escape(name)}")
    try:
        print_summary(console, *run_workflow(name, request, _ask))
    except NothingToTrain as nothing:
        console.print(escape(printable(str(nothing))), soft_wrap=True)
    except KeyboardInterrupt:
        errors.print(f"Stopped. To resume, give the same options and [b]--name {escape(shlex.quote(name))}[/]")
        raise typer.Exit(INTERRUPTED) from None


def _ask(proposal: Proposal) -> Answer | None:
    """The person at the terminal; without a terminal nobody answers."""
    if not sys.stdin.isatty():
        return None
    for reason in proposal.reasons:
        console.print(f"  {escape(printable(reason))}", soft_wrap=True)
    asked = proposal.request
    try:
        approved = typer.confirm(f"Promote version {asked.version} of {asked.registered_model}?")
    except typer.Abort:  # Ctrl-C stops the run as it does elsewhere
        raise KeyboardInterrupt from None
    return Answer(approved=approved, by=person(), at=datetime.now(UTC))
