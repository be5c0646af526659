"""All models that can be trained: each module of `models/builtin`, entry points of other packages, those of timm."""

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules

from cifar_tasks.errors import ConfigError, nearest
from cifar_tasks.models import builtin
from cifar_tasks.models.spec import ModelSpec
from cifar_tasks.models.timm_backbone import PREFIX, timm_names, timm_spec

ENTRY_POINTS = "cifar_pipeline.models"


@cache
def available_models() -> dict[str, ModelSpec]:
    """Name → spec, without timm's. `ConfigError` names an entry point that cannot be used."""
    found: dict[str, ModelSpec] = {}
    for module in iter_modules(builtin.__path__):
        spec = import_module(f"{builtin.__name__}.{module.name}").SPEC
        found[spec.name] = spec
    for point in entry_points(group=ENTRY_POINTS):
        try:
            spec = point.load()
        except Exception as error:  # another package's code may raise anything
            raise ConfigError(
                f"the model {point.value} cannot be imported: {error}. Repair or uninstall it."
            ) from error
        if not isinstance(spec, ModelSpec) or spec.name in found:
            raise ConfigError(f"the entry point {point.value} must be a ModelSpec with a name of its own.")
        found[spec.name] = spec
    return found


def default_models() -> list[str]:
    """What a run trains when no model is named."""
    return [spec.name for spec in available_models().values() if spec.in_default_run]


def get_model(name: str) -> ModelSpec:
    """Raises `ConfigError` for a name that no model has."""
    check_models([name])
    return timm_spec(name) if name.startswith(PREFIX) else available_models()[name]


def parse_models(text: str) -> list[str]:
    """`cnn,resnet50` as names of models, each once."""
    return check_models([name.strip() for name in text.split(",") if name.strip()])


def check_models(names: Sequence[str]) -> list[str]:
    """The names, each once; `ConfigError` for those that no model has, with the nearest ones."""
    known = available_models()
    unknown = [name for name in dict.fromkeys(names) if name not in known and name not in timm_names()]
    if unknown:
        meant = [f"{name!r}{nearest(name, timm_names() if name.startswith(PREFIX) else known, 3)}" for name in unknown]
        raise ConfigError(f"there is no model {', '.join(meant)}; choose of {', '.join(known)}, {PREFIX}NAME.")
    return list(dict.fromkeys(names))
