"""Does the user's shell hold variables that lead elsewhere, or that nothing reads?"""

import os

from cifar_tasks.deployment.doctor.check_runner import Deployment, grade
from cifar_tasks.deployment.stack.environment import StackOptions, other_addresses
from cifar_tasks.deployment.stack.supervisord import MARKER
from cifar_tasks.errors import nearest
from cifar_tasks.settings import Settings, variable

OF_COMPOSE = {"CIFAR_IMAGES", "CIFAR_VERSION"}
"""Read by docker-compose.yaml."""


def variables(deployment: Deployment) -> str:
    """Unset them, or correct their names, in the shell that starts the stack and its commands."""
    found = _unknown(deployment)
    if deployment.embedded:
        others = other_addresses(deployment.variables, os.environ)
        found += [f"{other} has no effect: the stack has its own" for other in others]
        if deployment.variables.get("PYTHONPATH"):
            found.append("PYTHONPATH is set: its modules come before those of this installation")
    return grade("; ".join(found) or "none that leads elsewhere", warning=bool(found))


def _unknown(deployment: Deployment) -> list[str]:
    known = {variable(field) for field in (*Settings.model_fields, *StackOptions.model_fields)} | OF_COMPOSE | {MARKER}
    names = [name for name in deployment.variables if name.startswith("CIFAR_") and name not in known]
    return [f"{name} is no setting{nearest(name, known)}" for name in sorted(names)]
