"""Names of classes, files and data sets as text to show. Users choose them, and they may hold anything."""

import unicodedata
from functools import cache

JOINERS = "\u200c\u200d"
"""Not printable by themselves, but part of words and emoji."""
MARKUP = frozenset("\\`*_[]<>&|~!$#")


def printable(name: str) -> str:
    r"""On one line: characters that cannot be printed become escapes, such as `\n`."""
    return "".join(char if char.isprintable() or char in JOINERS else _escape(char) for char in name)


def printable_lines(text: str) -> str:
    """The same for a text of several lines: a terminal that shows it obeys no escape sequence in it."""
    return "\n".join(map(printable, text.split("\n")))


def shortened(name: str, length: int) -> str:
    """At most this many characters: the middle is left out, because names differ at their ends."""
    if len(name) <= length:
        return name
    return f"{name[: length // 2]}…{name[len(name) - (length - 1) // 2 :]}"


def markdown(name: str) -> str:
    """As text within a line of Markdown, which MLflow shows as HTML."""
    return "".join(f"&#{ord(char)};" if char in MARKUP else char for char in printable(name))


def figure_text(name: str, width: float, size: float) -> str:
    """As matplotlib draws it in the families of `font_families`, within `width` points at font size `size`.

    Characters that no installed font has are written in ASCII; `$` starts no formula.
    """
    text = "".join(char if _family(char) else _in_ascii(char) for char in shortened(printable(name), 200))
    length = len(text)
    while length > 1 and size * sum(map(_advance, shortened(text, length))) > width:
        length -= 1
    return shortened(text, length).replace("$", r"\$")


def font_families(texts: "list[str]") -> list[str]:
    """Of the fonts that these texts need."""
    found = {_family(char) for text in texts for char in set(text)} - {None, DEFAULT_FAMILY}
    return [DEFAULT_FAMILY, *sorted(family for family in found if family)]


DEFAULT_FAMILY = "DejaVu Sans"
"""Comes with matplotlib."""


@cache
def _family(char: str) -> str | None:
    """The family of an installed font with this character."""
    from matplotlib.font_manager import fontManager

    regular = [f for f in fontManager.ttflist if f.style == "normal" and f.weight in (400, "normal", "regular")]
    for font in sorted(regular, key=lambda font: (font.name != DEFAULT_FAMILY, font.name)):
        # The font of last resort has a box for every character; matplotlib cannot draw coloured emoji.
        if "LastResort" not in font.fname and "Emoji" not in font.name and ord(char) in _characters(font.fname):
            return font.name
    return None


@cache
def _characters(path: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except RuntimeError:  # not a font that can be scaled
        return frozenset()


@cache
def _advance(char: str) -> float:
    """Width in units of the font size."""
    from matplotlib.font_manager import findfont
    from matplotlib.ft2font import FT2Font, LoadFlags

    path = findfont(DEFAULT_FAMILY)
    if ord(char) not in _characters(path):
        return 1.0
    font = FT2Font(path)
    return float(font.load_char(ord(char), flags=LoadFlags.NO_SCALE).horiAdvance) / font.units_per_EM


def _in_ascii(char: str) -> str:
    from anyascii import anyascii

    return str(anyascii(char)) or ("" if unicodedata.category(char) in ("Mn", "Cf") else _escape(char))


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
