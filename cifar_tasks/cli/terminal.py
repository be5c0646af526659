"""Where the commands print."""

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
