"""Where the commands print, and who is there."""

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

INTERRUPTED = 130
"""Exit status after Ctrl-C, as of a shell."""


def _console(*, stderr: bool = False) -> Console:
    made = Console(stderr=stderr, highlight=False, emoji=False)
    made.width = made.width or 80  # COLUMNS=0 would print nothing
    return made


console, errors = _console(), _console(stderr=True)


@contextmanager
def waiting_for(what: str) -> Iterator[None]:
    """Say on stderr what is waited for: meanwhile in a terminal, else in one line."""
    text = f"Waiting for {escape(what)}"
    if not errors.is_terminal:
        errors.print(text, soft_wrap=True)
    with errors.status(text):
        yield


def person() -> str:
    """Who gives the command."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container the user may have no name
        return f"uid {os.getuid()}"
