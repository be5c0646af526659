"""Training as pure code: tensors, a configuration and callbacks."""

from cifar_tasks.training.loop import Progress, Split, choose_device, fit, predict_logits, score
from cifar_tasks.training.state import EpochMetrics, TrainingState

__all__ = ["EpochMetrics", "Progress", "Split", "TrainingState", "choose_device", "fit", "predict_logits", "score"]
