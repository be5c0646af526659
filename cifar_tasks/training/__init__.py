"""Training as pure code: tensors, a configuration and callbacks."""

from cifar_tasks.training.device import choose_device, describe
from cifar_tasks.training.loop import Progress, Split, fit, predict_logits, score
from cifar_tasks.training.state import EpochMetrics, TrainingState
from cifar_tasks.training.transfer import head_config, head_features, without_transfer

__all__ = [
    "EpochMetrics",
    "Progress",
    "Split",
    "TrainingState",
    "choose_device",
    "describe",
    "fit",
    "head_config",
    "head_features",
    "predict_logits",
    "score",
    "without_transfer",
]
