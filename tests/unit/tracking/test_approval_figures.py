"""Figures for the person whom Airflow asks, kept under their digest."""

import io
import re

import pytest
from matplotlib.figure import Figure
from PIL import Image

from cifar_tasks.errors import IntegrityError
from cifar_tasks.tracking.approval_figures import figure_key, keep_figure, read_figure
from tests.stores import InMemoryStore


def drawn(width: float = 3) -> Figure:
    figure = Figure(figsize=(width, 2))
    figure.subplots().plot([1, 2, 3])
    return figure


def digest(shown: str) -> str:
    """That Airflow's UI asks the plugin for: below its base address, by no protocol and no other host."""
    found = re.fullmatch(r"\[!\[([^]\n]*)\]\((models-page/figures/([0-9a-f]{64})\.png)\)\]\(\2\)", shown)
    assert found
    return found[3]


def test_the_markdown_names_a_picture_of_three_pixels_for_each_one_of_airflow_s():
    store = InMemoryStore()
    content = read_figure(store, digest(keep_figure(store, drawn(), "two lines")))
    assert Image.open(io.BytesIO(content)).size == (900, 600)


def test_a_retry_keeps_the_same_figure_and_another_figure_is_kept_beside_it():
    store = InMemoryStore()
    first, again, other = (digest(keep_figure(store, figure, "x")) for figure in (drawn(), drawn(), drawn(4)))
    assert first == again != other
    assert store.objects.keys() == {figure_key(first), figure_key(other)}


def test_a_description_of_any_text_ends_neither_picture_nor_link():
    description = "a](http://elsewhere)\n![b"
    digest(keep_figure(InMemoryStore(), drawn(), description))


def test_a_figure_that_was_altered_is_not_shown():
    store = InMemoryStore()
    sha256 = digest(keep_figure(store, drawn(), "x"))
    store.objects[figure_key(sha256)] += b"x"
    with pytest.raises(IntegrityError):
        read_figure(store, sha256)
    with pytest.raises(KeyError):
        read_figure(store, "0" * 64)
