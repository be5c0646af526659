"""Training as pure code: tensors, a configuration and callbacks."""

from cifar_tasks.training.callbacks import BackgroundWriter, Callback, LogProgress, Progress, Snapshot
from cifar_tasks.training.device import choose_device, describe
from cifar_tasks.training.logits import FastClassifier, predict_logits
from cifar_tasks.training.loop import Split, fit
from cifar_tasks.training.state import EpochMetrics, TrainingState
from cifar_tasks.training.transfer import fit_classifier, head_config, head_features, without_transfer

__all__ = [
    "BackgroundWriter",
    "Callback",
    "EpochMetrics",
    "FastClassifier",
    "LogProgress",
    "Progress",
    "Snapshot",
    "Split",
    "TrainingState",
    "choose_device",
    "describe",
    "fit",
    "fit_classifier",
    "head_config",
    "head_features",
    "predict_logits",
    "without_transfer",
]
