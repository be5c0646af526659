"""The search for hyperparameters: what is searched, the study that workers share, and its charts."""

from cifar_tasks.tuning.space import format_params
from cifar_tasks.tuning.study import all_studies, count_ended, load_study

__all__ = ["all_studies", "count_ended", "format_params", "load_study"]
