"""What figures share: widths, and texts of any names."""

from collections.abc import Callable, Sequence
from typing import Any

from cifar_tasks.evaluation.names import figure_text, font_families

POINTS = 72
"""Per inch."""
NARROW = 3.0
"""Inches: Airflow shows an image in Markdown at most 300 pixels wide, a hundred to the inch."""


def set_text(method: Callable[..., Any], text: str | Sequence[str], inches: float, size: float, **options: Any) -> None:
    """One line, or several, none of them wider than `inches`."""
    lines = [figure_text(line, 0.92 * inches * POINTS, size) for line in ([text] if isinstance(text, str) else text)]
    method("\n".join(lines), family=font_families(lines), fontsize=size, **options)
