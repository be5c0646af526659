"""Disturb DAG runs by random faults, then check what must hold.

make chaos RUNS=3 SECONDS=25 SEED=7
make chaos-compose RUNS=3 SECONDS=25 SEED=7
"""

import random
import signal
import sys
import time
from collections import Counter
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Table

from tests.chaos.checks import problems
from tests.chaos.compose import compose_deployment
from tests.chaos.embedded import embedded_stack
from tests.chaos.runs import Disturbed, console, dag_run, wait_for_promotions


class Kind(StrEnum):
    EMBEDDED = "embedded"
    COMPOSE = "compose"


def main(
    kind: Annotated[Kind, typer.Argument(help="The deployment that is started and disturbed.")],
    number: Annotated[int, typer.Option("--runs", help="DAG runs that are disturbed.")] = 3,
    seconds: Annotated[float, typer.Option(help="Longest time between two faults.")] = 25,
    seed: Annotated[int, typer.Option(help="Of the faults.")] = 7,
) -> None:
    """Disturb DAG runs on a deployment of their own, then check what must hold."""
    chance, faults = random.Random(seed), Counter[str]()  # noqa: S311 – not a secret
    start: AbstractContextManager[Disturbed] = embedded_stack() if kind == Kind.EMBEDDED else compose_deployment()
    with start as deployment:

        def cause_fault() -> str:
            time.sleep(chance.uniform(1, seconds))
            while (fault := deployment.fault(chance)) is None:
                pass
            faults[fault] += 1
            return fault

        console.print("a run without faults")
        finished = [dag_run(deployment)]
        for index in range(number):
            console.print(f"run {index + 1} of {number}")
            finished.append(dag_run(deployment, cause_fault))
        found = [f"{run} has not ended" for run in wait_for_promotions(deployment)]
        found += problems(deployment, finished)
    table = Table("fault", "times")
    for fault, times in sorted(faults.items()):
        table.add_row(fault, str(times))
    console.print(table)
    ended = Counter(state for _, state in finished[1:])
    console.print(f"{sum(faults.values())} faults in {number} DAG runs: {dict(ended)}")
    for problem in found:
        console.print(f"[red]does not hold:[/] {problem}", soft_wrap=True)
    sys.exit(bool(found))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    typer.run(main)
