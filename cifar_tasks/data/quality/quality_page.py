"""The report of a delivery as one page that needs no other file, and as Markdown for the person who decides."""

import base64
import io
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from cifar_tasks.data.quality.embeddings import at_side
from cifar_tasks.data.quality.quality_report import Example, QualityReport
from cifar_tasks.data.quality.snapshot import Snapshot
from cifar_tasks.evaluation.names import markdown
from cifar_tasks.evaluation.page_templates import page_template

MAX_SIDE = 64
"""Pixels of an image on the page."""
SUSPICIOUS_SHOWN = 48


def quality_page(report: QualityReport, version: Snapshot, *, title: str, links: Sequence[tuple[str, str]] = ()) -> str:
    """HTML with the images that the report names; `links` are titles and addresses."""
    suspicious = report.suspicious[:SUSPICIOUS_SHOWN]
    return page_template("cifar_tasks.data.quality", "delivery.html.jinja").render(
        report=report,
        title=title,
        head=headline(report),
        examples=report.examples,
        suspicious=suspicious,
        pictures=_pictures(version, (*report.examples, *suspicious)),
        links=links,
    )


def headline(report: QualityReport) -> str:
    changed = f"{report.added:,} images added, {report.relabelled:,} relabelled, {report.gone:,} gone"
    failed = len(report.reasons)
    if report.passed:
        return f"passed: {changed}"
    return f"{failed} {'check' if failed == 1 else 'checks'} failed: {changed}"


def quality_markdown(report: QualityReport, figure: str = "") -> str:
    """What the person who decides sees in Airflow: a figure (Markdown), and the failed checks first."""
    rows = sorted(report.rows, key=lambda row: row.passed)
    table = [f"| {'passed' if row.passed else '**failed**'} | {markdown(row.text)} |" for row in rows]
    parts = [f"**{markdown(headline(report))}**", figure, "\n".join(["| result | check |", "| --- | --- |", *table])]
    return "\n\n".join(filter(None, parts))


def _pictures(version: Snapshot, examples: Iterable[Example]) -> dict[int, str]:
    """Position → data URI."""
    positions = np.array(sorted({example.position for example in examples}), np.int64)
    if not len(positions):
        return {}
    images = version.images.read(positions)
    small = at_side(images, min(MAX_SIDE, images.shape[1]))
    return dict(zip(positions.tolist(), map(_data_uri, small), strict=True))


def _data_uri(image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
