"""Names of classes and files as text, in whatever they are shown."""

import html

import pytest

from cifar_tasks.evaluation.names import JOINERS, figure_text, font_families, markdown, printable, shortened
from tests.names import NASTY_NAMES


@pytest.mark.parametrize("name", ["cat", "猫", "🐱", "שלום", "e\u0301", "👨‍👩‍👧", "a b", "<i>"])
def test_what_can_be_printed_stays(name):
    assert printable(name) == name


@pytest.mark.parametrize("name", NASTY_NAMES)
def test_any_name_stands_on_one_line_and_moves_no_cursor(name):
    shown = printable(name)
    assert len(shown.splitlines()) <= 1
    assert all(char.isprintable() or char in JOINERS for char in shown)
    shown.encode()


@pytest.mark.parametrize(
    ("name", "escaped"), [("a\nb", r"a\nb"), ("\x1b[31m", r"\x1b[31m"), ("\u202e", r"\u202e"), ("\udcff", r"\udcff")]
)
def test_what_cannot_be_printed_is_escaped(name, escaped):
    assert printable(name) == escaped


def test_a_long_name_loses_its_middle():
    assert shortened("abcdefghij", 10) == "abcdefghij"
    assert shortened("abcdefghij", 5) == "ab…ij"
    assert [len(shortened("x" * 200, length)) for length in range(1, 50)] == list(range(1, 50))


@pytest.mark.parametrize("name", NASTY_NAMES)
def test_markdown_shows_a_name_as_it_is(name):
    text = markdown(name)
    assert not set("<>`*_[]|$~!\\") & set(text)
    assert html.unescape(text) == printable(name)


@pytest.mark.parametrize("name", NASTY_NAMES)
def test_a_figure_has_a_glyph_for_each_character(name):
    from matplotlib.font_manager import findfont
    from matplotlib.ft2font import FT2Font

    text = figure_text(name, 90, 8)
    fonts = [FT2Font(findfont(family)).get_charmap() for family in font_families([text])]
    assert not [char for char in text if not any(ord(char) in font for font in fonts)]
    assert text or not name


def test_dollars_start_no_formula():
    from matplotlib.cbook import is_math_text

    for name in NASTY_NAMES:
        text = figure_text(name, 1000, 8)
        assert not is_math_text(text)
        assert text.count(r"\$") == name.count("$")
