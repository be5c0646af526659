"""Classes of a registered version, also if their names do not fit into a tag."""

from types import SimpleNamespace

from cifar_tasks.tracking import model_registry
from tests.names import NASTY_NAMES


def test_a_version_keeps_any_class_names() -> None:
    tags = model_registry.class_tags(NASTY_NAMES)
    assert model_registry.class_names(SimpleNamespace(tags=tags)) == NASTY_NAMES
