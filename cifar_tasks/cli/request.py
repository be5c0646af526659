"""From the options of `cifar demo` and `cifar run` to a request. All that does not fit is named at once."""

from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from typer.core import TyperCommand, TyperGroup

from cifar_tasks.config import Overrides, RegisteredModelName, parse_overrides
from cifar_tasks.data.source_names import line_of
from cifar_tasks.errors import ConfigError, problems
from cifar_tasks.models import default_models, parse_models
from cifar_tasks.settings import Settings
from cifar_tasks.steps.payloads import RunRequest

Value = TypeVar("Value")
MAX_NAME = 250
"""Letters of a run's name; Airflow's own limit for the id of a run."""


def build_request(source: str, models: str, tune: str, overrides: list[str] | None, **fields: Any) -> RunRequest:
    """`ConfigError` has a line for each option whose value does not fit."""
    from cifar_tasks.data.source import absolute_source

    wrong: list[str] = []

    def parsed(parse: Callable[[], Value], otherwise: Value, option: str = "") -> Value:
        try:
            return parse()
        except ConfigError as error:
            wrong.append(f"{option}{error}")
            return otherwise

    no_models: list[str] = []
    tuned = parsed(lambda: parse_models(tune), no_models, "--tune: ")
    fields |= {
        "source": parsed(lambda: absolute_source(source) if source.strip() else source, "auto", "--source: "),
        "models": parsed(lambda: parse_models(models), tuned or default_models(), "--models: "),
        "tune": tuned,
        "overrides": parsed(lambda: parse_overrides(overrides or []), Overrides()),
    }
    fields["dataset_version"] = fields.get("dataset_version") or None
    if fields.get("trials") is not None and not tune.strip(" ,"):
        wrong.append("--trials: needs --tune MODEL[,MODEL…]")
    request = parsed(lambda: RunRequest.checked(fields, option), None)
    if request and not wrong:
        unused = request.unused_overrides(placeholder=request.source == "digits")
        wrong += [f"--set {name}: {reason}. Leave it out." for name, reason in unused.items()]
    if request is None or wrong:
        raise ConfigError("\n".join(wrong))
    return request


def option(field: str) -> str:
    """As the user gives it."""
    return f"--{field.replace('_', '-')}"


def check_source(request: RunRequest) -> None:
    """Look at the source without reading images, so that nothing starts for one that cannot be opened."""
    from cifar_tasks.data.lines.line_log import read_line_log
    from cifar_tasks.data.lines.line_versions import choose_version
    from cifar_tasks.data.source import open_source
    from cifar_tasks.storage.s3 import S3Store

    if line := line_of(request.source):
        choose_version(read_line_log(S3Store(Settings().bucket), line), request.dataset_version)
    elif request.source not in ("auto", "cifar10", "digits"):
        open_source(request.source, Settings(), report=lambda _: None)


def check_name(name: str) -> str:
    """The name of a run as the user gave it; `ConfigError` if it is empty, too long or has control characters."""
    if not name.strip() or len(name) > MAX_NAME or not name.isprintable():
        raise ConfigError(f"--name: give 1 to {MAX_NAME} printable characters, got {name[:50]!r} ({len(name)})")
    return name


def check_model_name(name: str) -> str:
    """A name in the MLflow model registry; `ConfigError` if it cannot be one."""
    try:
        return TypeAdapter[str](RegisteredModelName).validate_python(name)
    except ValidationError as error:
        raise ConfigError(f"--registered-model: {problems(error)[0]}") from None


class StrictCommand(TyperCommand):
    """A command that refuses an option given twice: otherwise the last one would count without a word."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _refuse_repeated(self, ctx, args)
        return super().parse_args(ctx, args)


class StrictGroup(TyperGroup):
    """The same for a command that has subcommands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _refuse_repeated(self, ctx, args)
        return super().parse_args(ctx, args)


def _refuse_repeated(command: TyperCommand | TyperGroup, ctx: Any, args: list[str]) -> None:
    _, _, order = command.make_parser(ctx).parse_args(list(args))
    for parameter, count in Counter(order).items():
        if count > 1 and not getattr(parameter, "multiple", False):
            ctx.fail(f"{parameter.opts[-1]} is given {count} times: give it once.")
