"""Names of files in messages, and all unusable files of a source in one error."""

from collections.abc import Sequence

from cifar_tasks.errors import DataError
from cifar_tasks.evaluation import names
from cifar_tasks.evaluation.names import shortened

SHOWN = 20
"""Of as many names as there are."""
MAX_NAME = 200
"""Characters of a name in a message."""


def readable(name: str) -> str:
    """The name as any log can show it."""
    return shortened(names.printable(name), MAX_NAME)


def listed(texts: Sequence[str], most: int = SHOWN) -> str:
    """The first names, and how many there are if these are not all."""
    shown = ", ".join(texts[:most])
    return shown if len(texts) <= most else f"{shown}, … (the first {most} of {len(texts):,})"


class BadFiles:
    """Collects what is wrong with the files of a source, so that all of it is said at once."""

    def __init__(self, where: str) -> None:
        self.where = where
        """The source in messages."""
        self._problems: dict[str, str] = {}
        self.incomplete = False
        """Whether something failed, so that there may be files which were not seen."""

    @property
    def problems(self) -> dict[str, str]:
        """What is wrong, by name."""
        return dict(self._problems)

    def add(self, name: str, problem: str, failed: bool = False) -> None:
        """`problem` continues the name: `is no image by its name. Remove it.`"""
        self._problems.setdefault(readable(name), problem)
        self.incomplete |= failed

    def check(self, also: str | None = None) -> None:
        """Raises `DataError` if a file is unusable: the first ones with their problem, and the count.

        `also`: what else is wrong, said first.
        """
        lines = [f"{name} {problem}" for name, problem in self._problems.items()]
        if not lines:
            return
        if len(lines) == 1:
            text = f"{self.where}: {lines[0]}"
        else:
            first = f"; the first {SHOWN}" if len(lines) > SHOWN else ""
            text = "\n".join([f"{self.where}: {len(lines):,} files cannot be used{first}:", *lines[:SHOWN]])
        raise DataError(f"{also}\n{text}" if also else text)
