"""Networks: what is known of each (`ModelSpec`), and the module that is trained, saved and served.

Nothing here loads torch before a network is built.
"""

from cifar_tasks.models.registry import available_models, default_models, get_model, parse_models
from cifar_tasks.models.spec import Channels, ModelSpec, PretrainedWeights

__all__ = [
    "Channels",
    "ModelSpec",
    "PretrainedWeights",
    "available_models",
    "default_models",
    "get_model",
    "parse_models",
]
