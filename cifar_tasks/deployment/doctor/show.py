"""The findings for a person and for a program."""

import json
from collections.abc import Collection
from dataclasses import asdict
from itertools import groupby

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cifar_tasks.deployment.doctor.examine import Result

WIDTH = 100
COLOURS = {"ok": "green", "warning": "yellow", "failure": "bold red", "skipped": "dim"}


def show(console: Console, results: Collection[Result]) -> None:
    """A line a check, grouped; what to do stands under what is wrong."""
    table = Table(box=None, show_header=False, padding=(0, 1), width=min(WIDTH, console.width))
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold", ratio=1)
    for area, found in groupby(results, key=lambda result: result.area):
        table.add_row(f"[b]{escape(area)}[/]")
        for result in found:
            finding = result.finding
            colour = COLOURS[finding.verdict]
            says = f"[dim]{escape(finding.says)}[/]" if finding.verdict == "skipped" else escape(finding.says)
            remedy = f"\n[b]→[/] {escape(finding.remedy)}" if finding.remedy else ""
            table.add_row(f"  [{colour}]{finding.verdict}[/]", escape(result.check), says + remedy)
    console.print(table)
    console.print(summary(results))


def summary(results: Collection[Result]) -> str:
    count = {verdict: sum(result.finding.verdict == verdict for result in results) for verdict in COLOURS}
    rest = f"{_counted(count['ok'], 'check')} passed, {count['skipped']} skipped."
    if not count["failure"] and not count["warning"]:
        return f"[bold green]All is well[/]: {rest}"
    return f"[b]{_counted(count['failure'], 'failure')}, {_counted(count['warning'], 'warning')}[/]; {rest}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def as_json(results: Collection[Result]) -> str:
    """A list of objects: area, check, verdict, says, remedy."""
    return json.dumps(
        [{"area": result.area, "check": result.check} | asdict(result.finding) for result in results], indent=2
    )
