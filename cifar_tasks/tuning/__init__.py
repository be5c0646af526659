"""Looking for better parameters: what is searched, the study that workers share, and what it shows."""

from cifar_tasks.tuning.space import SPACES, apply, recipe_parameters
from cifar_tasks.tuning.study import Budget, SharedStudy, Trained, studies, study_name

__all__ = [
    "SPACES",
    "Budget",
    "SharedStudy",
    "Trained",
    "apply",
    "recipe_parameters",
    "studies",
    "study_name",
]
