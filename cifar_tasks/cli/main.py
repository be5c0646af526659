"""The `cifar` command. Each command imports heavy modules when it runs."""

import errno
import sys

import typer
from rich.markup import escape

from cifar_tasks.cli import (
    data_commands,
    lineage_commands,
    promotion_commands,
    result_commands,
    run_commands,
    stack_commands,
)
from cifar_tasks.cli.terminal import errors
from cifar_tasks.errors import CifarError
from cifar_tasks.evaluation.names import printable
from cifar_tasks.steps.process import restart_in_step_environment

WITHOUT_TORCH = (
    "this command needs PyTorch, which is not installed here. In the compose deployment: docker compose run --rm "
    "--no-deps --entrypoint 'python -m cifar_tasks.cli' gpu-worker COMMAND. To roll back, start the DAG "
    "cifar10_rollback."
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Train, compare and promote image classifiers. The whole stack runs on this machine: [b]cifar up[/b].",
)
for part in (stack_commands, run_commands, result_commands, promotion_commands, data_commands, lineage_commands):
    app.add_typer(part.commands)


def main() -> None:
    """Entry point. No traceback for a `CifarError`, nor where PyTorch is not installed."""
    if sys.argv[1:2] == ["run"]:  # it trains in this process
        restart_in_step_environment()
    for stream in filter(None, (sys.stdout, sys.stderr)):  # a shell may close one: `>&-`
        stream.reconfigure(errors="backslashreplace")  # names may not fit the terminal
    try:
        app()
    except CifarError as error:
        message = "\n".join(map(printable, str(error).splitlines()))  # may hold the name of a file
        errors.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
        sys.exit(1)
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "torchvision", "timm"):
            raise
        errors.print(f"[bold red]error:[/] {WITHOUT_TORCH}", soft_wrap=True, highlight=False)
        sys.exit(1)
    except OSError as error:
        if error.filename or error.errno not in (errno.ENOSPC, errno.EIO):
            raise  # of another file than the output
        sys.stdout = None  # what it holds would be written at the end, and fail again
        errors.print(f"[bold red]error:[/] cannot write: {error.strerror}. Free space, or print elsewhere.")
        sys.exit(1)
