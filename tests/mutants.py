"""Breaks the code on purpose, one expression at a time, and reports which changes the tests notice (cosmic-ray).

    python -m tests.mutants promotion data/splits --sample 60

Works on a copy of the tree. A change that survives is printed as a diff: it needs a test, or it changes no behaviour.
"""

import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from cosmic_ray.commands import execute
from cosmic_ray.config import ConfigDict, serialize_config
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkResult
from rich.console import Console
from rich.table import Table

PROJECT = Path(__file__).parent.parent
IGNORED = re.compile(r"BinaryOperator_BitOr|RemoveDecorator|Variable(Inserter|Replacer)")
"""`|` stands in type annotations; without a decorator a module does not import."""
TIMEOUT = 120.0
"""Seconds for the tests of one change; a change that makes them hang is noticed."""
console = Console()


def modules(names: Iterable[str]) -> list[Path]:
    """The source files of `promotion`, `data` or `data/splits`, relative to the project."""
    found = []
    for name in names:
        path = PROJECT / "cifar_tasks" / name
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    return [path.relative_to(PROJECT) for path in found if path.read_text().strip()]


def tests_of(module: Path) -> list[str]:
    """The unit test of the same path, or those of its folder."""
    folder = Path("tests/unit", *module.parts[1:-1])
    own = folder / f"test_{module.name}"
    return [str(own if (PROJECT / own).exists() else folder)]


def copy_tree(target: Path) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        if (PROJECT / name).is_file() and not name.endswith((".png", ".lock")):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, target / name)


def cosmic_ray(tree: Path, *words: str) -> None:
    subprocess.run([sys.executable, "-m", "cosmic_ray.cli", *words], cwd=tree, check=True)


def keep_a_sample(session: WorkDB, sample: int, seed: int) -> None:
    """Mark all other changes as skipped."""
    items = [(item.job_id, item.mutations[0].operator_name) for item in session.work_items]
    wanted = [job for job, operator in items if not IGNORED.search(operator)]
    random.Random(seed).shuffle(wanted)  # noqa: S311 – not a secret
    skipped = {job for job, _ in items} - set(wanted[: sample or None])
    session.set_multiple_results(skipped, WorkResult(worker_outcome=WorkerOutcome.SKIPPED))


def score(tree: Path, module: Path, tests: list[str], sample: int, seed: int) -> tuple[int, list[str]]:
    """How many changes of a module ran, and the diffs of those that no test noticed."""
    config = ConfigDict(
        {
            "module-path": str(module),
            "excluded-modules": [],
            "timeout": TIMEOUT,
            "test-command": f"{sys.executable} -m pytest -x -q -p no:cacheprovider {' '.join(tests)}",
            "distributor": {"name": "local"},
        }
    )
    file, database = tree / "mutants.toml", tree / "mutants.sqlite"
    file.write_text(serialize_config(config))
    database.unlink(missing_ok=True)
    cosmic_ray(tree, "baseline", file.name)
    cosmic_ray(tree, "init", file.name, database.name)
    with use_db(str(database)) as session:
        keep_a_sample(session, sample, seed)
        execute(session, config)
        results = [result for _, result in session.results if result.worker_outcome is not WorkerOutcome.SKIPPED]
    return len(results), [str(result.diff) for result in results if result.test_outcome is TestOutcome.SURVIVED]


def main(
    names: Annotated[
        list[str], typer.Argument(metavar="MODULE…", help="Below cifar_tasks: promotion, data/splits, data")
    ],
    tests: Annotated[list[str] | None, typer.Option(help="In place of the unit tests of the module.")] = None,
    sample: Annotated[int, typer.Option(help="Changes per module, chosen at random; 0 for all.")] = 40,
    seed: Annotated[int, typer.Option(help="Of the choice.")] = 0,
) -> None:
    """Break modules on purpose and print the share of changes that their tests notice."""
    table = Table("module", "changes", "noticed", "score")
    with tempfile.TemporaryDirectory(prefix="cifar-mutants-") as folder:
        tree = Path(folder)
        copy_tree(tree)
        os.chdir(tree)
        os.environ["PYTHONPATH"] = folder
        for module in modules(names):
            ran, survived = score(tree, module, tests or tests_of(module), sample, seed)
            for diff in survived:
                console.print(diff, markup=False, soft_wrap=True)
            if ran:
                noticed = ran - len(survived)
                table.add_row(str(module), str(ran), str(noticed), f"{noticed / ran:.0%}")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
