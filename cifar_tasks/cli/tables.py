"""Tables in a terminal, and as plain text in a pipe."""

from collections.abc import Iterable, Sequence
from itertools import repeat

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cifar_tasks.evaluation.names import printable


def print_table(
    console: Console,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    caption: str = "",
    styles: Iterable[str] = repeat(""),
) -> None:
    """Cells are text, never markup. In a pipe there is no box and no style, and no cell is wrapped or cut.

    `styles` has one style of Rich per row.
    """
    lines = [[printable(cell) for cell in row] for row in rows]
    if console.is_terminal:
        table = Table(*columns)
        for line, style in zip(lines, styles, strict=False):
            table.add_row(*map(Text, line), style=style)
        console.print(table)
    else:
        widths = [max(map(cell_len, column)) for column in zip(columns, *lines, strict=True)]
        for cells in (columns, *lines):
            padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(cells, widths, strict=True))
            console.print(Text("  ".join(padded).rstrip()), soft_wrap=True)
    if caption:
        console.print(Text(caption), soft_wrap=True)
