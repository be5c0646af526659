"""Images that a quarantined delivery should be judged by, as one figure for the person who is asked."""

from collections.abc import Sequence
from itertools import chain, zip_longest
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np

from cifar_tasks.data.quality.quality_report import Example, QualityReport
from cifar_tasks.data.quality.snapshot import Snapshot
from cifar_tasks.evaluation.figure_style import NARROW, set_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS, ROWS = 3, 4
LINE = 18
"""Characters in a line of why an image is shown."""


def quality_figure(report: QualityReport, version: Snapshot) -> "Figure | None":
    """Up to 12 images with their labels and why they are shown; none if the checks name no image."""
    from matplotlib.figure import Figure

    shown = _one_of_each_reason(report.examples or report.suspicious)[: COLUMNS * ROWS]
    if not shown:
        return None
    images = version.images.read(np.array([example.position for example in shown]))
    side = NARROW / COLUMNS
    rows = -(-len(shown) // COLUMNS)
    figure = Figure(figsize=(NARROW, rows * 1.45 * side), layout="constrained", facecolor="white")
    grid = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for axes in grid:
        axes.axis("off")
    for axes, example, image in zip(grid, shown, images, strict=False):
        axes.imshow(image)
        set_text(axes.set_title, (example.label, *wrap(example.why, LINE)[:2]), side, 7)
    return figure


def _one_of_each_reason(examples: Sequence[Example]) -> list[Example]:
    """First one image of each reason, then the next of each."""
    by_reason: dict[str, list[Example]] = {}
    for example in examples:
        by_reason.setdefault(example.why, []).append(example)
    return [example for example in chain.from_iterable(zip_longest(*by_reason.values())) if example]
