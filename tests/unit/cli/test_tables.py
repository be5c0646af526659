"""Tables show any text as it is, in a terminal and in a pipe."""

import io

import pytest
from rich.console import Console

from cifar_tasks.cli.tables import print_table
from cifar_tasks.evaluation.names import printable
from tests.names import NASTY_NAMES


def printed(terminal: bool, *rows: tuple[str, ...], width: int = 300) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    print_table(console, ("name", "value"), rows, caption="[b]caption[/b] :cat:")
    return console.file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("name", [*NASTY_NAMES, ":cat:", "[link=file:///etc]x[/link]"])
def test_a_cell_is_text(name, terminal):
    text = printed(terminal, (name, "1"))
    assert printable(name) in text
    assert "[b]caption[/b] :cat:" in text
    assert "\x1b" not in text


def test_a_pipe_gets_one_line_per_row_whose_columns_are_aligned_and_never_cut():
    lines = printed(False, ("x" * 200, "1"), ("猫", "2"), width=20).splitlines()
    assert lines[0] == "name" + " " * 196 + "  value"
    assert lines[1] == "x" * 200 + "  1"
    assert lines[2] == "猫" + " " * 198 + "  2"
    assert not set("─━│┃┏") & set("".join(lines))


@pytest.mark.parametrize("width", range(20, 101, 10))
def test_a_narrow_terminal_breaks_no_word(width):
    row = ("8fe0a1b2c3d4e5f1", "quarantined by anna: a new camera, the labels of which look right")
    text = printed(True, row, width=width)
    assert all(word in text for word in " ".join(row).split())


def test_a_table_that_does_not_fit_the_terminal_is_printed_as_in_a_pipe():
    rows = ("8fe0a1b2c3d4e5f1", "accepted"), ("2", "cifar10_dataset/scheduled__2026-03-01")
    assert printed(True, *rows, width=40) == printed(False, *rows)
    assert "┃" in printed(True, *rows, width=60)
