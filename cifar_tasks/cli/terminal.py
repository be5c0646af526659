"""Where the commands print."""

from rich.console import Console

INTERRUPTED = 130
"""Exit status after Ctrl-C, as of a shell."""


def _console(*, stderr: bool = False) -> Console:
    made = Console(stderr=stderr, highlight=False, emoji=False)
    made.width = made.width or 80  # COLUMNS=0 would print nothing
    return made


console, errors = _console(), _console(stderr=True)
