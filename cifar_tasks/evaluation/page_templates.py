"""Templates of the pages that tasks write: HTML that needs no other file."""

from typing import TYPE_CHECKING

from cifar_tasks.evaluation.names import printable

if TYPE_CHECKING:
    from jinja2 import Template


def page_template(package: str, name: str) -> "Template":
    """`name` in the folder `templates` of a package. Values are escaped; the filter `printable` is for names."""
    from jinja2 import Environment, PackageLoader

    # Not `select_autoescape`, which does not know the ending .jinja and escapes nothing.
    pages = Environment(loader=PackageLoader(package), autoescape=True, trim_blocks=True)
    pages.filters["printable"] = printable
    return pages.get_template(name)
