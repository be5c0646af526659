"""The difference of two versions as one HTML page, with examples."""

import base64
from collections.abc import Callable, Sequence
from html import escape
from io import BytesIO

from PIL import Image

from cifar_tasks.data.images import Images
from cifar_tasks.data.lines.line_diff import Change, LineDiff
from cifar_tasks.data.messages import readable

EXAMPLES = 24
"""Of each kind, spread over all."""
LISTED = 200
"""Files that are named."""
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1b1f24 }
table { border-collapse: collapse } th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #d0d7de }
th:first-child, td:first-child { text-align: left }
figure { display: inline-block; margin: .4rem; width: 7rem; vertical-align: top }
img { width: 7rem; image-rendering: pixelated } figcaption { font-size: .8rem; overflow-wrap: anywhere }
"""


def diff_page(title: str, diff: LineDiff, before: Callable[[Change], Images], after: Callable[[Change], Images]) -> str:
    """`before` and `after` give the pixels of an image of the earlier and of the later version."""
    rows = "".join(
        f"<tr><td>{_text(name)}</td><td>{old:,}</td><td>{new:,}</td><td>{new - old:+,}</td></tr>"
        for name, (old, new) in diff.counts.items()
    )
    parts = [
        f"<h1>{_text(title)}</h1>",
        "<h2>Images per class</h2><table><thead><tr><th scope=col>Class</th><th scope=col>before</th>"
        f"<th scope=col>after</th><th scope=col>change</th></tr></thead><tbody>{rows}</tbody></table>",
        _examples("New", diff.new, after),
        _examples("Gone", diff.gone, before),
        _examples("Relabelled", diff.relabelled, after),
    ]
    for heading, left_out in (("Dropped: in the frozen test set", diff.dropped), ("Unreadable", diff.unreadable)):
        items = "".join(f"<li>{_text(each.name)} {escape(each.why)}</li>" for each in left_out[:LISTED])
        parts.append(f"<h2>{heading}: {len(left_out):,}</h2><ul>{items}</ul>")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f"<body>{''.join(parts)}</body></html>"
    )


def _examples(heading: str, changes: Sequence[Change], pixels: Callable[[Change], Images]) -> str:
    step = max(1, -(-len(changes) // EXAMPLES))
    figures = "".join(_figure(change, pixels(change)) for change in changes[::step])
    return f"<h2>{heading}: {len(changes):,}</h2>{figures}"


def _figure(change: Change, image: Images) -> str:
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    classes = " → ".join(_text(name) for name in (change.before, change.after) if name is not None)
    name = _text(change.name)
    return (
        f'<figure><img alt="{name}" src="data:image/png;base64,{data}">'
        f"<figcaption>{classes}<br>{name} ({change.split})</figcaption></figure>"
    )


def _text(name: str) -> str:
    return escape(readable(name))
