"""Breaks the code on purpose, one expression at a time, and reports which changes the tests notice (cosmic-ray).

    python -m tests.mutants storage/lease data --sample 60 --seed 1

Works on a copy of the tree. A change that survives is printed as a diff: it needs a test, or it changes no behaviour.
Each change is tested in a fork of this process, which has imported the large libraries: 0.2 s instead of 4 s.
"""

import difflib
import gc
import importlib.util
import json
import logging
import multiprocessing
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import cosmic_ray.plugins
import psutil
import pytest
import typer
from cosmic_ray.commands import init
from cosmic_ray.mutating import use_mutation
from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import MutationSpec
from rich.console import Console
from rich.table import Table

PROJECT = Path(__file__).parent.parent
MODULES = (
    "data",
    "deployment/compose",
    "promotion",
    "steps",
    "storage/lease",
    "storage/lease_terms",
    "tracking",
    "training",
)
"""Without names: what a wrong result would hide in."""
ALSO = {
    "data/lines/diff_page": ["cli/test_data_commands.py"],
    "data/lines/line_log": ["data/lines/test_line_decisions.py", "data/lines/test_line_verdicts.py"],
    "data/quality/check_results": ["data/quality/test_quality_checks.py"],
    "data/validation": ["data/test_folders.py", "data/test_near_duplicates.py"],
    "steps/inputs": ["steps/test_warm_start.py"],
    "steps/report": ["steps/test_train.py"],
    "storage/lease_terms": ["storage/test_lease.py"],
    "tracking/decisions": ["steps/test_promote.py"],
    "tracking/version_evidence": ["steps/test_promote.py"],
    "training/state": ["training/test_callbacks.py", "training/test_loop.py"],
}
"""Tests beside those of the same path, below tests/unit."""
IGNORED = re.compile(r"BinaryOperator_BitOr|RemoveDecorator|Variable(Inserter|Replacer)")
"""`|` stands in type annotations; without a decorator a module does not import."""
LIBRARIES = (
    "airflow_client.client",
    "boto3",
    "hypothesis",
    "imagehash",
    "matplotlib.pyplot",
    "mlflow.pytorch",
    "optuna",
    "pydantic_settings",
    "torchvision",
    "xdist.plugin",
)
FORK = multiprocessing.get_context("fork")
console = Console()


class FastestFirst:
    """Plugin of pytest: notes how long tests take, and begins with those that took least."""

    def __init__(self, notes: Path) -> None:
        self._notes = notes
        self._seconds: dict[str, float] = json.loads(notes.read_text()) if notes.exists() else {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: self._seconds.get(item.nodeid, 0))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] = self._seconds.get(report.nodeid, 0) + report.duration

    def pytest_sessionfinish(self) -> None:
        if not self._notes.exists():
            self._notes.write_text(json.dumps(self._seconds))


def modules(names: Iterable[str]) -> list[Path]:
    """The source files of `promotion`, `data` or `data/splits`, relative to the project."""
    found = []
    for name in names:
        path = PROJECT / "cifar_tasks" / name
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    return [path.relative_to(PROJECT) for path in found if path.read_text().count("\n") > 5]


def tests_of(module: Path) -> list[str]:
    """The unit tests of the same path, or those of its folder."""
    folder = Path("tests/unit", *module.parts[1:-1])
    own = folder / f"test_{module.name}"
    also = ALSO.get(str(Path(*module.parts[1:]).with_suffix("")), [])
    found = [own, *(Path("tests/unit", name) for name in also)]
    return [str(path) for path in found if (PROJECT / path).exists()] or [str(folder)]


def copy_tree(target: Path) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        if (PROJECT / name).is_file() and not name.endswith((".png", ".lock")):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, target / name)
    # A training records its commit.
    commit = ["commit", "--quiet", "--allow-empty", "--message", "copy"]
    for words in (["init", "--quiet"], ["-c", "user.name=tests", "-c", "user.email=tests", *commit]):
        subprocess.run(["git", *words], cwd=target, check=True)


def choose(module: Path, sample: int, seed: int) -> list[MutationSpec]:
    """The changes of a module to try, at random; all if `sample` is 0."""
    with use_db(":memory:") as session:
        init([module], session, {})
        found = [item.mutations[0] for item in session.work_items]
    wanted = [mutation for mutation in found if not IGNORED.search(mutation.operator_name)]
    wanted.sort(key=lambda mutation: (mutation.operator_name, mutation.occurrence))
    return random.Random(seed).sample(wanted, min(sample or len(wanted), len(wanted)))  # noqa: S311 – not a secret


def prepare_forks() -> None:
    """Do once what each fork would do."""
    logging.basicConfig()  # before MLflow does, which would hide warnings from the tests
    for library in LIBRARIES:
        importlib.import_module(library)
    child = FORK.Process(target=make_empty_database, args=(os.environ["EMPTY_MLFLOW"],))
    child.start()
    child.join()
    gc.freeze()


def make_empty_database(path: str) -> None:
    importlib.import_module("mlflow").MlflowClient(f"sqlite:///{path}").search_experiments()


def in_child(words: list[str], notes: Path, output: Path) -> None:
    """Run pytest as a fresh process in the current folder would."""
    if notes.exists():  # a change must not be found in the file of another
        sys.dont_write_bytecode, os.environ["PYTHONDONTWRITEBYTECODE"] = True, "1"
    for stream, path in ((0, os.devnull), (1, output), (2, output)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), stream)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "benchmarks", "cifar_tasks")]:
        del sys.modules[name]
    sys.path[:] = [os.getcwd(), *(path for path in sys.path if Path(path) != PROJECT)]
    code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *words], plugins=[FastestFirst(notes)])
    sys.stdout.flush()
    os._exit(int(code))


def passed(tests: list[str], notes: Path, timeout: float) -> bool:
    """Whether tests pass. If a change makes them hang, they do not."""
    child = FORK.Process(target=in_child, args=(tests, notes, notes.with_suffix(".log")))
    child.start()
    child.join(timeout)
    for process in psutil.process_iter(["cwd"]):  # it, and what its tests started
        if process.info["cwd"] == os.getcwd() and process.pid != os.getpid():
            with suppress(psutil.NoSuchProcess):
                process.kill()
    child.join()
    return child.exitcode == 0


def survivors(module: Path, tests: list[str], changes: list[MutationSpec]) -> Iterator[str]:
    """Diffs of the changes that no test noticed."""
    notes = Path("notes.json")
    notes.unlink(missing_ok=True)
    began = time.monotonic()
    if not passed(tests, notes, timeout=600):
        raise SystemExit(f"{notes.with_suffix('.log').read_text()}\nthe tests of {module} fail without a change.")
    timeout = 10 + 3 * (time.monotonic() - began)
    Path(importlib.util.cache_from_source(str(module))).unlink(missing_ok=True)
    for change in changes:
        operator = cosmic_ray.plugins.get_operator(change.operator_name)()
        with use_mutation(module, operator, change.occurrence) as (before, after):
            if passed(tests, notes, timeout):
                diff = difflib.unified_diff(
                    before.splitlines(), after.splitlines(), str(module), str(module), n=1, lineterm=""
                )
                yield "\n".join(diff)


def main(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="MODULE…", help="Below cifar_tasks: promotion, data/splits, data")
    ] = None,
    tests: Annotated[list[str] | None, typer.Option(help="In place of the unit tests of the module.")] = None,
    sample: Annotated[int, typer.Option(help="Changes per module, chosen at random; 0 for all.")] = 40,
    seed: Annotated[int, typer.Option(help="Of the choice.")] = 0,
) -> None:
    """Break modules on purpose and print the share of changes that their tests notice."""
    table = Table("module", "changes", "noticed", "score", "seconds")
    with tempfile.TemporaryDirectory(prefix="cifar-mutants-") as folder:
        copy_tree(Path(folder))
        os.chdir(folder)
        os.environ |= {"PYTHONPATH": folder, "OMP_NUM_THREADS": "1", "EMPTY_MLFLOW": f"{folder}/empty.db"}
        prepare_forks()
        for module in modules(names or MODULES):
            began = time.monotonic()
            changes, survived = choose(module, sample, seed), 0
            for diff in survivors(module, tests or tests_of(module), changes):
                survived += 1
                console.print(diff, markup=False, soft_wrap=True)
            if changes:
                noticed = len(changes) - survived
                share = f"{noticed / len(changes):.0%}"
                table.add_row(str(module), str(len(changes)), str(noticed), share, f"{time.monotonic() - began:.0f}")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
