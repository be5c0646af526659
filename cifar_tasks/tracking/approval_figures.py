"""Figures for the person whom Airflow asks: in S3 by their digest; Airflow's UI shows them from the plugin's own route.

Airflow drops images of other kinds (`data:`) from Markdown, and the person may not be logged in to MLflow.
"""

import io
from typing import TYPE_CHECKING

from cifar_tasks.evaluation.names import markdown
from cifar_tasks.storage.s3 import S3Store, sha256_hex

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROUTE = "models-page/figures"
"""Of `plugins/models_page`, relative to Airflow's base address, which may have a path."""
DPI = 300
"""Three pixels for each one of Airflow's, for screens of high density and to be enlarged."""


def keep_figure(store: S3Store, figure: "Figure", description: str) -> str:
    """Markdown that shows the figure in Airflow, and opens it in its full size; the same figure is kept once."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI)
    kept = store.put(figure_key(sha256_hex(content.getvalue())), content.getvalue())
    address = f"{ROUTE}/{kept.sha256}.png"
    return f"[![{markdown(description)}]({address})]({address})"


def read_figure(store: S3Store, sha256: str) -> bytes:
    """PNG; `KeyError` if there is none, `IntegrityError` if it was altered."""
    return store.get(figure_key(sha256), sha256)


def figure_key(sha256: str) -> str:
    return f"figures/{sha256}.png"
