"""Tables in a terminal, and as plain text in a pipe."""

from collections.abc import Iterable, Sequence
from itertools import islice, repeat

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

    In a terminal one column is wrapped at spaces if need be. If that is not enough, rows are printed as in a pipe: no
    digest or name is cut. `styles` has one style of Rich per row.
    """
    lines = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(columns, *lines, strict=True)]
    if console.is_terminal and (wrapped := _wrapped_column(console.width, widths, [columns, *lines])) is not None:
        table = Table()
        for number, title in enumerate(columns):
            table.add_column(title, no_wrap=number != wrapped)
        for line, style in zip(lines, styles, strict=False):
            table.add_row(*map(Text, line), style=style)
        console.print(table)
    else:
        for cells, style in zip((columns, *lines), ("bold", *islice(styles, len(lines))), strict=False):
            padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(cells, widths, strict=True))
            console.print(Text("  ".join(padded).rstrip(), style=style), soft_wrap=True)
    if caption:
        console.print(Text(caption), soft_wrap=True)


def _wrapped_column(width: int, widths: Sequence[int], lines: Sequence[Sequence[str]]) -> int | None:
    """The widest one; none if a table of this width would have to break one of its words, or another column."""
    widest = widths.index(max(widths))
    words = [word for line in lines for word in line[widest].split()]
    others = sum(widths) - widths[widest] + 3 * len(widths) + 1  # with the lines of the box
    return widest if others + max(map(cell_len, words), default=0) <= width else None
