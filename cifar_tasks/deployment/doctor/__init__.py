"""`cifar doctor`: says in words whether a deployment is well, and what to do where it is not."""

from cifar_tasks.deployment.doctor.deployment import Deployment, Limits, find_deployment
from cifar_tasks.deployment.doctor.examine import CHECKS, Check, Result, examine
from cifar_tasks.deployment.doctor.finding import Finding, failure, ok, skipped, warning
from cifar_tasks.deployment.doctor.show import as_json, show

__all__ = [
    "CHECKS",
    "Check",
    "Deployment",
    "Finding",
    "Limits",
    "Result",
    "as_json",
    "examine",
    "failure",
    "find_deployment",
    "ok",
    "show",
    "skipped",
    "warning",
]
